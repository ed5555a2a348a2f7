from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bladeroot.errors import SigningKeyError
from bladeroot.ops.folder import ClusterFolder, init_cluster
from bladeroot.ui.cli import options


def make_args(**given: Path | None) -> argparse.Namespace:
    return argparse.Namespace(**{"cluster": None, "depot": None, "key": None, **given})


def test_a_passphrase_comes_from_a_file_where_nobody_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("BLADEROOT_KEY", raising=False)
    monkeypatch.delenv("BLADEROOT_PASSPHRASE_FILE", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    made = init_cluster(tmp_path / "lab", passphrase="geheim")
    folder = ClusterFolder.open(tmp_path / "lab")

    with pytest.raises(SigningKeyError, match="no terminal to ask on") as caught:
        options.read_secret_key(make_args(), folder)
    assert "BLADEROOT_PASSPHRASE_FILE" in caught.value.hint

    (tmp_path / "pass").write_text("geheim\n")
    monkeypatch.setenv("BLADEROOT_PASSPHRASE_FILE", str(tmp_path / "pass"))
    assert options.read_secret_key(make_args(), folder).public_key == made.public_key
    assert options.read_secret_key(make_args(key=made.secret_key_path), folder).public_key == made.public_key

    (tmp_path / "pass").write_text("\n")
    with pytest.raises(SigningKeyError, match="empty first line"):
        options.read_secret_key(make_args(), folder)


def test_which_depot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLADEROOT_DEPOT", raising=False)
    assert options.depot_path(make_args()) == Path("/var/lib/bladeroot")
    monkeypatch.setenv("BLADEROOT_DEPOT", "/x")
    assert options.depot_path(make_args()) == Path("/x")
    assert options.depot_path(make_args(depot=Path("/y"))) == Path("/y")
