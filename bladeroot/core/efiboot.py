"""UEFI boot entries: load options, device paths, BootOrder, and what to change in them. No I/O.

UEFI 2.10: 3.1.3 (EFI_LOAD_OPTION), 3.3 (variables), 10.3 (device path nodes).
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Mapping

from attrs import frozen

from bladeroot.core.bootplan import EFI_LOADERS

LABEL = "bladeroot"
BOOT_ORDER = "BootOrder"
BOOT_NEXT = "BootNext"
_ENTRY = re.compile(r"Boot([0-9A-F]{4})")
"""Digits are upper case (3.1.3)."""

_ACTIVE = 0x00000001
_OPTION = struct.Struct("<IH")
_NODE = struct.Struct("<BBH")
# Type 4, media: sub-type 1 is a partition (10.3.5.1), 4 a file on it (10.3.5.4).
_MEDIA, _PARTITION, _FILE = 4, 1, 4
_HARD_DRIVE = struct.Struct("<IQQ16sBB")
_GPT, _GUID = 2, 2
_END = _NODE.pack(0x7F, 0xFF, _NODE.size)


@frozen(kw_only=True)
class PartitionPath:
    """A GPT partition as a boot entry names it; `start` and `blocks` are in the disk's logical blocks."""

    number: int
    start: int
    blocks: int
    guid: uuid.UUID


@frozen(kw_only=True)
class BootEntry:
    """A boot entry for a file on a partition; either is None where the entry is about something else."""

    label: str
    partition: PartitionPath | None = None
    file: str | None = None
    is_active: bool = True


@frozen(kw_only=True)
class EntryChanges:
    """What to do to the firmware's variables: first `writes`, in their order, then `deletes`."""

    number: int
    writes: tuple[tuple[str, bytes], ...]
    deletes: tuple[str, ...]


def make_entry(partition: PartitionPath) -> BootEntry:
    """Our entry: bladeroot's GRUB on that ESP."""
    return BootEntry(label=LABEL, partition=partition, file=EFI_LOADERS[0].replace("/", "\\"))


def encode_entry(entry: BootEntry) -> bytes:
    """The variable of a boot entry. It names the partition alone, so that the disk may change its slot."""
    path = b""
    if entry.partition is not None:
        place = entry.partition
        fields = (place.number, place.start, place.blocks, place.guid.bytes_le, _GPT, _GUID)
        path += _encode_node(_PARTITION, _HARD_DRIVE.pack(*fields))
    if entry.file is not None:
        path += _encode_node(_FILE, _encode_text(entry.file))
    path += _END
    attributes = _ACTIVE if entry.is_active else 0
    return _OPTION.pack(attributes, len(path)) + _encode_text(entry.label) + path


def decode_entry(data: bytes) -> BootEntry | None:
    """The entry in a variable; None where it is not one."""
    if len(data) < _OPTION.size:
        return None
    attributes, path_bytes = _OPTION.unpack_from(data)
    end = _find_text_end(data, _OPTION.size)
    if end is None or len(data) < end + path_bytes:
        return None
    label = _decode_text(data[_OPTION.size : end])
    partition, file = _decode_path(data[end : end + path_bytes])
    return BootEntry(label=label, partition=partition, file=file, is_active=bool(attributes & _ACTIVE))


def encode_order(numbers: tuple[int, ...]) -> bytes:
    """BootOrder's variable; also BootNext's, with one number."""
    return struct.pack(f"<{len(numbers)}H", *numbers)


def decode_order(data: bytes) -> tuple[int, ...]:
    """The numbers in BootOrder's or BootNext's variable."""
    return struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])


def entry_name(number: int) -> str:
    """The name of an entry's variable."""
    return f"Boot{number:04X}"


def plan_entry(variables: Mapping[str, bytes], wanted: BootEntry) -> EntryChanges:
    """What makes `wanted` the firmware's first entry, and the only one with its label.

    An entry that is there already keeps its number; what is right already is not written again. Others stay,
    in their order.
    """
    numbers = {int(match.group(1), 16): name for name in variables if (match := _ENTRY.fullmatch(name))}
    ours = [number for number in sorted(numbers) if _has_label(variables[numbers[number]], wanted.label)]
    data = encode_entry(wanted)
    same = [number for number in ours if variables[numbers[number]] == data]
    free = next(number for number in range(0x10000) if number not in numbers)
    number = (same or ours or [free])[0]
    surplus = {other for other in ours if other != number}
    writes = [] if same else [(entry_name(number), data)]
    before = decode_order(variables.get(BOOT_ORDER, b""))
    order = (number, *(other for other in before if other != number and other not in surplus))
    if order != before:
        writes.append((BOOT_ORDER, encode_order(order)))
    deletes = [numbers[other] for other in sorted(surplus)]
    if surplus & set(decode_order(variables.get(BOOT_NEXT, b""))):
        deletes.insert(0, BOOT_NEXT)
    return EntryChanges(number=number, writes=tuple(writes), deletes=tuple(deletes))


def _has_label(data: bytes, label: str) -> bool:
    entry = decode_entry(data)
    return entry is not None and entry.label == label


def _encode_node(kind: int, payload: bytes) -> bytes:
    return _NODE.pack(_MEDIA, kind, _NODE.size + len(payload)) + payload


def _decode_path(path: bytes) -> tuple[PartitionPath | None, str | None]:
    partition, file = None, None
    while len(path) >= _NODE.size:
        kind, sub_kind, length = _NODE.unpack_from(path)
        if length < _NODE.size or length > len(path):
            break
        payload, path = path[_NODE.size : length], path[length:]
        if (kind, sub_kind) == (_MEDIA, _PARTITION) and len(payload) == _HARD_DRIVE.size:
            number, start, blocks, signature, _format, signature_type = _HARD_DRIVE.unpack(payload)
            if signature_type == _GUID:
                guid = uuid.UUID(bytes_le=signature)
                partition = PartitionPath(number=number, start=start, blocks=blocks, guid=guid)
        elif (kind, sub_kind) == (_MEDIA, _FILE):
            file = (file or "") + _decode_text(payload)
    return partition, file


def _encode_text(text: str) -> bytes:
    return (text + "\0").encode("utf-16-le")


def _decode_text(data: bytes) -> str:
    return data.decode("utf-16-le", errors="replace").rstrip("\0")


def _find_text_end(data: bytes, start: int) -> int | None:
    """The offset behind the text's NUL."""
    for offset in range(start, len(data) - 1, 2):
        if data[offset : offset + 2] == b"\0\0":
            return offset + 2
    return None
