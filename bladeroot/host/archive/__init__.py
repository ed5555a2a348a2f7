"""Trees on disk to frames, and back: scan, pack, extract."""

from bladeroot.core.framing import parse_index as open_index
from bladeroot.host.archive.extract import Extraction, ExtractResult
from bladeroot.host.archive.known import KnownFrames
from bladeroot.host.archive.pack import PackResult, pack_members
from bladeroot.host.archive.plain import (
    PlainEntry,
    extract_plain,
    list_plain,
    make_whiteout,
    pack_plain,
    read_plain_files,
)
from bladeroot.host.archive.scan import read_package_order, scan_tree

__all__ = [
    "ExtractResult",
    "Extraction",
    "KnownFrames",
    "PackResult",
    "PlainEntry",
    "extract_plain",
    "list_plain",
    "make_whiteout",
    "open_index",
    "pack_members",
    "pack_plain",
    "read_package_order",
    "read_plain_files",
    "scan_tree",
]
