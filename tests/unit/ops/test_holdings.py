"""What a machine gives, while generations come and go in its depot."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.core import wire
from bladeroot.core.cluster import Network
from bladeroot.core.manifest import (
    Artefact,
    ArtefactKind,
    Manifest,
    Signature,
    SignedManifest,
    sign_manifest,
)
from bladeroot.core.signing import Purpose, SecretKey
from bladeroot.errors import DepotError
from bladeroot.events import Event, Warned
from bladeroot.host.depot import Depot
from bladeroot.net.swarm import Swarm
from bladeroot.ops.holdings import Holdings

KEY = SecretKey(bytes(32))
CLUSTER_ID = "ab" * 16


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot.create(tmp_path / "depot")


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def holdings(depot: Depot, heard: list[Event]) -> Iterator[Holdings]:
    add_generation(depot, 1)
    holdings = Holdings(depot, [KEY.public_key], CLUSTER_ID, heard.append)
    holdings.take_in()
    with Swarm(port=0, addresses=("127.0.0.1",)) as swarm:
        holdings.seed(swarm)
        yield holdings


def make_artefact(depot: Depot, content: str) -> Artefact:
    with depot.new_artefact() as writer:
        files = [writer.add_file(name, f"{name} {content}".encode()) for name in ("00000", "index")]
        return writer.finish(ArtefactKind.RUNTIME, files, 100)


def add_generation(depot: Depot, serial: int, key: SecretKey = KEY, network: Network | None = None) -> None:
    manifest = Manifest(
        cluster_id=CLUSTER_ID,
        cluster_name="lab",
        serial=serial,
        previous=None,
        arch="x86_64",
        created=0,
        kernel_command_line="",
        artefacts=(make_artefact(depot, str(serial)),),
        blades=(),
        network=network or Network(),
    )
    signed = sign_manifest(manifest, key)
    depot.add_generation(signed, manifest)


def find_seeded(holdings: Holdings) -> set[str]:
    assert holdings._swarm is not None
    return set(holdings._swarm.info_hashes())


def test_what_is_published_is_served_and_what_is_pruned_is_not(
    holdings: Holdings, depot: Depot, heard: list[Event]
) -> None:
    old = holdings.newest.artefacts[0]
    add_generation(depot, 2)
    assert holdings.take_in()
    assert len(find_seeded(holdings)) == 2
    shutil.rmtree(depot.path / "generations" / "1")
    shutil.rmtree(depot.save_path(old.info_hash))
    add_generation(depot, 3)
    assert holdings.take_in()
    assert list(holdings.serials()) == [2, 3]
    assert old.info_hash not in find_seeded(holdings)
    assert heard == []


def test_the_last_generation_is_served_to_the_end(holdings: Holdings, depot: Depot) -> None:
    shutil.rmtree(depot.path / "generations" / "1")
    assert not holdings.take_in()
    assert holdings.newest.serial == 1


def test_a_generation_that_makes_no_sense_is_one_warning(
    holdings: Holdings, depot: Depot, heard: list[Event]
) -> None:
    add_generation(depot, 2, SecretKey(bytes([7]) * 32))
    add_generation(depot, 3)
    body = b"\x93signed, and no manifest"
    signature = Signature(key_id=KEY.public_key.key_id, signature=KEY.sign(Purpose.MANIFEST, body))
    rubbish = SignedManifest(body=body, signatures=(signature,))
    (depot.path / "generations" / "3" / "manifest").write_bytes(wire.encode(rubbish))
    for _ in range(3):
        assert not holdings.take_in()
    assert len(heard) == 2
    assert all(isinstance(event, Warned) and "is not served" in event.text for event in heard)


def test_a_generation_whose_files_are_gone_does_not_end_the_giving(
    holdings: Holdings, depot: Depot, heard: list[Event]
) -> None:
    add_generation(depot, 2)
    lost = depot.load(2, [KEY.public_key], CLUSTER_ID).artefacts[0].info_hash
    (depot.save_path(lost) / "runtime" / "00000").unlink()
    holdings.take_in()
    assert list(holdings.serials()) == [1]
    assert holdings.signed_manifest_bytes(2) is None
    (warning,) = heard
    assert isinstance(warning, Warned)
    assert "generation 2 is not served" in warning.text


def test_without_a_generation_there_is_no_root(depot: Depot, heard: list[Event]) -> None:
    holdings = Holdings(depot, [KEY.public_key], CLUSTER_ID, heard.append)
    assert not holdings.take_in()
    with pytest.raises(DepotError, match="no whole generation"):
        holdings.newest  # noqa: B018


def test_the_only_generation_that_cannot_be_given_ends_nothing_and_is_tried_again_when_it_was_mended(
    depot: Depot, heard: list[Event]
) -> None:
    add_generation(depot, 1)
    holdings = Holdings(depot, [KEY.public_key], CLUSTER_ID, heard.append)
    holdings.take_in()
    info_hash = holdings.newest.artefacts[0].info_hash
    file = depot.artefact_files(info_hash)[0]
    data = file.read_bytes()
    file.unlink()
    with Swarm(port=0, addresses=("127.0.0.1",)) as swarm:
        holdings.seed(swarm)
        assert (holdings.newest_serial, len(heard)) == (0, 1)
        for _ in range(3):
            assert not holdings.take_in()
        depot.distrust(info_hash)  # as the verifier does
        assert not holdings.take_in()
        file.write_bytes(data)
        depot.finish_artefact(info_hash)
        assert holdings.take_in()
        assert swarm.info_hashes() == (info_hash,)
    assert len(heard) == 1


def test_a_manifest_that_cannot_be_read_is_said_once_and_tried_again(
    holdings: Holdings, depot: Depot, heard: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> bytes:
        raise OSError(5, "Input/output error")

    add_generation(depot, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        for _ in range(3):
            assert not holdings.take_in()
    assert len(heard) == 1
    assert holdings.take_in()
    assert holdings.newest_serial == 2


def test_it_is_looked_at_while_it_changes(depot: Depot, heard: list[Event]) -> None:
    add_generation(depot, 1)
    holdings = Holdings(depot, [KEY.public_key], CLUSTER_ID, heard.append)
    holdings.take_in()
    seen = holdings._generations
    add_generation(depot, 2)
    holdings.take_in()
    assert (list(seen), list(holdings.serials())) == ([1], [1, 2])


def test_what_an_install_has_brought_is_given_before_its_generation_is_whole(
    depot: Depot, heard: list[Event]
) -> None:
    part = make_artefact(depot, "of a generation that is not whole yet")
    holdings = Holdings(depot, [KEY.public_key], CLUSTER_ID, heard.append)
    holdings.take_in()
    assert holdings.newest_serial == 0
    with Swarm(port=0, addresses=("127.0.0.1",)) as swarm:
        holdings.seed(swarm)
        assert set(swarm.info_hashes()) == {part.info_hash}
    assert heard == []
