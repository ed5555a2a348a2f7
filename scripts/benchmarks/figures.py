"""What was measured, and what it comes to. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True)
class Measurement:
    """One tool, one room, once. Times are seconds since all blades were let go; None: not before the end."""

    contender: str
    blades: int
    image_bytes: int
    floor_s: float
    """One link's time for the image."""
    deadline_s: float
    have_s: tuple[float | None, ...]
    bootable_s: tuple[float | None, ...]
    root_sent_bytes: int
    """What links carried, headers and all."""
    sent_bytes: tuple[int, ...]
    received_bytes: tuple[int, ...]
    root_cpu_s: float
    blades_cpu_s: float
    machine_busy_s: float
    """Seconds of all cores that were not idle meanwhile, whoever used them."""
    cores: int
    wall_s: float
    load_before: float
    told: tuple[Mapping[str, Any], ...] = field(factory=tuple)
    """What the tool's members say themselves, where they do."""

    @property
    def is_whole(self) -> bool:
        """Whether every blade became bootable."""
        return None not in self.bootable_s

    @property
    def copies(self) -> float:
        """How many times the image left the root."""
        return self.root_sent_bytes / self.image_bytes

    @property
    def most_copies(self) -> float:
        """... and the blade that gave most."""
        return max(self.sent_bytes) / self.image_bytes

    @property
    def redundant(self) -> float | None:
        """What the blades received beyond the image, as a share of it; headers are part of that."""
        if not self.is_whole:
            return None
        return sum(self.received_bytes) / (self.image_bytes * self.blades) - 1

    @property
    def told_redundant(self) -> float | None:
        """Payload that came twice, as a share of the image, where the tool says so."""
        known = [int(one["redundant_bytes"]) for one in self.told if "redundant_bytes" in one]
        return sum(known) / (self.image_bytes * len(known)) if known else None

    def arrived(self, expected_bytes: float) -> float:
        """Which part of all that was to come had come at the end; so many bytes were to come to a blade."""
        shares = [
            1.0 if done is not None else min(received / expected_bytes, 1.0)
            for received, done in zip(self.received_bytes, self.have_s, strict=True)
        ]
        return statistics.mean(shares)

    def estimate_s(self, expected_bytes: float) -> float:
        """When the last blade is bootable; extrapolated in a straight line where it was not by the end."""
        if self.is_whole:
            return max_time(self.bootable_s)
        arrived = self.arrived(expected_bytes)
        return self.wall_s / arrived if arrived else math.inf


def max_time(times: Iterable[float | None]) -> float:
    """The last; infinite if one never came."""
    return max(math.inf if time is None else time for time in times)


def median_time(times: Iterable[float | None]) -> float:
    """The one in the middle; infinite if that never came."""
    return statistics.median_low([math.inf if time is None else time for time in times])


@frozen
class Spread:
    """The median of some runs, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@frozen(kw_only=True)
class Summary:
    """All runs of one tool in rooms of one size."""

    contender: str
    blades: int
    runs: int
    is_whole: bool
    """Whether all blades of all runs became bootable."""
    floor_s: float
    deadline_s: float
    arrived: float
    """Which part of the images had come when time was up."""
    have_median_s: Spread
    have_last_s: Spread
    bootable_median_s: Spread
    bootable_last_s: Spread
    estimate_s: Spread
    floors: float
    """The last blade has the image ÷ one link's time for it."""
    copies: Spread
    most_copies: float
    redundant: float | None
    told_redundant: float | None
    cpu_s: Spread
    root_cpu_s: float
    cores_busy: float
    """Of the machine, meanwhile."""


def summarise(measurements: Sequence[Measurement]) -> list[Summary]:
    """One for each tool and size, in the order that they were first measured."""
    groups: dict[tuple[str, int], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.contender, one.blades), []).append(one)
    return [
        _summarise_group(group, expected_bytes(group[0].contender, measurements)) for group in groups.values()
    ]


def expected_bytes(contender: str, measurements: Sequence[Measurement]) -> float:
    """What a blade receives with that tool until it has the image: as much as in rooms where all had it."""
    received = [
        statistics.mean(one.received_bytes)
        for one in measurements
        if one.contender == contender and one.is_whole
    ]
    return statistics.median(received) if received else measurements[0].image_bytes


def _summarise_group(group: Sequence[Measurement], expected: float) -> Summary:
    def spread(value: Callable[[Measurement], float]) -> Spread:
        return Spread.of([value(one) for one in group])

    def median(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    first = group[0]
    have_last_s = spread(lambda one: max_time(one.have_s))
    return Summary(
        contender=first.contender,
        blades=first.blades,
        runs=len(group),
        is_whole=all(one.is_whole for one in group),
        floor_s=first.floor_s,
        deadline_s=first.deadline_s,
        arrived=statistics.median(one.arrived(expected) for one in group),
        have_median_s=spread(lambda one: median_time(one.have_s)),
        have_last_s=have_last_s,
        bootable_median_s=spread(lambda one: median_time(one.bootable_s)),
        bootable_last_s=spread(lambda one: max_time(one.bootable_s)),
        estimate_s=spread(lambda one: one.estimate_s(expected)),
        floors=have_last_s.median / first.floor_s,
        copies=spread(lambda one: one.copies),
        most_copies=statistics.median(one.most_copies for one in group),
        redundant=median(one.redundant for one in group),
        told_redundant=median(one.told_redundant for one in group),
        cpu_s=spread(lambda one: one.root_cpu_s + one.blades_cpu_s),
        root_cpu_s=statistics.median(one.root_cpu_s for one in group),
        cores_busy=statistics.median(one.machine_busy_s / one.wall_s for one in group),
    )
