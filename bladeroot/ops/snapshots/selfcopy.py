"""bladeroot puts itself into a snapshot: the package, and of its dependencies what is installed here.

One flat directory, /usr/lib/bladeroot, and /usr/bin/bladeroot, which uses the snapshot's own Python; and
where it has systemd, bladeroot.service. The same installation always gives the same bytes, owners, modes and
times; a copy of a copy too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from attrs import frozen

import bladeroot
from bladeroot.core.systemdunits import CONFIG_DIRECTORY
from bladeroot.errors import SnapshotError
from bladeroot.host.depot import DEFAULT_DEPOT
from bladeroot.host.kernels import resolve_inside
from bladeroot.host.run import is_installed, require_root, run
from bladeroot.ops.owndaemon import LAUNCHER, SERVICE, WANTED_BY
from bladeroot.ops.snapshots.tree import find_program, read_elf, require_tree

DIRECTORY = "usr/lib/bladeroot"
LAUNCHER_TEXT = """\
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/usr/lib/bladeroot")
from bladeroot.ui.cli import main

sys.exit(main())
"""
_DEPOT_MOUNT = f"{str(DEFAULT_DEPOT).strip('/').replace('/', '-')}.mount"
"""As systemd.unit(5) has it."""
SERVICE_TEXT = f"""\
[Unit]
Description=bladeroot: give what this blade holds, follow the root, or be it
# Not after network-online.target: that the system runs is noted at once, and a blade without a network is
# not held up; it looks for a root for as long as it takes. But after its depot, which is mounted when its
# disk is there: one that begins with an empty directory has nothing to be root with.
After=network.target {_DEPOT_MOUNT}
# The snapshot itself, and what is made of it other than by an install, is no blade.
ConditionPathExists=/etc/bladeroot/installed.json

[Service]
Type=exec
ExecStart=/{LAUNCHER} daemon
Restart=always
RestartSec=15
# glibc gives each of several threads a heap of its own, and keeps what is freed: mallopt(3).
Environment=MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=65536

[Install]
WantedBy={WANTED_BY}
"""
_UNIT_DIRECTORIES = ("usr/lib/systemd/system", "lib/systemd/system")
FILE_TIME_S = 315532800
"""Every copied file's mtime: 1980-01-01, the earliest that a wheel (a zip file) can say."""

_DIST_INFO_KEPT = frozenset({"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt"})
"""The rest of a .dist-info says how it came onto this machine, and is different elsewhere."""
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


@frozen
class SelfCopy:
    """What was put into a snapshot."""

    version: str
    packages: tuple[str, ...]
    """`name version`, sorted; bladeroot itself is one of them."""
    files: int
    size_bytes: int


@frozen
class Requirement:
    """One dependency as a distribution's metadata names it."""

    name: str
    extras: frozenset[str]
    marker: str


def copy_self(snapshot: Path) -> SelfCopy:
    """Install this bladeroot into a snapshot, in place of one that is there; it is complete or not there.

    Raises SnapshotError where the snapshot's Python cannot run it, PrivilegeError without root's rights.
    """
    require_root("installing bladeroot into a snapshot")
    require_tree(snapshot)
    problem = find_python_problem(snapshot)
    if problem:
        raise SnapshotError(f"{snapshot}: {problem[0]}", problem[1])
    library, launcher = _find_place(snapshot, DIRECTORY), _find_place(snapshot, LAUNCHER)
    distributions = find_runtime_distributions()
    new = library.with_name(f".{library.name}.new")
    with _keeping_times(library.parent), _keeping_times(launcher.parent):
        _remove(new)
        try:
            files, size_bytes = write_library(new, distributions)
            _remove(library)
            new.rename(library)
        except BaseException:
            _remove(new)
            raise
        _write_stamped(launcher, LAUNCHER_TEXT, 0o755)
        try:
            _check_starts(snapshot)
        except BaseException:
            launcher.unlink()
            _remove(library)
            raise
    _write_service(snapshot)
    packages = tuple(f"{_normalise(item.name)} {item.version}" for item in distributions)
    return SelfCopy(bladeroot.__version__, packages, files, size_bytes)


def write_library(directory: Path, distributions: Iterable[metadata.Distribution]) -> tuple[int, int]:
    """Make `directory` a flat copy of these, compiled. Returns how many files it has, and their bytes."""
    directory.mkdir(mode=0o755)
    for distribution in distributions:
        _copy_distribution(distribution, directory)
    _strip(directory)
    _compile(directory)
    return _settle(directory)


def find_python_problem(snapshot: Path) -> tuple[str, str] | None:
    """Why the snapshot's python3 cannot run this installation, as (what, hint); None where it can."""
    needed = f"{sys.version_info.major}.{sys.version_info.minor}"
    install = f"install Python {needed} in it, or run bladeroot with the Python that the snapshot has"
    python = find_program(snapshot, "python3")
    if python is None:
        return "no python3 in the snapshot", install
    version = re.search(r"python(3\.\d+)", python.name)
    if version is None or version[1] != needed:
        has = version[1] if version else f"of unknown version ({python.name})"
        return f"its python3 is {has}, this bladeroot is installed for {needed}", install
    theirs, ours = read_elf(python), read_elf(Path(sys.executable).resolve())
    if theirs is None or ours is None:
        return None
    if theirs.machine != ours.machine:
        return (
            f"it is a tree for {theirs.machine}, this machine is {ours.machine}",
            "use a machine of its kind",
        )
    if theirs.interpreter != ours.interpreter:
        return (
            f"its C library is another one ({theirs.interpreter}, here {ours.interpreter})",
            "the compiled dependencies would not load; use a distribution with the same C library",
        )
    return None


def find_runtime_distributions() -> list[metadata.Distribution]:
    """The distribution of bladeroot and those that it needs to run, as installed here, sorted by name.

    Raises SnapshotError where one is missing.
    """
    found: dict[str, metadata.Distribution] = {}
    pending: list[tuple[Requirement, str]] = [(Requirement("bladeroot", frozenset(), ""), "itself")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        wanted, wanted_by = pending.pop()
        name = _normalise(wanted.name)
        if (name, wanted.extras) in seen:
            continue
        seen.add((name, wanted.extras))
        try:
            distribution = found[name] if name in found else metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            # The installer has judged the markers for this machine: what one let go is not installed.
            if wanted.marker:
                continue
            hint = "install bladeroot again: scripts/setup, or pip install bladeroot"
            raise SnapshotError(f"{wanted.name}, needed by {wanted_by}, is not installed", hint) from None
        found[name] = distribution
        for text in distribution.requires or ():
            requirement = parse_requirement(text)
            extra = _EXTRA.search(requirement.marker)
            if extra is None or extra[1] in wanted.extras:
                pending.append((requirement, name))
    return [found[name] for name in sorted(found)]


def parse_requirement(text: str) -> Requirement:
    """A dependency specifier (PEP 508) as far as it matters here: name, extras, marker."""
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise SnapshotError(f"not a dependency specifier: {text!r}")
    extras = frozenset(extra.strip() for extra in (match[2] or "").split(",") if extra.strip())
    return Requirement(match[1], extras, (match[3] or "").strip())


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _find_place(snapshot: Path, name: str) -> Path:
    """Where to write `name`, with its parents' links followed inside the snapshot."""
    parent, _, last = name.rpartition("/")
    directory = resolve_inside(snapshot, parent)
    if not directory.is_dir():
        raise SnapshotError(f"{snapshot}: there is no /{parent}")
    return directory / last


def _copy_distribution(distribution: metadata.Distribution, target: Path) -> None:
    copied = []
    for relative, source in _iter_files(distribution):
        destination = target / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
        copied.append(relative)
    record = next((name for name in copied if name.endswith(".dist-info/RECORD")), None)
    if record:
        lines = sorted(f"{_quoted(name)},,\n" for name in copied)
        (target / record).write_text("".join(lines), encoding="utf-8")


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


def _iter_files(distribution: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """The files of a distribution, as (path in the flat directory, path here)."""
    is_bladeroot = _normalise(distribution.name) == "bladeroot"
    if is_bladeroot:
        yield from _iter_bladeroot_files()
    for file in distribution.files or ():
        relative = file.as_posix()
        first = relative.split("/", 1)[0]
        if (
            relative.startswith(("..", "/"))
            or "__pycache__" in relative
            or relative.endswith((".pyc", ".pth"))
        ):
            continue
        if first.endswith(".dist-info"):
            inner = relative.split("/", 1)[-1]
            if inner not in _DIST_INFO_KEPT and not re.match(r"(licen[sc]es?|notice|copying)", inner, re.I):
                continue
        elif is_bladeroot:
            continue
        source = Path(str(distribution.locate_file(file)))
        if source.is_file():
            yield relative, source


def _iter_bladeroot_files() -> Iterator[tuple[str, Path]]:
    package = Path(bladeroot.__file__).resolve().parent
    shipped = package / "shipped_overlays"
    roots = [("bladeroot", package)]
    if not shipped.is_dir():  # an editable installation: the overlays stand beside the package
        roots.append(("bladeroot/shipped_overlays", package.parent / "overlays"))
    for prefix, root in roots:
        for source in sorted(root.rglob("*")):
            if source.is_file() and source.suffix != ".pyc":
                yield f"{prefix}/{source.relative_to(root).as_posix()}", source


def _strip(directory: Path) -> None:
    """Without symbols the compiled parts are half as large; where there is no `strip` they stay whole."""
    libraries = sorted(path for path in directory.rglob("*.so*") if path.is_file())
    if libraries and is_installed("strip"):
        run(["strip", "--strip-unneeded", *libraries])


def _compile(directory: Path) -> None:
    """Byte-code beside every module, valid whatever the files' times are (PEP 552, unchecked).

    In a process of its own with a fixed hash seed: a module's constant sets are written in hash order.
    """
    program = (
        "import compileall, py_compile, sys; compileall.compile_dir(sys.argv[1], quiet=2, maxlevels=99,"
        " stripdir=sys.argv[1], prependdir='/' + sys.argv[2],"
        " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
    )
    environment = {"PYTHONHASHSEED": "0", "PYTHONPATH": "", "PYTHONOPTIMIZE": "", "PYTHONPYCACHEPREFIX": ""}
    run(
        [sys.executable, "-s", "-S", "-P", "-c", program, directory, DIRECTORY],
        environment=environment,
    )


def _settle(directory: Path) -> tuple[int, int]:
    """One owner, mode and time for everything. Returns how many files, and their bytes."""
    files = size_bytes = 0
    for parent, _names, names in os.walk(directory, topdown=False):
        for name in names:
            path = os.path.join(parent, name)
            size_bytes += os.stat(path).st_size
            files += 1
            _stamp(path, 0o644)
        _stamp(parent, 0o755)
    return files, size_bytes


def _stamp(path: str | Path, mode: int) -> None:
    os.chown(path, 0, 0)
    os.chmod(path, mode)
    os.utime(path, (FILE_TIME_S, FILE_TIME_S))


def _write_stamped(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    _stamp(temporary, mode)
    temporary.rename(path)


def _write_service(snapshot: Path) -> None:
    """The daemon's unit, where there is systemd; enabled when it is new: who disables it there means it."""
    places = (resolve_inside(snapshot, name) for name in _UNIT_DIRECTORIES)
    directory = next((place for place in places if place.is_dir()), None)
    if directory is None:
        return
    unit = directory / SERVICE
    is_new = not unit.exists()
    with _keeping_times(directory):
        _write_stamped(unit, SERVICE_TEXT, 0o644)
    if is_new:
        _enable(snapshot, "/" + unit.relative_to(snapshot).as_posix())


def _enable(snapshot: Path, unit: str) -> None:
    """As `systemctl enable` would: what the [Install] section above says."""
    parent = resolve_inside(snapshot, CONFIG_DIRECTORY)
    if not parent.is_dir():
        return
    wants = parent / f"{WANTED_BY}.wants"
    if not wants.is_dir():
        with _keeping_times(parent):
            wants.mkdir()
            _stamp(wants, 0o755)
    with _keeping_times(wants):
        link = wants / SERVICE
        link.unlink(missing_ok=True)
        link.symlink_to(unit)
        os.lchown(link, 0, 0)
        os.utime(link, (FILE_TIME_S, FILE_TIME_S), follow_symlinks=False)


def _check_starts(snapshot: Path) -> None:
    result = run(["chroot", snapshot, f"/{LAUNCHER}", "--version"], check=False)
    if result.code != 0:
        said = (result.stderr.strip() or f"exit code {result.code}").splitlines()[-1]
        hint = "a library that a compiled dependency needs is missing or too old in the snapshot"
        raise SnapshotError(f"{snapshot}: bladeroot does not start in it: {said}", hint)


@contextlib.contextmanager
def _keeping_times(directory: Path) -> Iterator[None]:
    """So that what changes inside does not show in the directory's own time."""
    before = directory.stat()
    yield
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
