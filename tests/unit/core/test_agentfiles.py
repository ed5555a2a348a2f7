"""The agent's kernel and initramfs as parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.agentfiles import INITRAMFS, KERNEL, PART_BYTES, choose_parts, cut_into_parts, join_parts


@given(size=st.integers(1, 3 * PART_BYTES + 5))
def test_parts_put_together_are_the_file(size: int) -> None:
    data = bytes(size)
    parts = dict(cut_into_parts(INITRAMFS, data))
    assert all(len(part) <= PART_BYTES for part in parts.values())
    names = choose_parts(INITRAMFS, reversed(list(parts)))
    assert b"".join(parts[name] for name in names) == data


def test_other_files_are_no_parts() -> None:
    names = ["info", "initramfs.01", "vmlinuz.00", "initramfs.00", "initramfs.0", "initramfs.00.new"]
    assert choose_parts(INITRAMFS, names) == ["initramfs.00", "initramfs.01"]
    assert choose_parts(KERNEL, names) == ["vmlinuz.00"]
    assert choose_parts("info", names) == []
    assert join_parts(names) == ["info", "initramfs", "vmlinuz", "initramfs.0", "initramfs.00.new"]


def test_no_part_has_bytes_of_two_pieces() -> None:
    parts = dict(cut_into_parts(INITRAMFS, bytes(PART_BYTES + 1), b"", b"two"))
    assert [len(part) for part in parts.values()] == [PART_BYTES, 1, 3]
    assert list(parts) == ["initramfs.00", "initramfs.01", "initramfs.02"]
