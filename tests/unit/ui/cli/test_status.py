from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import attrs
import pytest

from bladeroot import events
from bladeroot.core.claims import Claim
from bladeroot.core.roomstate import RoomState
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer
from bladeroot.ops.status import read_status
from tests.unit.ui.cli.conftest import Run

CLAIM = Claim(cluster_id="ab" * 16, epoch=3, serial=7, blade="web01", host="127.0.0.1", port=1)


class View:
    """A root that holds nothing."""

    def claim(self) -> Claim:
        return CLAIM

    def serials(self) -> list[int]:
        return [6, 7]

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        del serial
        return None

    def torrent(self, info_hash: str) -> bytes | None:
        del info_hash
        return None

    def artefact_files(self, info_hash: str) -> list[Path] | None:
        del info_hash
        return None

    def swarm_port(self) -> int:
        return 0

    def blade_names(self) -> list[str]:
        return ["web01", "web02", "web03"]

    def racks(self) -> dict[str, str | None]:
        return {}


@pytest.fixture
def root() -> Iterator[ControlServer]:
    with ControlServer(View(), cluster_id=CLAIM.cluster_id, address="127.0.0.1", port=0) as server:
        yield server


def test_the_room_arrives_as_it_is_folded(root: ControlServer) -> None:
    said: list[events.Event] = [
        events.StepStarted(subject="web02", step="fetch", title="fetching"),
        events.Progress(subject="web02", step="fetch", done=5, total=10),
        events.SwarmStats(
            subject="web02",
            artefact="runtime",
            peers=3,
            sources=2,
            have_bytes=5,
            total_bytes=10,
            down_bytes=5,
            up_bytes=1,
        ),
        events.Finished(subject="web03", facts={"serial": 7, "disks": ["/dev/vda"], "odd": None}),
        events.Failed(subject="web01", text="disk too small", exit_code=41),
    ]
    room = RoomState.of(View().blade_names())
    for event in said:
        root.publish(event)
        room = room.with_event(event)

    status = read_status(RootClient("127.0.0.1", root.port))

    assert status.generations == (6, 7)
    assert status.claim == attrs.evolve(CLAIM, port=root.port)
    assert status.room.blades == room.blades


def test_the_table(run: Run, root: ControlServer) -> None:
    root.publish(events.StepStarted(subject="web02", step="fetch", title="fetching \x1b[2J"))
    root.publish(events.Failed(subject="web01", text="disk too small", exit_code=41))

    ran = run("status", "--root", f"127.0.0.1:{root.port}")

    # $BLADEROOT_CLUSTER names a folder that is not there: that is said, not passed over
    assert ran.code == 10
    assert run("init").code == 0
    ran = run("status", "--root", f"127.0.0.1:{root.port}")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("root web01 at 127.0.0.1:")
    assert lines[0].endswith("cluster abababab, holds generations: 6, 7")
    assert lines[1] == "blades: 1 waiting, 1 working, 1 failed"
    assert [line.split()[0] for line in lines[3:7]] == ["BLADE", "web01", "web02", "web03"]
    assert lines[8:] == ["web01 failed: disk too small"]
    assert "\x1b" not in ran.out


def test_who_is_up_who_waits_for_a_person_and_who_is_a_stranger(run: Run, root: ControlServer) -> None:
    run("init")
    root.publish(events.Booted(subject="web01", serial=7, order=3))
    root.publish(events.Held(subject="web02", reason="sda holds ext4", hint="`bladeroot reimage web02`"))
    root.publish(events.Booted(subject="web03", serial=6))
    root.publish(events.Held(subject="stranger-525400aabb07", reason="nobody knows it"))

    lines = run("status", "--root", f"127.0.0.1:{root.port}").out.splitlines()

    assert lines[1] == "blades: 2 held, 2 up"
    assert [line.split() for line in lines[3:8]] == [
        ["BLADE", "STEP"],
        ["web01", "up,", "generation", "7"],
        ["web02", "held:", "sda", "holds", "ext4"],
        ["web03", "up,", "generation", "6"],
        ["stranger-525400aabb07", "held:", "nobody", "knows", "it"],
    ]
    assert lines[9:] == [
        "stranger-525400aabb07 waits for you: nobody knows it",
        "web02 waits for you: sda holds ext4 (`bladeroot reimage web02`)",
    ]


def test_json(run: Run, root: ControlServer) -> None:
    run("init")
    facts = run("status", "--root", f"127.0.0.1:{root.port}", "--json").facts

    assert facts["claim"]["blade"] == "web01"
    assert {name: blade["phase"] for name, blade in facts["blades"].items()} == {
        "web01": "waiting",
        "web02": "waiting",
        "web03": "waiting",
    }


class Liar(BaseHTTPRequestHandler):
    """Somebody who answers with what is no status."""

    answer: ClassVar[Any] = None

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.answer).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        del format, args


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"claim": "x"},
        {"claim": {**attrs.asdict(CLAIM), "epoch": "3"}},
        {"claim": attrs.asdict(CLAIM), "blades": {"web01": {"blade": "web01", "done": "many"}}},
        {"claim": attrs.asdict(CLAIM), "blades": [1]},
        {"claim": attrs.asdict(CLAIM), "generations": 10**30},
    ],
    ids=str,
)
def test_what_is_no_status_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    monkeypatch.setattr(Liar, "answer", answer)
    run("init")
    with HTTPServer(("127.0.0.1", 0), Liar) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        ran = run("status", "--root", f"127.0.0.1:{server.server_port}")
        thread.join()

    assert (ran.code, ran.err.count("\n")) == (30, 1), ran.err


def test_nobody_there(run: Run) -> None:
    run("init")
    with HTTPServer(("127.0.0.1", 0), Liar) as server:
        port = server.server_port

    assert run("status", "--root", f"127.0.0.1:{port}").code == 30
    assert run("status", "--root", "127.0.0.1:0").code == 2
