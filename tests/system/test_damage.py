"""
What is torn, tampered with, full or cut off, by the real command.

It is found before it is used, said in one line, and made good by the next run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bladeroot.core.cluster import MIB
from bladeroot.core.manifest import ArtefactKind
from bladeroot.host.blockdev import open_disk
from bladeroot.host.depot import Depot
from bladeroot.host.run import run
from tests.system.errorbench import TIMEOUT_S, Bench, make_bench, make_own, make_toy, read_ran
from tests.system.test_install import look_into, read_slot
from tests.toycluster import DISK_SIZE_BYTES

__all__ = ["make_bench", "make_own", "make_toy"]
pytestmark = pytest.mark.system

# Torn and tampered


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(flip, ArtefactKind.RUNTIME), (Path.unlink, ArtefactKind.OVERLAYS), (cut, ArtefactKind.BOOT)],
)
def test_a_torn_artefact_never_boots(own: Bench, spoil: Callable[[Path], None], kind: ArtefactKind) -> None:
    name = {"runtime": "00001", "overlays": "web01.tar.zst", "boot": "core.img"}[kind]
    info_hash = own.toy.manifest.artefact(kind).info_hash
    path = own.toy.depot.save_path(info_hash) / kind / name
    spoil(path)
    disk = own.disk()
    ran = own.install("--disk", disk)
    assert (ran.code, str(path) in ran.error, "publish it again" in ran.error) == (21, True, True), ran.error
    assert read_slot(disk) is None
    assert (ran := own.run("generations", "verify")).code == 21, ran.error
    assert own.run("publish", own.toy.snapshot).code == 0
    assert own.run("generations", "verify").code == 0
    assert own.toy.depot.serials() == [1]
    assert own.install("--disk", disk).code == 0


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [(flip, 21, "torrent"), (cut, 21, "not a torrent file"), (Path.unlink, 22, "no artefact")],
)
def test_a_torn_torrent(own: Bench, spoil: Callable[[Path], None], code: int, said: str) -> None:
    info_hash = own.toy.manifest.artefact(ArtefactKind.RUNTIME).info_hash
    spoil(own.toy.depot.save_path(info_hash) / "torrent")
    ran = own.install("--disk", own.disk())
    assert (ran.code, said in ran.error, info_hash[:16] in ran.error) == (code, True, True), ran.error


def test_a_torn_or_tampered_manifest(own: Bench) -> None:
    path = own.toy.depot.path / "generations/1/manifest"
    whole = path.read_bytes()
    disk = own.disk()
    flip(path)
    ran = own.install("--disk", disk)
    assert (ran.code, "tampered with" in ran.error) == (20, True), ran.error
    path.write_bytes(whole[:50])
    for words in (["generations", "list"], ["generations", "prune"], ["publish", str(own.toy.snapshot)]):
        ran = own.run(*words)
        assert (ran.code, f"{path} is damaged" in ran.error) == (22, True), (words, ran.error)
    assert disk.read_bytes() == bytes(DISK_SIZE_BYTES)


def test_another_clusters_keys_and_generations(own: Bench) -> None:
    other = own.work / "other"
    key = own.work / "other.key"
    run([sys.executable, "-m", "bladeroot", "--key", key, "init", other, "--blades", "web01=web"])
    disk = own.disk()
    ran = own.install("--disk", disk, "--cluster", other)
    assert (ran.code, "does not trust" in ran.error) == (20, True), ran.error
    for trusted in (own.toy.folder.path / "keys/trusted").glob("*.pub"):
        shutil.copy2(trusted, other / "keys/trusted")
    ran = own.install("--disk", disk, "--cluster", other)
    assert (ran.code, "is of cluster" in ran.error) == (20, True), ran.error
    assert disk.read_bytes() == bytes(DISK_SIZE_BYTES)
    ran = own.run("publish", own.toy.snapshot, "--cluster", other, "--key", key)
    assert (ran.code, "is of cluster" in ran.error) == (20, True), ran.error
    assert own.toy.depot.serials() == [1]


# No room


@contextmanager
def small_filesystem(directory: Path, options: str) -> Iterator[Path]:
    directory.mkdir()
    run(["mount", "-t", "tmpfs", "-o", options, "none", directory])
    try:
        yield directory
    finally:
        run(["umount", directory])


@pytest.mark.parametrize("options", ["size=6M", "size=200M,nr_inodes=24", "size=200M,nr_inodes=50"])
def test_a_depot_that_is_full(bench: Bench, options: str) -> None:
    with small_filesystem(bench.work / "small", options) as small:
        ran = bench.run("publish", bench.toy.snapshot, "--depot", small / "depot")
        assert (ran.code, str(small / "depot") in ran.error) == (23, True), ran.error
        depot = Depot(small / "depot")
        assert depot.serials() == []
        assert bench.run("generations", "prune", "--depot", depot.path).code == 0
        assert [path for path in depot.path.glob("*/**/*") if path.is_file()] == []
        run(["mount", "-o", "remount,size=200M,nr_inodes=1000", small])
        assert bench.run("publish", bench.toy.snapshot, "--depot", depot.path).code == 0
        assert bench.run("generations", "verify", "--depot", depot.path).code == 0


def fill(own: Bench, disk: Path, free_bytes: int) -> None:
    """Let a blade's data partition have a file that is not ours, and so much room beside it."""
    with open_disk(disk) as opened:
        data = own.work / "data"
        data.mkdir(exist_ok=True)
        run(["mount", opened.partition(4), data])
        try:
            size = shutil.disk_usage(data).free - free_bytes
            run(["fallocate", "-l", str(size), data / "logs"])
        finally:
            run(["umount", data])


def test_a_blades_own_depot_that_is_full(own: Bench) -> None:
    disk = own.disk()
    assert own.install("--disk", disk).code == 0
    (own.toy.snapshot / "usr/more").write_bytes(os.urandom(40 * MIB))
    try:
        assert own.run("publish", own.toy.snapshot).code == 0
    finally:
        (own.toy.snapshot / "usr/more").unlink()
    fill(own, disk, 50 * MIB)
    ran = own.install("--disk", disk)
    assert (ran.code, "do not fit" in ran.error) == (23, True), ran.error
    assert read_slot(disk) is None
    with open_disk(disk) as opened:
        run(["mount", opened.partition(4), own.work / "data"])
        (own.work / "data/logs").unlink()
        run(["umount", own.work / "data"])
    assert own.install("--disk", disk).code == 0


def test_a_blade_drops_an_old_generation_rather_than_to_have_no_room(own: Bench) -> None:
    more = own.toy.snapshot / "usr/more"
    more.write_bytes(os.urandom(40 * MIB))
    try:
        assert own.run("publish", own.toy.snapshot).code == 0
        disk = own.disk()
        assert own.install("--disk", disk).code == 0
        more.write_bytes(os.urandom(40 * MIB))
        assert own.run("publish", own.toy.snapshot).code == 0
    finally:
        more.unlink()
    fill(own, disk, 30 * MIB)
    ran = own.install("--disk", disk)
    assert ran.code == 0, ran.error
    assert any("generations dropped: 2" in str(event.get("text")) for event in ran.events)
    with open_disk(disk) as opened:
        run(["mount", opened.partition(4), own.work / "data"])
        try:
            assert Depot(own.work / "data").serials() == [3]
        finally:
            run(["umount", own.work / "data"])


# Cut off


def wait_for_line(process: subprocess.Popen[str], part: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if part in line:
            return
    raise AssertionError(f"{part!r} was never said")


def list_leftovers(work: Path) -> list[str]:
    loops = run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]).stdout.splitlines()
    mounts = Path("/proc/mounts").read_text().splitlines()
    return [line for line in (*loops, *mounts) if str(work) in line]


def wait_for_children(work: Path) -> None:
    """What a killed process had started ends a moment later, and holds the disk until then."""
    deadline = time.monotonic() + TIMEOUT_S
    while list_leftovers(work) and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (signal.SIGINT, "runtime"),
        (signal.SIGTERM, "partition"),
        (signal.SIGTERM, "extras"),
        (signal.SIGKILL, "format"),
        (signal.SIGKILL, "runtime"),
    ],
)
def test_an_install_that_is_stopped(own: Bench, number: signal.Signals, step: str) -> None:
    disk, temporary = own.disk(), own.work / "tmp"
    temporary.mkdir()
    argv = ["install", "--blade", "web01", "--yes", "--from-depot", own.toy.depot.path, "--disk", disk]
    with subprocess.Popen(
        own.command(*argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        wait_for_line(process, f'"StepStarted", "subject": "", "step": "{step}"')
        process.send_signal(number)
        _out, err = process.communicate(timeout=TIMEOUT_S)
    if number != signal.SIGKILL:
        assert process.returncode == 130, err
        assert read_ran(process.returncode, err).error == "stopped ()"
        assert list(temporary.iterdir()) == []
    else:
        wait_for_children(own.work)
    assert list_leftovers(own.work) == []
    assert own.install("--disk", disk).code == 0
    assert read_slot(disk) is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_publish_that_is_stopped(own: Bench, number: signal.Signals) -> None:
    depot = Depot(own.work / "new")
    argv = ["publish", own.toy.snapshot, "--depot", depot.path]
    with subprocess.Popen(own.command(*argv), stderr=subprocess.PIPE, text=True) as process:
        wait_for_line(process, '"StepStarted", "subject": "", "step": "runtime"')
        process.send_signal(number)
        _out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130), err
    assert depot.serials() == []
    left = [path.name for path in (depot.path / "artefacts").iterdir()]
    if number == signal.SIGKILL:  # nothing half-written passes for whole, and goes with the next publish
        left = [name for name in left if not name.startswith(".new-")]
    assert left == []
    assert own.run(*argv).code == 0
    assert list((depot.path / "artefacts").glob(".new-*")) == []


def test_a_second_publish(own: Bench) -> None:
    with own.toy.depot.lock():
        ran = own.run("publish", own.toy.snapshot)
    assert (ran.code, "another bladeroot is changing" in ran.error) == (22, True), ran.error


# Going on


def test_a_disk_that_has_the_generation_is_left_alone(bench: Bench) -> None:
    disk = bench.disk()
    bench.install("--disk", disk)
    with look_into(disk, bench.work) as slot:
        fstab = (slot / "etc/fstab").read_text()
    ran = bench.install("--disk", disk)
    assert (ran.code, ran.events[-1]["facts"]["standing"]) == (0, "complete")  # type: ignore[index]
    assert [event for event in ran.events if event["event"] == "StepStarted"] == []
    with look_into(disk, bench.work) as slot:
        assert (slot / "etc/fstab").read_text() == fstab
    assert bench.install("--disk", disk, "--again").code == 0
    with look_into(disk, bench.work) as slot:
        assert (slot / "etc/fstab").read_text() != fstab


def test_only_the_extras_are_missing(own: Bench) -> None:
    extras = own.toy.manifest.artefact(ArtefactKind.EXTRAS).info_hash
    torn = own.toy.depot.save_path(extras) / "extras/00001"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-1])
    disk = own.disk()
    ran = own.install("--disk", disk)
    assert (ran.code, str(torn) in ran.error) == (21, True), ran.error
    assert read_slot(disk) is not None
    with look_into(disk, own.work) as slot:
        fstab = (slot / "etc/fstab").read_text()
    torn.write_bytes(whole)
    ran = own.install("--disk", disk)
    assert ran.code == 0, ran.error
    steps = [event["step"] for event in ran.events if event["event"] == "StepStarted"]
    assert steps == ["mount", "extras", "depot"]
    with look_into(disk, own.work) as slot:
        assert (slot / "etc/fstab").read_text() == fstab
        assert (slot / "usr/share/doc/toy/README.gz").read_bytes() == b"of the extras\n"
        assert json.loads((slot / "etc/bladeroot/installed.json").read_text())["extras"] is True
