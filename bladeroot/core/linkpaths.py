"""Where a path leads in a tree: symbolic links followed as Linux does, and none let outside. No I/O."""

from __future__ import annotations

from collections.abc import Callable

ReadLink = Callable[[str], str | None]
"""Where the link at a relative path points; None for what is no link."""

_MAX_LINKS = 40
"""As Linux: path resolution gives up with ELOOP after 40 symbolic links (path_resolution(7))."""


def follow_links(path: str, read_link: ReadLink, *, follow_last: bool = True) -> str | None:
    """The path without links, relative to the tree's top; None where links go round in a circle.

    Nothing that is named needs to exist. Without `follow_last` only the parents' links are followed.
    """
    pending = list(reversed(path.split("/")))
    parts: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del parts[-1:]  # the top's parent is the top
            continue
        target = read_link("/".join([*parts, part])) if pending or follow_last else None
        if target is None:
            parts.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            return None
        if target.startswith("/"):
            parts = []
        pending.extend(reversed(target.split("/")))
    return "/".join(parts)
