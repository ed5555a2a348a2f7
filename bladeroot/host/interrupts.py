"""Being stopped (Ctrl-C, SIGTERM) in order: once, where it does no harm, and never while cleaning up.

A signal raises KeyboardInterrupt in the main thread, at whatever instruction that is, and every later one is
passed over while that unwinds. Work that holds mounts and scratch folders says `deferred`: then it raises at
`check`, and where `allowed` says so, and nowhere else. What takes and gives back such things says
`uninterrupted`: nothing raises in it. Without `handled`, and in other threads, all of it does nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType

from attrs import define

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Mode(IntEnum):
    RAISE = 0
    """A signal raises at once."""
    HOLD = 1
    """It waits for the next `check`."""
    HARD = 2
    """It waits for the end of this."""


@define
class _State:
    mode: _Mode = _Mode.RAISE
    is_pending: bool = False
    """A signal came, and has not raised yet."""
    is_raised: bool = False
    """It has raised: what comes now unwinds."""


_state = _State()


class _Requested(threading.Event):
    """Tells of it without a lock, which a signal handler must not wait for."""

    def is_set(self) -> bool:
        return was_requested()


requested: threading.Event = _Requested()
"""For what asks `is_set` now and then, in any thread; nobody can wait for it."""


@contextmanager
def handled(*, restore: bool) -> Iterator[None]:
    """Take the signals over for the length of the block, and with `restore` give them back afterwards.

    Without it they are passed over from then on: the process is about to end, and its exit code stands.
    """
    global _state
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state = _State()
    before = {number: signal.signal(number, _handle) for number in _SIGNALS}
    try:
        yield
    finally:
        finish()
        if restore:
            _state = _State()
        for number, handler in before.items():
            # The interpreter's own end gives every signal its default back, but for those that are ignored.
            signal.signal(number, handler if restore else signal.SIG_IGN)


def finish() -> None:
    """Pass over whatever signal comes from now on: the work is over, and how it ended stands."""
    if _is_ours():
        _state.mode = _Mode.HARD


def was_requested() -> bool:
    """Whether a signal has asked this process to stop: what fails from then on may fail because of it."""
    return _state.is_pending or _state.is_raised


def check() -> None:
    """Raise KeyboardInterrupt if a signal came in the meantime. Does nothing inside `uninterrupted`."""
    if _state.is_pending and _state.mode is not _Mode.HARD and _is_ours():
        _raise()


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal wait for the next `check`, or for `allowed`, or for the end of the block."""
    with _in_mode(max(_Mode.HOLD, _state.mode)):
        yield


@contextmanager
def allowed() -> Iterator[None]:
    """Inside `deferred`: a signal may raise in here, where nothing is held that is not cared for."""
    with _in_mode(_Mode.HARD if _state.mode is _Mode.HARD else _Mode.RAISE):
        check()
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal wait for the end of the block, whatever is inside."""
    with _in_mode(_Mode.HARD):
        yield


def is_uninterrupted() -> bool:
    """Whether this is inside `uninterrupted`."""
    return _state.mode is _Mode.HARD and _is_ours()


@contextmanager
def _in_mode(mode: _Mode) -> Iterator[None]:
    if not _is_ours():
        yield
        return
    state, before = _state, _state.mode
    state.mode = mode
    try:
        yield
    finally:
        state.mode = before
        if state.is_pending and before is _Mode.RAISE:
            _raise()


def _handle(_number: int, _frame: FrameType | None) -> None:
    if _state.is_raised:
        return
    _state.is_pending = True
    if _state.mode is _Mode.RAISE:
        _raise()


def _raise() -> None:
    _state.is_pending, _state.is_raised = False, True
    raise KeyboardInterrupt


def _is_ours() -> bool:
    return threading.current_thread() is threading.main_thread()
