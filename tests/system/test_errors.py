"""
What a tired person gets wrong, each by the real command.

One clear line, its exit code, and nothing half done behind it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bladeroot.core.cluster import MIB
from bladeroot.host.blockdev import open_disk
from bladeroot.host.loopdev import find_loops
from bladeroot.host.run import run
from bladeroot.lab.network import LabNetwork, start_network
from tests.system.errorbench import TIMEOUT_S, Bench, Ran, make_bench, make_own, make_toy, read_ran
from tests.system.test_install import look_into
from tests.toycluster import DISK_SIZE_BYTES

__all__ = ["make_bench", "make_own", "make_toy"]
pytestmark = pytest.mark.system

_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

# Disks


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda bench: bench.disk(size_bytes=128 * MIB), 41, "the disk has 128 MiB (use a larger disk"),
        (lambda bench: bench.disk(size_bytes=1000), 40, "not a disk (make it: truncate"),
        (lambda bench: bench.disk(size_bytes=0), 40, "not a disk (make it: truncate"),
        (lambda bench: bench.work / "none", 40, "No such file or directory (name a disk"),
        (lambda bench: bench.work, 40, "is neither a block device nor a file (name a disk"),
        (lambda _bench: Path("/dev/null"), 40, "is neither a block device nor a file (name a disk"),
    ],
)
def test_what_is_no_disk(bench: Bench, make: Callable[[Bench], Path], code: int, said: str) -> None:
    ran = bench.install("--disk", make(bench))
    assert (ran.code, said in ran.error) == (code, True), ran.error


def test_a_disk_in_use(bench: Bench) -> None:
    disk = bench.disk()
    assert bench.install("--disk", disk).code == 0
    with open_disk(disk) as opened:
        ran = bench.install("--disk", disk)
        assert (ran.code, "by another process" in ran.error) == (42, True), ran.error
        part = opened.partition(4)
        assert (ran := bench.install("--disk", part)).code == 40
        assert f"is a partition, not a disk (name the disk: {opened.device.name}" in ran.error
    with look_into(disk, bench.work):
        pass
    (bench.work / "m").mkdir()
    filesystem = bench.disk("filesystem", 64 * MIB)
    run(["mkfs.ext4", "-q", "-F", filesystem])
    run(["mount", "-o", "loop", filesystem, bench.work / "m"])
    try:
        device = find_loops(filesystem)[0]
        for busy in (filesystem, device):
            ran = bench.install("--disk", busy)
            assert (ran.code, str(bench.work / "m") in ran.error) == (42, True), ran.error
    finally:
        run(["umount", bench.work / "m"])


def test_a_file_that_is_swap(bench: Bench) -> None:
    file = bench.work / "swap"
    file.write_bytes(bytes(MIB))
    file.chmod(0o600)
    run(["mkswap", "-q", file])
    run(["swapon", file])
    try:
        ran = bench.install("--disk", file)
    finally:
        run(["swapoff", file])
    assert (ran.code, f"is swap (swapoff {file})" in ran.error) == (42, True), ran.error


def test_an_install_is_not_begun_unasked(bench: Bench) -> None:
    disk = bench.disk()
    ran = bench.run("install", "--blade", "web01", "--disk", disk, "--from-depot", bench.toy.depot.path)
    assert (ran.code, "(add --yes)" in ran.error) == (2, True), ran.error
    assert disk.read_bytes() == bytes(DISK_SIZE_BYTES)


# Snapshots, names, rights, keys


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["publish", "/"], 13, "is the running system, not a snapshot"),
        (["publish", "/nowhere"], 13, "does not exist (name the directory"),
        (["publish", "/etc/passwd"], 13, "is not a directory (name the directory"),
        (["publish", "/proc/self/fdinfo"], 13, "is not a snapshot"),
        (["overlay", "show", "web99"], 11, "no blade 'web99'"),
        (["blades", "set", "web99", "role=x"], 11, "no blade web99"),
        (["install", "--blade", "web01", "--disk", "x", "--wait", "-1"], 2, "not a number of seconds"),
        (["install", "--blade", "web01", "--disk", "x", "--root", "a:b"], 2, "write it as HOST:PORT"),
        (["install", "--blade", "web01", "--disk", "x", "--from-depot", "/etc"], 22, "no depot in /etc"),
        (["generations", "show", "7"], 22, "no generation 7"),
    ],
)
def test_names_and_paths(bench: Bench, words: list[str], code: int, said: str) -> None:
    ran = bench.run(*words)
    assert (ran.code, said in ran.error) == (code, True), ran.error


@pytest.mark.parametrize(
    "words", [["publish", "/x"], ["publish", "/x", "--dry-run"], ["install", "--blade", "web01"]]
)
def test_without_the_rights_of_root(words: list[str]) -> None:
    argv = [*_NOBODY, sys.executable, "-m", "bladeroot", "--json", *words]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ran.returncode == 3, ran.stderr
    assert "needs the superuser's rights (run it with sudo" in read_ran(ran.returncode, ran.stderr).error


def test_keys(own: Bench) -> None:
    key = own.work / "own/operator.key"
    whole = key.read_bytes()
    publish = ("publish", own.toy.snapshot)
    for data, mode, said in (
        (whole, 0o644, "chmod 600"),
        (b"junk\n", 0o600, "is not a bladeroot-secret-key-v1"),
        (whole[:60], 0o600, "has no key in it"),
        (b"", 0o600, "has no key in it"),
    ):
        key.write_bytes(data)
        key.chmod(mode)
        ran = own.run(*publish)
        assert (ran.code, said in ran.error) == (14, True), ran.error
    key.unlink()
    ran = own.run(*publish)
    assert (ran.code, "no key at" in ran.error) == (14, True), ran.error
    sealed, right, wrong = own.work / "sealed", own.work / "right", own.work / "wrong"
    right.write_text("right\n")
    wrong.write_text("wrong\n")
    argv = ["--key", key, "init", sealed, "--blades", "web01=web", "--passphrase-file", right]
    run([sys.executable, "-m", "bladeroot", *map(str, argv)])
    ran = own.run(*publish, "--cluster", sealed)
    assert (ran.code, "there is no terminal to ask on" in ran.error) == (14, True), ran.error
    ran = own.run(*publish, "--cluster", sealed, BLADEROOT_PASSPHRASE_FILE=str(wrong))
    assert (ran.code, "passphrase" in ran.error) == (14, True), ran.error


def test_two_blades_with_one_mac_and_other_mistakes_in_cluster_toml(own: Bench) -> None:
    file = own.toy.folder.file
    text = file.read_text()
    role = 'role = "web"'
    mac = f'{role}\nmacs = ["52:54:00:00:00:01"]'
    for changed, code, said in (
        (text + "x =\n", 10, "not TOML"),
        ("colour = 1\n" + text, 10, "colour: no such section"),
        (
            text.replace(f"[blades.web01]\n{role}", f'[blades.web01]\n{role}\nmac = "x"'),
            10,
            "blades.web01.mac: unknown key (did you mean",
        ),
        (text.replace('name = "toy"', "name = 3"), 10, "cluster.name: expected a string, found 3"),
        (text.replace('"256M"', '"12 parsecs"', 1), 10, "not a size: '12 parsecs'"),
        (text.replace(f"]\n{role}", f"]\n{mac}"), 11, "MAC address 52:54:00:00:00:01 is also web01's"),
    ):
        assert changed != text
        file.write_text(changed)
        ran = own.run("publish", own.toy.snapshot)
        assert (ran.code, said in ran.error, str(file) in ran.error) == (code, True, True), ran.error
    assert own.toy.depot.serials() == [1]


# The network


@pytest.fixture
def network() -> Iterator[LabNetwork]:
    with start_network("errors") as network:
        network.add_host("one")
        yield network


def run_in(network: LabNetwork, bench: Bench, *words: object) -> Ran:
    argv = network.host("one").command(bench.command(*words))
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return read_ran(ran.returncode, ran.stderr)


def test_no_root_without_waiting(bench: Bench, network: LabNetwork) -> None:
    disk = bench.disk()
    words = ("install", "--blade", "web01", "--disk", disk, "--yes", "--wait", "0")
    ran = run_in(network, bench, *words)
    assert (ran.code, "found in 0 s" in ran.error) == (31, True), ran.error
    ran = run_in(network, bench, *words, "--root", "10.77.0.99")
    assert (ran.code, "10.77.0.99:7474" in ran.error) == (30, True), ran.error
    assert disk.read_bytes() == bytes(DISK_SIZE_BYTES)


@pytest.mark.parametrize("port", [7474, 7475])
def test_a_port_that_is_taken(bench: Bench, network: LabNetwork, port: int) -> None:
    hold = f"s = socket.create_server(('0.0.0.0', {port})); print('ready', flush=True); sys.stdin.read()"
    code = f"import socket, sys; {hold}"
    argv = [str(word) for word in network.host("one").command([sys.executable, "-c", code])]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        ran = run_in(network, bench, "promote", "--blade", "web01")
        holder.communicate(timeout=TIMEOUT_S)
    assert (ran.code, str(port) in ran.error) == (32, True), ran.error
