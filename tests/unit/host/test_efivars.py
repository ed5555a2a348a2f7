"""The firmware's variables, in a folder that stands for efivarfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.errors import FirmwareError
from bladeroot.host import efivars
from bladeroot.host.efivars import apply_variables, find_efivars, read_variables, write_variable

GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


def test_a_bios_has_no_variables(tmp_path: Path) -> None:
    assert find_efivars(tmp_path / "efi") is None


def test_a_kernel_without_efivarfs_says_so(tmp_path: Path) -> None:
    with pytest.raises(FirmwareError, match="no access"):
        find_efivars(tmp_path)


def test_written_read_and_deleted(tmp_path: Path) -> None:
    (tmp_path / f"Boot0001-{GUID}").write_bytes(b"\x07\0\0\0long before")
    (tmp_path / f"Boot0002-{GUID}").write_bytes(b"\x07\0\0\0gone")
    (tmp_path / "BootOrder-12345678-1234-1234-1234-123456789abc").write_bytes(b"\x07\0\0\0another's")
    apply_variables(tmp_path, {"Boot0001": b"new", "BootOrder": b"\1\0"}, ("Boot0002", "BootNext"))
    assert read_variables(tmp_path) == {"Boot0001": b"new", "BootOrder": b"\1\0"}
    assert (tmp_path / f"BootOrder-{GUID}").read_bytes() == b"\x07\0\0\0\1\0"


def test_a_firmware_that_refuses_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / f"Boot0001-{GUID}").mkdir()
    with pytest.raises(FirmwareError, match="variable Boot0001: Is a directory"):
        write_variable(tmp_path, "Boot0001", b"")


def test_a_firmware_that_only_pretends_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efivars, "write_variable", lambda *_arguments: None)
    with pytest.raises(FirmwareError, match="has not taken the variable BootOrder"):
        apply_variables(tmp_path, {"BootOrder": b"\1\0"}, ())
    (tmp_path / f"Boot0002-{GUID}").write_bytes(b"\x07\0\0\0stays")
    monkeypatch.setattr(efivars, "delete_variable", lambda *_arguments: None)
    with pytest.raises(FirmwareError, match="still has the variable Boot0002"):
        apply_variables(tmp_path, {}, ("Boot0002",))
