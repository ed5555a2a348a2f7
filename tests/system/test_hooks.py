"""Hooks of a blade's overlay in installs of a toy OS."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from bladeroot.core.hardware import Hardware, Nic
from bladeroot.core.hooks import HOOKS_DIRECTORY
from bladeroot.errors import HookError
from bladeroot.events import Event, Note, StepFinished, ignore
from bladeroot.host.blockdev import open_disk
from bladeroot.net.client import RootClient
from bladeroot.net.swarm import Swarm
from bladeroot.ops.hooks import LOG, fetch_hooks
from bladeroot.ops.install import apply_install, choose_install_disk, plan_install
from bladeroot.ops.installhooks import run_pre_install
from bladeroot.ops.serving import serve_depot
from bladeroot.ops.sources import DepotSource, SwarmSource
from tests.system.errorbench import TIMEOUT_S, Bench, make_own, read_ran
from tests.system.test_damage import list_leftovers, wait_for_line
from tests.system.test_install import install_blade, look_into, read_slot
from tests.toycluster import ToyCluster, make_toy_cluster

__all__ = ["make_own"]
pytestmark = pytest.mark.system

SCRIPT = "#!/bin/sh\n"
SAY = f"{SCRIPT}echo $0; busybox env | busybox grep ^BLADEROOT_; test -c /dev/null && test -d /proc/self\n"


def write_hook(toy: ToyCluster, layer: str, hook: str, text: str = SAY) -> None:
    path = toy.folder.overlays / layer / "hooks" / hook
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    """Generation 2 has hooks that work; what a test adds is in the generation that it publishes."""
    toy = make_toy_cluster(tmp_path_factory.mktemp("hooks"))
    write_hook(toy, "cluster", "post-install/20-replaced", f"{SCRIPT}exit 1\n")
    write_hook(toy, "role/web", "post-install/20-replaced", f"{SCRIPT}echo mended >/etc/toyos-says\n")
    write_hook(toy, "cluster", "post-install/10-say")
    write_hook(toy, "cluster", "post-install/30-mine.j2", f"{SCRIPT}echo {{{{ blade.name }}}} >/etc/mine\n")
    write_hook(toy, "cluster", "pre-install/10-early")
    write_hook(toy, "blade/web02", "post-install/90-fails", f"{SCRIPT}echo no array; exit 4\n")
    daemon = f"{SCRIPT}busybox setsid busybox sh -c 'echo $$ >/etc/daemon-pid; exec sleep 1000' &\n"
    daemon += "while [ ! -s /etc/daemon-pid ]; do sleep 0.1; done\n"
    write_hook(toy, "blade/web03", "post-install/90-daemon", daemon)
    toy.publish()
    return toy


def test_hooks_run_in_the_tree_before_it_is_committed(toy: ToyCluster, tmp_path: Path) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    heard: list[Event] = []
    install_blade(toy, disk, reporter=heard.append)
    with look_into(disk, tmp_path) as slot:
        # The overlay is laid over the extras as well, which does not take back what a hook has done.
        assert (slot / "etc/toyos-says").read_text() == "mended\n"
        assert (slot / "etc/mine").read_text() == "web01\n"
        log = (slot / LOG).read_text().splitlines()
        assert sorted(path.name for path in (slot / HOOKS_DIRECTORY / "post-install").iterdir()) == [
            "10-say",
            "20-replaced",
            "30-mine",
        ]
        assert not (slot / "proc/self").exists()
        assert list((slot / "dev").glob("loop*")) == []
    assert [line.split()[-1] for line in log if line.startswith("---")] == [
        "post-install/10-say",
        "post-install/20-replaced",
        "post-install/30-mine",
    ]
    assert {
        f"/{HOOKS_DIRECTORY}/post-install/10-say",
        "BLADEROOT_BLADE=web01",
        "BLADEROOT_ROLE=web",
        "BLADEROOT_CLUSTER=toy",
        "BLADEROOT_SERIAL=2",
        f"BLADEROOT_DISK={disk}",
        "BLADEROOT_HOOK=post-install/10-say",
    } <= set(log)
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert "10-say: BLADEROOT_BLADE=web01" in notes
    finished = [event.step for event in heard if isinstance(event, StepFinished)]
    assert finished.index("bootloader") < finished.index("hooks") < finished.index("commit")


def test_a_hook_that_fails_fails_the_install_and_nothing_boots(toy: ToyCluster, tmp_path: Path) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    with pytest.raises(HookError, match="post-install hook 90-fails: exit code 4: no array"):
        install_blade(toy, disk, "web02")
    assert read_slot(disk) is None
    with look_into(disk, tmp_path) as slot:
        assert (slot / LOG).read_text().endswith("no array\n")


def test_a_daemon_that_a_hook_leaves_behind_does_not_hold_the_slot(toy: ToyCluster, tmp_path: Path) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    install_blade(toy, disk, "web03")
    with look_into(disk, tmp_path) as slot:
        pid = int((slot / "etc/daemon-pid").read_text())
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "Z", "the daemon still runs"


def test_hooks_before_the_install(toy: ToyCluster, tmp_path: Path) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    source, keys, cluster_id = DepotSource(toy.depot), toy.folder.trusted_keys(), toy.folder.cluster.id
    signed = source.read_manifest()
    work = tmp_path / "work"
    work.mkdir()
    hardware = Hardware(firmware="uefi", uuid="the-uuid", nics=(Nic(name="eth0", mac="52:54:00:00:00:01"),))
    chosen = choose_install_disk(signed, keys, cluster_id, "web01", disk)
    with open_disk(chosen.path) as opened:
        plan = plan_install(signed, keys, cluster_id, "web01", chosen, opened)
        log = run_pre_install(plan, source, hardware, work, ignore, "10.0.0.9")
        assert not any(disk.read_bytes()[:1_000_000])
        apply_install(plan, opened, source, hooks_log=log, root_address="10.0.0.9")
    with look_into(disk, tmp_path) as slot:
        lines = (slot / LOG).read_text().splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("---")][:2] == [
        "pre-install/10-early",
        "post-install/10-say",
    ]
    assert {
        "BLADEROOT_FIRMWARE=uefi",
        "BLADEROOT_UUID=the-uuid",
        "BLADEROOT_MACS=52:54:00:00:00:01",
        "BLADEROOT_ROOT_ADDRESS=10.0.0.9",
    } <= set(lines)


def test_hooks_come_from_a_root_without_a_depot(toy: ToyCluster, tmp_path: Path) -> None:
    cluster = toy.folder.cluster
    manifest = toy.depot.load(2, toy.folder.trusted_keys(), cluster.id)
    with (
        serve_depot(toy.depot, agent_hash=None, cluster_id=cluster.id, port=0) as port,
        Swarm(port=0) as swarm,
    ):
        source = SwarmSource(RootClient("127.0.0.1", port), swarm, 2, set())
        found = fetch_hooks(source, manifest, manifest.entry("web01"), tmp_path / "hooks")
    files = sorted(str(path.relative_to(found)) for path in found.glob("*/*"))
    assert files == [
        "post-install/10-say",
        "post-install/20-replaced",
        "post-install/30-mine",
        "pre-install/10-early",
    ]
    assert os.access(found / "pre-install/10-early", os.X_OK)


def test_an_install_that_is_stopped_while_a_hook_runs(own: Bench, tmp_path: Path) -> None:
    write_hook(own.toy, "cluster", "post-install/95-hangs", f"{SCRIPT}exec sleep 1000\n")
    own.toy.publish()
    (tmp_path / "tmp").mkdir()
    argv = ["install", "--blade", "web01", "--yes", "--from-depot", own.toy.depot.path, "--disk", own.disk()]
    with subprocess.Popen(
        own.command(*argv),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    ) as process:
        wait_for_line(process, "post-install hook 95-hangs")
        process.terminate()
        _out, err = process.communicate(timeout=TIMEOUT_S)
    assert read_ran(process.returncode, err).error == "stopped ()"
    assert process.returncode == 130
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list_leftovers(tmp_path) == []
