from __future__ import annotations

import pytest

from bladeroot.core.splitting import DEFAULT_SPLIT_RULES, Part, SplitRules, parse_split_rules, split_members
from bladeroot.core.tarformat import Member, MemberKind
from bladeroot.errors import ConfigError

DEFAULTS = parse_split_rules(DEFAULT_SPLIT_RULES, "split.rules")


def directory(path: str) -> Member:
    return Member(path.encode(), MemberKind.DIRECTORY, mode=0o755)


def file(path: str) -> Member:
    return Member(path.encode(), MemberKind.FILE)


def hard_link(path: str, target: str) -> Member:
    return Member(path.encode(), MemberKind.HARDLINK, link_target=target.encode())


def split(members: list[Member], rules: str | SplitRules) -> dict[Part, list[str]]:
    parsed = parse_split_rules(rules, "rules") if isinstance(rules, str) else rules
    return {
        part: [one.path.decode() for one in some] for part, some in split_members(members, parsed).items()
    }


def test_the_last_matching_line_wins() -> None:
    rules = parse_split_rules(
        "extras /usr/share/doc/*\nruntime /usr/share/doc/*/copyright\nleave-out /usr/share/doc/b/*\n", "r"
    )
    assert rules.classify(b"usr/share/doc/a/readme", is_directory=False) is Part.EXTRAS
    assert rules.classify(b"usr/share/doc/a/copyright", is_directory=False) is Part.RUNTIME
    assert rules.classify(b"usr/share/doc/b/copyright", is_directory=False) is Part.LEFT_OUT
    assert rules.classify(b"usr/share/doc", is_directory=True) is Part.RUNTIME


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/usr/*.a", "usr/lib/x/libc.a", True),
        ("/usr/*.a", "usr/lib/x/libc.a.gz", False),
        ("/usr/*.a", "opt/libc.a", False),
        ("/*", "x", True),
        ("/a?c", "abc", True),
        ("/a?c", "a\xe9c", True),
        ("/a[b-d]c", "acc", True),
        ("/a[!b-d]c", "acc", False),
        ("/etc/issue", "etc/issue", True),
        ("/etc/issue", "etc/issue.d", False),
        ("/*/cache/*", "var/cache/x", True),
        ("/v*r/c", "var/c", True),
        ("/with space/*", "with space/x", True),
    ],
)
def test_patterns(pattern: str, path: str, fits: bool) -> None:
    rules = parse_split_rules(f"extras {pattern}\n", "r")
    assert (rules.classify(path.encode(), is_directory=False) is Part.EXTRAS) is fits


def test_names_that_are_not_utf8_are_matched_too() -> None:
    rules = parse_split_rules("extras /a/*.txt\n", "r")
    assert rules.classify(b"a/\xff\xfe.txt", is_directory=False) is Part.EXTRAS


def test_comments_and_blank_lines_are_passed_over() -> None:
    rules = parse_split_rules("# x\n\n   # y\nextras /a/*  # why\nextras /b[#]\n", "r")
    assert [(rule.pattern, rule.line) for rule in rules.rules] == [("/a/*", 4), ("/b[#]", 5)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("extra /usr/*", "split.rules:2: no such rule: 'extra'"),
        ("extras", "split.rules:2: a pattern has to start with /"),
        ("extras usr/*", "split.rules:2: a pattern has to start with /"),
        ("extras /usr/src/", "split.rules:2: extras /usr/src/ would name nothing but directories"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_split_rules(f"# first\n{line}\n", "split.rules")
    assert caught.value.hint


def test_a_trailing_slash_keeps_directories_of_what_is_left_out() -> None:
    tree = [directory("log"), file("log/syslog"), directory("log/nginx"), file("log/nginx/access.log")]
    found = split(tree, "leave-out /log/*\nruntime /log/*/\n")
    assert found[Part.RUNTIME] == ["log", "log/nginx"]
    assert found[Part.LEFT_OUT] == ["log/syslog", "log/nginx/access.log"]


def test_each_part_has_the_parents_of_what_it_holds() -> None:
    tree = [
        directory(""),
        directory("doc"),
        directory("doc/a"),
        file("doc/a/copyright"),
        file("doc/a/readme"),
        directory("doc/b"),
        file("doc/b/readme"),
        directory("doc/empty"),
        directory("etc"),
    ]
    found = split(tree, "extras /doc/*\nruntime /doc/*/copyright\n")
    assert found[Part.RUNTIME] == ["", "doc", "doc/a", "doc/a/copyright", "etc"]
    assert found[Part.EXTRAS] == ["", "doc", "doc/a", "doc/a/readme", "doc/b", "doc/b/readme", "doc/empty"]
    assert found[Part.LEFT_OUT] == []


def test_a_left_out_directory_comes_back_for_what_is_kept_in_it() -> None:
    tree = [directory("a"), directory("a/b"), file("a/b/keep"), file("a/b/drop"), directory("a/c")]
    found = split(tree, "leave-out /a*\nextras /a/b/keep\n")
    assert found[Part.EXTRAS] == ["a", "a/b", "a/b/keep"]
    assert found[Part.LEFT_OUT] == ["a/b/drop", "a/c"]


@pytest.mark.parametrize("first_is_runtime", [True, False])
def test_names_of_one_file_stay_together_in_runtime(first_is_runtime: bool) -> None:
    extras = "two" if first_is_runtime else "one"
    found = split([file("one"), hard_link("two", "one"), file("three")], f"extras /{extras}\n")
    assert found[Part.RUNTIME] == ["one", "two", "three"]


def test_names_of_one_file_prefer_extras_to_nothing() -> None:
    tree = [file("one"), hard_link("two", "one"), hard_link("three", "one")]
    found = split(tree, "leave-out /*\nextras /three\n")
    assert found[Part.EXTRAS] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("usr/bin/bash", Part.RUNTIME),
        ("usr/lib/locale/C.utf8/LC_CTYPE", Part.RUNTIME),
        ("usr/lib/locale/locale-archive", Part.RUNTIME),
        ("usr/share/locale/locale.alias", Part.RUNTIME),
        ("usr/share/locale/de/LC_MESSAGES/x.mo", Part.EXTRAS),
        ("usr/share/doc/bash/copyright", Part.EXTRAS),
        ("usr/share/zoneinfo/UTC", Part.RUNTIME),
        ("usr/include/stdio.h", Part.EXTRAS),
        ("usr/lib/x86_64-linux-gnu/libc.a", Part.EXTRAS),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", Part.RUNTIME),
        ("usr/lib64/libc.a", Part.EXTRAS),
        ("usr/lib/python3/dist-packages/mesonbuild/cmake/common.py", Part.RUNTIME),
        ("var/lib/dpkg/status", Part.RUNTIME),
        ("var/lib/dpkg/info/bash.list", Part.EXTRAS),
        ("var/lib/rpm/rpmdb.sqlite", Part.EXTRAS),
        ("var/cache/apt/pkgcache.bin", Part.LEFT_OUT),
        ("var/lib/apt/lists/deb_InRelease", Part.LEFT_OUT),
        ("var/log/nginx/access.log", Part.LEFT_OUT),
        ("etc/ssh/ssh_host_ed25519_key", Part.LEFT_OUT),
        ("etc/ssh/sshd_config", Part.RUNTIME),
        ("root/.config/bladeroot/key", Part.LEFT_OUT),
        ("var/lib/bladeroot/frames/ab/abcd", Part.LEFT_OUT),
        ("dev/console", Part.RUNTIME),
        ("proc/1", Part.LEFT_OUT),
        ("a", Part.RUNTIME),
    ],
)
def test_defaults_for_files(path: str, part: Part) -> None:
    assert DEFAULTS.classify(path.encode(), is_directory=False) is part


@pytest.mark.parametrize(
    "path", ["proc", "sys", "run", "tmp", "dev/pts", "var/log", "var/log/nginx", "var/log/journal"]
)
def test_defaults_keep_mount_points_and_log_directories(path: str) -> None:
    assert DEFAULTS.classify(path.encode(), is_directory=True) is Part.RUNTIME
