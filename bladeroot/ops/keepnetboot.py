"""Netboot for as long as a root role lasts, as soon as it can be had.

A root that takes over may have to wait: where the one before it still gives addresses, two must not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from bladeroot.errors import BladerootError, NetworkError
from bladeroot.events import Reporter, Warned
from bladeroot.ops.netboot import NetbootService
from bladeroot.ops.saidonce import SaidOnce

_AGAIN_S = 3.0
_LATER_S = 60.0

StartNetboot = Callable[[], AbstractContextManager[NetbootService | None]]


class NetbootKeeper:
    """Starts netboot in a thread of its own, again and again until it runs; `stop` ends it.

    Failures are told, but for the first without `tells_first`: whoever waits for it may go by `failure`.
    """

    def __init__(
        self,
        start: StartNetboot,
        *,
        on_start: Callable[[NetbootService | None], None],
        reporter: Reporter,
        tells_first: bool = True,
    ) -> None:
        self._tells_first = tells_first
        self._start = start
        self._on_start = on_start
        self._reporter = reporter
        self._stop = threading.Event()
        self._tried = threading.Event()
        self._said = SaidOnce()
        self.failure: BladerootError | None = None
        """Why it does not run; None while it does, or was not tried yet."""
        self._thread = threading.Thread(target=self._run, name="netboot", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait for that."""
        self._stop.set()
        self._thread.join()

    def wait_first(self, timeout_s: float) -> bool:
        """Wait until it was tried once; False where that takes longer."""
        return self._tried.wait(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._start() as service:
                    self.failure = None
                    self._on_start(service)
                    self._tried.set()
                    self._stop.wait()
                    return
            except BladerootError as error:
                self._fail(error)
                self._stop.wait(_AGAIN_S if isinstance(error, NetworkError) else _LATER_S)
            except Exception as error:  # a full /tmp, for one: it may be better later
                self._fail(BladerootError(getattr(error, "strerror", None) or repr(error)))
                self._stop.wait(_LATER_S)

    def _fail(self, error: BladerootError) -> None:
        self.failure = error
        is_told = self._tells_first or self._tried.is_set()
        self._tried.set()
        if not is_told:
            return
        text = f"root, but not answering netboot: {error}"
        self._said.say(Warned(text=text, hint=error.hint), self._reporter)
