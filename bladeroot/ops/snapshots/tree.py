"""Looking at a snapshot from outside: paths that stay inside it, its distribution, kernel and Python."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from bladeroot.errors import SnapshotError

_MAX_LINKS = 40
"""As Linux: path resolution gives up with ELOOP after 40 symbolic links (path_resolution(7))."""

_PROGRAM_DIRECTORIES = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin")
_NOT_A_VERSION = re.compile(r"\.(old|bak|new|dpkg-[a-z]+|rpmsave|hmac|sig)$|rescue|fallback")
_KERNEL_NAMES = re.compile(r"(?:vmlinuz|vmlinux|kernel|bzImage|Image)(?:-(?P<version>.+))?")
_INITRD_SHAPES = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}", "initrd-{}.img")
_PLAIN_INITRDS = ("initrd.img", "initramfs-linux.img", "initramfs.img", "initrd")

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


def resolve_inside(root: Path, path: str) -> Path:
    """
    Where `path` leads as seen from inside `root`, all symbolic links followed and none let outside.

    The result need not exist. Raises SnapshotError for a loop.
    """
    pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    parts: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            parts = parts[:-1]
            continue
        candidate = root.joinpath(*parts, part)
        try:
            target = os.readlink(candidate)
        except OSError:
            parts.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise SnapshotError(f"{root}: /{path.lstrip('/')} is a loop of symbolic links")
        if target.startswith("/"):
            parts = []
        pending.extend(step for step in reversed(target.split("/")) if step not in ("", "."))
    return root.joinpath(*parts)


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


def version_key(version: str) -> list[tuple[int, str] | int]:
    """
    Sorts versions as dpkg does: digits as numbers, letters before other characters, `~` before the end.

    (deb-version(7), without epochs.)
    """
    key: list[tuple[int, str] | int] = []
    for word, number in re.findall(r"([^0-9]*)([0-9]*)", version):
        if word or number:
            weighed = "".join(
                "\0" if char == "~" else char if char.isalpha() else chr(ord(char) + 0x200) for char in word
            )
            # "\1" ends the word: after "~" and before every other character.
            key += [(0, weighed + "\1"), int(number or 0)]
    return [*key, (0, "\1")]


def find_kernels(root: Path) -> list[tuple[str, Path]]:
    """Every kernel as (version, path), newest first; a kernel without version in its name comes last."""
    found: dict[Path, str] = {}
    for path, version in _iter_kernels(root):
        if path.is_file() and path.stat().st_size > 0:
            found.setdefault(path, version)
    ordered = sorted(found.items(), key=lambda item: (item[1] != "", version_key(item[1])), reverse=True)
    return [(version, path) for path, version in ordered]


def find_boot_files(path: Path) -> tuple[Path, Path]:
    """
    The newest kernel that has an initrd, and that initrd.

    Raises SnapshotError saying which of the two is missing.
    """
    kernels = find_kernels(path)
    if not kernels:
        hint = f"`bladeroot snapshot adopt --check {path}` says how to install one"
        raise SnapshotError(f"{path}: no kernel in /boot or /usr/lib/modules", hint)
    for version, kernel in kernels:
        initrd = _find_initrd(path, version, kernel)
        if initrd is not None:
            return kernel, initrd
    names = ", ".join(kernel.name for _, kernel in kernels)
    raise SnapshotError(
        f"{path}: no initrd in /boot for {names}", f"`bladeroot snapshot adopt --check {path}` says how"
    )


def _iter_kernels(root: Path) -> Iterator[tuple[Path, str]]:
    for directory in ("boot", "usr/lib/modules", "lib/modules"):
        base = resolve_inside(root, directory)
        if not base.is_dir():
            continue
        for entry in sorted(base.iterdir()):
            if directory == "boot":
                match = _KERNEL_NAMES.fullmatch(entry.name)
                if match and not _NOT_A_VERSION.search(entry.name):
                    yield resolve_inside(root, f"{directory}/{entry.name}"), match["version"] or ""
            elif entry.is_dir():
                yield resolve_inside(root, f"{directory}/{entry.name}/vmlinuz"), entry.name


def _find_initrd(root: Path, version: str, kernel: Path) -> Path | None:
    shapes = [shape.format(version) for shape in _INITRD_SHAPES] if version else []
    candidates = [f"boot/{name}" for name in shapes]
    candidates += [f"usr/lib/modules/{version}/{name}" for name in ("initrd", "initramfs.img") if version]
    # One kernel whose files carry no version, as Arch or a hand-made tree has them.
    if not version or len(find_kernels(root)) == 1:
        candidates += [f"boot/{name}" for name in _PLAIN_INITRDS]
    for name in candidates:
        path = resolve_inside(root, name)
        if path != kernel and path.is_file() and path.stat().st_size > 0:
            return path
    return None


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
