"""The scenario `split`: a network in two halves has two roots, and one again when it is joined."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.cluster import MIB
from bladeroot.errors import ClaimNotHeldError, UsageError
from bladeroot.events import Event, Note, Reporter, StepFinished
from bladeroot.lab.smallcluster import SmallClusterOptions, prepare_small_cluster
from bladeroot.lab.stage import Stage, open_stage
from bladeroot.ops.steps import step

PHASES = ("publish", "install", "split", "publish-half", "join", "twins", "settle")
_INSTALL_TIMEOUT_S = 600.0
_ROOT_TIMEOUT_S = 180.0
_FEWEST = 2


@frozen(kw_only=True)
class SplitOptions:
    """What is tried."""

    blades: int = 4
    bulk_bytes: int = 8 * MIB


@frozen(kw_only=True)
class SplitReport:
    """What the scenario saw. Times are wall seconds, from what was done to what came of it."""

    blades: tuple[str, ...]
    halves: tuple[tuple[str, ...], tuple[str, ...]]
    root_before: str
    second_root: str
    """Who became root of the half without one."""
    last_root: str
    second_root_s: float
    one_root_s: float
    """From the join until one of the two had retired."""
    spread_s: float
    """From the join until every depot had the generation that one half had published."""
    twins_said: tuple[str, ...]
    """What was said of two different generations with one serial."""
    settled_s: float
    """From the generation after them until every depot had it."""
    phases_s: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return attrs.asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{len(self.blades)} blades, {sum(self.phases_s.values()):.0f} s in all:"]
        lines += [f"  {name:12} {seconds:6.1f} s" for name, seconds in self.phases_s.items()]
        lines += [
            f"split from {self.root_before}, {self.second_root} was root {self.second_root_s:.1f} s later",
            f"joined, one root was left after {self.one_root_s:.1f} s, and the generation that one half had "
            f"published was everywhere after {self.spread_s:.1f} s",
            *self.twins_said,
            f"the one after them was everywhere after {self.settled_s:.1f} s; root is {self.last_root}",
        ]
        return lines


def run_split(work: Path, options: SplitOptions, reporter: Reporter) -> SplitReport:
    """The whole way, in an empty folder. Raises ClaimNotHeldError unless all of it came true."""
    if options.blades < _FEWEST:
        raise UsageError("one blade cannot be split", f"take {_FEWEST} or more")
    phases: dict[str, float] = {}

    def report(event: Event) -> None:
        if isinstance(event, StepFinished) and not event.subject and event.step in PHASES:
            phases[event.step] = event.duration_s
        reporter(event)

    with step("publish", "Make a cluster, and publish a small system", report):
        small = SmallClusterOptions(blades=options.blades, bulk_bytes=options.bulk_bytes)
        cluster = prepare_small_cluster(work, small)
    with open_stage(cluster, work, report) as stage:
        scenario = _Split(stage, report)
        found = scenario.run()
    return SplitReport(
        blades=tuple(cluster.blades),
        halves=(tuple(scenario.near), tuple(scenario.far)),
        phases_s=phases,
        **found,
    )


class _Split:
    """One run; see `run_split`."""

    def __init__(self, stage: Stage, reporter: Reporter) -> None:
        self.stage = stage
        self.watch = stage.watch
        self.report = reporter
        self.near: list[str] = []
        """The half that keeps the root."""
        self.far: list[str] = []

    def run(self) -> dict[str, Any]:
        """All phases; what is to be reported of them."""
        stage, watch, names = self.stage, self.watch, self.stage.cluster.blades
        found: dict[str, Any] = {}
        with step("install", f"Install {len(names)} blades, until one of them is root", self.report):
            stage.install_from_operator(names, 1, _INSTALL_TIMEOUT_S)
            root = found["root_before"] = watch.wait_for_root(None, _ROOT_TIMEOUT_S).blade
            others = [name for name in names if name != root]
            self.near = [root, *others[: (len(names) - 1) // 2]]
            self.far = [name for name in names if name not in self.near]
        with step("split", "Split the network in two halves", self.report):
            second, found["second_root_s"] = self._split()
            found["second_root"] = second
        with step("publish-half", f"Publish a new generation on {second}", self.report):
            serial = stage.publish_on(second, "published in one half")
            stage.wait_until_held(self.far, serial, _INSTALL_TIMEOUT_S)
            self._check_without(self.near, serial)
        with step("join", "Join the halves", self.report):
            found["one_root_s"], found["spread_s"] = self._join(serial)
        with step("twins", "Split again, and publish two different generations with one serial", self.report):
            found["twins_said"] = tuple(self._make_twins(serial + 1))
        with step("settle", "Publish the one that is meant", self.report):
            found["last_root"], found["settled_s"] = self._settle(serial + 2)
        return found

    def _split(self) -> tuple[str, float]:
        at_s = time.monotonic()
        self.stage.network.split(self.near, self.far)
        # The half that is not this one keeps its root, whichever the two are the second time.
        reigns = [self.watch.wait_for_root(half, _ROOT_TIMEOUT_S) for half in (self.near, self.far)]
        newest = max(reigns, key=lambda one: one.since_s)
        took_s = round(max(0.0, newest.since_s - at_s), 2)
        self.report(Note(text=f"{newest.blade} is root of the other half after {took_s:.1f} s"))
        return newest.blade, took_s

    def _join(self, serial: int) -> tuple[float, float]:
        at_s = time.monotonic()
        self.stage.network.join()
        root = self.watch.wait_for_root(None, _ROOT_TIMEOUT_S)
        one_root_s = round(time.monotonic() - at_s, 2)
        self.report(Note(text=f"{root.blade} is the only root after {one_root_s:.1f} s"))
        self.stage.wait_until_held(self.stage.cluster.blades, serial, _INSTALL_TIMEOUT_S)
        return one_root_s, round(time.monotonic() - at_s, 2)

    def _make_twins(self, serial: int) -> list[str]:
        """Returns what was said of them when they met."""
        self._split()
        roots = [self.watch.wait_for_root(half, _ROOT_TIMEOUT_S).blade for half in (self.near, self.far)]
        for root in roots:
            if self.stage.publish_on(root, f"meant by {root}") != serial:
                raise ClaimNotHeldError(f"what was published on {root} is not generation {serial}")
        for half in (self.near, self.far):
            self.stage.wait_until_held(half, serial, _INSTALL_TIMEOUT_S)
        before = self._read_hashes(serial)
        self.stage.network.join()
        text = f"two different generations {serial}"

        def look() -> list[str]:
            return sorted({warning for warning in self.watch.warnings() if text in warning})

        said = self.watch.wait(look, _ROOT_TIMEOUT_S, f"nobody speaks of {text}")
        self.watch.wait_for_root(None, _ROOT_TIMEOUT_S)
        after = self._read_hashes(serial)
        if after != before or len(set(after.values())) != len(roots):
            raise ClaimNotHeldError(f"of the {text} one was lost: {before} became {after}")
        return said

    def _settle(self, serial: int) -> tuple[str, float]:
        root = self.watch.wait_for_root(None, _ROOT_TIMEOUT_S).blade
        published = self.stage.publish_on(root, "the one that is meant")
        at_s = time.monotonic()
        if published != serial:
            raise ClaimNotHeldError(f"{published} was published after {serial - 1}")
        self.stage.wait_until_held(self.stage.cluster.blades, serial, _INSTALL_TIMEOUT_S)
        if len(set(self._read_hashes(serial).values())) != 1:
            raise ClaimNotHeldError(f"not everybody has the same generation {serial}")
        last = self.watch.wait_for_root(None, _ROOT_TIMEOUT_S).blade
        return last, round(time.monotonic() - at_s, 2)

    def _read_hashes(self, serial: int) -> dict[str, str]:
        """By blade, of that generation's manifest."""
        blades = self.stage.blades
        return {name: blades[name].held_generations().get(serial, "") for name in self.stage.cluster.blades}

    def _check_without(self, names: Collection[str], serial: int) -> None:
        with_it = [name for name in names if serial in self.stage.blades[name].held_generations()]
        if with_it:
            raise ClaimNotHeldError(f"the network is not split: {', '.join(with_it)} got {serial}")
