from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bladeroot.core.cluster import Blade
from bladeroot.core.manifest import Artefact, ArtefactKind, Manifest, make_blade_entries, sign_manifest
from bladeroot.core.signing import SecretKey
from bladeroot.errors import ArtefactError
from bladeroot.host.depot import Depot
from bladeroot.ops.folder import ClusterFolder, init_cluster
from bladeroot.ops.generations import Trust, find_problems, read_generation, write_artefact
from tests.unit.ui.cli.conftest import Run

RUNTIME = {"00000": b"one", "00001": b"two" * 1000, "index": b"end"}
AGENT = {"info": b"i", "initramfs.00": b"user", "initramfs.01": b"site", "vmlinuz.00": b"kernel"}


@pytest.fixture
def depot(run: Run, tmp_path: Path) -> Depot:
    """Three generations, all with the same overlays."""
    del run  # it makes $HOME the test's own
    folder = init_cluster(tmp_path / "lab", blades=[Blade(name="web01", role="web")]).folder
    depot = Depot.create(tmp_path / "depot")
    key = folder.secret_key(lambda _prompt: "")
    for serial in (1, 2, 3):
        add_generation(depot, folder, key, serial, {**RUNTIME, "00001": b"%d" % serial})
    return depot


def add_generation(
    depot: Depot, folder: ClusterFolder, key: SecretKey, serial: int, files: Mapping[str, bytes]
) -> None:
    manifest = Manifest(
        cluster_id=folder.cluster.id,
        cluster_name=folder.cluster.name,
        serial=serial,
        previous=None,
        arch="x86_64",
        created=1_700_000_000,
        kernel_command_line="quiet",
        artefacts=(
            add_artefact(depot, ArtefactKind.RUNTIME, files),
            add_artefact(depot, ArtefactKind.OVERLAYS, {"index": b"i", "web01.tar.zst": b"w"}),
            add_artefact(depot, ArtefactKind.AGENT, AGENT),
        ),
        blades=make_blade_entries(folder.cluster),
    )
    depot.add_generation(sign_manifest(manifest, key), manifest)


def add_artefact(depot: Depot, kind: ArtefactKind, files: Mapping[str, bytes]) -> Artefact:
    with depot.new_artefact() as writer:
        return writer.finish(kind, [writer.add_file(name, data) for name, data in files.items()], 9)


def damage(depot: Depot, serial: int, name: str) -> None:
    info_hash = read_generation(depot, serial).manifest.artefact(ArtefactKind.RUNTIME).info_hash
    (path,) = (path for path in depot.artefact_files(info_hash) if path.name == name)
    path.write_bytes(b"x" * path.stat().st_size)


def test_no_depot_is_one_line(run: Run) -> None:
    ran = run("generations", "list")
    assert (ran.code, ran.err.count("\n")) == (22, 1)


@pytest.mark.usefixtures("depot")
def test_list(run: Run) -> None:
    facts = run("generations", "list", "--json").facts
    assert [(entry["serial"], entry["trusted"], entry["whole"]) for entry in facts] == [
        (3, True, True),
        (2, True, True),
        (1, True, True),
    ]
    assert run("generations", "list").out.splitlines()[1].split() == [
        "3", "2023-11-14", "22:13", "UTC", "7", "B", "-", "1", "trusted", "yes",
    ]  # fmt: skip


@pytest.mark.usefixtures("depot")
def test_show(run: Run) -> None:
    facts = run("generations", "show", "2", "--json").facts
    assert [artefact["kind"] for artefact in facts["artefacts"]] == ["runtime", "overlays", "agent"]
    assert [blade["name"] for blade in facts["blades"]] == ["web01"]
    shown = run("generations", "show", "2").out
    assert "web01" in shown
    assert facts["hash"] in shown
    assert run("generations", "show", "9").code == 22
    assert run("generations", "show", "x").code == 2


def test_a_strangers_generation_is_shown_as_refused(run: Run, depot: Depot) -> None:
    add_generation(depot, ClusterFolder.open(), SecretKey.generate(), 4, RUNTIME)

    assert run("generations", "list").out.splitlines()[1].split()[-2] == "REFUSED"
    shown = run("generations", "show", "4", "--json").facts
    assert shown["trusted"] is False
    assert "does not trust" in shown["distrusted"]
    verified = run("generations", "verify", "--json")
    assert verified.code == 20
    assert [entry["ok"] for entry in verified.facts] == [True, True, True, False]


def test_without_a_cluster_folder_signatures_are_unchecked(
    run: Run, depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLADEROOT_CLUSTER")
    monkeypatch.setattr("bladeroot.ops.folder.DEFAULT_FOLDER", depot.path / "nowhere")

    assert run("generations", "list", "--json").facts[0]["trusted"] is None
    verified = run("generations", "verify", "1")
    assert verified.code == 0
    assert "signature unchecked" in verified.out


def test_verify_finds_damage_and_takes_the_artefact_back(run: Run, depot: Depot) -> None:
    assert run("generations", "verify").code == 0
    damage(depot, 2, "00001")

    ran = run("generations", "verify", "--json")

    assert ran.code == 21
    assert [entry["ok"] for entry in ran.facts] == [True, False, True]
    assert "00001" in ran.facts[1]["problems"]["runtime"][0]
    assert run("generations", "list", "--json").facts[1]["whole"] is False


def test_damage_in_a_shared_frame_is_told_of_every_generation(run: Run, depot: Depot) -> None:
    damage(depot, 1, "00000")

    facts = run("generations", "verify", "--json").facts

    assert [entry["ok"] for entry in facts] == [False, False, False]


def test_export_lays_the_files_end_to_end(depot: Depot, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "bladeroot", "--depot", str(depot.path), "generations", "export", "3"]
    whole = subprocess.run([*argv, "runtime"], capture_output=True, check=True)
    one = subprocess.run([*argv, "overlays", "--file", "web01.tar.zst"], capture_output=True, check=True)

    agent = subprocess.run([*argv, "agent", "--file", "initramfs"], capture_output=True, check=True)

    assert whole.stdout == b"one3end"
    assert one.stdout == b"w"
    assert agent.stdout == b"usersite"
    held = read_generation(depot, 3)
    memory = io.BytesIO()
    write_artefact(depot, held.manifest.artefact(ArtefactKind.RUNTIME), memory.write)
    assert memory.getvalue() == b"one3end"
    assert not list(tmp_path.glob("*.zst"))


def test_export_writes_no_damaged_byte(depot: Depot) -> None:
    damage(depot, 3, "00001")
    memory = io.BytesIO()

    with pytest.raises(ArtefactError, match="does not have the bytes that were signed"):
        write_artefact(depot, read_generation(depot, 3).manifest.artefact(ArtefactKind.RUNTIME), memory.write)

    assert memory.getvalue() == b"one"


@pytest.mark.usefixtures("depot")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("3", "overlays"), 2, "overlays is several files (name one with --file: index, web01.tar.zst)"),
        (("3", "agent"), 2, "agent is several files (name one with --file: info, initramfs, vmlinuz)"),
        (("3", "extras"), 22, "has no extras artefact"),
        (("3", "kernel"), 2, "invalid choice: 'kernel'"),
        (("3", "runtime", "-o", "taken"), 2, "taken is there already"),
        (("3", "runtime", "-o", "nowhere/x"), 1, "nowhere/x: No such file"),
    ],
)
def test_export_refuses(run: Run, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    (tmp_path / "taken").write_text("precious")

    ran = run("generations", "export", *words)

    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert (tmp_path / "taken").read_text() == "precious"


def test_an_export_that_fails_leaves_no_file(run: Run, depot: Depot, tmp_path: Path) -> None:
    damage(depot, 3, "index")

    assert run("generations", "export", "3", "runtime", "-o", "out").code == 21
    assert not (tmp_path / "out").exists()
    assert run("generations", "export", "2", "runtime", "-o", "out2").code == 21  # the frame is shared


def test_prune(run: Run, depot: Depot) -> None:
    dry = run("generations", "prune", "--keep", "1", "--dry-run", "--json").facts
    assert depot.serials() == [1, 2, 3]
    wet = run("generations", "prune", "--keep", "1", "--json").facts

    assert depot.serials() == [3]
    assert dry == {**wet, "dry_run": True}
    assert (wet["serials"], wet["frames"]) == ([1, 2], 2)
    assert wet["freed_bytes"] > 2
    assert run("generations", "verify").code == 0
    assert run("generations", "prune", "--keep", "0").code == 2


def test_artefacts_that_were_read_are_not_read_again(depot: Depot) -> None:
    folder = ClusterFolder.open()
    trust = Trust(cluster_id=folder.cluster.id, keys=folder.trusted_keys())
    held = read_generation(depot, 1, trust)
    damage(depot, 1, "00001")
    hashes = {artefact.info_hash for artefact in held.manifest.artefacts}

    assert set(find_problems(depot, held)) == {"runtime"}
    assert find_problems(depot, held, known=hashes) == {}
