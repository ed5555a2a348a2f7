from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.sizes import parse_bit_rate, parse_size, render_about, render_size
from bladeroot.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512M", 512 << 20),
        ("500G", 500 << 30),
        ("1.5T", 3 << 39),
        ("4 KiB", 4096),
        ("2gb", 2 << 30),
        ("17", 17),
        (4096, 4096),
    ],
)
def test_sizes_are_powers_of_1024(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "G", "5X", "-1", "1e9", "5 G B", "1,5G", -1])
def test_what_is_not_a_size(text: str | int) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        parse_size(text)


@given(st.integers(0, 1 << 60))
def test_a_rendered_size_reads_back_exactly(size_bytes: int) -> None:
    assert parse_size(render_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (178 << 20, "178 MiB"), (10 << 40, "10.0 TiB")],
)
def test_sizes_for_reading(size_bytes: int, text: str) -> None:
    assert render_about(size_bytes) == text


@pytest.mark.parametrize(
    ("text", "bits"), [("1G", 10**9), ("2.5g", 25 * 10**8), ("100M", 10**8), ("64 kbit/s", 64_000), ("9", 9)]
)
def test_rates_are_in_powers_of_1000(text: str, bits: int) -> None:
    assert parse_bit_rate(text) == bits


@pytest.mark.parametrize("text", ["", "fast", "-1M", "0", "1T", "1GiB"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigError, match="not a rate"):
        parse_bit_rate(text)
