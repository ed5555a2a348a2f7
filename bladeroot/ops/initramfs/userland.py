"""The part of the initramfs that is of the machine at hand: programs, Python, the agent, their libraries.

Of the machine that publishes, not of the snapshot: what is installed here is known to work together.
Python is byte-code only, and programs are stripped where `strip` is at hand.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from attrs import frozen

import bladeroot
from bladeroot.core.cpio import Entry, find_parents, make_directory, make_file, make_link
from bladeroot.errors import MissingToolError
from bladeroot.events import Reporter, Warned
from bladeroot.host.files import scratch_folder
from bladeroot.host.run import find_tool, is_installed, run
from bladeroot.ops.initramfs.loaded import list_loaded

LIBRARY = "usr/lib/bladeroot"
_PROGRAMS = (
    *("blkid", "mkfs.ext4", "mkfs.vfat", "modprobe", "mount", "partx", "sfdisk", "umount", "wipefs"),
    *("mcopy", "mdel", "mdir", "mmd", "mren", "mshowfat"),
)
_OPTIONAL_PROGRAMS = ("mkfs.xfs", "mkfs.btrfs", "ssh-keygen")
"""Filesystems for layouts that ask for them; and host keys, which else are made when all is extracted."""
_APPLETS = (
    "sh cat chroot cp cttyhack cut df dmesg echo env find free grep head hwclock ip kill ls lsmod mkdir"
    " mknod mv ping poweroff ps reboot rm sed setsid sleep stty sync tail test top tr true udhcpc uname vi"
    " wc wget"
)
_KERNEL_HELPER = "usr/sbin/modprobe"
"""What the kernel calls where it wants a module itself (CONFIG_MODPROBE_PATH): a network card's PHY, say."""
_STDLIB_LEFT_OUT = re.compile(
    r"test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|distutils|sqlite3|curses|pydoc_data|venv|unittest|dbm"
    r"|xmlrpc|wsgiref|msilib|__phello__|__pycache__|site-packages|dist-packages|config-3.*"
    r"|(doctest|pydoc|turtle)\.py"
)
_EXTENSIONS_LEFT_OUT = re.compile(r"(_sqlite3|_g?dbm|nis|readline|_curses|_tkinter|_codecs_|_?xx|_test)")
"""Compiled modules of the standard library that bring large libraries, or large tables, for nothing."""
_PACKAGE_LEFT_OUT = re.compile(
    r"(^|/)(tests?|__pycache__)(/|$)|\.(pyi|pyx|pxd|h|c|pyc|typed)$|/_cffi\.|backend_cffi"
)
_BLADEROOT_LEFT_OUT = re.compile(r"^(ui|lab|shipped_overlays)/|^ops/(snapshots|initramfs)/")
_OPENED_BY_NAME = (
    "libgcc_s.so.1",
    "gconv/IBM850.so",
    "gconv/gconv-modules",
    "gconv/gconv-modules.d/gconv-modules-extra.conf",
)
"""Beside the C library, and in no list: pthread_exit(3) wants the first, mtools its code page."""
_ROOTS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


@frozen
class Userland:
    """What goes into the initramfs, by its place there."""

    files: dict[str, Path]
    links: dict[str, str]
    modules: dict[str, Path]
    """Python sources, which are compiled."""

    def fingerprint(self) -> list[Any]:
        """What changes whenever the archive would."""
        paths = sorted({*self.files.items(), *self.modules.items()})
        stamps = [(name, *_stamp(path)) for name, path in paths]
        linker_cache = Path("/etc/ld.so.cache")
        return [
            sys.version,
            stamps,
            sorted(self.links.items()),
            linker_cache.exists() and _stamp(linker_cache),
            is_installed("strip"),
        ]


def find_userland(reporter: Reporter) -> Userland:
    """What this machine has to give. Raises MissingToolError."""
    files: dict[str, Path] = {}
    links = dict(_ROOTS)
    for name in (*_PROGRAMS, *_find_optional(reporter)):
        _add_program(name, files, links)
    _add_busybox(files, links)
    links[_KERNEL_HELPER] = "../bin/modprobe"
    python = Path(sys.executable).resolve()
    files["usr/bin/python3"] = python
    modules = dict(_find_stdlib(files))
    modules |= _find_packages(files)
    package = resources.files("bladeroot.ops.initramfs")
    files["init"] = Path(str(package / "init.sh"))
    return Userland(files=files, links=links, modules=modules)


def make_userland_entries(userland: Userland) -> Iterator[Entry]:
    """The archive's members, libraries included."""
    with scratch_folder("bladeroot-userland-") as staging:
        files = {**userland.files, **_find_libraries(userland.files)}
        staged = _stage(staging / "tree", files, userland.modules)
        names = [*staged, *userland.links, "dev/console"]
        folders = {
            *find_parents(names),
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
            "mnt",
            "root",
            "etc",
            "var",
            *_ROOTS.values(),
        }
        for folder in sorted(folders - set(userland.links)):
            yield make_directory(folder, 0o1777 if folder == "tmp" else 0o755)
        yield Entry(name="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1))
        for target, link in sorted(userland.links.items()):
            yield make_link(target, link)
        for name_, text in _ETC.items():
            yield make_file(name_, text.encode())
        for target, path in sorted(staged.items()):
            executable = bool(path.stat().st_mode & 0o100) or target == "init"
            yield make_file(target, path.read_bytes(), 0o755 if executable else 0o644)


_ETC = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/mtab": "",
    "etc/shrc": 'modprobe() { /usr/bin/modprobe "$@"; }\n',
}
"""The last is for a person: busybox's shell prefers its own modprobe, which reads no compressed modules."""


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _find_optional(reporter: Reporter) -> list[str]:
    found = []
    for name in _OPTIONAL_PROGRAMS:
        try:
            find_tool(name)
        except MissingToolError as error:
            reporter(Warned(text=f"the agent will not have {name}: {error}", hint=error.hint))
        else:
            found.append(name)
    return found


def _add_program(name: str, files: dict[str, Path], links: dict[str, str]) -> None:
    """A program, and the name it is called by where that is a link to another."""
    found = Path(find_tool(name))
    real = found.resolve()
    files[f"usr/bin/{real.name}"] = real
    if real.name != name:
        links[f"usr/bin/{name}"] = real.name


def _add_busybox(files: dict[str, Path], links: dict[str, str]) -> None:
    busybox = Path(find_tool("busybox"))
    files["usr/bin/busybox"] = busybox
    known = set(run([busybox, "--list"]).stdout.split())
    for name in _APPLETS.split():
        if name in known and f"usr/bin/{name}" not in files:
            links.setdefault(f"usr/bin/{name}", "busybox")


def _find_stdlib(files: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    place = f"usr/{sys.platlibdir}/python{sys.version_info.major}.{sys.version_info.minor}"
    for path in _walk(root, lambda parts: not any(_STDLIB_LEFT_OUT.fullmatch(part) for part in parts)):
        target = f"{place}/{path.relative_to(root).as_posix()}"
        if path.suffix == ".py":
            yield target, path
        elif path.suffix == ".so" and not _EXTENSIONS_LEFT_OUT.match(path.name):
            files[target] = path


def _walk(root: Path, wanted: Any) -> Iterator[Path]:
    for parent, folders, names in os.walk(root):
        inner = Path(parent).relative_to(root).parts
        folders[:] = sorted(name for name in folders if wanted((*inner, name)))
        for name in sorted(names):
            if wanted((*inner, name)):
                yield Path(parent) / name


def _find_packages(files: dict[str, Path]) -> dict[str, Path]:
    """Bladeroot without what only an operator uses, and every package that the agent loads."""
    modules: dict[str, Path] = {}
    home = Path(bladeroot.__file__).resolve().parent
    for path in _walk(home, lambda _parts: True):
        inner = path.relative_to(home).as_posix()
        if path.suffix == ".py" and not _BLADEROOT_LEFT_OUT.match(inner):
            modules[f"{LIBRARY}/bladeroot/{inner}"] = path
    for origin in _find_loaded(modules.values()):
        root = origin.parent
        for path in [origin] if origin.is_file() else _walk(origin, lambda _parts: True):
            inner = path.relative_to(root).as_posix()
            if _PACKAGE_LEFT_OUT.search(inner):
                continue
            if path.suffix == ".py":
                modules[f"{LIBRARY}/{inner}"] = path
            elif ".so" in path.name or path.suffix in ("", ".pem", ".json"):
                files[f"{LIBRARY}/{inner}"] = path
    return modules


def _find_loaded(sources: Iterable[Path]) -> list[Path]:
    """The packages (folders, or single files) outside the standard library that importing the agent loads."""
    listed = list_loaded([*sources, *(Path(folder) for folder in sys.path if os.path.isdir(folder))])
    stdlib = Path(sysconfig.get_path("stdlib"))
    found: set[Path] = set()
    for name, file in listed:
        path = Path(file)
        folders = [
            parent
            for parent in path.parents
            if parent.name in ("site-packages", "dist-packages", "bladeroot")
        ]
        if not file or name == "bladeroot" or not folders:
            continue
        if stdlib in path.parents and folders[0].name == "bladeroot":
            continue
        top = path.relative_to(folders[0]).parts[0]
        found.add(folders[0] / top)
        libraries = folders[0] / f"{name}.libs"
        if libraries.is_dir():
            found.add(libraries)
    return sorted(path for path in found if path.name not in ("_distutils_hack",))


def _find_libraries(files: dict[str, Path]) -> dict[str, Path]:
    """What the linker would load for these; what is in the archive already is not taken twice."""
    have = {path.resolve() for path in files.values()}
    elves = [path for path in files.values() if _is_elf(path)]
    said = run(["ldd", *elves], check=False).stdout
    listed = parse_ldd(said)
    found = {place: path.resolve() for place, path in listed.items() if path.resolve() not in have}
    for place, path in [(place, path) for place, path in found.items() if path.name.startswith("libc.so")]:
        for name in _OPENED_BY_NAME:
            if (path.parent / name).is_file():
                found[f"{Path(place).parent}/{name}"] = path.parent / name
    return found


def parse_ldd(text: str) -> dict[str, Path]:
    """What ldd(1) says are the libraries of some programs: their places in the archive, and here.

    Those that the linker does not look for by itself (a Python under /opt has its own) go beside the C
    library: their programs are not where they were, so that a path relative to one leads elsewhere.
    """
    paths = [Path(match) for match in re.findall(r"(?:^|\s)(/\S+)\s+\(0x", text)]
    places = {path: _place(path) for path in paths}
    folder = next(
        (str(Path(places[path]).parent) for path in paths if path.name.startswith("libc.so")), "usr/lib"
    )
    return {
        place if place.startswith(tuple(_ROOTS.values())) else f"{folder}/{path.name}": path
        for path, place in places.items()
    }


def _place(path: Path) -> str:
    """The same path with the four old folders led into usr/."""
    first, _, rest = str(path).lstrip("/").partition("/")
    return f"{_ROOTS.get(first, first)}/{rest}"


def _is_elf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _stage(tree: Path, files: dict[str, Path], modules: dict[str, Path]) -> dict[str, Path]:
    """Copies of all, stripped and compiled: their places in the archive and here."""
    staged: dict[str, Path] = {}
    for target, source in {**files, **modules}.items():
        copy = tree / target
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        copy.chmod(0o755 if source.stat().st_mode & 0o100 or ".so" in source.name else 0o644)
        staged[target] = copy
    _strip([path for path in staged.values() if _is_elf(path)])
    _compile(tree)
    compiled = {target: tree / f"{target}c" for target in modules}
    for target, path in compiled.items():
        staged.pop(target)
        staged[f"{target}c"] = path
    return staged


def _strip(paths: Iterable[Path]) -> None:
    if is_installed("strip"):  # else it is larger, not worse
        run(["strip", "--strip-unneeded", *paths], check=False)


def _compile(tree: Path) -> None:
    """Byte-code in place of every module. With a fixed hash seed: constant sets are written in hash order."""
    argv = [
        sys.executable,
        "-m",
        "compileall",
        "-q",
        "-b",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    run([*argv, "-s", tree, "-p", "/", tree], environment={"PYTHONHASHSEED": "0"}, timeout_s=600)
