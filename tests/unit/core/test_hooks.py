from __future__ import annotations

import pytest

from bladeroot.core.cluster import Blade
from bladeroot.core.hooks import HOOKS_DIRECTORY, HookFacts, When, find_hooks, render_environment
from bladeroot.core.overlaytree import EntryKind, OverlayEntry
from bladeroot.errors import OverlayError


def entry(path: str, content: bytes = b"#!/bin/sh\n", mode: int = 0o755, **more: object) -> OverlayEntry:
    options: dict[str, object] = {
        "kind": EntryKind.FILE,
        "layer": "cluster",
        "source": f"hooks/{path}",
        **more,
    }
    return OverlayEntry(path=f"{HOOKS_DIRECTORY}/{path}", content=content, mode=mode, **options)  # type: ignore[arg-type]


def test_hooks_are_in_the_order_in_which_they_run() -> None:
    names = ["first-boot/1", "post-install/b", "post-install/10", "pre-install/z", "post-install/2"]
    folder = entry("post-install", kind=EntryKind.DIRECTORY, content=b"")
    other = OverlayEntry(path="etc/bladeroot/cluster.toml", kind=EntryKind.FILE, layer="bladeroot")
    gone = entry("post-install/old", kind=EntryKind.DELETION, content=b"")
    found = find_hooks([*map(entry, names), folder, other, gone])
    assert [f"{hook.when}/{hook.name}" for hook in found] == [
        "pre-install/z",
        "post-install/10",
        "post-install/2",
        "post-install/b",
        "first-boot/1",
    ]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (entry("post-install/a", mode=0o644), "hooks/post-install/a: a hook that is not executable"),
        (entry("post-install/a", b"echo\n"), "hooks/post-install/a: a hook that does not begin with #!"),
        (entry("post-install/a", b""), "hooks/post-install/a: a hook that does not begin with #!"),
        (entry("post-install/a~"), "hooks/post-install/a~: not a hook's name"),
        (entry("post-install/a/b"), "hooks/post-install/a/b: not a hook's name"),
        (entry("post-install/a", kind=EntryKind.SYMLINK), "hooks/post-install/a: a hook is a file"),
        (entry("post-install/a", kind=EntryKind.DIRECTORY), "hooks/post-install/a: a hook is a file"),
        (entry("late/a"), "hooks/late/a: no such kind of hook"),
        (entry("late", kind=EntryKind.DIRECTORY), "hooks/late: no such kind of hook"),
    ],
)
def test_what_is_no_hook_is_one_line(bad: OverlayEntry, said: str) -> None:
    with pytest.raises(OverlayError) as caught:
        find_hooks([bad])
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_the_environment() -> None:
    blade = Blade(
        name="web01",
        role="web",
        macs=("52:54:00:00:00:01",),
        address="10.0.0.1/24",
        rack="r1",
        location="left of the door",
        facts={"disk-bay": "7", "a.b c": "with\0zero"},
    )
    facts = HookFacts(
        blade=blade,
        cluster="room",
        serial=7,
        macs=("52:54:00:00:00:01", "52:54:00:00:00:02"),
        uuid="u",
        disk="/dev/sda",
        firmware="uefi",
        root_address="10.0.0.9",
    )
    assert render_environment(facts, When.POST_INSTALL, "10-raid") == {
        "BLADEROOT_BLADE": "web01",
        "BLADEROOT_ROLE": "web",
        "BLADEROOT_CLUSTER": "room",
        "BLADEROOT_SERIAL": "7",
        "BLADEROOT_ADDRESS": "10.0.0.1/24",
        "BLADEROOT_MACS": "52:54:00:00:00:01 52:54:00:00:00:02",
        "BLADEROOT_UUID": "u",
        "BLADEROOT_DISK": "/dev/sda",
        "BLADEROOT_FIRMWARE": "uefi",
        "BLADEROOT_ROOT_ADDRESS": "10.0.0.9",
        "BLADEROOT_RACK": "r1",
        "BLADEROOT_LOCATION": "left of the door",
        "BLADEROOT_HOOK": "post-install/10-raid",
        "BLADEROOT_FACT_DISK_BAY": "7",
        "BLADEROOT_FACT_A_B_C": "withzero",
    }


def test_what_is_not_known_is_empty() -> None:
    environment = render_environment(
        HookFacts(blade=Blade(name="a"), cluster="room", serial=1), When.PRE_INSTALL, "x"
    )
    assert environment["BLADEROOT_ADDRESS"] == environment["BLADEROOT_DISK"] == ""
