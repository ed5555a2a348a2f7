"""The agent's initramfs: what it is made of, when it is made again, and that the same gives the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from bladeroot.core.agentfiles import INITRAMFS, cut_into_parts
from bladeroot.core.cpio import Entry, make_file, render_cpio
from bladeroot.errors import MissingToolError
from bladeroot.events import Event, Warned, ignore
from bladeroot.host.run import find_tool
from bladeroot.ops.initramfs import AgentFiles, build, plan_agent, userland
from bladeroot.ops.initramfs.site import make_site_entries
from bladeroot.ops.initramfs.userland import Userland, find_userland, make_userland_entries, parse_ldd

RELEASE = "6.1.0-test"
FOLDER = f"usr/lib/modules/{RELEASE}"
TOML = 'name = "toy"\n'
KEYS = {"operator.pub": b"a key\n"}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Userland]:
    """A user space of one file instead of this machine's; which were made, not taken from the cache."""
    made: list[Userland] = []

    def make(user_space: Userland) -> Iterator[Entry]:
        made.append(user_space)
        yield make_file("init", b"#!/bin/sh\n", 0o755)

    monkeypatch.setattr(build, "find_userland", lambda _reporter: Userland(files={}, links={}, modules={}))
    monkeypatch.setattr(build, "make_userland_entries", make)
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("BLADEROOT_CACHE", str(path))
    return path


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    root = tmp_path / "snapshot"
    add_kernel(root, RELEASE)
    (root / "lib").symlink_to("usr/lib")
    write(root / FOLDER / "kernel/drivers/nvme/nvme.ko", b"\x7fELF\0firmware=acme/fw.bin\0depends=\0")
    return root


def add_kernel(root: Path, release: str) -> None:
    write(root / "boot" / f"vmlinuz-{release}", b"kernel " + release.encode())


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def build_here(snapshot: Path, toml: str = TOML) -> AgentFiles:
    plan = plan_agent(snapshot, toml, KEYS)
    assert plan is not None
    return plan.build()


def unpack(archive: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(archive)


@pytest.mark.usefixtures("cache", "made")
def test_it_is_user_space_then_modules_then_what_is_the_clusters(snapshot: Path) -> None:
    agent = build_here(snapshot)
    user_space, modules, site = agent.archives
    assert agent.kernel == b"kernel 6.1.0-test"
    assert unpack(user_space) == b"".join(render_cpio([make_file("init", b"#!/bin/sh\n", 0o755)]))
    assert f"{FOLDER}/kernel/drivers/nvme/nvme.ko".encode() in unpack(modules)
    assert f"{FOLDER}/modules.dep.bin".encode() in unpack(modules)
    assert site == b"".join(render_cpio(make_site_entries(TOML, KEYS))), "plain, for anybody to read"
    assert b"etc/bladeroot/keys/trusted/operator.pub\0" in site
    assert all(len(archive) % 4 == 0 for archive in agent.archives)
    assert agent.raw_size_bytes == len(unpack(user_space)) + len(unpack(modules)) + len(site)


@pytest.mark.usefixtures("cache", "made")
def test_an_edited_inventory_changes_nothing_but_the_last_part(snapshot: Path) -> None:
    one, other = (
        list(cut_into_parts(INITRAMFS, *build_here(snapshot, toml).archives))
        for toml in (TOML, "name = 'other'\n")
    )
    assert [name for name, _data in one] == [name for name, _data in other]
    assert one[:-1] == other[:-1]
    assert one[-1] != other[-1]


@pytest.mark.usefixtures("cache")
def test_the_second_time_it_comes_out_of_the_cache(snapshot: Path, made: list[Userland]) -> None:
    assert build_here(snapshot) == build_here(snapshot)
    assert len(made) == 1


def test_without_the_cache_the_same_gives_the_same(snapshot: Path, cache: Path, made: list[Userland]) -> None:
    before = build_here(snapshot)
    for path in (cache / "agent").iterdir():
        path.unlink()
    assert build_here(snapshot) == before
    assert len(made) == 2


@pytest.mark.parametrize("damage", [b"", b"not zstd", None])
def test_a_damaged_cache_is_made_again(
    snapshot: Path, cache: Path, made: list[Userland], damage: bytes | None
) -> None:
    before = build_here(snapshot)
    for path in (cache / "agent").iterdir():
        path.write_bytes(path.read_bytes()[:-12] if damage is None else damage)
    assert build_here(snapshot) == before
    assert build_here(snapshot) == before
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_to_is_done_without(
    snapshot: Path, cache: Path, made: list[Userland]
) -> None:
    cache.write_bytes(b"a file is in its place")
    assert build_here(snapshot) == build_here(snapshot)
    assert len(made) == 2


@pytest.mark.usefixtures("made")
def test_the_cache_keeps_a_few_that_were_used_last(snapshot: Path, cache: Path) -> None:
    first = build_here(snapshot)
    for number in range(9):
        os.utime(snapshot / FOLDER / "kernel/drivers/nvme/nvme.ko", (number, number))
        build_here(snapshot)
    kept = sorted(path.name.partition("-")[0] for path in (cache / "agent").iterdir())
    assert kept == ["modules"] * 8 + ["userland"]
    assert build_here(snapshot) == first


@pytest.mark.usefixtures("cache", "made")
def test_firmware_that_is_installed_later_is_taken(snapshot: Path) -> None:
    assert b"usr/lib/firmware" not in unpack(build_here(snapshot).archives[1])
    write(snapshot / "usr/lib/firmware/acme/real.bin", b"firmware")
    (snapshot / "usr/lib/firmware/acme/fw.bin").symlink_to("real.bin")
    archive = unpack(build_here(snapshot).archives[1])
    assert b"usr/lib/firmware/acme/fw.bin\0" in archive
    assert b"real.bin" not in archive, "only what a module names"


@pytest.mark.usefixtures("cache", "made")
def test_the_newest_kernel_that_has_its_modules_is_taken(snapshot: Path) -> None:
    add_kernel(snapshot, "6.9.0-half-removed")
    heard: list[Event] = []
    agent = plan_agent(snapshot, TOML, KEYS, heard.append)
    assert agent is not None
    assert agent.build().info.kernel_release == RELEASE
    assert heard == []


@pytest.mark.usefixtures("cache", "made")
def test_a_kernel_without_modules_is_taken_with_a_warning(tmp_path: Path) -> None:
    add_kernel(tmp_path / "bare", "6.1.0-monolith")
    heard: list[Event] = []
    agent = plan_agent(tmp_path / "bare", TOML, KEYS, heard.append)
    assert agent is not None
    assert agent.build().info.modules == 0
    assert [event.text for event in heard if isinstance(event, Warned)] == [
        f"{tmp_path}/bare has no modules of its kernel vmlinuz-6.1.0-monolith:"
        " the agent has only the drivers that are built in"
    ]


def test_a_tree_without_a_kernel_has_no_agent(tmp_path: Path) -> None:
    heard: list[Event] = []
    assert plan_agent(tmp_path, TOML, KEYS, heard.append) is None
    assert [type(event) for event in heard] == [Warned]


@pytest.fixture(scope="module")
def here() -> Userland:
    return find_userland(ignore)


def test_it_has_the_agent_and_what_the_agent_loads(here: Userland) -> None:
    names = {*here.files, *here.modules, *here.links}
    assert names >= {
        "init",
        "usr/bin/python3",
        "usr/bin/sfdisk",
        "usr/bin/udhcpc",
        "usr/lib/bladeroot/bladeroot/agent/__main__.py",
        "usr/lib/bladeroot/bladeroot/ops/install.py",
        "usr/lib/bladeroot/zeroconf/__init__.py",
    }
    assert any(name.startswith("usr/lib/bladeroot/libtorrent/") for name in here.files)
    assert here.links["usr/sbin/modprobe"] == "../bin/modprobe", "the kernel calls /sbin/modprobe"


def test_it_has_nothing_for_operators(here: Userland) -> None:
    package = "usr/lib/bladeroot/"
    unwanted = tuple(
        f"{package}{name}/"
        for name in ("bladeroot/ui", "bladeroot/lab", "rich", "jinja2", "tomlkit", "pytest")
    )
    assert not [name for name in here.modules if name.startswith(unwanted)]
    assert not [name for name in here.modules if "/test/" in name or "/idlelib/" in name]


def test_a_tool_that_is_missing_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        if name == "sfdisk":
            raise MissingToolError("the program sfdisk is not installed", "apt install fdisk")
        return f"/nowhere/{name}"

    monkeypatch.setattr(userland, "find_tool", find)
    with pytest.raises(MissingToolError, match="sfdisk"):
        find_userland(ignore)


def test_a_tool_that_few_layouts_need_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:

    def find(name: str) -> str:
        if name == "mkfs.btrfs":
            raise MissingToolError("the program mkfs.btrfs is not installed", "apt install btrfs-progs")
        return find_tool("mkfs.ext4" if name == "mkfs.xfs" else name)

    monkeypatch.setattr(userland, "find_tool", find)
    heard: list[Event] = []
    found = find_userland(heard.append)
    assert "usr/bin/mkfs.btrfs" not in found.files
    assert [event.hint for event in heard if isinstance(event, Warned)] == ["apt install btrfs-progs"]


def test_programs_come_with_their_libraries_and_modules_as_byte_code(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("WORDS = {'a', 'b', 'c'}\n")
    small = Userland(
        files={"usr/bin/python3": Path("/bin/ls").resolve(), "init": source},
        links={"usr/sbin/modprobe": "../bin/modprobe", "lib": "usr/lib"},
        modules={"usr/lib/bladeroot/module.py": source},
    )
    entries = list(make_userland_entries(small))
    names = [entry.name for entry in entries]
    assert any("/libc.so" in name for name in names)
    assert any("/ld-" in name for name in names), "the linker itself"
    assert "usr/lib/bladeroot/module.pyc" in names
    assert "usr/lib/bladeroot/module.py" not in names
    assert not [name for name in names if name.startswith("lib/")], "that is a link"
    assert len(names) == len(set(names))
    for position, name in enumerate(names):
        parent = name.rpartition("/")[0]
        assert not parent or parent in names[:position], f"{name} before its folder"
    assert list(make_userland_entries(small)) == entries


LDD = """\
/usr/bin/python3:
\tlinux-vdso.so.1 (0x00007ffd)
\tlibpython3.12.so.1.0 => /opt/python/lib/libpython3.12.so.1.0 (0x00007f01)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)
\tlibgone.so => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f02)
/usr/bin/busybox:
\tnot a dynamic executable
"""


def test_libraries_go_where_the_linker_looks() -> None:
    assert parse_ldd(LDD) == {
        "usr/lib/x86_64-linux-gnu/libpython3.12.so.1.0": Path("/opt/python/lib/libpython3.12.so.1.0"),
        "usr/lib/x86_64-linux-gnu/libc.so.6": Path("/lib/x86_64-linux-gnu/libc.so.6"),
        "usr/lib64/ld-linux-x86-64.so.2": Path("/lib64/ld-linux-x86-64.so.2"),
    }
