"""The scenario `takeover`: the root dies in mid-swarm, again and again, and all finish."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.cluster import MIB, Takeover
from bladeroot.core.roomstate import BladePhase
from bladeroot.errors import ClaimNotHeldError, UsageError
from bladeroot.events import Event, Note, Reporter, StepFinished
from bladeroot.lab.roomwatch import Reign
from bladeroot.lab.smallcluster import SmallClusterOptions, prepare_small_cluster
from bladeroot.lab.stage import Stage, open_stage
from bladeroot.ops.steps import step

PHASES = ("publish", "standbys", "swarm", "finish", "heard")
_STANDBYS = 2
_SLOW = 4
_FULL_BITS = 10_000_000_000
_INSTALL_TIMEOUT_S = 600.0
_ROOT_TIMEOUT_S = 180.0
_STATUS_PAUSE_S = 3.0


@frozen(kw_only=True)
class TakeoverOptions:
    """What is tried. `seed` draws how far the swarm is at each death."""

    blades: int = 12
    kills: int = 3
    seed: int
    bulk_bytes: int = 40 * MIB
    link_bits: int = 16_000_000
    """What each link carries while the swarm lasts, so that it has a middle."""
    manual: bool = False
    """Nobody may take over: the root dies once, and there is none until a person promotes one."""


@frozen(kw_only=True)
class Death:
    """A root's power was cut. `fetched` is how much of the runtime the installing blades had then."""

    blade: str
    fetched: float
    next_root: str = ""
    takeover_s: float = 0.0
    """Until the next root served; with `manual` there is none."""


@frozen(kw_only=True)
class TakeoverReport:
    """What the scenario saw. Times are wall seconds."""

    seed: int
    blades: tuple[str, ...]
    deaths: tuple[Death, ...]
    last_root: str
    phases_s: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return attrs.asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{len(self.blades)} blades, {sum(self.phases_s.values()):.0f} s in all (seed {self.seed}):"]
        lines += [f"  {name:10} {seconds:6.1f} s" for name, seconds in self.phases_s.items()]
        for death in self.deaths:
            after = (
                f"{death.next_root} served {death.takeover_s:.1f} s later" if death.next_root else "no next"
            )
            lines.append(f"root {death.blade} died with {death.fetched:.0%} of the swarm done: {after}")
        lines.append(f"all run generation 1, and {self.last_root} as root has heard it from each")
        return lines


def run_takeover(work: Path, options: TakeoverOptions, reporter: Reporter) -> TakeoverReport:
    """The whole way, in an empty folder. Raises ClaimNotHeldError unless every blade got there."""
    if options.blades <= _STANDBYS:
        raise UsageError(f"{options.blades} blades are too few", f"{_STANDBYS} are there before the others")
    phases: dict[str, float] = {}

    def report(event: Event) -> None:
        if isinstance(event, StepFinished) and not event.subject and event.step in PHASES:
            phases[event.step] = event.duration_s
        reporter(event)

    takeover = Takeover.MANUAL if options.manual else Takeover.AUTO
    small = SmallClusterOptions(blades=options.blades, bulk_bytes=options.bulk_bytes, takeover=takeover)
    with step("publish", "Make a cluster, and publish a small system", report):
        cluster = prepare_small_cluster(work, small)
    with open_stage(cluster, work, report) as stage:
        scenario = _Takeover(stage, options, report)
        scenario.run()
    return TakeoverReport(
        seed=options.seed,
        blades=tuple(cluster.blades),
        deaths=tuple(scenario.deaths),
        last_root=scenario.last_root,
        phases_s=phases,
    )


class _Takeover:
    """One run; see `run_takeover`."""

    def __init__(self, stage: Stage, options: TakeoverOptions, reporter: Reporter) -> None:
        names = stage.cluster.blades
        self.stage = stage
        self.options = options
        self.report = reporter
        self.standbys, self.others = names[:_STANDBYS], names[_STANDBYS:]
        self.chance = random.Random(options.seed)  # noqa: S311 - when to kill is no secret
        self.deaths: list[Death] = []
        self.last_root = ""

    def run(self) -> None:
        """All phases."""
        stage, watch = self.stage, self.stage.watch
        with step("standbys", f"Install {_STANDBYS} blades that can be root", self.report):
            stage.install_from_operator(self.standbys, 1, _INSTALL_TIMEOUT_S)
            if self.options.manual:
                self.stage.promote(self.standbys[0], _ROOT_TIMEOUT_S)
            watch.wait_for_root(None, _ROOT_TIMEOUT_S)
        with step("swarm", f"Switch {len(self.others)} more on, and kill the root", self.report):
            self._set_links(self.options.link_bits)
            if self.options.manual:  # somebody has to be behind when the first copy is out
                stage.network.shape(self.others[-1], self.options.link_bits // _SLOW)
            for name in self.others:
                stage.blades[name].power_on()
            if self.options.manual:
                self._kill_when_one_copy_is_out()
            else:
                for wanted in self._draw_moments():
                    self._kill_at(wanted)
        with step("finish", "Let all finish", self.report):
            if not self.options.manual:
                self._set_links(_FULL_BITS)
            stage.wait_until_up(self.others, 1, _INSTALL_TIMEOUT_S)
        with step("heard", "Ask the last root what it has heard", self.report):
            if self.options.manual:
                self._return_and_promote()
            self.last_root = watch.wait_for_root(None, _ROOT_TIMEOUT_S).blade
            self._wait_until_heard(stage.cluster.blades)

    def _draw_moments(self) -> list[float]:
        """How much of the swarm is done at each death: one in each part of its middle."""
        count = self.options.kills
        return [0.05 + 0.8 * (number + self.chance.random()) / count for number in range(count)]

    def _kill_at(self, wanted: float) -> None:
        watch = self.stage.watch
        watch.wait(lambda: watch.fetched(self.others) >= wanted, _INSTALL_TIMEOUT_S, "the swarm stands still")
        root = watch.wait_for_root(None, _ROOT_TIMEOUT_S)
        death, at_s = self._kill(root)
        following = watch.wait_for_root(None, _ROOT_TIMEOUT_S)
        took_s = following.since_s - at_s
        self.deaths.append(attrs.evolve(death, next_root=following.blade, takeover_s=round(took_s, 2)))
        self.report(Note(text=f"{following.blade} serves {took_s:.1f} s after the death of {root.blade}"))
        self.stage.blades[root.blade].power_on()

    def _kill(self, root: Reign) -> tuple[Death, float]:
        fetched = self.stage.watch.fetched(self.others)
        if fetched >= 1:
            raise ClaimNotHeldError("the swarm was done before the root was killed", "take slower links")
        at_s = self.stage.cut_power(root.blade)
        self.report(Note(text=f"power of root {root.blade} is cut; {fetched:.0%} of the swarm is done"))
        return Death(blade=root.blade, fetched=round(fetched, 3)), at_s

    def _kill_when_one_copy_is_out(self) -> None:
        """A copy is out when one of the blades holds all of the generation: it gives that to the others."""
        stage = self.stage
        stage.watch.wait(
            lambda: any(1 in stage.blades[name].held_generations() for name in self.others),
            _INSTALL_TIMEOUT_S,
            "no copy is out",
        )
        root = stage.watch.wait_for_root(None, _ROOT_TIMEOUT_S)
        for name in self.standbys:
            if name != root.blade:
                stage.cut_power(name)
        self.deaths.append(self._kill(root)[0])

    def _return_and_promote(self) -> None:
        if roots := self.stage.watch.reigns():
            raise ClaimNotHeldError(f"{roots[0].blade} took the root role, which was forbidden")
        for name in self.standbys:
            self.stage.blades[name].power_on()
        self.stage.wait_until_up(self.standbys, 1, _INSTALL_TIMEOUT_S)
        self.stage.promote(self.standbys[-1], _ROOT_TIMEOUT_S)

    def _set_links(self, bits: int) -> None:
        for name in self.stage.blades:
            self.stage.network.shape(name, bits)

    def _wait_until_heard(self, names: Sequence[str]) -> None:
        """Until the root's own status says that each is up."""
        deadline = time.monotonic() + _ROOT_TIMEOUT_S
        while True:
            told = self.stage.run_as_operator("status", root=self.last_root)["blades"]
            missing = [name for name in names if not _is_up(told.get(name))]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise ClaimNotHeldError(f"{self.last_root} has not heard of {', '.join(missing)}")
            time.sleep(_STATUS_PAUSE_S)


def _is_up(state: Mapping[str, Any] | None) -> bool:
    return state is not None and state["phase"] == BladePhase.UP and state["serial"] == 1
