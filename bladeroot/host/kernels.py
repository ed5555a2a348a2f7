"""The kernels of an OS tree and their initramfs, as distributions name them; paths stay inside the tree."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from bladeroot.core.bootplan import KernelFiles
from bladeroot.core.linkpaths import follow_links
from bladeroot.errors import SnapshotError

_NOT_A_VERSION = re.compile(r"\.(old|bak|new|dpkg-[a-z]+|rpmsave|hmac|sig)$|rescue|fallback")
_KERNEL_NAMES = re.compile(r"(?:vmlinuz|vmlinux|kernel|bzImage|Image)(?:-(?P<version>.+))?")
_INITRD_SHAPES = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}", "initrd-{}.img")
_PLAIN_INITRDS = ("initrd.img", "initramfs-linux.img", "initramfs.img", "initrd")
_LINKS = (
    KernelFiles(kernel="/vmlinuz", initramfs="/initrd.img"),
    KernelFiles(kernel="/boot/vmlinuz", initramfs="/boot/initrd.img"),
    KernelFiles(kernel="/boot/vmlinuz", initramfs="/boot/initrd"),
)


def resolve_inside(root: Path, path: str) -> Path:
    """Where `path` leads as seen from inside `root`, all symbolic links followed and none let outside.

    The result need not exist. Raises SnapshotError for a loop.
    """

    def read_link(relative: str) -> str | None:
        try:
            return os.readlink(root / relative)
        except OSError:
            return None

    resolved = follow_links(path, read_link)
    if resolved is None:
        raise SnapshotError(f"{root}: /{path.lstrip('/')} is a loop of symbolic links")
    return root / resolved


def version_key(version: str) -> list[tuple[int, str] | int]:
    """Sorts versions as dpkg does: digits as numbers, letters before other characters, `~` before the end.

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


def find_kernel_images(root: Path) -> list[tuple[str, Path]]:
    """Every kernel as (version, path), newest first; a kernel without version in its name comes last."""
    found: dict[Path, str] = {}
    for path, version in _iter_kernel_images(root):
        if _is_filled(path) and (version or path not in found):
            found[path] = version
    ordered = sorted(found.items(), key=lambda item: (item[1] != "", version_key(item[1])), reverse=True)
    return [(version, path) for path, version in ordered]


def find_boot_files(root: Path) -> tuple[Path, Path]:
    """The newest kernel that has an initrd, and that initrd.

    Raises SnapshotError saying which of the two is missing.
    """
    kernels = find_kernel_images(root)
    if not kernels:
        hint = f"`bladeroot snapshot adopt --check {root}` says how to install one"
        raise SnapshotError(f"{root} has no kernel in /boot or /usr/lib/modules", hint)
    for version, kernel in kernels:
        initrd = _find_initrd(root, version, kernel, is_only=len(kernels) == 1)
        if initrd is not None:
            return kernel, initrd
    names = ", ".join(kernel.name for _, kernel in kernels)
    raise SnapshotError(
        f"{root}: no initrd in /boot for {names}", f"`bladeroot snapshot adopt --check {root}` says how"
    )


def find_kernels(root: Path) -> tuple[KernelFiles, ...]:
    """What GRUB shall try to boot in a tree, in order: the distribution's links, then the newest kernel.

    The links (Debian keeps /vmlinuz, openSUSE /boot/vmlinuz) follow a kernel that is upgraded in the slot
    later; the files by name are there when the links are not. Raises SnapshotError where there is none.
    """
    kernel, initrd = (f"/{path.relative_to(root)}" for path in find_boot_files(root))
    newest = KernelFiles(kernel=kernel, initramfs=initrd)
    for files in _LINKS:
        if all(_is_filled(resolve_inside(root, path)) for path in (files.kernel, files.initramfs)):
            return tuple(dict.fromkeys((files, newest)))
    return (newest,)


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _iter_kernel_images(root: Path) -> Iterator[tuple[Path, str]]:
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


def _find_initrd(root: Path, version: str, kernel: Path, *, is_only: bool) -> Path | None:
    shapes = [shape.format(version) for shape in _INITRD_SHAPES] if version else []
    candidates = [f"boot/{name}" for name in shapes]
    candidates += [f"usr/lib/modules/{version}/{name}" for name in ("initrd", "initramfs.img") if version]
    # One kernel whose files carry no version, as Arch or a hand-made tree has them.
    if not version or is_only:
        candidates += [f"boot/{name}" for name in _PLAIN_INITRDS]
    for name in candidates:
        path = resolve_inside(root, name)
        if path != kernel and _is_filled(path):
            return path
    return None
