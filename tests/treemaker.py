"""Trees with everything in them that a filesystem can hold: described by hypothesis, then made on disk."""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve, field, frozen
from hypothesis import strategies as st

_BLOCK = 4096
_NO_ID = 0xFFFFFFFF

_name = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.text(min_size=1, max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"a\nb",
            b"-x",
            b" ",
            b"~",
            b".wh.x",
            b"\xff\xfe",
            b"a=b%c",
            b"\\",
            b"c:\\x",
            b"x" * 255,
            b"\xe9" * 120,
        ]
    ),
    st.binary(min_size=90, max_size=255),
).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"0")[:255])
_names = _name.filter(lambda name: name not in (b".", b".."))

_times = st.one_of(
    st.integers(0, 2**31).map(lambda seconds: seconds * 10**9),
    st.integers(-(2**31) * 10**9, 2**33 * 10**9),
    st.sampled_from([-1, -(10**9), -1_500_000_000, 1, 0, 8589934592 * 10**9 + 7]),
)
_attribute_names = st.sampled_from(["user.a", "user.b=c", "user.100%25", "user.\u00fc", "user.x" * 20])
_attributes = st.dictionaries(_attribute_names, st.binary(max_size=60), max_size=3)
_BSDTAR_SPOILS = ("user.b=c", "user.100%25")
"""bsdtar takes the way that GNU tar spells "=" and "%" in names as it stands."""


@frozen
class Extra:
    """What only the user root may set."""

    owner: tuple[int, int] | None = None
    acl: bool = False
    capability: bool = False
    trusted: bool = False


@frozen
class Node:
    """One entry; `kind` is dir, file, sparse, symlink, fifo, char, block, or link (to an earlier entry)."""

    kind: str
    mode: int
    mtime_ns: int
    xattrs: dict[str, bytes]
    content: bytes = field(repr=lambda content: f"{content[:40]!r}+{max(len(content) - 40, 0)}")
    number: int
    extra: Extra
    children: tuple[tuple[bytes, Node], ...] = ()


_extras = st.builds(
    Extra,
    owner=st.one_of(
        st.none(),
        st.tuples(st.sampled_from([0, 1, 1000, 2097151, 2097152, 4294967294]), st.integers(0, 3000000)),
    ),
    acl=st.booleans(),
    capability=st.booleans(),
    trusted=st.booleans(),
)
_contents = st.one_of(
    st.binary(max_size=600),
    st.integers(0, 10**6).map(lambda seed: random.Random(seed).randbytes(seed % 60_000)),
    st.integers(0, 20_000).map(bytes),
)


def _leaves(kinds: Sequence[str], extras: st.SearchStrategy[Extra]) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        kind=st.sampled_from(kinds),
        mode=st.integers(0, 0o7777),
        mtime_ns=_times,
        xattrs=_attributes,
        content=_contents,
        number=st.integers(0, (1 << 20) - 1),
        extra=extras,
    )


def _directories(
    children: st.SearchStrategy[Node], extras: st.SearchStrategy[Extra]
) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        kind=st.just("dir"),
        mode=st.integers(0, 0o7777),
        mtime_ns=_times,
        xattrs=_attributes,
        content=st.just(b""),
        number=st.just(0),
        extra=extras,
        children=st.dictionaries(_names, children, max_size=6).map(lambda found: tuple(found.items())),
    )


def trees(*, as_root: bool) -> st.SearchStrategy[Node]:
    """Whole trees; with `as_root` such as only the user root can make."""
    kinds = ["file", "file", "sparse", "symlink", "fifo", "link"]
    if as_root:
        kinds += ["char", "block"]
    extras = _extras if as_root else st.just(Extra())
    leaves = _leaves(kinds, extras)
    inner = st.recursive(leaves, lambda below: _directories(below, extras), max_leaves=25)
    return _directories(inner, extras)


def spare_bsdtar(node: Node) -> Node:
    """The tree without what bsdtar 3.6 gets wrong, one directory down.

    It reads the time -1.5 s as -0.5 s, and see `_BSDTAR_SPOILS`. To the directory that it extracts into it
    gives its time at once, not at the end: symlinks that come late (`framing._is_linked_late`) spoil that.
    """
    top = evolve(node, children=())
    return evolve(_spare(top), children=((b"below", _spare(node)),))


def _spare(node: Node) -> Node:
    is_fraction = node.mtime_ns < 0 and node.mtime_ns % 10**9
    return evolve(
        node,
        mtime_ns=-node.mtime_ns if is_fraction else node.mtime_ns,
        xattrs={name: value for name, value in node.xattrs.items() if name not in _BSDTAR_SPOILS},
        children=tuple((name, _spare(child)) for name, child in node.children),
    )


def make_tree(top: Path, node: Node, *, as_root: bool, link_symlinks: bool = True) -> None:
    """Make the tree at `top`, which is not there yet. A user keeps the rights to read it again."""
    made: list[bytes] = []
    _make(os.fsencode(top), node, made, as_root, link_symlinks)


def _make(path: bytes, node: Node, made: list[bytes], as_root: bool, link_symlinks: bool) -> None:
    if len(path) > 3500:
        return
    if node.kind == "dir":
        os.mkdir(path)
        for name, child in node.children:
            _make(path + b"/" + name, child, made, as_root, link_symlinks)
    elif node.kind == "link":
        if made:
            os.link(made[node.number % len(made)], path, follow_symlinks=False)
        return
    elif node.kind == "symlink":
        target = (node.content[:300].replace(b"\0", b"/") or b"x") * (1 + node.number % 12)
        os.symlink(target[:4000], path)
    elif node.kind == "fifo":
        os.mkfifo(path)
    elif node.kind in ("char", "block"):
        kind = stat.S_IFCHR if node.kind == "char" else stat.S_IFBLK
        os.mknod(path, kind | 0o600, os.makedev(node.number % 4000, node.number))
    elif node.kind == "sparse":
        _make_sparse(path, node)
    else:
        with open(path, "wb") as stream:
            stream.write(node.content)
    _decorate(path, node, as_root)
    if node.kind != "dir" and (link_symlinks or node.kind != "symlink"):
        made.append(path)


def _make_sparse(path: bytes, node: Node) -> None:
    chance = random.Random(node.number)
    with open(path, "wb") as stream:
        for _ in range(node.number % 7):
            stream.seek(chance.randrange(60) * _BLOCK)
            stream.write(chance.choice([node.content, bytes(_BLOCK), chance.randbytes(_BLOCK)]))
        stream.truncate(chance.choice([stream.tell(), 70 * _BLOCK, 70 * _BLOCK + 17, 1]))


def _decorate(path: bytes, node: Node, as_root: bool) -> None:
    is_link = node.kind == "symlink"
    if as_root and node.extra.owner is not None:
        os.chown(path, *node.extra.owner, follow_symlinks=False)
    if node.kind in ("dir", "file", "sparse"):
        for name, value in node.xattrs.items():
            os.setxattr(path, name, value)
    if as_root and node.extra.trusted:
        os.setxattr(path, "trusted.x", b"\0\xff\n", follow_symlinks=False)
    if as_root and node.extra.acl and not is_link:
        os.setxattr(path, "system.posix_acl_access", make_acl(node.number))
        if node.kind == "dir":
            os.setxattr(path, "system.posix_acl_default", make_acl(node.number + 1))
    if not is_link:
        kept = 0 if as_root else (0o700 if node.kind == "dir" else 0o600)
        os.chmod(path, node.mode | kept)
    if as_root and node.extra.capability and node.kind in ("file", "sparse"):
        # linux/capability.h, VFS_CAP_REVISION_2: cap_net_raw, effective and permitted.
        os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0))
    os.utime(path, ns=(0, node.mtime_ns), follow_symlinks=False)


def make_acl(seed: int) -> bytes:
    """A valid ACL as the kernel has it."""
    entries = [(0x01, 7, _NO_ID), (0x02, seed % 8, 1000 + seed), (0x04, 5, _NO_ID)]
    entries += [(0x08, 4, 3_000_000), (0x10, 7, _NO_ID), (0x20, seed % 3, _NO_ID)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
