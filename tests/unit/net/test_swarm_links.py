from __future__ import annotations

from pathlib import Path

from bladeroot.net.swarm.links import find_links


def test_only_interfaces_with_a_link(tmp_path: Path) -> None:
    for name, state in (("lo", "unknown"), ("eth0", "up"), ("eth1", "down"), ("eth2", "lowerlayerdown")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(f"{state}\n")
        (tmp_path / name / "carrier_up_count").write_text("1\n")
    (tmp_path / "gone").mkdir()
    (tmp_path / "bonding_masters").touch()
    found = find_links(tmp_path)
    assert found == {("lo", "1"), ("eth0", "1")}
    assert find_links(tmp_path / "nowhere") == frozenset()
    (tmp_path / "eth0/carrier_up_count").write_text("2\n")
    assert find_links(tmp_path) - found == {("eth0", "2")}
