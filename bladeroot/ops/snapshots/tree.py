"""Looking at a snapshot from outside: its distribution and its programs."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from attrs import frozen

from bladeroot.errors import SnapshotError
from bladeroot.host.kernels import resolve_inside

_PROGRAM_DIRECTORIES = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin")

_ELF_MACHINES = {
    3: "i386",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    21: "ppc64le",
    22: "s390x",
}


@frozen
class Distribution:
    """What os-release(5) says."""

    id: str
    name: str
    version: str
    family: tuple[str, ...]
    """`id` and what it is like, nearest first."""


@frozen
class ElfFacts:
    """What an executable runs on: machine as `uname -m` calls it, and its dynamic loader."""

    machine: str
    interpreter: str


def find_program(root: Path, name: str) -> Path | None:
    """The executable `name` of the snapshot, links followed; None where it has none."""
    for directory in _PROGRAM_DIRECTORIES:
        path = resolve_inside(root, f"{directory}/{name}")
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def read_distribution(root: Path) -> Distribution | None:
    """What the tree says it is; None where it has no os-release."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = resolve_inside(root, name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        return parse_os_release(text)
    return None


def parse_os_release(text: str) -> Distribution:
    """os-release(5): shell-like assignments, unknown keys passed over."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            values[key] = re.sub(r"\\(.)", r"\1", value.strip().strip("\"'"))
    identity = values.get("ID", "linux")
    return Distribution(
        id=identity,
        name=values.get("PRETTY_NAME") or values.get("NAME") or identity,
        version=values.get("VERSION_ID", ""),
        family=(identity, *values.get("ID_LIKE", "").split()),
    )


def read_elf(path: Path) -> ElfFacts | None:
    """Machine and dynamic loader of an ELF file (elf(5)); None for what is not one, or has no loader."""
    try:
        with path.open("rb") as stream:
            head = stream.read(1 << 16)
    except OSError:
        return None
    if len(head) < 64 or head[:4] != b"\x7fELF":
        return None
    order = "<" if head[5] == 1 else ">"
    machine = struct.unpack_from(f"{order}H", head, 18)[0]
    name = _ELF_MACHINES.get(machine, f"ELF machine {machine}")
    if head[4] != 2:  # ELFCLASS64
        return ElfFacts(name, "")
    table, size, count = struct.unpack_from(f"{order}Q14xHH", head, 32)
    for index in range(count):
        offset = table + index * size
        if offset + 56 > len(head):
            break
        kind, _flags, start, _virtual, _physical, length = struct.unpack_from(f"{order}IIQQQQ", head, offset)
        if kind == 3:  # PT_INTERP
            return ElfFacts(name, head[start : start + length].rstrip(b"\0").decode(errors="replace"))
    return ElfFacts(name, "")


def require_tree(path: Path) -> None:
    """Raise SnapshotError unless `path` could be a snapshot at all: a directory with an OS in it."""
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise SnapshotError(f"{path} {what}", "name the directory that holds the OS tree")
    if path.resolve() == Path("/"):
        raise SnapshotError(
            "/ is the running system, not a snapshot", "copy it first: bladeroot snapshot capture / PATH"
        )
    if read_distribution(path) is None or not (path / "usr").is_dir():
        raise SnapshotError(
            f"{path} is not a snapshot: no OS in it (no /etc/os-release, or no /usr)",
            "make one with `bladeroot snapshot debian` or `bladeroot snapshot capture`",
        )
