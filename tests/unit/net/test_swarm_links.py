from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.net.swarm.links import find_fastest_mbits, find_links


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


@pytest.mark.parametrize(
    ("cards", "fastest"),
    [
        ({"eth0": "1000", "eth1": "25000"}, 25000),
        ({"eth0": "-1"}, 0),
        ({"eth0": ""}, 0),
        ({}, 0),
    ],
)
def test_the_fastest_card_counts(tmp_path: Path, cards: dict[str, str], fastest: int) -> None:
    """What is no card, as veth and bridges are none, says what it likes."""
    (tmp_path / "veth0").mkdir()
    (tmp_path / "veth0" / "speed").write_text("100000\n")
    for name, speed in cards.items():
        (tmp_path / name / "device").mkdir(parents=True)
        (tmp_path / name / "speed").write_text(f"{speed}\n")
    assert find_fastest_mbits(tmp_path) == fastest
