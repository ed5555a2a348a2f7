"""Archives for the kernel, read back by bsdtar, which knows the format too."""

from __future__ import annotations

import stat
from pathlib import Path

from bladeroot.core.cpio import Entry, find_parents, make_directory, make_file, make_link, render_cpio
from bladeroot.host.run import run

ENTRIES = (
    make_directory("etc"),
    make_file("etc/motd", b"hello\n"),
    make_file("etc/odd", b"123"),
    make_file("etc/run", b"#!/bin/sh\n", 0o755),
    make_link("bin", "usr/bin"),
)


def test_what_is_put_in_comes_out(tmp_path: Path) -> None:
    archive = tmp_path / "a.cpio"
    archive.write_bytes(b"".join(render_cpio(ENTRIES)))
    out = tmp_path / "out"
    out.mkdir()
    run(["bsdtar", "-xpf", archive, "-C", out])
    assert (out / "etc/motd").read_bytes() == b"hello\n"
    assert (out / "etc/odd").read_bytes() == b"123"
    assert stat.S_IMODE((out / "etc/run").stat().st_mode) == 0o755
    assert (out / "bin").readlink() == Path("usr/bin")


def test_a_device_has_its_numbers(tmp_path: Path) -> None:
    archive = tmp_path / "a.cpio"
    console = Entry(name="console", mode=stat.S_IFCHR | 0o600, device=(5, 1))
    archive.write_bytes(b"".join(render_cpio([console])))
    listed = run(["bsdtar", "-tvf", archive]).stdout
    assert listed.startswith("crw-------")
    assert "5,1" in listed


def test_every_member_begins_at_a_multiple_of_four() -> None:
    archive = b"".join(render_cpio(ENTRIES))
    assert len(archive) % 4 == 0
    starts = [index for index in range(len(archive)) if archive.startswith(b"070701", index)]
    assert len(starts) == len(ENTRIES) + 1
    assert all(start % 4 == 0 for start in starts)


def test_the_same_entries_give_the_same_bytes() -> None:
    assert b"".join(render_cpio(ENTRIES)) == b"".join(render_cpio(ENTRIES))


def test_parents_come_before_what_they_hold() -> None:
    assert find_parents(["a/b/c", "a/d", "e"]) == ["a", "a/b"]
