from __future__ import annotations

import json
from pathlib import Path

import pytest

from bladeroot.core.cluster import Blade
from bladeroot.ops.folder import init_cluster
from bladeroot.ui.cli import main

UNITS = "usr/lib/systemd/system"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    blades = [Blade(name="web01", role="web"), Blade(name="cache01", role="cache")]
    init_cluster(tmp_path / "room", blades=blades, secret_key_path=tmp_path / "secret.key")
    return tmp_path / "room"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    root = tmp_path / "snapshot"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("golden\n")
    (root / UNITS).mkdir(parents=True)
    for name in ("nginx", "memcached"):
        (root / UNITS / f"{name}.service").write_text("[Install]\nWantedBy=multi-user.target\n")
    return root


def test_show_as_json_says_path_layer_and_links(
    folder: Path, snapshot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--cluster", str(folder), "--json", "overlay", "show", "web01", "--snapshot", str(snapshot)]
    assert main(words) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["layers"] == ["bladeroot", "cluster", "role/web", "blade/web01"]
    entries = {entry["path"]: entry for entry in facts["entries"]}
    assert entries["/etc/hostname"]["overrides"] == ["snapshot"]
    assert entries["/var/www/html/index.html"]["layer"] == "role/web"
    assert entries["/var/www/html/index.html"]["mode"] == "0644"
    services = {service["unit"]: service for service in facts["services"]}
    assert services["nginx.service"]["changes"] == [
        "/etc/systemd/system/multi-user.target.wants/nginx.service"
    ]
    assert services["memcached.service"]["action"] == "disable"


def test_show_without_a_snapshot_lists_switches(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cluster", str(folder), "overlay", "show", "cache01"]) == 0
    captured = capsys.readouterr()
    assert any(line.split()[:2] == ["memcached.service", "enable"] for line in captured.out.splitlines())
    assert "--snapshot PATH" in captured.err


def test_show_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--cluster", str(folder), "overlay", "show", "web01", "--file"]
    assert main([*words, "/etc/hostname"]) == 0
    assert capsys.readouterr().out == "web01\n"
    assert main([*words, "/etc/nothing"]) == 12
    assert "has no file /etc/nothing" in capsys.readouterr().err


def test_diff_is_unified_and_empty_for_one_blade(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cluster", str(folder), "overlay", "diff", "web01", "cache01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("--- web01:/etc/hostname")
    assert lines[start + 1] == "+++ cache01:/etc/hostname"
    assert {"-web01", "+cache01", "-enable nginx.service", "+disable nginx.service"} <= set(lines)
    assert main(["--cluster", str(folder), "overlay", "diff", "web01", "web01"]) == 0
    assert capsys.readouterr().out.strip() == ""


def test_an_undefined_name_is_one_line_with_file_and_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = folder / "overlays/role/web/files/etc/x.j2"
    template.parent.mkdir(parents=True)
    template.write_text("one\n{{ blade.rack }}\n")
    assert main(["--cluster", str(folder), "overlay", "show", "web01"]) == 12
    error = capsys.readouterr().err
    assert f"{template}:2: blade web01 has no 'rack'" in error
    assert len(error.strip().splitlines()) == 1
