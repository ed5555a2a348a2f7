"""Verbs about the root role: what they print, and what they say against it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from bladeroot.core.claims import Claim, ClaimState
from bladeroot.errors import UsageError
from bladeroot.host import localsocket
from bladeroot.net.control import ControlServer
from bladeroot.net.discovery import Heard
from bladeroot.ops import roots as roots_module
from bladeroot.ops.folder import ClusterFolder
from bladeroot.ops.rolecontrol import SOCKET_NAME
from tests.unit.ui.cli.conftest import Run
from tests.unit.ui.cli.test_status import CLAIM, View


@attrs.define
class Room:
    """What is announced, and where a root really answers."""

    cluster_id: str
    announced: list[Claim]
    port: int

    def claim(self, blade: str, **changes: Any) -> Claim:
        """One at the port where nobody answers, unless it is told otherwise."""
        base = attrs.evolve(CLAIM, cluster_id=self.cluster_id, blade=blade, manifest_hash="ab" * 8)
        return attrs.evolve(base, **changes)


class RootView(View):
    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id

    def claim(self) -> Claim:
        return attrs.evolve(CLAIM, cluster_id=self.cluster_id, manifest_hash="ab" * 8)


@pytest.fixture
def room(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    assert run("init").code == 0
    assert run("blades", "add", "web[01-03]").code == 0
    cluster_id = ClusterFolder.open(tmp_path / "lab").cluster.id
    announced: list[Claim] = []

    def listen(_cluster_id: str, *, timeout_s: float) -> Heard:
        return Heard(claims=tuple(announced), looked_s=timeout_s)

    monkeypatch.setattr(roots_module, "find_claims", listen)
    with ControlServer(RootView(cluster_id), cluster_id=cluster_id, address="127.0.0.1", port=0) as server:
        yield Room(cluster_id, announced, server.port)


@contextmanager
def daemon(folder: Path, answer: Mapping[str, Any] | Exception) -> Iterator[list[Mapping[str, Any]]]:
    """What a daemon is asked that answers everything with that."""
    folder.mkdir(exist_ok=True)
    asked: list[Mapping[str, Any]] = []
    stop = threading.Event()

    def handle(request: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append(request)
        if isinstance(answer, Exception) and request["do"] != "status":
            raise answer
        return {} if isinstance(answer, Exception) else answer

    with localsocket.listening(folder, SOCKET_NAME) as end:

        def serve() -> None:
            while not stop.is_set():
                end.serve_one(handle, 0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            stop.set()
            thread.join(30)


@pytest.mark.usefixtures("room")
def test_no_root_is_an_error_with_a_hint(run: Run) -> None:
    ran = run("roots", "--wait", "1")
    assert ran.code == 31
    assert "no root of cluster" in ran.err
    assert "`bladeroot promote` on a blade makes one" in ran.err


def test_the_table_of_claims(run: Run, room: Room) -> None:
    here = {"host": "127.0.0.1", "port": room.port}
    room.announced += [
        room.claim("web01", **here),
        room.claim("web02", epoch=9, manifest_hash="cd" * 8),
        room.claim("web03", state=ClaimState.CANDIDATE, serial=6),
        room.claim("zzz", epoch=2**53, **here),
    ]
    ran = run("roots")
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    where = f"127.0.0.1:{room.port}"
    assert lines[:5] == [
        ["BLADE", "STATE", "EPOCH", "GENERATION", "WHERE"],
        ["web01", "root", "3", "7", "(abababab)", where, "is", "followed"],
        ["web02", "root", "9", "7", "(cdcdcdcd)", "127.0.0.1:1", "does", "not", "answer"],
        ["web03", "candidate", "3", "6", "(abababab)", "127.0.0.1:1"],
        ["zzz", "root", str(2**53), "7", "(abababab)", where, "does", "not", "answer"],
    ]
    assert ran.out.splitlines()[5] == "two different generations 7: publish the one that you mean once more"

    facts = run("roots", "--json").facts
    assert (facts["root"], facts["twins"]) == ("web01", [7])
    assert [one["answers"] for one in facts["claims"]] == [True, False, True, False]


def test_where_nobody_answers_there_is_no_root(run: Run, room: Room) -> None:
    room.announced.append(room.claim("web02"))
    assert run("roots").code == 31
    assert run("roots", "--json").facts["root"] is None


def test_a_root_beyond_multicast_is_asked_and_its_silence_is_a_line(run: Run, room: Room) -> None:
    ran = run("roots", "--root", f"127.0.0.1:{room.port}")
    assert ran.code == 0
    assert ran.out.splitlines()[1].endswith("is followed, beyond multicast")
    ran = run("roots", "--root", "127.0.0.1:1")
    assert ran.code == 31
    assert ran.out.splitlines()[1].split()[:3] == ["?", "silent", "127.0.0.1:1"]
    assert ran.out.splitlines()[1].endswith("named in cluster.toml, does not answer")


def test_a_root_that_is_named_and_heard_is_one_line(run: Run, room: Room) -> None:
    room.announced.append(room.claim("web01", host="127.0.0.1", port=room.port))
    ran = run("roots", "--root", f"127.0.0.1:{room.port}", "--json")
    assert len(ran.facts["claims"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("promote", "web09"), 11, "web09"),
        (("demote", "web09"), 11, "web09"),
        (("demote", "--to", "web09"), 11, "web09"),
        (("demote",), 2, "no daemon runs on this machine"),
        (("demote", "web01", "--force"), 2, "--to and --force are for the root's own shell"),
        (("demote", "web01", "--to", "web02"), 2, "run it on web01"),
        (("promote", "web01", "--port", "1", "--netboot", "off"), 2, "--port, --netboot: only where"),
        (("promote", "web01", "--publish", "/srv"), 2, "--publish is for the machine that it runs on"),
        (("promote", "--port", "70000"), 2, "not a port: 70000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("room")
def test_what_makes_no_sense_is_one_line(run: Run, words: tuple[str, ...], code: int, said: str) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


@pytest.mark.usefixtures("room")
def test_with_a_daemon_it_is_asked(run: Run, tmp_path: Path) -> None:
    answer = {"blade": "web01", "role": "root", "serial": 7, "epoch": 4, "netboot": "", "root": "web02"}
    with daemon(tmp_path / "depot", answer) as asked:
        assert run("promote").out == "web01 is root, with generation 7 (epoch 4)\n"
        assert run("demote", "--to", "web02").out == "web01 is not root any more; web02 is\n"
        assert run("demote", "--force", "--json").facts == answer
        ran = run("promote", "--blade", "x")
        assert (ran.code, "--blade: only where the command itself is the root" in ran.err) == (2, True)
    assert asked == [
        {"do": "status"},
        {"do": "promote"},
        {"do": "demote", "to": "web02", "force": False},
        {"do": "demote", "to": None, "force": True},
        {"do": "status"},
    ]
    waiting = {**answer, "netboot": "another DHCP server answers", "root": ""}
    with daemon(tmp_path / "depot", waiting):
        assert run("promote").out.endswith("\nnot answering netboot yet: another DHCP server answers\n")
        assert run("demote", "--force").out == "web01 is not root any more; nobody yet is\n"


@pytest.mark.usefixtures("room")
def test_the_daemons_own_error_is_the_commands(run: Run, tmp_path: Path) -> None:
    with daemon(tmp_path / "depot", UsageError("nobody could be root", "--force steps down")):
        for verb in ("promote", "demote"):
            ran = run(verb)
            assert ran.code == 2
            assert "nobody could be root" in ran.err
            assert "--force steps down" in ran.err


@pytest.mark.usefixtures("room")
def test_who_may_not_ask_is_told_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_request: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(localsocket, "ask", refuse)
    for verb in ("promote", "demote"):
        ran = run(verb)
        assert ran.code == 3
        assert "needs the superuser's rights" in ran.err


@pytest.mark.parametrize("verb", ["promote", "demote", "roots", "daemon"])
def test_each_has_a_page(run: Run, verb: str) -> None:
    ran = run("help", verb)
    assert ran.code == 0
    for heading in (f"bladeroot {verb}", "EXAMPLES", "SEE ALSO"):
        assert heading in ran.out
