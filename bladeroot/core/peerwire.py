"""BitTorrent's peer protocol, as far as who only gives has to speak it (BEP 3, BEP 6, BEP 52). No I/O."""

from __future__ import annotations

import struct
from enum import IntEnum

from attrs import frozen

from bladeroot.core.torrentfile import BLOCK_BYTES
from bladeroot.errors import NetworkError

HANDSHAKE_BYTES = 68
LENGTH = struct.Struct(">I")
"""Before each message."""
_PROTOCOL = b"\x13BitTorrent protocol"
# BEP 6: the Fast extension is the third least significant bit of the last byte; BEP 52: v2 is the fifth.
_RESERVED = bytes(7) + bytes([0x04 | 0x10])
_BLOCK = struct.Struct(">III")
_NUMBER = struct.Struct(">I")
_MAX_OTHER_BYTES = 64 << 10
"""Of a message that has no length of its own: what is not understood is read and passed over."""


class Message(IntEnum):
    """The messages that matter here."""

    CHOKE = 0
    UNCHOKE = 1
    INTERESTED = 2
    NOT_INTERESTED = 3
    HAVE = 4
    BITFIELD = 5
    REQUEST = 6
    PIECE = 7
    CANCEL = 8
    HAVE_ALL = 14
    HAVE_NONE = 15
    REJECT_REQUEST = 16
    HASH_REQUEST = 21
    HASH_REJECT = 23


@frozen
class Block:
    """A part of a piece that is asked for."""

    piece: int
    offset: int
    size_bytes: int


def render_handshake(short_hash: bytes, peer_id: bytes) -> bytes:
    """`short_hash` is `shorten` of an info-hash; a peer's id has 20 bytes."""
    return _PROTOCOL + _RESERVED + short_hash + peer_id


def parse_handshake(data: bytes) -> bytes:
    """The short hash of the torrent that a peer wants. Raises NetworkError."""
    if len(data) != HANDSHAKE_BYTES or not data.startswith(_PROTOCOL):
        raise NetworkError("not a BitTorrent peer")
    return data[28:48]


def shorten(info_hash: str) -> bytes:
    """BEP 52: what stands for a v2 info-hash where there is room for 20 bytes only."""
    return bytes.fromhex(info_hash)[:20]


def check_length(size_bytes: int) -> None:
    """Raise NetworkError for a message that no peer has a reason to send."""
    if size_bytes > _MAX_OTHER_BYTES:
        raise NetworkError(f"a peer announces a message of {size_bytes} bytes")


def render(message: Message, payload: bytes = b"") -> bytes:
    """A message with its length."""
    return LENGTH.pack(len(payload) + 1) + bytes([message]) + payload


def render_have(piece: int) -> bytes:
    """That a piece can be had here."""
    return render(Message.HAVE, _NUMBER.pack(piece))


def render_block_head(block: Block) -> bytes:
    """What goes before the bytes of a block."""
    head = _BLOCK.pack(block.piece, block.offset, block.size_bytes)
    return LENGTH.pack(9 + block.size_bytes) + bytes([Message.PIECE]) + head[:8]


def render_reject(block: Block) -> bytes:
    """That a block will not come (BEP 6)."""
    return render(Message.REJECT_REQUEST, _BLOCK.pack(block.piece, block.offset, block.size_bytes))


def parse_number(payload: bytes) -> int:
    """The piece of a HAVE. Raises NetworkError."""
    if len(payload) != _NUMBER.size:
        raise NetworkError("a peer's message is torn")
    number: int = _NUMBER.unpack(payload)[0]
    return number


def parse_block(payload: bytes) -> Block:
    """What a REQUEST asks for. Raises NetworkError for more than anybody asks for at once."""
    if len(payload) != _BLOCK.size:
        raise NetworkError("a peer's message is torn")
    block = Block(*_BLOCK.unpack(payload))
    if not 0 < block.size_bytes <= BLOCK_BYTES:
        raise NetworkError(f"a peer asks for {block.size_bytes} bytes at once")
    return block


def parse_bitfield(payload: bytes, pieces: int) -> list[int]:
    """The pieces that a peer has. Raises NetworkError unless it is as long as it must be."""
    if len(payload) != (pieces + 7) // 8:
        raise NetworkError("a peer's bitfield is of another torrent")
    return [number for number in range(pieces) if payload[number >> 3] & (0x80 >> (number & 7))]
