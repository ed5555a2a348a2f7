"""Which path of a snapshot is runtime, extras, or left out: `split.rules`, in dpkg's `path-exclude` habit.

A line is `runtime PATTERN`, `extras PATTERN` or `leave-out PATTERN`; the last line that matches a path
decides, and what no line matches is runtime. Pure.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

from attrs import field, frozen

from bladeroot.core.splitdefaults import DEFAULT_SPLIT_RULES
from bladeroot.core.tarformat import Member, MemberKind
from bladeroot.errors import ConfigError

__all__ = [
    "DEFAULT_SPLIT_RULES",
    "Part",
    "SplitRule",
    "SplitRules",
    "parse_split_rules",
    "split_members",
]

_TRAILING_COMMENT = re.compile(r"(^|\s)#.*")


class Part(StrEnum):
    """Where a path of the snapshot goes."""

    RUNTIME = "runtime"
    """What a blade needs to run."""
    EXTRAS = "extras"
    """What it can fetch after it is up."""
    LEFT_OUT = "leave-out"
    """What no blade gets."""


_STRENGTH = {Part.LEFT_OUT: 0, Part.EXTRAS: 1, Part.RUNTIME: 2}


@frozen
class SplitRule:
    """One line of the rules. `directories_only` is a pattern that ends in a slash."""

    part: Part
    pattern: str
    directories_only: bool = False
    line: int = 0


_Classify = Callable[[str], Part]
_WILDCARD = re.compile(r"[*?[]")


def _compile(rules: Sequence[SplitRule]) -> _Classify:
    """One regular expression for all rules, the last first: its first branch that fits is the answer."""
    chosen = tuple(reversed(rules))
    if not chosen:
        return lambda _path: Part.RUNTIME
    match = re.compile("|".join(f"({fnmatch.translate(rule.pattern)})" for rule in chosen)).match

    def classify(path: str) -> Part:
        found = match(path)
        return Part.RUNTIME if found is None else chosen[(found.lastindex or 1) - 1].part

    return classify


def _make_classifier(rules: Sequence[SplitRule]) -> _Classify:
    """A function that classifies a path. It keeps one regular expression for each upper directory
    (`/usr/share/`), of those rules alone that could match there: several times faster than one for all.
    """
    prefixed = [(_WILDCARD.split(rule.pattern, maxsplit=1)[0], rule) for rule in rules]
    known: dict[str, _Classify] = {}

    def classify(path: str) -> Part:
        first = path.find("/", 1) + 1
        upper = path[: path.find("/", first) + 1 or first] if first else "/"
        if upper not in known:
            known[upper] = _compile(
                [rule for prefix, rule in prefixed if prefix.startswith(upper) or upper.startswith(prefix)]
            )
        return known[upper](path)

    return classify


@frozen
class SplitRules:
    """All rules in their order. Made by `parse_split_rules`."""

    rules: tuple[SplitRule, ...] = ()
    _classify_directory: _Classify = field(init=False, eq=False, repr=False)
    _classify_other: _Classify = field(init=False, eq=False, repr=False)

    @_classify_directory.default
    def _make_classify_directory(self) -> _Classify:
        return _make_classifier(self.rules)

    @_classify_other.default
    def _make_classify_other(self) -> _Classify:
        return _make_classifier([rule for rule in self.rules if not rule.directories_only])

    def classify(self, path: bytes, *, is_directory: bool) -> Part:
        """What the rules say of one path (relative to the snapshot, without a leading slash)."""
        name = "/" + path.decode("utf-8", "surrogateescape")
        return self._classify_directory(name) if is_directory else self._classify_other(name)


def parse_split_rules(text: str, source: str) -> SplitRules:
    """The rules that a text is; `source` is the file's name for messages. Raises ConfigError."""
    rules: list[SplitRule] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = _TRAILING_COMMENT.sub("", line).split(None, 1)
        if words:
            rules.append(_parse_rule(words, number, f"{source}:{number}"))
    return SplitRules(tuple(rules))


def _parse_rule(words: list[str], line: int, where: str) -> SplitRule:
    try:
        part = Part(words[0])
    except ValueError:
        hint = "a line is: runtime, extras or leave-out, then a pattern such as /usr/share/doc/*"
        raise ConfigError(f"{where}: no such rule: {words[0]!r}", hint) from None
    pattern = words[1].strip() if len(words) > 1 else ""
    if not pattern.startswith("/"):
        raise ConfigError(
            f"{where}: a pattern has to start with /, found {pattern!r}", "write /usr/share/doc/*"
        )
    directories_only = pattern.endswith("/")
    if directories_only and part is not Part.RUNTIME:
        hint = f"write {pattern}* for all that is in it; only `runtime` can name directories alone"
        raise ConfigError(f"{where}: {part} {pattern} would name nothing but directories", hint)
    return SplitRule(part, pattern.rstrip("/") if directories_only else pattern, directories_only, line)


def split_members(members: Sequence[Member], rules: SplitRules) -> Mapping[Part, list[Member]]:
    """Every member in the part that it goes to, in the order given.

    The names of one hard-linked file stay together (runtime before extras before left out). A directory
    goes where it is needed: runtime and extras each have the parents of what they hold, so a directory
    can be in both, and one that nothing kept needs is where the rules put it.
    """
    parts = _classify_files(members, rules)
    kept: dict[Part, set[bytes]] = {
        part: _parents(member.path for member, own in parts if own is part) for part in Part
    }
    split: dict[Part, list[Member]] = {part: [] for part in Part}
    for member, part in parts:
        if member.kind is not MemberKind.DIRECTORY:
            split[part].append(member)
            continue
        wanted = {part} | {other for other in (Part.RUNTIME, Part.EXTRAS) if member.path in kept[other]}
        if len(wanted) > 1:
            wanted.discard(Part.LEFT_OUT)
        for one in wanted:
            split[one].append(member)
    return split


def _classify_files(members: Sequence[Member], rules: SplitRules) -> list[tuple[Member, Part]]:
    parts = [
        (member, rules.classify(member.path, is_directory=member.kind is MemberKind.DIRECTORY))
        for member in members
    ]
    groups: dict[bytes, Part] = {}
    for member, part in parts:
        if member.kind is MemberKind.HARDLINK:
            groups[member.link_target] = _stronger(part, groups.get(member.link_target, part))
    for member, part in parts if groups else ():
        if member.path in groups:
            groups[member.path] = _stronger(part, groups[member.path])
    return [(member, groups.get(_first_name(member), part)) for member, part in parts]


def _first_name(member: Member) -> bytes:
    return member.link_target if member.kind is MemberKind.HARDLINK else member.path


def _stronger(one: Part, other: Part) -> Part:
    return one if _STRENGTH[one] >= _STRENGTH[other] else other


def _parents(paths: Iterable[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for path in paths:
        slash = path.rfind(b"/")
        while slash > 0:
            parent = path[:slash]
            if parent in found:
                break
            found.add(parent)
            slash = path.rfind(b"/", 0, slash)
        found.add(b"")
    return found
