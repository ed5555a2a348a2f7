"""Measurements as they may come out, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Measurement

IMAGE_BYTES = 1_000_000
FLOOR_S = 10.0


def make_measurement(
    contender: str = "swarm",
    *,
    bootable_s: Sequence[float | None] = (12.0, 14.0),
    received_bytes: Sequence[int] | None = None,
    root_sent_bytes: int = 1_500_000,
    redundant_bytes: int | None = None,
) -> Measurement:
    count = len(bootable_s)
    received = tuple(received_bytes or [IMAGE_BYTES * 21 // 20] * count)
    return Measurement(
        contender=contender,
        blades=count,
        image_bytes=IMAGE_BYTES,
        floor_s=FLOOR_S,
        deadline_s=30.0,
        have_s=tuple(None if time is None else time - 1 for time in bootable_s),
        bootable_s=tuple(bootable_s),
        root_sent_bytes=root_sent_bytes,
        sent_bytes=tuple(range(100, 100 + count)),
        received_bytes=received,
        root_cpu_s=1.0,
        blades_cpu_s=3.0,
        machine_busy_s=6.0,
        cores=2,
        wall_s=30.0 if None in bootable_s else 14.0,
        load_before=0.0,
        told=() if redundant_bytes is None else ({"redundant_bytes": redundant_bytes},) * count,
    )
