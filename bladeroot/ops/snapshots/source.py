"""Where a capture comes from: this machine, or one that ssh reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from attrs import frozen

from bladeroot.errors import NetworkError, SnapshotError, UsageError
from bladeroot.host.files import scratch_folder
from bladeroot.host.run import run

_REMOTE = re.compile(
    r"(?!-)(?P<login>(?:[^@:/\s]+@)?(?:\[[0-9A-Za-z:.%]+\]|(?!-)[^@:/\s\[\]]+)):(?P<path>.*)"
)


@frozen
class Source:
    """Where a capture comes from: a directory here, or on the machine that `login` reaches by ssh."""

    path: str
    login: str = ""

    def __str__(self) -> str:
        return f"{self.login}:{self.path}" if self.login else self.path


def parse_source(text: str) -> Source:
    """`/directory`, or `[user@]host:` with a path that is `/` if it is left out. Raises UsageError."""
    match = _REMOTE.fullmatch(text)
    if match and not text.startswith("/"):
        path = match["path"] or "/"
        if not path.startswith("/"):
            raise UsageError(f"not an absolute path: {text!r}", f"for example: {match['login']}:/")
        return Source(str(PurePosixPath(path)), match["login"])
    if not text or text.startswith("-") or ":" in text.split("/")[0]:
        raise UsageError(f"not a source: {text!r}", "a directory such as /, or [user@]host:")
    return Source(str(Path(text).resolve()))


class Shell:
    """Commands on the source's machine; over ssh they share one connection, so one login is enough."""

    def __init__(self, source: Source, control: Path | None) -> None:
        self.source = source
        self.destination = source.login.translate({ord("["): None, ord("]"): None})
        self.ssh = (
            []
            if control is None
            else [
                *("ssh", "-o", "ControlMaster=auto", "-o", f"ControlPath={control}"),
                *("-o", "ControlPersist=60", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"),
            ]
        )
        self.rsync = "rsync"

    def read_mountinfo(self) -> str:
        """What is mounted there, after a look whether a capture is possible."""
        if not self.ssh:
            return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        probe = "id -u && { command -v rsync || echo; } && { sudo -n true 2>/dev/null && echo sudo || echo; }"
        said = self._run(f"{probe} && cat /proc/self/mountinfo").split("\n", 3)
        if len(said) < 4 or not said[0].isdigit():
            raise NetworkError(f"{self.source.login}: its shell answers something else than asked for")
        user, rsync, sudo, mountinfo = said
        if not rsync:
            raise SnapshotError(f"{self.source.login}: rsync is not installed there", "install it there")
        if user != "0":
            if sudo != "sudo":
                hint = f"use root@{self.source.login.rpartition('@')[2]}:, or allow sudo without a password"
                raise SnapshotError(f"{self.source.login}: not root there", hint)
            self.rsync = "sudo -n rsync"
        return mountinfo

    def close(self) -> None:
        """End the shared connection."""
        if self.ssh:
            run([*self.ssh, "-O", "exit", self.destination], check=False)

    def _run(self, command: str) -> str:
        completed = run([*self.ssh, self.destination, command], check=False)
        if completed.code != 0:
            raise make_ssh_error(self.source, completed.stderr.splitlines())
        return completed.stdout


@contextmanager
def connected(source: Source) -> Iterator[Shell]:
    """A way to run commands where the source is, for the length of the block."""
    if not source.login:
        yield Shell(source, None)
        return
    # The path of a Unix socket is at most 107 bytes (unix(7)): a short directory, whatever TMPDIR says.
    with scratch_folder("br-", Path("/tmp")) as private:  # noqa: S108
        shell = Shell(source, private / "ssh")
        try:
            yield shell
        finally:
            shell.close()


def make_ssh_error(source: Source, stderr: Sequence[str]) -> NetworkError:
    """What ssh said last, as an error."""
    said = next((line.strip() for line in reversed(stderr) if line.strip()), "no answer")
    return NetworkError(f"{source.login}: {said}", f"`ssh {source.login}` must work first")
