"""What tools are told, and what they say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from benchmarks.__main__ import make_parser, parse_numbers
from benchmarks.contender import render_script
from benchmarks.http import first_number
from benchmarks.payload import Payload, blade_name
from benchmarks.race import count_tree
from benchmarks.stage import Spot, Traffic, parse_traffic
from benchmarks.torrent import render_torrent

from bladeroot.core.torrentfile import bencode
from bladeroot.host.run import run
from bladeroot.lab.network import LabHost


def make_spot(disk: Path) -> Spot:
    return Spot("blade001", LabHost("blade001", "nowhere", "10.0.0.1", 24), disk)


def test_a_script_says_how_far_it_is(tmp_path: Path) -> None:
    disk = tmp_path / "a disk"
    disk.mkdir()
    argv = render_script(make_spot(disk), "echo noise >&2\necho x >{tree}/file\nsay have\n")
    said = run(argv, stdin="go\n").stdout.splitlines()
    assert [line.split()[0] for line in said] == ["ready", "have", "bootable"]
    _ready, have, bootable = said
    assert float(have.split()[1]) <= float(bootable.split()[1])
    assert (disk / "tree" / "file").read_text() == "x\n"


def test_a_script_that_fails_says_no_more(tmp_path: Path) -> None:
    done = run(render_script(make_spot(tmp_path), "false\nsay have\n"), stdin="go\n", check=False)
    assert done.code != 0
    assert done.stdout == "ready\n"


def test_a_torrent_of_the_tarball(tmp_path: Path) -> None:
    tarball = tmp_path / "image.tar.zst"
    data = bytes(range(256)) * 400
    tarball.write_bytes(data)
    payload = Payload(
        tree=tmp_path,
        depot=tmp_path,
        cluster=tmp_path,
        tarball=tarball,
        pieces=4,
        size_bytes=len(data),
        raw_bytes=len(data),
        files=1,
    )
    torrent, info_hash = render_torrent(payload, "http://root/announce")
    length = 32 << 10
    pieces = b"".join(
        hashlib.sha1(data[at : at + length]).digest()  # noqa: S324
        for at in range(0, len(data), length)
    )
    info = {"length": len(data), "name": tarball.name, "piece length": length, "pieces": pieces}
    assert torrent == bencode({"announce": "http://root/announce", "info": info})
    assert info_hash == hashlib.sha1(bencode(info)).hexdigest()  # noqa: S324


def test_names_and_bytes_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("folder")
    assert count_tree(tmp_path) == (3, 5)


def test_what_a_link_has_carried() -> None:
    told = json.dumps([{"ifname": "eth0", "stats64": {"rx": {"bytes": 7}, "tx": {"bytes": 9}}}])
    assert parse_traffic(told).since(Traffic(sent_bytes=4, received_bytes=1)) == Traffic(5, 6)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nginx version: nginx/1.22.1", "1.22.1"),
        ("Udp-sender 20120424\n", "20120424"),
        ("rsync  version 3.2.7  protocol version 31", "3.2.7"),
        ("who knows", "?"),
    ],
)
def test_versions_that_tools_tell(text: str, version: str) -> None:
    assert first_number(text) == version


def test_sizes_of_rooms() -> None:
    assert parse_numbers("1,8,32") == [1, 8, 32]
    assert blade_name(0) == "blade001"
    for text in ("0", "1,x", "100000"):
        with pytest.raises(ValueError):  # noqa: PT011 - argparse says what is wrong with it
            parse_numbers(text)


def test_unknown_tools_and_rates_are_errors_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--only", "carrier-pigeon"], ["--rate", "fast"]):
        with pytest.raises(SystemExit):
            make_parser().parse_args(words)
        assert "error" in capsys.readouterr().err
