"""The scenario `soak`: power cuts, reimages, new generations and splits at random, and a calm end."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.cluster import MIB
from bladeroot.errors import ClaimNotHeldError, UsageError
from bladeroot.events import Event, Note, Reporter, StepFinished
from bladeroot.lab.roomwatch import Reign
from bladeroot.lab.smallcluster import SmallClusterOptions, prepare_small_cluster
from bladeroot.lab.stage import Stage, open_stage
from bladeroot.ops.steps import step

PHASES = ("publish", "install", "trouble", "calm")
_INSTALL_TIMEOUT_S = 900.0
_ROOT_TIMEOUT_S = 300.0
_FEWEST = 3
_PAUSES_S = (1.0, 6.0)
_MOST_CUTS = 2
"""So often a blade is cut off before it was up again: the tries of one install are capped, and rightly so."""
_AWAY_EVENTS = (1, 3)
"""For so many further events a blade stays off."""


@frozen(kw_only=True)
class SoakOptions:
    """What is tried, for how long; `seed` draws what happens."""

    blades: int = 12
    seconds: float = 180.0
    seed: int
    bulk_bytes: int = 8 * MIB


@frozen(kw_only=True)
class SoakReport:
    """What the scenario saw. Times are wall seconds."""

    seed: int
    blades: tuple[str, ...]
    happened: Mapping[str, int]
    """How often what was done to the room."""
    disks_looked_at: int
    serial: int
    """What all run in the end."""
    last_root: str
    phases_s: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return attrs.asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{len(self.blades)} blades, {sum(self.phases_s.values()):.0f} s in all (seed {self.seed}):"]
        lines += [f"  {name:10} {seconds:6.1f} s" for name, seconds in self.phases_s.items()]
        lines += [f"  {count:4} {what}" for what, count in sorted(self.happened.items())]
        lines += [
            f"{self.disks_looked_at} looks at a disk: each had a system that boots, or an agent",
            f"in the end all run generation {self.serial}, and {self.last_root} is the only root",
        ]
        return lines


def run_soak(work: Path, options: SoakOptions, reporter: Reporter) -> SoakReport:
    """The whole way, in an empty folder. Raises ClaimNotHeldError unless its claims held throughout."""
    if options.blades < _FEWEST:
        raise UsageError(f"{options.blades} blades are too few", f"take {_FEWEST} or more")
    phases: dict[str, float] = {}

    def report(event: Event) -> None:
        if isinstance(event, StepFinished) and not event.subject and event.step in PHASES:
            phases[event.step] = event.duration_s
        reporter(event)

    with step("publish", "Make a cluster, and publish a small system", report):
        small = SmallClusterOptions(blades=options.blades, bulk_bytes=options.bulk_bytes)
        cluster = prepare_small_cluster(work, small)
    with open_stage(cluster, work, report) as stage:
        scenario = _Soak(stage, options, report)
        scenario.run()
    return SoakReport(
        seed=options.seed,
        blades=tuple(cluster.blades),
        happened=dict(scenario.happened),
        disks_looked_at=scenario.looked,
        serial=scenario.serial,
        last_root=scenario.last_root,
        phases_s=phases,
    )


class _Soak:
    """One run; see `run_soak`."""

    def __init__(self, stage: Stage, options: SoakOptions, reporter: Reporter) -> None:
        self.stage = stage
        self.watch = stage.watch
        self.names = stage.cluster.blades
        self.options = options
        self.report = reporter
        self.chance = random.Random(options.seed)  # noqa: S311 - what happens is no secret
        self.happened: Counter[str] = Counter()
        self.looked = 0
        self.serial = 1
        self.last_root = ""
        self._is_split = False
        self._near = list(self.names)
        """Who the operator reaches."""
        self._away: dict[str, int] = {}
        """Who is off, and for how many more events."""
        self._cuts: Counter[str] = Counter()

    def run(self) -> None:
        """All phases."""
        with step("install", f"Install {len(self.names)} blades, until one of them is root", self.report):
            self.stage.install_from_operator(self.names, 1, _INSTALL_TIMEOUT_S)
            self.watch.wait_for_root(None, _ROOT_TIMEOUT_S)
        with step("trouble", f"Trouble for {self.options.seconds:.0f} s", self.report):
            deadline = time.monotonic() + self.options.seconds
            while time.monotonic() < deadline:
                self._return_some()
                self._choose_trouble()()
                self._look_at_disks()
                time.sleep(self.chance.uniform(*_PAUSES_S))
        with step("calm", "Leave it alone, and bring all to one generation", self.report):
            self._calm_down()

    def _choose_trouble(self) -> Callable[[], None]:
        kinds = [self._cut, self._cut, self._cut_root, self._reimage, self._publish, self._toggle_split]
        return self.chance.choice(kinds)

    def _note(self, what: str, text: str) -> None:
        self.happened[what] += 1
        self.report(Note(text=text))

    # What happens to the room

    def _cut(self) -> None:
        able = [name for name in self.names if name not in self._away and self._may_be_cut(name)]
        count = self.chance.randint(1, max(1, len(self.names) // 4))
        for name in self.chance.sample(able, min(count, len(able))):
            self._cut_one(name, "power cuts")

    def _cut_root(self) -> None:
        if (root := self._find_root()) is not None and self._may_be_cut(root.blade):
            self._cut_one(root.blade, "power cuts of a root")

    def _cut_one(self, name: str, what: str) -> None:
        runs = self.stage.blades[name].serial
        self._cuts[name] += 1
        self._away[name] = self.chance.randint(*_AWAY_EVENTS)
        self.stage.cut_power(name)
        self._note(what, f"power of {name} is cut" + ("" if runs else ", in mid-install"))
        if not runs:
            self.happened["power cuts in the agent"] += 1

    def _may_be_cut(self, name: str) -> bool:
        if self.stage.blades[name].serial:
            self._cuts[name] = 0
        return self._cuts[name] < _MOST_CUTS

    def _return_some(self) -> None:
        for name in list(self._away):
            self._away[name] -= 1
            if self._away[name] <= 0:
                self._return(name)

    def _return(self, name: str) -> None:
        del self._away[name]
        self.stage.blades[name].power_on()
        self.report(Note(text=f"{name} is switched on"))

    def _reimage(self) -> None:
        root = self._find_root()
        others = [name for name in self.names if root is not None and name != root.blade]
        if root is None or not others:
            return
        chosen = self.chance.sample(others, self.chance.randint(1, max(1, len(others) // 3)))
        try:
            number = self.stage.reimage(chosen, root.blade)["number"]
        except ClaimNotHeldError as error:
            # The root may be about to retire; nobody promised that an order reaches it then.
            self._note("orders that no root took", str(error))
            return
        self._note("reimages", f"order {number} from root {root.blade}: {', '.join(sorted(chosen))}")

    def _publish(self) -> None:
        if (root := self._find_root()) is None:
            return
        try:
            serial = self.stage.publish_on(root.blade, f"trouble {sum(self.happened.values())}")
        except ClaimNotHeldError as error:
            self._note("generations that were not published", str(error))
            return
        self._note("generations published", f"generation {serial} is published on {root.blade}")
        self._reimage()

    def _toggle_split(self) -> None:
        if self._is_split:
            self._join()
            return
        near = self.chance.sample(self.names, len(self.names) // 2)
        self.stage.network.split(near, [name for name in self.names if name not in near])
        self._is_split, self._near = True, near
        self._note("splits", f"the network is split: {', '.join(sorted(near))} are with the operator")

    def _join(self) -> None:
        self.stage.network.join()
        self._is_split, self._near = False, list(self.names)
        self._note("joins", "the network is joined")

    def _find_root(self) -> Reign | None:
        """The one that the operator reaches; None while there is none, or more than one."""
        found = self.watch.reigns(self._near)
        return found[0] if len(found) == 1 else None

    # What must be true

    def _look_at_disks(self) -> None:
        if wrong := self.stage.check_disks() + self.watch.held():
            raise ClaimNotHeldError(
                "; ".join(wrong), f"logs: {self.stage.log_folder} (seed {self.options.seed})"
            )
        self.looked += len(self.names)

    def _calm_down(self) -> None:
        if self._is_split:
            self._join()
        for name in list(self._away):
            self._return(name)
        self.watch.wait(self._is_all_up, _INSTALL_TIMEOUT_S, "not all are up")
        root = self.watch.wait_for_root(None, _ROOT_TIMEOUT_S).blade
        self.watch.wait(lambda: self._knows_newest(root), _INSTALL_TIMEOUT_S, f"{root} lacks the newest")
        self.serial = self.stage.publish_on(root, "calm")
        self._note("generations published", f"generation {self.serial} is published on {root}, the last one")
        others = [name for name in self.names if name != root]
        self.stage.wait_until_held([root], self.serial, _INSTALL_TIMEOUT_S)
        self.watch.wait(lambda: self._serves(root), _ROOT_TIMEOUT_S, f"{root} does not serve {self.serial}")
        self.stage.reimage(others, root)
        self.stage.wait_until_up(others, self.serial, _INSTALL_TIMEOUT_S)
        self.stage.wait_until_held(others, self.serial, _INSTALL_TIMEOUT_S)
        self._look_at_disks()
        self.stage.promote(others[0], _ROOT_TIMEOUT_S)
        self.watch.wait(lambda: self._is_only_root(others[0]), _ROOT_TIMEOUT_S, f"{others[0]} is not root")
        self.stage.reimage([root], others[0])
        self.stage.wait_until_up(self.names, self.serial, _INSTALL_TIMEOUT_S)
        self.last_root = self.watch.wait_for_root(None, _ROOT_TIMEOUT_S).blade
        self._look_at_disks()

    def _is_all_up(self) -> bool:
        return all(self.stage.blades[name].serial for name in self.names)

    def _knows_newest(self, root: str) -> bool:
        newest = max(max(self.stage.blades[name].held_generations(), default=0) for name in self.names)
        return newest in self.stage.blades[root].held_generations()

    def _serves(self, root: str) -> bool:
        """An order goes by what the root says that it holds."""
        return self.serial in self.stage.run_as_operator("status", root=root)["generations"]

    def _is_only_root(self, name: str) -> bool:
        return [one.blade for one in self.watch.reigns()] == [name]
