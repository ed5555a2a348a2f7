"""dnsmasq under care: started with a configuration of ours, watched, started again, ended with the block."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bladeroot.errors import BladerootError, NetworkError
from bladeroot.events import Event, Note, Reporter, Warned
from bladeroot.host.run import PIPE, STDOUT, Process, find_tool, run, start_process

_SETTLE_S = 1.0
"""A dnsmasq that cannot bind, or does not like its configuration, has ended by then."""
_LOOK_S = 0.2
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
"""After a run of so long, too, pauses begin anew."""
_DRAIN_S = 2.0
_SAME_AGAIN_S = 600.0
"""A machine that gets no address asks for ever, and is warned of now and then."""
_MOST_REMEMBERED = 256
_PREFIX = re.compile(r"^dnsmasq(?:-dhcp|-tftp)?(?:\[\d+\])?: (?:\d+ )?")
_NORMAL = re.compile(r"^error 8 ")
"""Firmware that asks for a file's size breaks the transfer off (RFC 2347, error 8; RFC 2349)."""
_NEWS = re.compile(r"^DHCPACK\(|^sent /|PXE\(.*proxy|^DHCPDECLINE|^DHCPNAK|^BOOTP", re.IGNORECASE)
_TROUBLE = re.compile(
    r"no address available|no address range|in use|failed|cannot|error|duplicate|abandon", re.IGNORECASE
)


def parse_line(line: str) -> Event | None:
    """What a line of its log is to a person; None for most."""
    text = _PREFIX.sub("", line.rstrip())
    if _NORMAL.search(text):
        return None
    if _TROUBLE.search(text):
        return Warned(text=f"dnsmasq: {text}")
    return Note(text=f"dnsmasq: {text}") if _NEWS.search(text) else None


class Dnsmasq:
    """A running dnsmasq; a context manager. Lines of its log that matter become events.

    Entering raises NetworkError where it does not stay up: a port that is taken, a bad interface.
    """

    def __init__(self, config: str, reporter: Reporter) -> None:
        self._config = config
        self._reporter = reporter
        self._stack = ExitStack()
        self._process_stack = ExitStack()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._tail: deque[str] = deque(maxlen=5)
        self._warned_at: dict[str, float] = {}
        self._started_at = self._heard_at = time.monotonic()

    def __enter__(self) -> Self:
        find_tool("dnsmasq")
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bladeroot-dnsmasq-"))
        self._file = Path(folder) / "dnsmasq.conf"
        try:
            self._check_and_write(self._config)
            self._start()
            if self._has_ended_early():
                raise NetworkError(*_explain("\n".join(self._tail)))
        except BaseException:
            self._close()
            raise
        self._watcher = threading.Thread(target=self._watch, name="dnsmasq", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with self._lock:
            self._process_stack.close()
        self._watcher.join()
        self._close()

    @property
    def quiet_s(self) -> float:
        """How long it has had nothing to say: while machines boot by it, it has."""
        return time.monotonic() - self._heard_at

    def reconfigure(self, config: str) -> None:
        """Go on with another configuration, if it is another. Leases are kept, transfers are not.

        Raises NetworkError for one that dnsmasq does not take, and goes on with what it had.
        """
        if config == self._config:
            return
        self._check_and_write(config)
        with self._lock:
            self._process_stack.close()
            self._start()
            if self._has_ended_early():
                said = "\n".join(self._tail)
                self._check_and_write(self._config)
                self._process_stack.close()
                self._start()
                raise NetworkError(*_explain(said))
        self._config = config

    def _close(self) -> None:
        self._process_stack.close()
        self._stack.close()

    def _check_and_write(self, config: str) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_text(config)
        tested = run(["dnsmasq", "--test", f"--conf-file={draft}"], check=False)
        if tested.code != 0:
            raise NetworkError(*_explain(tested.stderr))
        draft.rename(self._file)

    def _start(self) -> None:
        # As root: it is the one who may read the private folder, and it drops nothing that it needs.
        argv = ["dnsmasq", "--keep-in-foreground", f"--conf-file={self._file}", "--log-facility=-"]
        argv += ["--user=root", "--group=root", "--pid-file="]
        self._tail.clear()
        self._started_at = time.monotonic()
        self._process: Process = self._process_stack.enter_context(
            start_process(argv, stdout=PIPE, stderr=STDOUT, ends_with_parent=True)
        )
        self._reader = threading.Thread(
            target=self._read, args=(self._process,), name="dnsmasq-log", daemon=True
        )
        self._reader.start()

    def _has_ended_early(self) -> bool:
        for _ in range(int(_SETTLE_S / _LOOK_S)):
            if self._process.poll() is not None:
                self._reader.join(_DRAIN_S)
                return True
            self._stopping.wait(_LOOK_S)
        return False

    def _watch(self) -> None:
        """Start it again whenever it ends, sooner or later."""
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.wait(_LOOK_S):
            if not self._has_ended():
                continue
            self._reader.join(_DRAIN_S)
            if time.monotonic() - self._started_at > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            last = self._tail[-1] if self._tail else "it said nothing"
            self._reporter(Warned(text=f"dnsmasq ended, and starts again in {pause_s:.0f} s: {last}"))
            if self._stopping.wait(pause_s):
                return
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            self._start_again()

    def _has_ended(self) -> bool:
        with self._lock:  # while it is given another configuration it has not
            return self._process.poll() is not None

    def _start_again(self) -> None:
        with self._lock:
            if self._stopping.is_set() or self._process.poll() is None:
                return
            try:
                self._process_stack.close()
                self._start()
            except BladerootError as error:
                self._reporter(Warned(text=f"dnsmasq does not start: {error}", hint=error.hint))

    def _read(self, process: Process) -> None:
        stream = process.stdout
        assert stream is not None  # noqa: S101 - it was asked for
        with suppress(ValueError):  # closed meanwhile: it is being stopped
            for raw in iter(stream.readline, b""):
                self._heard_at = time.monotonic()
                line = raw.decode(errors="replace").rstrip()
                self._tail.append(_PREFIX.sub("", line))
                event = parse_line(line)
                if event is not None and not self._was_told(event):
                    self._reporter(event)

    def _was_told(self, event: Event) -> bool:
        """Whether it is a warning that was given a short while ago."""
        if not isinstance(event, Warned):
            return False
        now = time.monotonic()
        before = self._warned_at.get(event.text)
        if before is not None and now - before < _SAME_AGAIN_S:
            return True
        if len(self._warned_at) >= _MOST_REMEMBERED:
            self._warned_at.clear()
        self._warned_at[event.text] = now
        return False


def _explain(said: str) -> tuple[str, str]:
    """What dnsmasq said as it ended, as an error's text and hint."""
    last = next((line for line in reversed(said.strip().splitlines()) if line.strip()), "it said nothing")
    text = _PREFIX.sub("", last.strip())
    if "in use" in text.lower():
        return f"dnsmasq cannot start: {text}", (
            'another DHCP, TFTP or DNS server runs on this machine: stop it, or use netboot = "off"'
        )
    if "permission" in text.lower() or "not permitted" in text.lower():
        return f"dnsmasq cannot start: {text}", "answering netboot needs the superuser's rights"
    return f"dnsmasq cannot start: {text}", "see [network] in cluster.toml"
