"""A room of role machines without machines: each blade does around its machine what a daemon does.

It announces what its role says, asks roots whether they live, reports to its root, pulls what is newer, and
steps the machine when something is heard or a wait is over. The air between them is in simair.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import attrs
from attrs import define

from bladeroot.core.claims import Claim
from bladeroot.core.takeover import (
    CANDIDATE_LASTS_S,
    Answers,
    Role,
    RoleState,
    Sighting,
    View,
    Wish,
    find_followed,
    is_challenged,
    step_role,
)
from tests.simair import LIBRARY, Air, Heard, SimAir, SimBlade

CLUSTER_ID = "0123456789abcdef" * 2
FAST_RANKS = 3
"""So many of the order of succession ask their root often."""
_TRIES = 3


@define(eq=False)
class SimRoom(SimAir):
    """The room, and what was counted in it."""

    changes: list[tuple[float, str, Role]] = attrs.field(factory=list)
    """Of roles: when, whose, to what."""
    most_candidates: int = 0
    most_roots: int = 0
    lowered: list[str] = attrs.field(factory=list)
    """Blades whose serial went down."""
    conflicts: set[tuple[int, str, str]] = attrs.field(factory=set)
    """Serials that somebody saw two manifests of."""

    # What a test does

    def add(
        self, name: str, *, rank: int, serial: int = 1, manifest: str = "a" * 16, **state: Any
    ) -> SimBlade:
        initial = RoleState(blade=name, rank=rank, **state)
        depot = {(serial, manifest)} if serial else set()
        rate = 1 + self.random.uniform(-0.02, 0.02)
        offset_s = self.random.uniform(0, 1e6)
        blade = SimBlade(name, initial, rate, offset_s, depot, initial)
        self.blades[name] = blade
        return blade

    def start(self, blade: SimBlade) -> None:
        if blade.is_up:
            return
        blade.is_up, blade.life = True, blade.life + 1
        blade.state, blade.heard, blade.said, blade.is_public = blade.initial, {}, None, False
        blade.pulling, blade.is_asking_again, blade.has_answer_pending = None, False, False
        self.browse(blade)
        self.later(blade, self._round_s(blade), self._ask_round, blade)
        self._step(blade)

    def stop(self, blade: SimBlade) -> None:
        """Its power is cut: no goodbye."""
        blade.is_up, blade.life = False, blade.life + 1
        blade.saying += 1

    def wish(self, blade: SimBlade, wish: Wish) -> None:
        if blade.is_up:
            self._step(blade, wish)

    def publish(self, blade: SimBlade, serial: int, manifest: str) -> None:
        """A person puts a new generation into its depot."""
        if blade.is_up and serial > blade.best[0]:
            self._take_in(blade, (serial, manifest))

    def up(self, segment: int | None = None) -> list[SimBlade]:
        return [one for one in self.blades.values() if one.is_up and segment in (None, one.segment)]

    def roots(self, segment: int | None = None) -> list[SimBlade]:
        return [one for one in self.up(segment) if one.role is Role.ROOT]

    @property
    def root(self) -> SimBlade:
        """The only one."""
        (root,) = self.roots()
        return root

    def followed(self, blade: SimBlade) -> str | None:
        followed = find_followed(blade.state, self._view(blade))
        return followed.claim.blade if followed else None

    # The role machine, and what follows from it

    def notice(self, blade: SimBlade, name: str) -> None:
        heard = blade.heard.get(name)
        if heard is not None:
            self._pull_if_newer(blade, name, (heard.claim.serial, heard.claim.manifest_hash))
            self.later(blade, CANDIDATE_LASTS_S / blade.rate + 0.01, self._step, blade)
        self._step(blade)
        if heard is not None and blade.role is Role.ROOT and heard.claim.state == "root":
            self._ask(blade, name, heard)

    def _view(self, blade: SimBlade, wish: Wish = Wish.NONE) -> View:
        sightings = tuple(
            Sighting(claim=one.claim, answers=one.answers, age_s=blade.rate * (self.now_s - one.since_s))
            for one in blade.heard.values()
        )
        return View(
            now_s=blade.local(self.now_s),
            chance=self.random.random(),
            serial=blade.best[0],
            sightings=sightings,
            wish=wish,
        )

    def _step(self, blade: SimBlade, wish: Wish = Wish.NONE) -> None:
        view = self._view(blade, wish)
        before, blade.state = blade.state, step_role(blade.state, view)
        if blade.role is not before.role:
            self.changes.append((self.now_s, blade.name, blade.role))
            roles = Counter(one.role for one in self.blades.values() if one.is_up)
            self.most_candidates = max(self.most_candidates, roles[Role.CANDIDATE])
            self.most_roots = max(self.most_roots, roles[Role.ROOT])
        self.say(blade, self._claim(blade))
        if is_challenged(blade.state, view):
            self._object(blade)
        until_s = blade.state.until_s
        if until_s is not None and until_s != before.until_s:
            wait_s = (until_s - view.now_s) / blade.rate + 1e-6
            self.later(blade, max(0.0, wait_s), self._wake, blade, until_s)
        if until_s is not None and not blade.is_asking_again:
            blade.is_asking_again = True
            self.later(blade, 1.0, self._ask_again, blade)

    def _wake(self, blade: SimBlade, until_s: float) -> None:
        if blade.state.until_s == until_s:
            self._step(blade)

    def _object(self, blade: SimBlade) -> None:
        if blade.is_public and self.now_s - blade.objected_s >= 2.0:
            blade.objected_s = self.now_s
            self.announce(blade)

    def _take_in(self, blade: SimBlade, generation: tuple[int, str]) -> None:
        before = blade.best[0]
        blade.depot.add(generation)
        if blade.best[0] < before or generation[0] < before:
            self.lowered.append(blade.name)
        self._step(blade)

    def _claim(self, blade: SimBlade) -> Claim | None:
        state = blade.state.announces
        if state is None:
            return None
        serial, manifest = blade.best
        said = blade.said
        same = (state, blade.state.epoch, serial, manifest)
        if said and same == (said.state, said.epoch, said.serial, said.manifest_hash):
            return said
        return Claim(
            cluster_id=CLUSTER_ID,
            epoch=blade.state.epoch,
            serial=serial,
            manifest_hash=manifest,
            state=state,
            priority=blade.state.priority,
            blade=blade.name,
            host="10.0.0.1",
            port=7474,
        )

    # Asking whether a root lives; reporting to it; pulling

    def _round_s(self, blade: SimBlade) -> float:
        if blade.role is Role.ROOT:
            return 5.0
        return 2.0 if blade.state.rank < FAST_RANKS else self.random.uniform(15, 30)

    def _ask_round(self, blade: SimBlade) -> None:
        followed = self.followed(blade)
        for name, heard in list(blade.heard.items()):
            is_wanted = blade.role is Role.ROOT or name == followed or heard.answers is Answers.SILENT
            if is_wanted and heard.claim.state == "root":
                self._ask(blade, name, heard)
        self.later(blade, self._round_s(blade), self._ask_round, blade)

    def _ask_again(self, blade: SimBlade) -> None:
        """Who is about to be root asks once more, and often, whether the old one is really dead."""
        blade.is_asking_again = blade.state.until_s is not None
        if blade.is_asking_again:
            for name, heard in list(blade.heard.items()):
                if heard.answers is Answers.SILENT and heard.claim.state == "root":
                    self._ask(blade, name, heard)
            self.later(blade, 1.0, self._ask_again, blade)

    def _ask(self, blade: SimBlade, name: str, heard: Heard, tries: int = 1) -> None:
        if blade.heard.get(name) is not heard or (heard.is_asked and tries == 1):
            return
        heard.is_asked = True
        other = self.blades[name]
        if self.in_reach(blade, [other]):
            heard.is_asked = False
            is_it = other.role is Role.ROOT and other.state.epoch == heard.claim.epoch
            self._find_out(blade, heard, Answers.PROVEN if is_it else Answers.SILENT)
            if is_it:
                self._report(blade, other)
        elif tries < _TRIES:
            self.later(blade, 1.0, self._ask, blade, name, heard, tries + 1)
        else:
            heard.is_asked = False
            self._find_out(blade, heard, Answers.SILENT)

    def _find_out(self, blade: SimBlade, heard: Heard, answers: Answers) -> None:
        if heard.answers is not answers:
            heard.answers = answers
            self._step(blade)

    def _report(self, blade: SimBlade, root: SimBlade) -> None:
        """Each tells the other what it holds."""
        self._pull_if_newer(root, blade.name, blade.best)
        self._pull_if_newer(blade, root.name, root.best)

    def _pull_if_newer(self, blade: SimBlade, source: str, wanted: tuple[int, str]) -> None:
        serial, manifest = blade.best
        if wanted[0] == serial and wanted[1] != manifest:
            self.conflicts.add((serial, min(manifest, wanted[1]), max(manifest, wanted[1])))
        if wanted[0] <= serial or (blade.pulling and blade.pulling[0] >= wanted[0]):
            return
        followed = blade.role is Role.ROOT or self.followed(blade) == source
        if followed:
            blade.pulling = wanted
            self.later(blade, self.random.uniform(1, 5), self._pull, blade, source, wanted)

    def _pull(self, blade: SimBlade, source: str, wanted: tuple[int, str]) -> None:
        blade.pulling = None
        other = self.blades[source]
        if self.in_reach(blade, [other]) and wanted in other.depot and wanted[0] > blade.best[0]:
            self._take_in(blade, wanted)


def make_room(
    random: Random,
    size: int,
    *,
    air: Air | None = None,
    dead: Sequence[int] = (),
    within_s: float = 5.0,
    **state: Any,
) -> SimRoom:
    """A room whose power comes back: all blades but the dead ranks come up within so long."""
    room = SimRoom(random, air or LIBRARY)
    for rank in range(size):
        blade = room.add(f"blade{rank:03}", rank=rank, **state)
        if rank not in dead:
            room.at(random.uniform(0, within_s), room.start, blade)
    return room
