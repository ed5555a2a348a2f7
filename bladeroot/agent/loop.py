"""The agent's life: attempt after attempt, until there is nothing left to do but to restart.

A failure never restarts the machine: it is said on the consoles and to the root, and tried again, later each
time; a newer generation or order is news that ends the wait at once.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable

from bladeroot.agent.agent import Agent, DoneError, HeldError
from bladeroot.agent.disks import find_installed
from bladeroot.agent.steps import run_steps
from bladeroot.core.agentdecision import Why
from bladeroot.errors import BladerootError, NetworkError
from bladeroot.events import Failed, Held, Note

_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0
_POLL_S = (4.0, 6.0)
_ALONE_AFTER = 1
"""After so many failures a machine that is only to be reimaged does without a root: it boots what it has."""
_BACK_AFTER = 3
"""After so many failures of any kind a machine that its own disk has started goes back to its system."""
_SILENCES = 6
"""A root that did not answer so often in a row is looked for anew."""


def run_until_done(agent: Agent, attempt: Callable[[Agent], None] = run_steps) -> None:
    """Attempt, say what went wrong, wait, and attempt again; returns when the machine is to restart."""
    failures = 0
    while True:
        try:
            try:
                attempt(agent)
            finally:
                agent.attempt.close()
        except DoneError:
            agent.leave_root()
            return
        except HeldError as held:
            agent.report(Held(reason=str(held), hint=held.hint))
            if agent.arguments.why is Why.DISK and can_boot_alone(agent):
                give_back(agent, "it waits for a person")
                return
            wait_for_news(agent, None)
            failures = 0
            continue
        except BladerootError as error:
            if has_had_enough(agent, error, failures) and can_boot_alone(agent):
                give_back(agent, str(error))
                return
            failed = Failed(text=str(error), hint=error.hint, exit_code=error.exit_code)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            failed = Failed(text=f"unexpected: {error!r}", hint="this is a defect of bladeroot's: report it")
        pause_s = choose_pause(failures, agent.chance)
        agent.report(failed)
        agent.report(Note(text=f"trying again in {pause_s:.0f} s, or as soon as the root has news"))
        failures = 0 if wait_for_news(agent, pause_s) else failures + 1


def has_had_enough(agent: Agent, error: BladerootError, failures: int) -> bool:
    """Whether a machine that has a system should go back to it.

    One that the network loader starts would only come back: it stays, and tries again.
    """
    if isinstance(error, NetworkError):
        return failures >= _ALONE_AFTER
    return agent.arguments.why is Why.DISK and failures >= _BACK_AFTER


def give_back(agent: Agent, why: str) -> None:
    """Leave the machine to the system on its disk; its daemon knows how often to try again."""
    agent.report(Note(text=f"{why}: booting what is on the disk"))
    agent.leave_root()


def can_boot_alone(agent: Agent) -> bool:
    """Whether nobody says that the disk does not boot, and it has something to boot.

    The order stays open: whoever runs on the disk, or the next root, begins again.
    """
    return agent.arguments.why in (Why.DISK, Why.ORDER) and any(find_installed(agent))


def choose_pause(failures: int, chance: Callable[[float, float], float]) -> float:
    """How long to wait after so many failures before this one: longer each time, and not all at once."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures, 10)) * chance(0.7, 1.0)


def wait_for_news(agent: Agent, most_s: float | None) -> bool:
    """Wait until the root has another generation or order, for not longer than that. True if it has.

    With a root that is gone it ends too: another one may have the news.
    """
    until = None if most_s is None else time.monotonic() + most_s
    silences = 0
    while True:
        pause_s = agent.chance(*_POLL_S)
        left_s = pause_s if until is None else until - time.monotonic()
        if left_s <= 0:
            return False
        agent.sleep(min(pause_s, left_s))
        if agent.session is None or agent.offer is None:
            if until is None:
                return False
            continue
        try:
            if not agent.session.read_offer().is_same(agent.offer):
                agent.report(Note(text="the root has news"))
                return True
            silences = 0
        except NetworkError:
            silences += 1
            if silences >= _SILENCES:
                return False
