"""How one terminal speaks with a lab that runs in another."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bladeroot.errors import ClaimNotHeldError, UsageError
from bladeroot.host import localsocket
from bladeroot.host.localsocket import Answer, Handler, LocalSocket

__all__ = ["CONTROL_SOCKET", "Answer", "Handler", "ask", "listening"]

CONTROL_SOCKET = "control.sock"
_ANSWER_TIMEOUT_S = 120.0
"""A blade may take its time to switch itself off."""


def listening(work: Path) -> AbstractContextManager[LocalSocket]:
    """Take requests in the lab's folder."""
    return localsocket.listening(work, CONTROL_SOCKET)


def ask(work: Path, **request: Any) -> Answer:
    """Ask the lab that runs in that folder. Raises UsageError if none does, and what it answers it with."""
    try:
        answer = localsocket.ask(work, CONTROL_SOCKET, _ANSWER_TIMEOUT_S, **request)
    except TimeoutError:
        raise ClaimNotHeldError(f"the lab in {work} does not answer") from None
    except OSError:
        raise UsageError(f"no lab is running in {work}", "`bladeroot lab up --vm` starts one") from None
    except ValueError:
        raise ClaimNotHeldError(f"the lab in {work} ended before it answered") from None
    if "error" in answer:
        raise UsageError(str(answer["error"]), str(answer.get("hint", "")))
    return answer
