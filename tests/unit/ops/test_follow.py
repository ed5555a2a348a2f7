from __future__ import annotations

import pytest

from bladeroot.errors import UsageError
from bladeroot.ops.follow import parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", ("10.0.0.1", 7474)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("root.example.org:7475", ("root.example.org", 7475)),
        ("[fd77::1]:80", ("fd77::1", 80)),
        ("[fd77::1]", ("fd77::1", 7474)),
    ],
)
def test_an_address_of_a_root(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, 7474) == address


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:http", "host:0", "host:70000"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not the address of a root"):
        parse_address(text, 7474)
