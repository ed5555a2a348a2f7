"""The agent's install: that of `ops.install`, on the machine itself, which gives to others meanwhile."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bladeroot.agent.agent import Agent
from bladeroot.agent.session import Session
from bladeroot.core.manifest import ArtefactKind
from bladeroot.events import Event, Finished, Note, Reporter, StepFinished, StepStarted
from bladeroot.host.depot import Depot
from bladeroot.host.files import scratch_folder
from bladeroot.ops.install import apply_install
from bladeroot.ops.installhooks import run_pre_install
from bladeroot.ops.reporting import Gives
from bladeroot.ops.resume import Standing
from bladeroot.ops.serving import serve_depot
from bladeroot.ops.sources import Source
from bladeroot.ops.steps import step

_SILENCE_S = 20.0


def install_it(agent: Agent) -> None:
    """Carry the plan out. A swarm is left before what it gives is unmounted, however that comes."""
    session, plan, opened, decision = agent.session, agent.plan, agent.opened, agent.decision
    assert session is not None and plan is not None  # noqa: S101, PT018 - the steps before found them
    assert opened is not None and decision is not None  # noqa: S101, PT018
    agent.begun[decision.order] = agent.begun.get(decision.order, 0) + 1
    shelf = _Shelf(agent, session)
    source = session.source(plan.manifest.serial)
    with _tell_of_silence(agent.console) as hear:

        def report(event: Event) -> None:
            hear(event)
            shelf.hear(event)

        with scratch_folder("bladeroot-hooks-") as work:
            log = _run_pre_install(agent, source, work, report)
            facts = apply_install(
                plan,
                opened,
                source,
                reporter=report,
                serve=shelf.serve,
                root_address=session.client.host,
                hooks_log=log,
                leave_rest=True,
            )
    # The root hears which orders are done, also those that were done before.
    agent.facts = {**facts, "order": facts.get("order") or plan.before.order}
    peak_bytes, spare_bytes = read_memory()
    agent.facts |= {"memory_peak_bytes": peak_bytes}
    text = f"the agent took {peak_bytes >> 20} MiB at most; {spare_bytes >> 20} MiB of memory are free now"
    agent.console(Note(text=text))


def _run_pre_install(agent: Agent, source: Source, work: Path, reporter: Reporter) -> Path | None:
    """The overlay's hooks for before the disk is touched, where it is to be; returns their log."""
    session, plan = agent.session, agent.plan
    assert session is not None and plan is not None  # noqa: S101, PT018 - the caller looked
    if plan.standing is not Standing.NEW or agent.assignment is not None:
        return None
    with step("pre-install", "Run pre-install hooks", reporter):
        return run_pre_install(plan, source, agent.hardware, work, reporter, session.client.host)


@contextmanager
def _tell_of_silence(console: Reporter, every_s: float = _SILENCE_S) -> Iterator[Reporter]:
    """Say now and then that nothing happens, for whoever stands in front of the machine.

    Yields who is to hear of what does happen.
    """
    is_over = threading.Event()
    last_s, step = time.monotonic(), ""

    def hear(event: Event) -> None:
        nonlocal last_s, step
        last_s = time.monotonic()
        if isinstance(event, StepStarted):
            step = event.step

    def watch() -> None:
        while not is_over.wait(every_s):
            silent_s = time.monotonic() - last_s
            if silent_s >= every_s:
                console(Note(text=f"{step}: nothing new for {silent_s:.0f} s; waiting"))

    watcher = threading.Thread(target=watch, name="silence", daemon=True)
    watcher.start()
    try:
        yield hear
    finally:
        is_over.set()
        watcher.join()


class _Shelf:
    """Serves the depot, and tells the root of the agent's files as soon as the depot has them."""

    def __init__(self, agent: Agent, session: Session) -> None:
        self._agent = agent
        self._session = session
        self._depot: Depot | None = None
        self._port = 0
        plan = agent.plan
        self._agent_hash = plan.agent.info_hash if plan is not None and plan.agent is not None else None
        self.serve: Callable[[Depot], AbstractContextManager[None]] = contextmanager(self._serve)
        self.hear: Reporter = self._hear

    def _serve(self, depot: Depot) -> Iterator[None]:
        agent = self._agent
        port = agent.site.cluster.network.port
        try:
            with serve_depot(
                depot, agent_hash=self._agent_hash, cluster_id=agent.cluster_id, port=port
            ) as self._port:
                self._depot = depot
                self._tell()
                yield
        finally:
            self._depot = None
            self._session.give(Gives())
            self._session.leave_swarms()

    def _hear(self, event: Event) -> None:
        if isinstance(event, Finished):
            return  # there is more to do
        if isinstance(event, StepFinished) and event.step == ArtefactKind.AGENT:
            self._tell()
        self._agent.report(event)

    def _tell(self) -> None:
        if self._depot is not None and self._agent_hash is not None and self._depot.has(self._agent_hash):
            self._session.give(Gives(has=frozenset({self._agent_hash}), http_port=self._port))


def read_memory(proc: Path = Path("/proc")) -> tuple[int, int]:
    """The most that this process has had in memory, and what the machine has left, in bytes (proc(5))."""
    return _read_kib(proc / "self/status", "VmHWM"), _read_kib(proc / "meminfo", "MemAvailable")


def _read_kib(path: Path, name: str) -> int:
    match = re.search(rf"^{name}:\s*(\d+) kB", path.read_text(encoding="utf-8"), re.MULTILINE)
    return int(match[1]) << 10 if match else 0
