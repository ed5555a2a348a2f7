"""On which line of a TOML text each key stands: what the parsers of TOML do not tell. Pure.

For texts that `tomllib` has accepted; so the scanner only has to know where statements end.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

KeyPath = tuple[str, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*'""")
_BLANKS = re.compile(r"[ \t]*")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"""("{0,2})'
    r"|'''(?:[^']|'(?!''))*'''('{0,2})"
    r"|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'",
    re.DOTALL,
)


def find_lines(text: str) -> Mapping[KeyPath, int]:
    """The line (from 1) of each table header and key; of a table made by dotted keys, its first one."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    position = 0
    while (position := _skip(_SPACE, text, position)) < len(text):
        line = text.count("\n", 0, position) + 1
        if text[position] == "[":
            start = position + (2 if text.startswith("[[", position) else 1)
            table, end = _read_key(text, start)
            _note(lines, (), table, line)
            position = _line_end(text, end)
        else:
            key, end = _read_key(text, position)
            _note(lines, table, key, line)
            position = _skip_value(text, end)
    return lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of the key, or of the nearest table around it that stands in the text; 1 at worst."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _note(lines: dict[KeyPath, int], table: KeyPath, key: KeyPath, line: int) -> None:
    for length in range(1, len(key) + 1):
        lines.setdefault((*table, *key[:length]), line)


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _read_key(text: str, position: int) -> tuple[KeyPath, int]:
    parts: list[str] = []
    position = _skip(_BLANKS, text, position)
    while match := _KEY_PART.match(text, position):
        parts.append(_unquote(match.group()))
        position = match.end()
        dot = _DOT.match(text, position)
        if dot is None:
            break
        position = dot.end()
    return tuple(parts), position


def _unquote(part: str) -> str:
    if part[0] not in "\"'":
        return part
    return str(tomllib.loads(f"x = {part}")["x"])


def _skip_value(text: str, position: int) -> int:
    """The end of the statement whose value starts after `position`: a line's end outside of brackets."""
    depth = 0
    while position < len(text):
        character = text[position]
        if character in "\"'" and (match := _STRING.match(text, position)):
            position = match.end()
            continue
        if character == "#":
            position = _line_end(text, position)
            continue
        if character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "\n" and depth == 0:
            return position
        position += 1
    return position
