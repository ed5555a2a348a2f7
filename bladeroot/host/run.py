"""The one door to other programs. A program that fails is one clear line, never a traceback."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from attrs import frozen

from bladeroot.errors import MissingToolError, PrivilegeError, ToolError
from bladeroot.host import interrupts

Argument = str | bytes | Path

_SEARCH_PATH = ":".join(
    (os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")
)
_STDERR_TAIL_LINES = 3
_TERMINATE_TIMEOUT_S = 10.0

_DEBIAN_PACKAGES = {
    "blkid": "util-linux",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "dnsmasq": "dnsmasq-base",
    "grub-bios-setup": "grub-pc-bin",
    "grub-mkimage": "grub-common",
    "ip": "iproute2",
    "losetup": "mount",
    "mcopy": "mtools",
    "mdel": "mtools",
    "mdir": "mtools",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mkfs.xfs": "xfsprogs",
    "mmd": "mtools",
    "modprobe": "kmod",
    "mren": "mtools",
    "mshowfat": "mtools",
    "nsenter": "util-linux",
    "partx": "util-linux",
    "qemu-system-x86_64": "qemu-system-x86",
    "sfdisk": "fdisk",
    "ssh-keygen": "openssh-client",
    "setpriv": "util-linux",
    "tc": "iproute2",
    "unshare": "util-linux",
    "wipefs": "util-linux",
}


@frozen
class Completed:
    """A program that has ended."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


def find_tool(name: str) -> str:
    """Where the program is. Raises MissingToolError, naming the Debian package that has it."""
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        package = _DEBIAN_PACKAGES.get(name, name)
        raise MissingToolError(f"the program {name} is not installed", f"apt install {package}")
    return path


def is_installed(name: str) -> bool:
    """Whether there is such a program."""
    return shutil.which(name, path=_SEARCH_PATH) is not None


def require_tools(names: Iterable[str]) -> None:
    """Raise MissingToolError now rather than half-way through."""
    for name in names:
        find_tool(name)


def require_root(what: str) -> None:
    """Raise PrivilegeError unless this process has the superuser's rights."""
    if os.geteuid() != 0:
        raise PrivilegeError(f"{what} needs the superuser's rights", "run it with sudo")


def run(
    argv: Sequence[Argument],
    *,
    stdin: str | bytes | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
    timeout_s: float | None = None,
    ends_with_parent: bool = False,
) -> Completed:
    """Run a program to its end, with its output captured as text.

    `environment` is added to this process's own; `ends_with_parent` as in `start_process`. Raises
    MissingToolError, and ToolError where it times out or, with `check`, ends with a code other than 0.
    """
    full = _resolve(argv, ends_with_parent=ends_with_parent)
    data = stdin.encode() if isinstance(stdin, str) else stdin
    with interrupts.deferred():
        try:
            process = subprocess.Popen(
                full,
                stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=_environment(environment),
                # Ctrl-C is for the whole foreground group: what gives back must not hear it.
                process_group=0 if interrupts.is_uninterrupted() else None,
            )
        except OSError as error:
            raise ToolError(f"{_shown(full)}: {error.strerror}") from error
        with process:
            try:
                with interrupts.allowed():
                    stdout, stderr = process.communicate(data, timeout_s)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise ToolError(f"{_shown(full)}: not done after {timeout_s:g} s") from error
                raise
    completed = Completed(
        argv=tuple(os.fsdecode(part) for part in full),
        code=process.returncode,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
    )
    if check and completed.code != 0:
        raise make_tool_error(completed)
    return completed


def make_tool_error(completed: Completed) -> ToolError:
    """The error that a failed program is: its command line and the last it said."""
    said = (completed.stderr.strip() or completed.stdout.strip()).splitlines()[-_STDERR_TAIL_LINES:]
    ending = f"killed by signal {-completed.code}" if completed.code < 0 else f"exit code {completed.code}"
    return ToolError(f"{_shown(completed.argv)}: {' | '.join(said) or ending}")


@contextmanager
def start_process(
    argv: Sequence[Argument],
    *,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    clean_environment: bool = False,
    new_group: bool = False,
    ends_with_parent: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child that lives no longer than the `with` block: terminated, then killed.

    `clean_environment`: of this process's own it gets nothing. `new_group` puts it into a process group of
    its own, and ends the whole group. `ends_with_parent`: it gets SIGTERM even if this process is killed, or
    the thread that started it ends (PR_SET_PDEATHSIG).
    """
    full = _resolve(argv, ends_with_parent=ends_with_parent)
    try:
        process = subprocess.Popen(
            full,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=dict(environment or {}) if clean_environment else _environment(environment),
            start_new_session=new_group,
        )
    except OSError as error:
        raise ToolError(f"{_shown(full)}: {error.strerror}") from error
    try:
        yield process
    finally:
        stop_process(process, whole_group=new_group)


def stop_process(process: subprocess.Popen[bytes], *, whole_group: bool = False) -> int:
    """End a child: SIGTERM, and SIGKILL if it takes longer than 10 s. Returns its exit code."""

    def send(signal_number: int) -> None:
        if whole_group:
            try:
                os.killpg(process.pid, signal_number)
            except ProcessLookupError:
                return
        else:
            process.send_signal(signal_number)

    if process.poll() is None:
        send(15)
        try:
            process.wait(_TERMINATE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            send(9)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.wait()


PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL
Process = subprocess.Popen[bytes]


def _resolve(argv: Sequence[Argument], *, ends_with_parent: bool = False) -> list[Argument]:
    guard: list[Argument] = [find_tool("setpriv"), "--pdeathsig", "TERM"] if ends_with_parent else []
    first = argv[0]
    if isinstance(first, str) and "/" not in first:
        first = find_tool(first)
    return [*guard, first, *argv[1:]]


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "PATH": _SEARCH_PATH, "LC_ALL": "C.UTF-8", **(extra or {})}


def _shown(argv: Sequence[Argument]) -> str:
    words = [os.fsdecode(part) for part in argv]
    words[0] = os.path.basename(words[0])
    line = shlex.join(words)
    return line if len(line) <= 120 else line[:117] + "..."
