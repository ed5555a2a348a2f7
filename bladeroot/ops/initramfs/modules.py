"""The snapshot's part of the initramfs: modules of its kernel, and the firmware that they name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from bladeroot.core.cpio import Entry, find_parents, make_directory, make_file
from bladeroot.host.kernelmodules import INDEX_FILES, FoundModules, index_modules
from bladeroot.host.kernels import resolve_inside

_FIRMWARE_SUFFIXES = ("", ".zst", ".xz")


def make_module_entries(
    snapshot: Path, modules: FoundModules, firmware_names: Collection[str]
) -> Iterator[Entry]:
    """usr/lib/modules/<release> with indices of its own, and usr/lib/firmware."""
    with tempfile.TemporaryDirectory(prefix="bladeroot-modules-") as name:
        files = _stage(Path(name), modules) if modules.paths else {}
        files |= _find_firmware(snapshot, firmware_names)
        for parent in find_parents(files):
            yield make_directory(parent)
        for target in sorted(files):
            yield make_file(target, files[target].read_bytes())


def _stage(root: Path, modules: FoundModules) -> dict[str, Path]:
    folder = root / "lib/modules" / modules.release
    folder.mkdir(parents=True)
    for path in modules.paths:
        target = folder / path.relative_to(modules.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for index in INDEX_FILES:
        if (modules.folder / index).is_file():
            shutil.copyfile(modules.folder / index, folder / index)
    index_modules(root, modules.release)
    return {
        f"usr/lib/modules/{modules.release}/{path.relative_to(folder)}": path
        for path in folder.rglob("*")
        if path.is_file()
    }


def _find_firmware(snapshot: Path, names: Collection[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in sorted(names):
        for suffix in _FIRMWARE_SUFFIXES:
            path = resolve_inside(snapshot, f"lib/firmware/{name}{suffix}")
            if ".." not in name and path.is_file():
                found[f"usr/lib/firmware/{name}{suffix}"] = path
    return found
