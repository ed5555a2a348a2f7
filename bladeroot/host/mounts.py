"""What is mounted, and mounting for no longer than a `with` block."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from bladeroot.errors import DiskBusyError, DiskError, PrivilegeError
from bladeroot.host.interrupts import uninterrupted
from bladeroot.host.run import run

_UNMOUNT_DEADLINE_S = 10.0
_UNMOUNT_PAUSE_S = 0.1
# linux/sched.h, linux/mount.h
_CLONE_NEWNS = 0x00020000
_MS_REC = 1 << 14
_MS_SLAVE = 1 << 19
_libc = ctypes.CDLL(None, use_errno=True)
_CHROOT_BINDS = ("dev", "proc", "sys")


@frozen(kw_only=True)
class Mount:
    """A line of /proc/self/mountinfo; `device` is `major:minor`."""

    source: str
    target: Path
    filesystem: str
    device: str
    options: tuple[str, ...]


@frozen(kw_only=True)
class Space:
    """How much room a filesystem has for this process."""

    total_bytes: int
    free_bytes: int
    free_inodes: int


def find_mounts() -> list[Mount]:
    """Every mount that this process sees, in the order they were made."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))


def parse_mountinfo(text: str) -> list[Mount]:
    """The lines of a mountinfo file (proc_pid_mountinfo(5))."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (filesystem, source, *_rest) = before.split(" "), after.split(" ")
        mounts.append(
            Mount(
                source=_unescape(source),
                target=Path(_unescape(fields[4])),
                filesystem=filesystem,
                device=fields[2],
                options=tuple(fields[5].split(",")),
            )
        )
    return mounts


def read_space(path: Path) -> Space:
    """Room in the filesystem that `path` is in."""
    facts = os.statvfs(path)
    return Space(
        total_bytes=facts.f_blocks * facts.f_frsize,
        free_bytes=facts.f_bavail * facts.f_frsize,
        free_inodes=facts.f_favail,
    )


def enter_own_namespace() -> None:
    """From now on, let what this process mounts be seen by nobody else, and go with it however it ends.

    What others mount and unmount is still seen. Call it before there are threads: each has its own.
    """
    if _libc.unshare(_CLONE_NEWNS) != 0 or _libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None) != 0:
        number = ctypes.get_errno()
        raise PrivilegeError(
            f"no mount namespace for this process: {os.strerror(number)}",
            "in a container it needs the capability CAP_SYS_ADMIN",
        )


@contextmanager
def mounted(
    device: Path, directory: Path, *, filesystem: str | None = None, options: Sequence[str] = ()
) -> Iterator[Path]:
    """Mount a device on a directory (made if it is not there) for the length of the block; yields it.

    Raises DiskError where it cannot be mounted, DiskBusyError where it could only be unmounted lazily.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kind = ["-t", filesystem] if filesystem else []
    chosen = ["-o", ",".join(options)] if options else []
    with ExitStack() as stack:
        with uninterrupted():
            _mount([*kind, *chosen, str(device), str(directory)], f"{device} on {directory}")
            stack.push(_Unmounting(directory))
        yield directory


@contextmanager
def mounted_chroot(root: Path) -> Iterator[Path]:
    """Give a tree its /dev, /proc and /sys, so that programs inside it run, for the length of the block."""
    with ExitStack() as stack:
        for name in _CHROOT_BINDS:
            target = root / name
            if target.is_symlink():
                raise DiskError(f"{target} is a symbolic link: nothing is mounted there")
            target.mkdir(exist_ok=True)
            with uninterrupted():
                # Without its own propagation group an unmount in here would unmount the host's submounts too.
                _mount(["--rbind", "--make-rslave", f"/{name}", str(target)], f"/{name} on {target}")
                stack.push(_Unmounting(target, recursive=True))
        yield root


def _mount(arguments: Sequence[str], what: str) -> None:
    completed = run(["mount", *arguments], check=False)
    if completed.code != 0:
        said = completed.stderr.strip().splitlines()
        raise DiskError(f"cannot mount {what}: {said[0] if said else f'exit code {completed.code}'}")


@frozen
class _Unmounting:
    """Unmounts when its block is left; what ended the block goes before what is wrong with that."""

    directory: Path
    recursive: bool = False

    def __enter__(self) -> None:
        """Nothing to do: it is mounted."""

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        with uninterrupted():
            is_unmounted = _unmount(self.directory, recursive=self.recursive)
        if not is_unmounted and kind is None:
            raise DiskBusyError(
                f"{self.directory} is still in use; it will be unmounted when that ends",
                f"see who: fuser -vm {self.directory}",
            )


def _unmount(directory: Path, *, recursive: bool) -> bool:
    """Unmount; False where that was only possible lazily."""
    flags = ["-R"] if recursive else []
    deadline = time.monotonic() + _UNMOUNT_DEADLINE_S
    while run(["umount", *flags, directory], check=False).code != 0:
        if not os.path.ismount(directory):
            return True
        if time.monotonic() > deadline:
            run(["umount", "--lazy", *flags, directory], check=False)
            return False
        time.sleep(_UNMOUNT_PAUSE_S)
    return True


def _unescape(field: str) -> str:
    """Blanks and backslashes stand as octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)
