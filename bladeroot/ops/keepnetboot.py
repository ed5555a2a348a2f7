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
    """Starts netboot in a thread of its own, again and again until it runs. `begin_anew` ends it and starts
    it once more, `stop` ends it for good.

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
        self._stopping = False
        self._is_over = threading.Event()
        """Whether what was started is to end."""
        self._tried = threading.Event()
        self._said = SaidOnce()
        self.failure: BladerootError | None = None
        """Why it does not run; None while it does, or was not tried yet."""
        self._thread = threading.Thread(target=self._run, name="netboot", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait for that."""
        self._stopping = True
        self._is_over.set()
        self._thread.join()

    def begin_anew(self) -> None:
        """End it, and start it as it should be by now; without waiting for either."""
        self._is_over.set()

    def wait_first(self, timeout_s: float) -> bool:
        """Wait until it was tried once; False where that takes longer."""
        return self._tried.wait(timeout_s)

    def _run(self) -> None:
        while True:
            self._is_over.clear()
            if self._stopping:  # looked at after that, and set before: `stop` is never overheard
                return
            try:
                with self._start() as service:
                    self.failure = None
                    self._on_start(service)
                    self._tried.set()
                    self._is_over.wait()
            except BladerootError as error:
                self._fail(error)
                self._is_over.wait(_AGAIN_S if isinstance(error, NetworkError) else _LATER_S)
            except Exception as error:  # a full /tmp, for one: it may be better later
                self._fail(BladerootError(getattr(error, "strerror", None) or repr(error)))
                self._is_over.wait(_LATER_S)

    def _fail(self, error: BladerootError) -> None:
        self.failure = error
        is_told = self._tells_first or self._tried.is_set()
        self._tried.set()
        if not is_told:
            return
        text = f"root, but not answering netboot: {error}"
        self._said.say(Warned(text=text, hint=error.hint), self._reporter)
