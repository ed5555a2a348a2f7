from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from bladeroot.core.manifest import Artefact, ArtefactKind, Manifest, SignedManifest, sign_manifest
from bladeroot.core.signing import SecretKey
from bladeroot.core.torrentfile import hash_file_root
from bladeroot.errors import ArtefactError, DepotError, DepotFullError, TrustError
from bladeroot.host.depot import Depot
from bladeroot.host.pruning import prune_depot

CLUSTER_ID = "ab" * 16
KEY = SecretKey.generate()


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot.create(tmp_path / "depot")


def add_artefact(
    depot: Depot, files: Mapping[str, bytes], kind: ArtefactKind = ArtefactKind.RUNTIME
) -> Artefact:
    with depot.new_artefact() as writer:
        return writer.finish(kind, [writer.add_file(name, data) for name, data in files.items()], 1)


def make_generation(serial: int, *artefacts: Artefact) -> tuple[SignedManifest, Manifest]:
    manifest = Manifest(
        cluster_id=CLUSTER_ID,
        cluster_name="lab",
        serial=serial,
        previous=None,
        arch="x86_64",
        created=0,
        kernel_command_line="",
        artefacts=artefacts,
        blades=(),
    )
    return sign_manifest(manifest, KEY), manifest


def test_a_generation_comes_back_as_it_was_added(depot: Depot) -> None:
    artefact = add_artefact(depot, {"00000": b"one", "00001": b"two"})
    signed, manifest = make_generation(1, artefact)
    depot.add_generation(signed, manifest)
    assert depot.serials() == [1]
    assert depot.load(1, [KEY.public_key], CLUSTER_ID) == manifest
    assert b"".join(path.read_bytes() for path in depot.artefact_files(artefact.info_hash)) == b"onetwo"
    assert depot.read_file(artefact.info_hash, "00001") == b"two"


def test_a_generation_is_not_added_before_its_artefacts(depot: Depot) -> None:
    artefact = add_artefact(depot, {"00000": b"one", "00001": b"two"})
    signed, manifest = make_generation(1, attrs.evolve(artefact, info_hash="0" * 64))
    with pytest.raises(DepotError, match="lacks its artefacts: runtime"):
        depot.add_generation(signed, manifest)
    assert depot.serials() == []


def test_two_generations_with_one_serial_are_both_kept_from_harm(depot: Depot) -> None:
    first = add_artefact(depot, {"00000": b"one", "00001": b"two"})
    second = add_artefact(depot, {"00000": b"one", "00001": b"three"})
    signed, manifest = make_generation(1, first)
    depot.add_generation(signed, manifest)
    with pytest.raises(DepotError, match="another generation with the same serial"):
        depot.add_generation(*make_generation(1, second))
    assert depot.read_manifest(1) == signed


def test_a_manifest_in_the_wrong_place_is_refused(depot: Depot) -> None:
    signed, manifest = make_generation(1, add_artefact(depot, {"00000": b"one", "00001": b"two"}))
    depot.add_generation(signed, manifest)
    (depot.path / "generations/1").rename(depot.path / "generations/7")
    with pytest.raises(DepotError, match="manifest of generation 1"):
        depot.load(7, [KEY.public_key], CLUSTER_ID)


def test_a_strangers_manifest_is_refused(depot: Depot) -> None:
    depot.add_generation(*make_generation(1, add_artefact(depot, {"00000": b"one", "00001": b"two"})))
    with pytest.raises(TrustError, match="does not trust"):
        depot.load(1, [SecretKey.generate().public_key], CLUSTER_ID)
    with pytest.raises(TrustError, match="not of"):
        depot.load(1, [KEY.public_key], "cd" * 16)


def test_equal_frames_are_stored_once(depot: Depot) -> None:
    first = add_artefact(depot, {"00000": b"same", "00001": b"two"})
    second = add_artefact(depot, {"00000": b"three", "00001": b"same"})
    one, other = depot.artefact_files(first.info_hash)[0], depot.artefact_files(second.info_hash)[1]
    assert one.samefile(other)


def test_what_another_generation_has_is_not_fetched(depot: Depot, tmp_path: Path) -> None:
    elsewhere = Depot.create(tmp_path / "elsewhere")
    add_artefact(depot, {"00000": b"same", "00001": b"old"})
    new = add_artefact(elsewhere, {"00000": b"same", "00001": b"new"})
    torrent = depot.begin_artefact(elsewhere.torrent(new.info_hash), new.info_hash)
    directory = depot.save_path(new.info_hash) / torrent.name
    assert (directory / "00000").read_bytes() == b"same"
    assert not (directory / "00001").exists()
    with pytest.raises(ArtefactError, match="00001 is not whole"):
        depot.finish_artefact(new.info_hash)
    (directory / "00001").write_bytes(b"new")
    depot.finish_artefact(new.info_hash)
    assert depot.has(new.info_hash)


def test_a_torrent_that_was_not_signed_is_refused(depot: Depot, tmp_path: Path) -> None:
    elsewhere = Depot.create(tmp_path / "elsewhere")
    evil = add_artefact(elsewhere, {"00000": b"evil", "00001": b"evil too"})
    with pytest.raises(ArtefactError, match="which was signed"):
        depot.begin_artefact(elsewhere.torrent(evil.info_hash), "0" * 64)
    assert not list((depot.path / "artefacts").iterdir())


def test_an_artefact_that_does_not_fit_is_refused_before_it_is_begun(
    depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Depot.create(tmp_path / "elsewhere")
    artefact = add_artefact(elsewhere, {"00000": b"x" * 4096, "00001": b"y"})
    usage = attrs.make_class("Usage", ["free"])
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(free=1 << 20))
    with pytest.raises(DepotFullError, match="do not fit"):
        depot.begin_artefact(elsewhere.torrent(artefact.info_hash), artefact.info_hash)


def test_damage_is_found_and_named_and_mended_by_publishing_again(depot: Depot) -> None:
    files = {"00000": b"one", "00001": b"two"}
    artefact = add_artefact(depot, files)
    victim = depot.artefact_files(artefact.info_hash)[1]
    victim.write_bytes(b"tvo")
    assert [str(victim) in line for line in depot.find_damage(artefact)] == [True]
    with pytest.raises(ArtefactError, match="bytes that were signed"):
        depot.read_file(artefact.info_hash, "00001")
    other = add_artefact(depot, {"00000": b"three", "00001": b"two"})
    assert depot.find_damage(artefact) == []
    assert depot.find_damage(other) == []


def test_pruning_keeps_what_is_needed(depot: Depot) -> None:
    old = add_artefact(depot, {"00000": b"shared", "00001": b"old"})
    new = add_artefact(depot, {"00000": b"shared", "00001": b"new"})
    depot.add_generation(*make_generation(1, old))
    depot.add_generation(*make_generation(2, new))
    metadata_bytes = len(depot.torrent(old.info_hash))
    planned = prune_depot(depot, 1, dry_run=True)
    assert depot.has(old.info_hash)
    assert prune_depot(depot, 1) == planned
    assert (planned.serials, planned.artefacts, planned.frames, planned.freed_bytes) == (
        (1,),
        (old.info_hash,),
        1,
        3 + metadata_bytes,
    )
    assert depot.serials() == [2]
    assert depot.find_damage(new) == []
    frames = {path.name for path in (depot.path / "frames").glob("*/*")}
    assert frames == {hash_file_root(b"shared").hex(), hash_file_root(b"new").hex()}


def test_only_one_changes_a_depot(depot: Depot) -> None:
    with depot.lock(), pytest.raises(DepotError, match="another bladeroot"), Depot(depot.path).lock():
        pass


def test_a_directory_that_is_no_depot(tmp_path: Path) -> None:
    with pytest.raises(DepotError, match="no depot in"):
        Depot.open(tmp_path)


def test_what_was_cut_off_is_taken_for_nothing_and_its_room_comes_back(depot: Depot) -> None:
    kept = add_artefact(depot, {"00000": b"kept", "index": b"index"})
    depot.add_generation(*make_generation(1, kept))
    draft = depot.path / "artefacts/.new-killed"
    draft.mkdir()
    (draft / "00000").write_bytes(b"d" * 1000)
    frame = depot.path / "frames/ab" / ("ab" * 32)
    frame.parent.mkdir(exist_ok=True)
    frame.write_bytes(b"f" * 500)
    os.link(frame, draft / "00001")
    (depot.path / "generations/2").mkdir()
    assert depot.serials() == [1]
    planned = prune_depot(depot, 9, dry_run=True)
    assert (planned.frames, planned.freed_bytes) == (1, 1500)
    assert draft.exists()
    assert prune_depot(depot, 9) == planned
    assert not draft.exists()
    assert not frame.exists()
    assert not (depot.path / "generations/2").exists()
    assert depot.find_damage(kept) == []


def test_a_damaged_manifest_is_named_by_its_path(depot: Depot) -> None:
    kept = add_artefact(depot, {"00000": b"kept", "index": b"index"})
    depot.add_generation(*make_generation(1, kept))
    path = depot.path / "generations/1/manifest"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    with pytest.raises(DepotError, match=re.escape(f"{path} is damaged")):
        depot.read_manifest(1)
    with pytest.raises(DepotError, match="is damaged"):
        prune_depot(depot, 1)
    assert depot.has(kept.info_hash)
    path.write_bytes(whole)
    path.parent.rename(path.parent.with_name("7"))
    with pytest.raises(DepotError, match="is the manifest of generation 1"):
        depot.read_unchecked(7)


def test_a_full_filesystem_is_a_full_depot(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, depot.new_artefact() as writer:
        file = writer.add_file("00000", b"bytes")
        index = writer.add_file("index", b"index")
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(DepotFullError, match=str(depot.path)):
            writer.finish(ArtefactKind.RUNTIME, [file, index], 5)
    assert list((depot.path / "artefacts").glob(".new-*")) == []
