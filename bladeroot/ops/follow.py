"""Follow a root: join its swarms, and report to it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from attrs import frozen

from bladeroot.core.cluster import Cluster
from bladeroot.errors import BladerootError, PortTakenError
from bladeroot.events import Event, Failed, Reporter, ignore
from bladeroot.net.client import RootClient
from bladeroot.net.swarm import DEFAULT_SWARM_PORT, Swarm
from bladeroot.ops.currentroot import CurrentRoot
from bladeroot.ops.findroot import find_root, find_root_again
from bladeroot.ops.reporting import RootReporter
from bladeroot.ops.sources import Source, SwarmSource


@frozen(kw_only=True)
class Followed:
    """Where an install gets its generation from, and who hears of its progress."""

    source: Source
    reporter: Reporter
    root_reporter: RootReporter | None = None

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Let the root know of this blade while the block runs; until then it has heard nothing of it.

        An error inside of it is reported too, and raised all the same.
        """
        if self.root_reporter is None:
            yield
            return
        with self.root_reporter:
            try:
                yield
            except BladerootError as error:
                self.root_reporter(Failed(text=str(error), hint=error.hint, exit_code=error.exit_code))
                raise


@contextmanager
def follow_root(
    cluster: Cluster, blade: str, *, root: str | None = None, wait_s: float, reporter: Reporter
) -> Iterator[Followed]:
    """Find the cluster's root (or take `root`, as `host:port`) and be in its swarms for the whole block.
    Should it fall silent meanwhile, `root` is tried again, and whichever root else is found is followed.

    Raises NoRootFoundError, NetworkError.
    """
    client, serial = find_root(cluster, root=root, wait_s=wait_s, reporter=reporter)
    wants: set[str] = set()
    root_reporters: list[Reporter] = []

    def report(event: Event) -> None:
        reporter(event)
        for root_reporter in root_reporters:
            root_reporter(event)

    def find_another() -> RootClient:
        return find_root_again(cluster, named=[root] if root else [], reporter=ignore)

    with closing(CurrentRoot(client, find_another, report)) as current, join_swarms(current, report) as swarm:
        current.on_change(lambda found: swarm.count_as_root(found.host))
        source = SwarmSource(current, swarm, serial, wants)
        root_reporter = RootReporter(
            current, cluster_id=cluster.id, blade=blade, swarm_port=swarm.port, wants=lambda: wants
        )
        root_reporters.append(root_reporter)
        yield Followed(source=source, reporter=report, root_reporter=root_reporter)


def wait_until_stopped() -> None:
    """Return when the process is asked to end (SIGTERM, or Ctrl-C)."""
    stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda _number, _frame: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def join_swarms(root: CurrentRoot, reporter: Reporter) -> Swarm:
    """A membership in swarms, at the usual port if it is free."""
    try:
        return Swarm(port=DEFAULT_SWARM_PORT, reporter=reporter, root_address=root.host)
    except PortTakenError:
        return Swarm(port=0, reporter=reporter, root_address=root.host)
