"""Boot entries as the UEFI specification has them, and what is changed in a firmware's list."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.efiboot import (
    BootEntry,
    PartitionPath,
    decode_entry,
    decode_order,
    encode_entry,
    encode_order,
    make_entry,
    plan_entry,
)

GUID = uuid.UUID("01020304-0506-0708-090a-0b0c0d0e0f10")
ESP = PartitionPath(number=2, start=4096, blocks=1048576, guid=GUID)
WANTED = make_entry(ESP)
ENTRY = encode_entry(WANTED)
NETWORK = encode_entry(BootEntry(label="UEFI PXEv4"))
OTHER = encode_entry(make_entry(PartitionPath(number=2, start=2048, blocks=9, guid=uuid.UUID(int=5))))


def apply(variables: Mapping[str, bytes], wanted: BootEntry = WANTED) -> dict[str, bytes]:
    changes = plan_entry(variables, wanted)
    left = {**variables, **dict(changes.writes)}
    return {name: data for name, data in left.items() if name not in changes.deletes}


def test_an_entry_byte_by_byte() -> None:
    """Counted out by hand from UEFI 2.10: 3.1.3, 10.3.5.1, 10.3.5.4, 10.3.1."""
    path = "\\EFI\\bladeroot\\grubx64.efi\0".encode("utf-16-le")
    hard_drive = (
        bytes([4, 1, 42, 0, 2, 0, 0, 0])
        + (4096).to_bytes(8, "little")
        + (1048576).to_bytes(8, "little")
        + bytes([4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16, 2, 2])
    )
    file = bytes([4, 4, 4 + len(path), 0]) + path
    nodes = hard_drive + file + bytes([0x7F, 0xFF, 4, 0])
    label = "bladeroot\0".encode("utf-16-le")
    assert bytes([1, 0, 0, 0, len(nodes), 0]) + label + nodes == ENTRY


@given(
    st.builds(
        BootEntry,
        label=st.text(st.characters(codec="utf-16-le", exclude_characters="\0"), max_size=30),
        partition=st.none()
        | st.builds(
            PartitionPath,
            number=st.integers(1, 128),
            start=st.integers(0, 2**64 - 1),
            blocks=st.integers(0, 2**64 - 1),
            guid=st.uuids(),
        ),
        file=st.none() | st.just("\\EFI\\BOOT\\BOOTX64.EFI"),
        is_active=st.booleans(),
    )
)
def test_there_and_back(entry: BootEntry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


@given(st.binary(max_size=120))
def test_a_firmwares_nonsense_is_no_entry_and_no_crash(data: bytes) -> None:
    decode_entry(data)
    decode_order(data)
    assert apply({"Boot0000": data, "BootOrder": data, "BootNext": data[:1]})


@pytest.mark.parametrize("cut", [0, 5, 6, 12, 30, len(ENTRY) - 1])
def test_a_torn_entry_is_none(cut: int) -> None:
    assert decode_entry(ENTRY[:cut]) is None


def test_a_firmware_without_entries() -> None:
    assert apply({}) == {"Boot0000": ENTRY, "BootOrder": encode_order((0,))}


def test_ours_is_first_and_the_others_stay_in_their_order() -> None:
    before = {"Boot0000": NETWORK, "Boot0003": NETWORK, "BootOrder": encode_order((3, 0))}
    after = apply(before)
    assert after["Boot0001"] == ENTRY
    assert decode_order(after["BootOrder"]) == (1, 3, 0)
    assert {name: after[name] for name in ("Boot0000", "Boot0003")} == {
        "Boot0000": NETWORK,
        "Boot0003": NETWORK,
    }


def test_what_is_right_is_not_written_again() -> None:
    changes = plan_entry(apply({"Boot0000": NETWORK, "BootOrder": encode_order((0,))}), WANTED)
    assert (changes.writes, changes.deletes) == ((), ())


def test_an_entry_of_an_older_install_is_replaced_and_duplicates_go() -> None:
    before = {
        "Boot0000": NETWORK,
        "Boot0004": OTHER,
        "Boot000A": OTHER,
        "Boot00FF": OTHER,
        "BootOrder": encode_order((0, 0xFF, 4, 10)),
        "BootNext": encode_order((10,)),
    }
    after = apply(before)
    assert after == {"Boot0000": NETWORK, "Boot0004": ENTRY, "BootOrder": encode_order((4, 0))}
    after = apply({**before, "Boot00FF": ENTRY, "BootNext": encode_order((0,))})
    assert after == {
        "Boot0000": NETWORK,
        "Boot00FF": ENTRY,
        "BootOrder": encode_order((0xFF, 0)),
        "BootNext": encode_order((0,)),
    }


def test_the_entry_is_written_before_anything_points_to_it_or_goes() -> None:
    changes = plan_entry({"Boot0001": OTHER, "Boot0002": OTHER, "BootOrder": encode_order((2, 1))}, WANTED)
    assert [name for name, _data in changes.writes] == ["Boot0001", "BootOrder"]
    assert changes.deletes == ("Boot0002",)
