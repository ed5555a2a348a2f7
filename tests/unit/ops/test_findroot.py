from __future__ import annotations

from collections.abc import Collection, Iterable

import attrs
import pytest

from bladeroot.core.claims import Claim, which_wins
from bladeroot.core.cluster import Cluster
from bladeroot.errors import NetworkError, NoRootFoundError, UsageError
from bladeroot.events import Event, ignore
from bladeroot.net.client import RootClient
from bladeroot.ops import findroot
from bladeroot.ops.findroot import find_root, parse_address

CLUSTER = Cluster(name="lab", id="ab" * 16)
ROOT = Claim(cluster_id=CLUSTER.id, epoch=1, serial=3, blade="root", host="10.0.0.1", port=7474)
DEAD = attrs.evolve(ROOT, epoch=9, blade="dead", host="10.0.0.2")
FOREIGN = attrs.evolve(ROOT, epoch=8, blade="foreign", host="10.0.0.3")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", ("10.0.0.1", 7474)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("root.example.org:7475", ("root.example.org", 7475)),
        ("[fd77::1]:80", ("fd77::1", 80)),
        ("[fd77::1]", ("fd77::1", 7474)),
        ("fd77::1", ("fd77::1", 7474)),
        ("::1", ("::1", 7474)),
    ],
)
def test_an_address_of_a_root(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, 7474) == address


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:http", "host:0", "host:70000", "host:\u0663"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not the address of a root"):
        parse_address(text, 7474)


@pytest.fixture
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that are announced: by a root, by a machine without power, by another cluster's root."""

    def answer(client: RootClient) -> Claim:
        if client.host == ROOT.host:
            return attrs.evolve(ROOT, serial=4)
        if client.host == FOREIGN.host:
            return attrs.evolve(FOREIGN, cluster_id="cd" * 16)
        raise NetworkError("no answer")

    monkeypatch.setattr(RootClient, "claim", answer)
    monkeypatch.setattr(findroot, "_OTHERS_S", 0.0)


def announce(monkeypatch: pytest.MonkeyPatch, claims: Iterable[Claim]) -> None:
    def wait(_cluster_id: str, *, timeout_s: float, avoid: Collection[str]) -> Claim:
        left = [claim for claim in claims if claim.where not in avoid]
        if not left:
            raise NoRootFoundError(f"none in {timeout_s:.0f} s")
        best = left[0]
        for claim in left:
            best = which_wins(best, claim)
        return best

    monkeypatch.setattr(findroot, "wait_for_root", wait)


@pytest.mark.usefixtures("_room")
def test_a_root_that_answers_is_found_behind_louder_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, [FOREIGN, DEAD, ROOT])
    heard: list[Event] = []
    client, serial = find_root(CLUSTER, root=None, wait_s=60.0, reporter=heard.append)
    assert (client.host, serial) == (ROOT.host, 4)
    assert len(heard) == 3


@pytest.mark.usefixtures("_room")
def test_roots_that_do_not_answer_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, [FOREIGN, DEAD])
    with pytest.raises(NoRootFoundError):
        find_root(CLUSTER, root=None, wait_s=0.3, reporter=ignore)
