from __future__ import annotations

from pathlib import Path

from bladeroot.net.swarm.links import find_links


def test_only_interfaces_with_a_link(tmp_path: Path) -> None:
    for name, state in (("lo", "unknown"), ("eth0", "up"), ("eth1", "down"), ("eth2", "lowerlayerdown")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(f"{state}\n")
    (tmp_path / "gone").mkdir()
    (tmp_path / "bonding_masters").touch()
    assert find_links(tmp_path) == {"lo", "eth0"}
    assert find_links(tmp_path / "nowhere") == frozenset()
