"""The root role in a room of daemons, each a process in a namespace of its own, with a depot of its own."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from bladeroot.core import wire
from bladeroot.core.cluster import DEFAULT_PORT
from bladeroot.core.manifest import sign_manifest
from bladeroot.core.signing import SecretKey
from bladeroot.core.takeover import PROMOTION_LASTS_S
from bladeroot.host import localsocket
from bladeroot.host.depot import Depot
from bladeroot.host.run import DEVNULL, PIPE, Argument, Process, run, start_process
from bladeroot.lab.network import LabNetwork, start_network
from bladeroot.ops.folder import ClusterFolder
from bladeroot.ops.publish import plan_publish, publish_snapshot
from bladeroot.ops.rolecontrol import SOCKET_NAME
from tests.toycluster import BLADES, ToyCluster, make_toy_cluster

pytestmark = pytest.mark.system

_Seen = TypeVar("_Seen")
DEADLINE_S = 300.0
DESK = "desk"


@attrs.define
class Program:
    """A process, and the lines that it writes."""

    process: Process
    lines: list[str]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]


@attrs.define
class Room:
    """The blades' folders and depots, and whatever runs."""

    network: LabNetwork
    toy: ToyCluster
    work: Path
    stack: ExitStack
    programs: dict[str, Program] = attrs.field(factory=dict)

    def add_blade(self, name: str) -> None:
        """As an install leaves it, but for the disk."""
        me = self.work / name
        shutil.copytree(self.toy.folder.path, me / "cluster")
        shutil.copytree(self.toy.depot.path, me / "depot")
        (me / "system").mkdir()
        installed = {"blade": name, "cluster_id": self.toy.folder.cluster.id, "serial": 1, "order": 0}
        (me / "cluster/installed.json").write_text(json.dumps(installed))
        self.network.add_host(name)

    def depot(self, name: str) -> Path:
        return self.toy.depot.path if name == DESK else self.work / name / "depot"

    def argv(self, name: str, *words: str) -> list[Argument]:
        folder = self.toy.folder.path if name == DESK else self.work / name / "cluster"
        where: list[Argument] = ["--cluster", folder, "--depot", self.depot(name)]
        return self.network.host(name).command([sys.executable, "-m", "bladeroot", *where, "--json", *words])

    def start(self, key: str, argv: Sequence[Argument], *, stdout: bool = False) -> Program:
        process = self.stack.enter_context(
            start_process(argv, stdout=PIPE if stdout else DEVNULL, stderr=DEVNULL if stdout else PIPE)
        )
        program = self.programs[key] = Program(process, [])
        stream = process.stdout if stdout else process.stderr
        assert stream is not None

        def read() -> None:
            for line in iter(stream.readline, b""):
                program.lines.append(line.decode().rstrip())

        threading.Thread(target=read, daemon=True).start()
        return program

    def start_daemon(self, name: str) -> Program:
        system = str(self.work / name / "system")
        return self.start(name, self.argv(name, "daemon", "--system", system))

    def kill(self, key: str) -> None:
        process = self.programs.pop(key).process
        process.kill()
        process.wait()

    def ask(self, name: str) -> dict[str, Any]:
        """What its daemon says of itself."""
        try:
            return dict(localsocket.ask(self.depot(name), SOCKET_NAME, 10.0, do="status"))
        except (OSError, ValueError):
            return {"role": "", "follows": "", "serial": 0, "epoch": 0}

    def bladeroot(self, name: str, *words: str) -> Any:
        """A command at that machine's shell, which succeeds."""
        return json.loads(run(self.argv(name, *words), timeout_s=DEADLINE_S).stdout)

    def find_root(self) -> str:
        """Who is root, as soon as all daemons that run agree on that."""
        return str(wait_for(self._agree_on_root))

    def _agree_on_root(self) -> str | None:
        told = {name: self.ask(name) for name in BLADES if name in self.programs}
        roots = [name for name, one in told.items() if one["role"] == "root"]
        agreed = len(roots) == 1 and all(one["follows"] == roots[0] for one in told.values())
        return roots[0] if agreed else None

    def wait_for_root(self, name: str) -> None:
        wait_for(lambda: self._agree_on_root() == name)

    def others(self, name: str) -> list[str]:
        return [one for one in BLADES if one != name]


def wait_for(look: Callable[[], _Seen]) -> _Seen:
    """Wait until there is something to see."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.1)
    pytest.fail("it did not come to that")


@contextmanager
def make_room(work: Path, toy: ToyCluster, blades: Sequence[str]) -> Iterator[Room]:
    with start_network("station") as network, ExitStack() as stack:
        room = Room(network, toy, work, stack)
        for name in blades:
            room.add_blade(name)
        network.add_host(DESK)
        yield room


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    return make_toy_cluster(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def room(toy: ToyCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Three daemons that are up. Each test leaves it so, with a root."""
    with make_room(tmp_path_factory.mktemp("room"), toy, BLADES) as room:
        for name in BLADES:
            room.start_daemon(name)
        yield room


def test_one_becomes_root_and_when_it_dies_the_next_and_who_comes_back_follows(room: Room) -> None:
    first = room.find_root()
    assert len(room.programs[first].said("RootStarted")) == 1
    epoch = room.ask(first)["epoch"]
    room.kill(first)
    second = room.find_root()
    assert room.ask(second)["epoch"] > epoch
    room.start_daemon(first)
    room.wait_for_root(second)
    assert room.programs[first].said("RoleChanged") == []

    roots = room.bladeroot(first, "roots")
    assert (roots["root"], roots["twins"]) == (second, [])
    assert [(line["blade"], line["answers"]) for line in roots["claims"]] == [(second, True)]

    def all_are_up() -> bool:
        blades = room.bladeroot(first, "status")["blades"]
        return {name for name, one in blades.items() if one["phase"] == "up"} == set(BLADES)

    wait_for(all_are_up)


def test_a_person_moves_the_role_at_a_blades_shell_and_from_elsewhere(room: Room) -> None:
    root = room.find_root()
    other, third = room.others(root)
    answer = room.bladeroot(other, "promote")
    assert (answer["blade"], answer["role"], answer["netboot"]) == (other, "root", "")
    room.wait_for_root(other)
    wait_for(lambda: room.programs[root].said("RoleChanged")[-1]["role"] == "retired")

    assert room.bladeroot(other, "demote", "--to", third)["root"] == third
    room.wait_for_root(third)

    key = ("--key", str(room.toy.key_path))
    assert room.bladeroot(DESK, "promote", root, *key)["root"] == root
    room.wait_for_root(root)
    demoted = room.bladeroot(DESK, "demote", root, *key)
    assert (demoted["demoted"], demoted["root"]) == (root, room.find_root())
    assert demoted["root"] != root


def test_who_only_claims_to_be_root_is_not_followed_for_long(room: Room, tmp_path: Path) -> None:
    root = room.find_root()
    epoch = room.ask(root)["epoch"]
    manifest = attrs.evolve(room.toy.manifest, serial=9)
    forged = tmp_path / "forged"
    forged.write_bytes(wire.encode(sign_manifest(manifest, SecretKey.generate())))
    common = {"cluster_id": room.toy.folder.cluster.id, "serial": 9}
    at_roots_own = f"{room.network.host(root).address}:{DEFAULT_PORT}"
    rogues = [
        {**common, "blade": "a-key", "epoch": 2**53, "manifest": str(forged), "at": None},
        {**common, "blade": "b-none", "epoch": epoch + 1, "manifest": None, "at": None},
        {**common, "blade": "c-liar", "epoch": 2**53, "manifest": None, "at": at_roots_own},
    ]
    argv = room.network.host(DESK).command([sys.executable, "-m", "tests.system.rogue", json.dumps(rogues)])
    rogue = room.start("rogue", argv, stdout=True)

    def were_asked() -> bool:
        # Three times by each blade, and some more.
        return all(rogue.lines.count(name) > 12 for name in ("a-key", "b-none"))

    wait_for(were_asked)
    roots = room.bladeroot(DESK, "roots")
    heard = {line["blade"]: line["answers"] for line in roots["claims"]}
    assert set(heard) == {"a-key", "b-none", "c-liar", root}
    room.wait_for_root(root)
    assert room.ask(root)["epoch"] == epoch
    assert [room.ask(name)["serial"] for name in BLADES] == [1, 1, 1]
    room.kill("rogue")
    other = room.others(root)[0]
    assert room.bladeroot(other, "promote")["epoch"] < epoch + 1000
    room.wait_for_root(other)


def test_a_root_in_the_foreground_gives_what_is_published_and_ends_when_another_is_promoted(
    room: Room,
) -> None:
    root = room.find_root()
    time.sleep(PROMOTION_LASTS_S)  # a root that was promoted just now would outdo it
    desk = room.start(DESK, room.argv(DESK, "promote", "--blade", DESK))
    wait_for(lambda: desk.said("RootStarted"))
    wait_for(lambda: all(room.ask(name)["follows"] == DESK for name in BLADES))
    (room.toy.snapshot / "etc/news").write_text("of generation 2\n")
    assert room.toy.publish().serial == 2
    wait_for(lambda: all(room.ask(name)["serial"] == 2 for name in BLADES))
    room.bladeroot(root, "promote")
    assert desk.process.wait(DEADLINE_S) == 0
    wait_for(lambda: desk.said("RoleChanged")[-1]["role"] == "retired")
    room.wait_for_root(root)


def test_a_root_pulls_the_higher_generation_of_a_blade(room: Room) -> None:
    root = room.find_root()
    giver, other = room.others(root)
    newest = room.ask(root)["serial"]
    room.kill(giver)
    depot = Depot.open(room.depot(giver))
    (room.toy.snapshot / "etc/news").write_text("of the next one\n")
    plan = plan_publish(room.toy.folder, room.toy.snapshot)
    assert publish_snapshot(plan, depot, room.toy.secret_key).manifest.serial == newest + 1
    room.start_daemon(giver)
    wait_for(lambda: all(room.ask(name)["serial"] == newest + 1 for name in (root, other)))
    room.wait_for_root(root)


def test_where_taking_over_is_left_to_people_nobody_does(toy: ToyCluster, tmp_path: Path) -> None:
    with make_room(tmp_path, toy, BLADES[:2]) as room:
        for name in BLADES[:2]:
            folder = room.work / name / "cluster"
            text = (folder / "cluster.toml").read_text()
            (folder / "cluster.toml").write_text(
                text.replace("[daemon]\n", '[daemon]\ntakeover = "manual"\n')
            )
            assert ClusterFolder.open(folder).cluster.daemon.takeover == "manual"
            room.start_daemon(name)
        wait_for(lambda: all(room.ask(name)["role"] == "follower" for name in BLADES[:2]))
        room.bladeroot(BLADES[1], "promote")
        room.wait_for_root(BLADES[1])
        room.kill(BLADES[1])
        wait_for(lambda: room.ask(BLADES[0])["follows"] == "")
        until = time.monotonic() + 8.0  # the first in order would have been root by then
        while time.monotonic() < until:
            assert room.ask(BLADES[0])["role"] == "follower"
            time.sleep(0.5)
        assert room.programs[BLADES[0]].said("RoleChanged") == []
