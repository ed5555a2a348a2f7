"""A snapshot in memory, for tests of what is laid over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bladeroot.core.tarformat import Member, MemberKind


class MemorySnapshot:
    """
    Paths (without a leading slash) and what is there: text for a file, None for a directory, and a
    target after `-> ` for a symbolic link. Parents are made.
    """

    def __init__(
        self, content: Mapping[str, str | None], owners: Mapping[str, tuple[int, int, int]] | None = None
    ):
        self._content: dict[str, str | None] = {}
        self._owners = owners or {}
        for path, text in content.items():
            parts = path.split("/")
            for length in range(1, len(parts)):
                self._content.setdefault("/".join(parts[:length]), None)
            self._content[path] = text

    def member(self, path: str) -> Member | None:
        if path not in self._content:
            return None
        text = self._content[path]
        mode, uid, gid = self._owners.get(path, (0o755 if text is None else 0o644, 0, 0))
        if text is None:
            return Member(path.encode(), MemberKind.DIRECTORY, mode=mode, uid=uid, gid=gid)
        if text.startswith("-> "):
            return Member(path.encode(), MemberKind.SYMLINK, mode=0o777, link_target=text[3:].encode())
        return Member(path.encode(), MemberKind.FILE, mode=mode, uid=uid, gid=gid, size=len(text))

    def names(self, path: str) -> Sequence[str]:
        prefix = f"{path}/" if path else ""
        below = {one[len(prefix) :] for one in self._content if one.startswith(prefix) and one != path}
        return sorted(name for name in below if "/" not in name)

    def read(self, path: str) -> bytes:
        text = self._content[path]
        assert text is not None
        assert not text.startswith("-> ")
        return text.encode()
