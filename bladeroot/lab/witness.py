"""Somebody in a room who only looks: which roots answer there, and what each says of its blades.

`python -m bladeroot.lab.witness CLUSTER-ID` prints it as a line of JSON, whenever it is another.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from attrs import field, frozen

from bladeroot.core.claims import Claim, ClaimState
from bladeroot.core.roomstate import BladePhase
from bladeroot.errors import ClaimNotHeldError, NetworkError
from bladeroot.host.run import PIPE, Argument, start_process
from bladeroot.net.client import RootClient
from bladeroot.net.discovery import Ear
from bladeroot.ops.status import read_status

_LOOK_S = 0.5
_ANSWER_TIMEOUT_S = 3.0


@frozen(kw_only=True)
class SeenBlade:
    """What a root says of a blade; see `core.roomstate.BladeState`."""

    phase: str
    serial: int
    holds: int
    order: int = 0
    failure: str = ""

    def is_whole(self, serial: int) -> bool:
        """Whether it runs that generation, and holds all of it: it could be root."""
        return self.phase == BladePhase.UP and self.serial == self.holds == serial


@frozen(kw_only=True)
class RoomView:
    """By root, what it says of the room's blades."""

    roots: Mapping[str, Mapping[str, SeenBlade]] = field(factory=dict)

    @property
    def root(self) -> str:
        """The only root; empty where there is none, or more than one."""
        return next(iter(self.roots)) if len(self.roots) == 1 else ""

    @property
    def blades(self) -> Mapping[str, SeenBlade]:
        """What the only root says."""
        return self.roots[self.root] if self.root else {}


class Witness:
    """A witness that looks, from outside; see `watching`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.view = RoomView()
        self._has_ended = False
        threading.Thread(target=self._read, args=(stream,), name="witness", daemon=True).start()

    def look(self) -> RoomView:
        """What it saw last. Raises ClaimNotHeldError where nobody looks any more."""
        if self._has_ended:
            raise ClaimNotHeldError("whoever looked at the room has ended", "what it said is above")
        return self.view

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.view = parse_view(line)
        self._has_ended = True


@contextmanager
def watching(command: Callable[[Sequence[str]], list[Argument]], cluster_id: str) -> Iterator[Witness]:
    """Have somebody look, where `command` runs a program, until the block ends."""
    argv = command([sys.executable, "-m", "bladeroot.lab.witness", cluster_id])
    with start_process(argv, stdout=PIPE, ends_with_parent=True) as process:
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        try:
            yield Witness(process.stdout)
        finally:
            process.kill()


def render_view(view: RoomView) -> str:
    """A line for `parse_view`."""
    roots = {
        root: {
            name: [seen.phase, seen.serial, seen.holds, seen.order, seen.failure]
            for name, seen in blades.items()
        }
        for root, blades in view.roots.items()
    }
    return json.dumps(roots, sort_keys=True)


def parse_view(line: bytes) -> RoomView:
    """The inverse of `render_view`."""
    roots: dict[str, dict[str, list[Any]]] = json.loads(line)
    return RoomView(roots={root: _parse_blades(blades) for root, blades in roots.items()})


def _parse_blades(blades: Mapping[str, Sequence[Any]]) -> dict[str, SeenBlade]:
    names = ("phase", "serial", "holds", "order", "failure")
    return {name: SeenBlade(**dict(zip(names, values, strict=True))) for name, values in blades.items()}


def _ask(claim: Claim) -> dict[str, SeenBlade] | None:
    """What that root says; None where it does not answer (any more)."""
    try:
        status = read_status(RootClient(claim.host, claim.port, _ANSWER_TIMEOUT_S))
    except NetworkError:
        return None
    if status.claim.blade != claim.blade:
        return None
    return {
        name: SeenBlade(
            phase=str(state.phase),
            serial=state.serial,
            holds=state.holds,
            order=state.order,
            failure=state.failure,
        )
        for name, state in status.blades.items()
    }


def _watch(cluster_id: str) -> Iterator[RoomView]:
    with Ear(cluster_id) as ear:
        while True:
            ear.listen(_LOOK_S)
            claims = [claim for claim in ear.heard().claims if claim.state is ClaimState.ROOT]
            said = {claim.blade: _ask(claim) for claim in claims}
            yield RoomView(roots={name: blades for name, blades in said.items() if blades is not None})


def main(argv: Sequence[str]) -> None:
    """Look until it is killed."""
    before = ""
    for view in _watch(argv[0]):
        line = render_view(view)
        if line != before:
            before = line
            print(line, flush=True)  # noqa: T201 - what this program is for


if __name__ == "__main__":
    main(sys.argv[1:])
