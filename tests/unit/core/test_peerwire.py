from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core import peerwire
from bladeroot.core.peerwire import Block, Message
from bladeroot.errors import NetworkError

INFO_HASH = "ab" * 32
NUMBERS = st.integers(0, (1 << 32) - 1)


def test_a_handshake_says_which_torrent() -> None:
    handshake = peerwire.render_handshake(peerwire.shorten(INFO_HASH), b"p" * 20)
    assert len(handshake) == peerwire.HANDSHAKE_BYTES
    assert peerwire.parse_handshake(handshake) == bytes.fromhex("ab" * 20)


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n".ljust(68), b"\x13BitTorrent protocol"])
def test_what_is_no_handshake_is_refused(data: bytes) -> None:
    with pytest.raises(NetworkError, match="not a BitTorrent peer"):
        peerwire.parse_handshake(data)


@given(NUMBERS, NUMBERS, st.integers(1, 16 << 10))
def test_a_block_is_read_as_it_was_asked_for(piece: int, offset: int, size_bytes: int) -> None:
    block = Block(piece, offset, size_bytes)
    reject = peerwire.render_reject(block)
    assert reject[:5] == struct.pack(">IB", 13, Message.REJECT_REQUEST)
    assert peerwire.parse_block(reject[5:]) == block


def test_the_head_of_a_block_counts_its_bytes() -> None:
    head = peerwire.render_block_head(Block(3, 16384, 100))
    assert head == struct.pack(">IBII", 9 + 100, 7, 3, 16384)


@pytest.mark.parametrize(
    "payload", [b"", b"\0" * 11, struct.pack(">III", 0, 0, 0), struct.pack(">III", 0, 0, 16385)]
)
def test_a_request_that_nobody_makes_is_refused(payload: bytes) -> None:
    with pytest.raises(NetworkError):
        peerwire.parse_block(payload)


@given(st.sets(st.integers(0, 99)))
def test_a_bitfield_says_which_pieces(has: set[int]) -> None:
    field = bytearray(13)
    for piece in has:
        field[piece // 8] |= 0x80 >> piece % 8
    assert set(peerwire.parse_bitfield(bytes(field), 100)) == has


def test_a_bitfield_of_another_length_is_refused() -> None:
    with pytest.raises(NetworkError, match="another torrent"):
        peerwire.parse_bitfield(bytes(12), 100)


def test_a_have_is_a_number() -> None:
    assert peerwire.parse_number(peerwire.render_have(77)[5:]) == 77
    with pytest.raises(NetworkError, match="torn"):
        peerwire.parse_number(b"\0\0\0")


def test_a_message_has_a_limit() -> None:
    peerwire.check_length(64 << 10)
    with pytest.raises(NetworkError, match="announces"):
        peerwire.check_length((64 << 10) + 1)
