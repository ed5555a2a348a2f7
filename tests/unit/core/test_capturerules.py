from __future__ import annotations

import pytest

from bladeroot.core.capturerules import (
    DEFAULT_CAPTURE_RULES,
    CaptureRule,
    RuleAction,
    is_left_out,
    make_pattern,
    parse_capture_rules,
    render_rsync_filters,
)
from bladeroot.errors import ConfigError


def test_lines_become_rules_in_their_order() -> None:
    rules = parse_capture_rules("# why\n\n/tmp/*\n- *.bak\n+ /var/log/**/\n  = /etc/machine-id  \n")
    assert rules.rules == (
        CaptureRule(RuleAction.LEAVE_OUT, "/tmp/*"),
        CaptureRule(RuleAction.LEAVE_OUT, "*.bak"),
        CaptureRule(RuleAction.KEEP, "/var/log/**/"),
        CaptureRule(RuleAction.EMPTY, "/etc/machine-id"),
    )
    assert rules.emptied == ("/etc/machine-id",)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("*", "everything"),
        ("/*", "everything"),
        ("- /**", "everything"),
        ("= etc/machine-id", "not one file"),
        ("= /etc/*", "not one file"),
        ("= /etc/", "not one file"),
        ("/home/../etc", "climb"),
        ("/home/[ab", "without"),
        ("! /x", "not a rule"),
        ("- - /x", "not a rule"),
        (". /etc/other.rules", "not a rule"),
        ("!", "not a rule"),
    ],
)
def test_a_bad_line_is_named(line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_capture_rules(f"# first\n{line}\n", "/c/capture.rules")
    assert str(caught.value).startswith("/c/capture.rules:2: ")


def test_filters_hide_from_the_sender_only() -> None:
    rules = parse_capture_rules("/tmp/*\n+ /keep\n= /etc/machine-id\n")
    assert render_rsync_filters(rules, ["/srv/me"]).splitlines() == [
        "H /srv/me",
        "H /tmp/*",
        "S /keep",
        "H /etc/machine-id",
        "P /etc/machine-id",
    ]


@pytest.mark.parametrize(
    ("path", "pattern", "content"),
    [
        ("/a b", "/a b", "/a b/*"),
        ("/a*b", r"/a\*b", r"/a\*b/*"),
        (r"/a\b", r"/a\b", r"/a\\b/*"),
    ],
)
def test_a_path_as_a_pattern(path: str, pattern: str, content: str) -> None:
    assert make_pattern(path) == pattern
    assert make_pattern(path, only_content=True) == content


@pytest.mark.parametrize(
    ("rules", "directory", "left_out"),
    [
        ("/mnt/*", "/mnt/usb", True),
        ("/mnt/*", "/mnt", False),
        ("/mnt/*", "/mnt/usb/deep", True),
        ("/mnt/*", "/srv/mnt/usb", False),
        ("mnt/*", "/srv/mnt/usb", True),
        ("lost+found/", "/home/lost+found", True),
        ("/boot/efi", "/boot/efifi", False),
        ("/data/**/cache", "/data/a/b/cache", True),
        ("/data/*/cache", "/data/a/b/cache", False),
        ("/data/***", "/data", True),
        ("/disk[0-9]/", "/disk7", True),
        ("/disk[!0-9]/", "/disk7", False),
        ("/disk?", "/disk7", True),
        ("+ /mnt/keep\n/mnt/*", "/mnt/keep", False),
        ("/mnt/*\n+ /mnt/keep", "/mnt/keep", True),
        ("+ /mnt/keep\n/mnt/*", "/mnt/other", True),
        ("/a.c", "/abc", False),
    ],
)
def test_what_is_left_out(rules: str, directory: str, left_out: bool) -> None:
    assert is_left_out(parse_capture_rules(rules), directory) is left_out


def test_defaults_are_sound() -> None:
    rules = parse_capture_rules(DEFAULT_CAPTURE_RULES)
    assert "/etc/machine-id" in rules.emptied
    for directory in ("/proc/1", "/sys/class", "/run/lock", "/var/lib/bladeroot/frames", "/media/usb"):
        assert is_left_out(rules, directory), directory
    for directory in ("/proc", "/usr", "/boot", "/var/log/nginx", "/home/ann", "/etc/ssh", "/var/lib/dpkg"):
        assert not is_left_out(rules, directory), directory
