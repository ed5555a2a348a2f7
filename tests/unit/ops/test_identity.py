from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.ops.identity import has_host_keys, write_host_keys, write_machine_id


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    slot = tmp_path / "slot"
    (slot / "etc/ssh").mkdir(parents=True)
    (slot / "usr/bin").mkdir(parents=True)
    (slot / "usr/bin/ssh-keygen").touch()
    (slot / "etc/ssh/ssh_host_rsa_key").write_text("of the snapshot")
    return slot


def make(folder: Path, text: str) -> list[Path]:
    folder.mkdir()
    keys = [folder / "ssh_host_ed25519_key", folder / "ssh_host_ed25519_key.pub"]
    for key in keys:
        key.write_text(text)
    return keys


def test_keys_made_meanwhile_become_the_blades(slot: Path, tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.mkdir()
    assert write_host_keys(slot, identity, lambda: make(tmp_path / "made", "first"))
    key = slot / "etc/ssh/ssh_host_ed25519_key"
    assert has_host_keys(identity)
    assert sorted(path.name for path in key.parent.iterdir()) == [key.name, f"{key.name}.pub"]
    assert key.read_text() == "first"
    assert key.stat().st_mode & 0o777 == 0o600
    assert write_host_keys(slot, identity, lambda: make(tmp_path / "again", "second"))
    assert key.read_text() == "first"


def test_a_tree_without_an_sshd_makes_no_blade_wait_for_keys(slot: Path, tmp_path: Path) -> None:
    (slot / "usr/bin/ssh-keygen").unlink()

    def fail() -> list[Path]:
        raise AssertionError

    assert not write_host_keys(slot, tmp_path, fail)


def test_a_machine_id_is_kept_and_a_damaged_one_made_anew(tmp_path: Path) -> None:
    slot, identity = tmp_path / "slot", tmp_path / "identity"
    (slot / "etc").mkdir(parents=True)
    identity.mkdir()
    first = write_machine_id(slot, identity)
    assert write_machine_id(slot, identity) == first
    assert (slot / "etc/machine-id").read_text() == f"{first}\n"
    for damaged in (b"", b"\xb4" * 33, first[:-1].encode()):
        (identity / "machine-id").unlink()
        (identity / "machine-id").write_bytes(damaged)
        again = write_machine_id(slot, identity)
        assert len(again) == 32
        assert write_machine_id(slot, identity) == again
