from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from bladeroot.host import files
from bladeroot.host.files import writing_back

TIMEOUT_S = 20.0


def test_filesystems_are_synced_while_the_block_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_WRITE_BACK_PAUSE_S", 0.0)
    synced: list[Path] = []
    enough = threading.Event()

    def sync(path: Path) -> None:
        synced.append(path)
        if len(synced) == 4:
            enough.set()

    monkeypatch.setattr(files, "sync_filesystem", sync)
    with writing_back(tmp_path, tmp_path / "other"):
        assert enough.wait(TIMEOUT_S)
    assert synced[:4] == [tmp_path, tmp_path / "other"] * 2
    count = len(synced)
    assert not any(thread.name == "write-back" for thread in threading.enumerate())
    assert len(synced) == count


def test_what_the_disk_has_answered_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_WRITE_BACK_PAUSE_S", 0.0)
    failed = threading.Event()

    def sync(_path: Path) -> None:
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "sync_filesystem", sync)
    with pytest.raises(OSError, match="Input/output"), writing_back(tmp_path):
        assert failed.wait(TIMEOUT_S)


def test_what_goes_wrong_in_the_block_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_WRITE_BACK_PAUSE_S", 0.0)
    failed = threading.Event()

    def sync(_path: Path) -> None:
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "sync_filesystem", sync)

    def fail_meanwhile() -> None:
        with writing_back(tmp_path):
            assert failed.wait(TIMEOUT_S)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail_meanwhile()
