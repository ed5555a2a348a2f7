"""A golden blade becomes a snapshot: rsync from a running system, here or over ssh, without what is its own.

A second capture of the same source into the same path is incremental.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from bladeroot.core.capturerules import (
    DEFAULT_CAPTURE_RULES,
    CaptureRules,
    is_left_out,
    make_pattern,
    parse_capture_rules,
    render_rsync_filters,
)
from bladeroot.errors import ConfigError, SnapshotError, ToolError
from bladeroot.events import Note, Progress, Reporter, StepFinished, StepStarted, Warned, ignore
from bladeroot.host.files import scratch_folder, write_atomically
from bladeroot.host.mounts import parse_mountinfo
from bladeroot.host.run import PIPE, find_tool, require_root, require_tools, start_process
from bladeroot.ops.snapshots.source import Shell, Source, connected, make_ssh_error

_STEP = "capture"
_REAL_FILESYSTEMS = frozenset(
    {
        "ext2",
        "ext3",
        "ext4",
        "xfs",
        "btrfs",
        "f2fs",
        "jfs",
        "reiserfs",
        "zfs",
        "bcachefs",
        "nilfs2",
    }
)
"""What an installed system keeps its files in; not pseudo, network, image or FAT filesystems."""
_WORTH_A_NOTE = ("nfs", "cifs", "smb", "fuse", "vfat", "exfat", "ntfs", "9p", "ceph", "gluster", "lustre")
_OPTIONS = (
    *("--archive", "--hard-links", "--acls", "--xattrs", "--sparse", "--numeric-ids", "--one-file-system"),
    # Relative, so that several filesystems are one transfer, with one pass for hard links and deletions.
    *("--relative", "--delete", "--no-inc-recursive"),
    # Compare times to the nanosecond: by whole seconds, what rsync made just now looks right already.
    "--modify-window=-1",
    *("--info=progress2,stats2", "--no-human-readable"),
)
_PROGRESS = re.compile(r"(?:xfr#\d+, )?(?:ir|to)-chk=(\d+)/(\d+)\)")
_EXIT_VANISHED = 24
"""rsync(1): some source files vanished before they could be transferred: usual on a running system."""
_EXIT_NO_RSYNC = 127
_EXIT_SSH = 255


@frozen
class CaptureResult:
    """What a capture did, or would do."""

    source: str
    files: int
    transferred_files: int
    deleted_files: int
    size_bytes: int
    transferred_bytes: int
    filesystems: tuple[str, ...]
    """The mount points that were taken, relative to the source."""
    left_out_mounts: tuple[str, ...]
    dry_run: bool


@frozen
class MountChoice:
    """Of what is mounted below a source: what is taken and what is not, as absolute paths inside it."""

    taken: tuple[str, ...]
    left_out: tuple[str, ...]
    duplicates: tuple[str, ...]
    """Bind mounts of what is taken anyway: crossing into them would not look like a new filesystem."""


def read_capture_rules(path: Path | None) -> CaptureRules:
    """The rules of that file; the defaults where there is no file, or none is named. Raises ConfigError."""
    if path is None:
        return parse_capture_rules(DEFAULT_CAPTURE_RULES, "the default rules")
    try:
        return parse_capture_rules(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def capture_snapshot(
    source: Source,
    path: Path,
    *,
    rules: CaptureRules | None = None,
    dry_run: bool = False,
    reporter: Reporter = ignore,
) -> CaptureResult:
    """Make `path` the same as the source, but for what the rules leave out; what is more in it is deleted.

    `path` must be new, empty, or an earlier capture of the same source. Raises SnapshotError where it is
    not, NetworkError where ssh does not get there, ToolError where rsync fails: then the capture is marked
    unfinished, and the next one goes on from there.
    """
    require_root("capturing a system")
    require_tools(["rsync", *(["ssh"] if source.login else [])])
    chosen = rules or read_capture_rules(None)
    path = path.absolute()
    own = _check_paths(source, path)
    _check_target(source, path)
    started = time.monotonic()
    reporter(StepStarted(step=_STEP, title=f"{source} to {path}"))
    with connected(source) as shell, scratch_folder("bladeroot-capture-") as private:
        mounts = choose_mounts(
            source.path, shell.read_mountinfo(), chosen, "" if source.login else str(path.resolve())
        )
        for mount in mounts.left_out:
            reporter(Note(text=f"left out, mounted at {mount}"))
        filters = Path(private) / "filters"
        again = [make_pattern(mount, only_content=True) for mount in mounts.duplicates]
        text = render_rsync_filters(chosen, [*map(make_pattern, own), *again])
        filters.write_text(text, encoding="utf-8", errors="surrogateescape")
        if not dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_marker(source, path, complete=False)
        target = path if path.is_dir() or not dry_run else Path(private) / "nothing"
        argv = _plan_rsync(source, target, mounts, filters, shell, dry_run=dry_run)
        stats = _run_rsync(argv, source, path, reporter)
    if not dry_run:
        _make_empty_files(path, chosen)
        _write_marker(source, path, complete=True)
    reporter(StepFinished(step=_STEP, duration_s=time.monotonic() - started))
    return CaptureResult(
        source=str(source),
        files=stats.get("Number of files", 0),
        transferred_files=stats.get("Number of regular files transferred", 0),
        deleted_files=stats.get("Number of deleted files", 0),
        size_bytes=stats.get("Total file size", 0),
        transferred_bytes=stats.get("Total transferred file size", 0),
        filesystems=("/", *mounts.taken),
        left_out_mounts=mounts.left_out,
        dry_run=dry_run,
    )


def marker_path(path: Path) -> Path:
    """The file beside a capture that says so; outside of it, or blades would get it too."""
    return path.with_name(f".{path.name}.bladeroot-capture")


def read_marker(path: Path) -> Mapping[str, object] | None:
    """What the last capture into `path` noted (source, complete, inode); None where there was none."""
    try:
        noted = json.loads(marker_path(path).read_text(encoding="utf-8"))
        return noted if isinstance(noted, dict) and noted.get("inode") == path.stat().st_ino else None
    except (OSError, ValueError):
        return None


def choose_mounts(source: str, mountinfo: str, rules: CaptureRules, target: str = "") -> MountChoice:
    """Which filesystems mounted below `source` are part of the system.

    Taken are local ones that hold an installation's files, unless the rules leave them out; what is mounted
    twice is taken once. What is mounted on `target`, the capture itself, is never taken.
    """
    roots = [line.split(" ")[3] for line in mountinfo.splitlines()]
    visible: dict[str, tuple[str, str, str]] = {}
    for mount, root in zip(parse_mountinfo(mountinfo), roots, strict=True):
        # A later mount on the same directory hides the earlier one.
        visible[str(mount.target)] = (mount.device, root, mount.filesystem)
    holder = max((place for place in visible if _is_inside(source, place)), key=len, default="/")
    device, root, _ = visible.get(holder, ("", "/", ""))
    below = source[len(holder.rstrip("/")) :]
    seen = [(device, root.rstrip("/") + below)]
    taken, left_out, duplicates = [], [], []
    for place, (device, root, filesystem) in sorted(visible.items()):
        if place == source or not _is_inside(place, source):
            continue
        relative = place if source == "/" else place[len(source) :]
        if is_left_out(rules, relative) or (target and _is_inside(place, target)):
            continue
        if any(device == known and _is_inside(root, known_root) for known, known_root in seen):
            duplicates.append(relative)
        elif filesystem in _REAL_FILESYSTEMS:
            taken.append(relative)
            seen.append((device, root))
        elif filesystem.startswith(_WORTH_A_NOTE):
            left_out.append(relative)
    return MountChoice(tuple(taken), tuple(left_out), tuple(duplicates))


def _is_inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _check_paths(source: Source, path: Path) -> list[str]:
    """Refuse what would copy into itself; returns what of the source is the capture itself, to leave out."""
    if source.login:
        return []
    origin, target = Path(source.path), path.resolve()
    if not origin.is_dir():
        raise SnapshotError(f"{origin} is not a directory", "name the top of a running system, such as /")
    if origin.is_relative_to(target):
        raise SnapshotError(f"{origin} is inside {path}: the capture would delete what it copies")
    if not target.is_relative_to(origin):
        return []
    inside = target.relative_to(origin)
    return [f"/{inside}", f"/{inside.parent / marker_path(target).name}"]


def _check_target(source: Source, path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise SnapshotError(f"{path} is there already and is not a directory")
    if not path.is_dir() or not any(path.iterdir()):
        return
    noted = read_marker(path)
    if noted is None:
        hint = "name a path that does not exist yet: a capture deletes what the source does not have"
        raise SnapshotError(f"{path} is not empty, and was not made by a capture", hint)
    if noted.get("source") != str(source):
        hint = "name another path, or remove that one"
        raise SnapshotError(f"{path} is a capture of {noted.get('source')}, not of {source}", hint)


def _write_marker(source: Source, path: Path, *, complete: bool) -> None:
    path.mkdir(exist_ok=True)
    noted = {"source": str(source), "complete": complete, "inode": path.stat().st_ino}
    write_atomically(marker_path(path), json.dumps(noted) + "\n")


def _make_empty_files(path: Path, rules: CaptureRules) -> None:
    for name in rules.emptied:
        file = path / name.lstrip("/")
        # Through a link of the captured tree this would write to a file of this machine.
        if not file.parent.is_dir() or not file.parent.resolve().is_relative_to(path.resolve()):
            continue
        if file.is_symlink() or (file.exists() and (not file.is_file() or file.stat().st_size)):
            file.unlink()
        if not file.exists():
            parent = file.parent.stat()
            file.touch(mode=0o444)
            _set_times(file, parent.st_mtime_ns)
            _set_times(file.parent, parent.st_mtime_ns)


def _set_times(path: Path, time_ns: int) -> None:
    os.utime(path, ns=(time_ns, time_ns))


def _plan_rsync(
    source: Source, target: Path, mounts: MountChoice, filters: Path, shell: Shell, *, dry_run: bool
) -> list[str]:
    top = source.path.rstrip("/")
    places = [f"{top}/./", *(f"{top}/.{mount}/" for mount in mounts.taken)]
    if source.login:
        places = [f"{source.login}:{places[0]}", *(f":{place}" for place in places[1:])]
        remote = ["-s", "--rsh", " ".join(shell.ssh), f"--rsync-path={shell.rsync}"]
    else:
        remote = []
    return [
        find_tool("rsync"),
        *_OPTIONS,
        *(["--dry-run"] if dry_run else []),
        *remote,
        f"--filter=merge {filters}",
        *("--", *places, f"{target}/"),
    ]


def _run_rsync(argv: Sequence[str], source: Source, path: Path, reporter: Reporter) -> dict[str, int]:
    """Run it, report how far it is, and return its statistics."""
    stats: dict[str, int] = {}
    with (
        scratch_folder("bladeroot-capture-") as private,
        (private / "stderr").open("w+b") as stderr,
    ):
        with start_process(argv, stdout=PIPE, stderr=stderr) as child:
            assert child.stdout is not None  # noqa: S101  # for mypy: PIPE was asked for
            for line in _iter_lines(child.stdout.read1):  # type: ignore[attr-defined]
                _follow_line(line, stats, reporter)
            code = child.wait()
        stderr.seek(0)
        complaints = stderr.read().decode(errors="replace").splitlines()
    if code == _EXIT_VANISHED:
        vanished = sum("vanished" in line for line in complaints)
        reporter(Warned(text=f"{vanished} files vanished while they were captured", hint="capture again"))
    elif code == _EXIT_SSH and source.login:
        raise make_ssh_error(source, [line for line in complaints if not line.startswith("rsync")])
    elif code == _EXIT_NO_RSYNC:
        raise SnapshotError(f"{source}: rsync is not installed there", "install it there")
    elif code != 0:
        said = " | ".join(line for line in complaints if line.strip()) or f"exit code {code}"
        hint = f"{path} is unfinished; capture again to go on from there"
        raise ToolError(f"capture of {source}: {said[:300]}", hint)
    return stats


def _iter_lines(read: Callable[[int], bytes]) -> Iterator[str]:
    """Lines as they come; rsync ends a line of progress with a carriage return."""
    rest = b""
    while chunk := read(1 << 16):
        *lines, rest = re.split(rb"[\r\n]", rest + chunk)
        for line in lines:
            yield line.decode(errors="replace")
    yield rest.decode(errors="replace")


def _follow_line(line: str, stats: dict[str, int], reporter: Reporter) -> None:
    progress = _PROGRESS.search(line)
    if progress:
        left, total = int(progress[1]), int(progress[2])
        reporter(Progress(step=_STEP, done=total - left, total=total, unit="files"))
        return
    name, colon, value = line.partition(":")
    number = re.match(r"\s*(\d+)", value.replace(",", ""))
    if colon and number:
        with contextlib.suppress(ValueError):
            stats[name.strip()] = int(number[1])
