"""POSIX ACLs between the kernel's form (an extended attribute) and the text that tar archives hold."""

from __future__ import annotations

import struct

ACL_KEYWORDS = {
    b"system.posix_acl_access": b"SCHILY.acl.access",
    b"system.posix_acl_default": b"SCHILY.acl.default",
}
"""The attribute's name -> star's pax keyword, which GNU tar and libarchive know."""
ACL_XATTRS = {keyword: name for name, keyword in ACL_KEYWORDS.items()}

# linux/posix_acl_xattr.h
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_NO_ID = 0xFFFFFFFF
_TAGS = {0x01: b"user", 0x02: b"user", 0x04: b"group", 0x08: b"group", 0x10: b"mask", 0x20: b"other"}
_WITH_ID = {b"user": 0x02, b"group": 0x08}
_WITHOUT_ID = {b"user": 0x01, b"group": 0x04, b"mask": 0x10, b"other": 0x20}
_PERMISSIONS = [
    bytes(letter if bits & bit else ord("-") for letter, bit in zip(b"rwx", (4, 2, 1), strict=True))
    for bits in range(8)
]


def render_acl_text(value: bytes) -> bytes | None:
    """The attribute's value as short text with numeric ids (`user::rwx,user:1000:r-x,…`).

    None for what text cannot say in a way that gives the same value back.
    """
    if value[:4] != _VERSION or len(value) % _ENTRY.size != 4:
        return None
    words = []
    for tag, permissions, number in _ENTRY.iter_unpack(value[4:]):
        if tag not in _TAGS or permissions > 7:
            return None
        name = _TAGS[tag]
        shown = b"%d" % number if tag in _WITH_ID.values() else b""
        words.append(b"%s:%s:%s" % (name, shown, _PERMISSIONS[permissions]))
    text = b",".join(words)
    return text if parse_acl_text(text) == value else None


def parse_acl_text(text: bytes) -> bytes:
    """The inverse of `render_acl_text`. Raises ValueError."""
    value = _VERSION
    for word in text.split(b",") if text else ():
        name, shown, permissions = word.split(b":")
        tags = _WITH_ID if shown else _WITHOUT_ID
        if name not in tags or permissions not in _PERMISSIONS or (shown and not shown.isdigit()):
            raise ValueError(f"not an ACL entry: {word[:40]!r}")
        number = int(shown) if shown else _NO_ID
        if number > _NO_ID:
            raise ValueError(f"not an id in an ACL: {shown[:20]!r}")
        value += _ENTRY.pack(tags[name], _PERMISSIONS.index(permissions), number)
    return value
