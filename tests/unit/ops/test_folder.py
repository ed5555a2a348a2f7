from __future__ import annotations

import os
import shutil
from pathlib import Path

import attrs
import pytest

from bladeroot.core.cluster import Blade, Role
from bladeroot.core.signing import Purpose
from bladeroot.errors import ConfigError, InventoryError, SigningKeyError
from bladeroot.ops import folder as folder_module
from bladeroot.ops.folder import ClusterFolder, find_folder, find_shipped_overlays, init_cluster


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("BLADEROOT_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def nobody(_prompt: str) -> str:
    raise AssertionError("asked for a passphrase that is not needed")


def tree(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*")}


def test_a_new_folder_has_all_its_parts_and_opens(tmp_path: Path, home: Path) -> None:
    made = init_cluster(
        tmp_path / "sites" / "My Lab",
        roles=[Role(name="db")],
        blades=[Blade(name="web01", role="web"), Blade(name="db1", role="db")],
    )

    opened = ClusterFolder.open(tmp_path / "sites" / "My Lab")
    assert opened == made.folder
    assert opened.cluster.name == "my-lab"
    assert set(opened.cluster.roles) == {"db", "web"}
    assert made.secret_key_path == home / ".config/bladeroot" / f"my-lab-{opened.cluster.id[:8]}.key"
    assert opened.trusted_keys() == (made.public_key,)
    signature = opened.secret_key(nobody).sign(Purpose.MANIFEST, b"x")
    assert made.public_key.verify(Purpose.MANIFEST, b"x", signature)
    assert opened.split_rules_path.read_text().strip()
    assert opened.capture_rules_path.read_text().strip()
    assert {"cluster", "role/web", "role/db", "blade"} <= tree(opened.overlays)


def test_the_overlays_that_ship_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    (shipped / "cluster/etc").mkdir(parents=True)
    (shipped / "cluster/etc/motd.j2").write_text("hello")
    (shipped / "cluster/link").symlink_to("/nowhere")
    (shipped / "cluster/run").write_text("#!/bin/sh\n")
    (shipped / "cluster/run").chmod(0o755)
    monkeypatch.setattr(folder_module, "find_shipped_overlays", lambda: shipped)

    overlays = init_cluster(tmp_path / "lab").folder.overlays

    assert (overlays / "cluster/etc/motd.j2").read_text() == "hello"
    assert (overlays / "cluster/link").readlink() == Path("/nowhere")
    assert os.access(overlays / "cluster/run", os.X_OK)


def test_what_ships_is_found_in_a_source_tree() -> None:
    found = find_shipped_overlays()

    assert found is not None
    assert found.name in ("overlays", "shipped_overlays")


def test_two_clusters_never_share_an_id_or_a_key(tmp_path: Path) -> None:
    one, other = init_cluster(tmp_path / "a"), init_cluster(tmp_path / "b")

    assert one.folder.cluster.id != other.folder.cluster.id
    assert one.public_key != other.public_key


def test_an_empty_directory_will_do_and_any_other_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    init_cluster(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")

    with pytest.raises(ConfigError, match="empty is a cluster folder already"):
        init_cluster(tmp_path / "empty")
    with pytest.raises(ConfigError, match="full is there, and not empty"):
        init_cluster(tmp_path / "full")
    with pytest.raises(ConfigError, match="precious is there"):
        init_cluster(tmp_path / "full" / "precious")
    assert tree(tmp_path / "full") == {"precious"}


def test_nothing_is_left_behind_when_the_key_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken.key").write_text("precious")
    before = tree(tmp_path)

    with pytest.raises(SigningKeyError):
        init_cluster(tmp_path / "lab", secret_key_path=tmp_path / "taken.key")

    assert tree(tmp_path) == before


def test_the_key_is_gone_too_when_the_folder_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target == tmp_path / "lab":
            raise PermissionError(13, "Permission denied")
        return real_rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ConfigError, match=r"cannot make .*lab: Permission denied"):
        init_cluster(tmp_path / "lab")

    assert not (tmp_path / "lab").exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_blades_that_contradict_make_no_folder(tmp_path: Path) -> None:
    blades = [Blade(name=name, role="web", macs=["525400000001"]) for name in ("a", "b")]

    with pytest.raises(InventoryError):
        init_cluster(tmp_path / "lab", blades=blades)

    assert not (tmp_path / "lab").exists()


def test_which_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_folder() == Path("/etc/bladeroot")
    monkeypatch.setenv("BLADEROOT_CLUSTER", "/x")
    assert find_folder() == Path("/x")
    assert find_folder(Path("/y")) == Path("/y")


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "latin-1"])
def test_what_is_no_cluster_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lab"
    if kind == "file":
        path.write_text("")
    elif kind != "missing":
        path.mkdir()
    if kind == "latin-1":
        (path / "cluster.toml").write_bytes(b"# caf\xe9\n")

    with pytest.raises(ConfigError) as caught:
        ClusterFolder.open(path)

    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_saving_keeps_remarks_mode_and_symlink(tmp_path: Path) -> None:
    folder = init_cluster(tmp_path / "lab", blades=[Blade(name="web01", role="web")]).folder
    shutil.move(folder.file, tmp_path / "elsewhere.toml")
    folder.file.symlink_to(tmp_path / "elsewhere.toml")
    folder.file.write_text("# mine\n" + folder.file.read_text())
    folder.file.chmod(0o640)

    blades = {**folder.cluster.blades, "web02": Blade(name="web02", role="web")}
    saved = folder.save(attrs.evolve(folder.cluster, blades=blades))

    assert ClusterFolder.open(folder.path) == saved
    assert set(saved.cluster.blades) == {"web01", "web02"}
    assert folder.file.is_symlink()
    assert folder.file.read_text().startswith("# mine\n")
    assert folder.file.stat().st_mode & 0o777 == 0o640


def test_a_file_that_somebody_else_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    folder = init_cluster(tmp_path / "lab").folder
    folder.save(attrs.evolve(folder.cluster, zstd_level=9))

    with pytest.raises(ConfigError, match="was changed meanwhile"):
        folder.save(attrs.evolve(folder.cluster, zstd_level=3))

    assert folder.reload().cluster.zstd_level == 9


def test_no_trusted_key_is_an_error(tmp_path: Path) -> None:
    folder = init_cluster(tmp_path / "lab").folder
    for path in folder.trusted_keys_path.iterdir():
        path.unlink()

    with pytest.raises(SigningKeyError, match="no trusted key in"):
        folder.trusted_keys()
