"""The snapshot's part of the initramfs: modules of its kernel, and the firmware that they name.

Modules are compressed one by one: all that a machine does not load would else take up its memory. The kmod
that reads them is this machine's, whatever the snapshot's own can do.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bladeroot.core.cpio import Entry, find_parents, make_directory, make_file
from bladeroot.host.files import scratch_folder
from bladeroot.host.kernelmodules import (
    INDEX_FILES,
    FoundModules,
    index_modules,
    loads_compressed_modules,
    name_of,
    read_module,
)
from bladeroot.host.kernels import resolve_inside
from bladeroot.ops.initramfs.keptmodules import KeptModules

_FIRMWARE_SUFFIXES = ("", ".zst", ".xz")


def make_module_entries(
    snapshot: Path, modules: FoundModules, firmware_names: Collection[str]
) -> Iterator[Entry]:
    """usr/lib/modules/<release> with indices of its own, and usr/lib/firmware."""
    with scratch_folder("bladeroot-modules-") as folder:
        files = _stage(folder, modules) if modules.paths else {}
        files |= _find_firmware(snapshot, firmware_names)
        for parent in find_parents(files):
            yield make_directory(parent)
        for target in sorted(files):
            yield make_file(target, files[target].read_bytes())


def _stage(root: Path, modules: FoundModules) -> dict[str, Path]:
    folder = root / "lib/modules" / modules.release
    folder.mkdir(parents=True)
    is_compressed = loads_compressed_modules()
    kept = KeptModules(modules.release)

    def stage(path: Path) -> None:
        target = folder / path.relative_to(modules.folder).with_name(name_of(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        data = read_module(path)
        if is_compressed:
            target = target.with_name(f"{target.name}.zst")
            data = kept.compress(target.name, data)
        target.write_bytes(data)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _done in pool.map(stage, modules.paths):
            pass
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
