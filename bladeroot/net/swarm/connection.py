"""One taker's connection to the first seeder."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from bladeroot.core import peerwire
from bladeroot.core.peerwire import Block, Message
from bladeroot.errors import NetworkError

if TYPE_CHECKING:
    from bladeroot.net.swarm.firstseeder import GivenArtefact

_PEER_ID = b"-BR0001-first-seeder"
_SILENCE_S = 150.0
"""BEP 3: who is there says so every two minutes."""
_HANDSHAKE_S = 10.0
_ALIVE_S = 10.0
"""A blade takes a peer for dead that has said nothing for 30 s (`settings`)."""
_KEEP_ALIVE = bytes(4)
_WRITE_AHEAD_BYTES = 512 << 10
_MOST_REQUESTS = 2000
_CHUNKS_AT_ONCE = 32


class Connection(asyncio.Protocol):
    """Answers one peer: asyncio calls it, in the first seeder's thread."""

    def __init__(
        self,
        find: Callable[[bytes], GivenArtefact | None],
        spend: Callable[[int], bool],
        note_begin: Callable[[Connection], bool],
        note_end: Callable[[Connection], None],
    ) -> None:
        """`note_begin` says whether there is room for it."""
        self._find = find
        self._spend = spend
        self._note_begin = note_begin
        self._note_end = note_end
        self._given: GivenArtefact | None = None
        self._pending = bytearray()
        self._requests: deque[Block] = deque()
        self._may_write = True
        self._is_finished = False
        self._heard_at_s = self._said_at_s = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_AHEAD_BYTES)
        if not self._note_begin(self):
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """What it was offered is for others."""
        self._note_end(self)
        if self._given is not None:
            self._given.connections.discard(self)
            self._given.offers.leave(self)
            self._given.offer()

    def pause_writing(self) -> None:
        """The peer takes less than there is for it."""
        self._may_write = False
        # It is not heard either, or what is to be answered to it would pile up here.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer has taken what there was."""
        self._may_write = True
        self._transport.resume_reading()
        self.give_more()

    def data_received(self, data: bytes) -> None:
        """Who does not speak the protocol is let go of."""
        self._heard_at_s = time.monotonic()
        self._pending += data
        try:
            if self._given is None and not self._shake_hands():
                return
            self._read_messages()
        except NetworkError:
            self.close()
        self.give_more()

    def close(self) -> None:
        """Let go of the peer."""
        self._transport.abort()

    def is_silent(self, now_s: float) -> bool:
        """Whether nothing was heard for so long that nobody is there any more."""
        return now_s - self._heard_at_s > (_SILENCE_S if self._given is not None else _HANDSHAKE_S)

    def say_alive(self, now_s: float) -> None:
        """Let the peer know that this is still here, if it was not told for long."""
        if self._given is not None and now_s - self._said_at_s > _ALIVE_S:
            self._say(_KEEP_ALIVE)

    def offer(self, piece: int) -> None:
        """Say that the piece can be had."""
        self._say(peerwire.render_have(piece))

    def _say(self, data: bytes) -> None:
        self._said_at_s = time.monotonic()
        self._transport.write(data)

    def _shake_hands(self) -> bool:
        if len(self._pending) < peerwire.HANDSHAKE_BYTES:
            return False
        handshake = bytes(self._pending[: peerwire.HANDSHAKE_BYTES])
        del self._pending[: peerwire.HANDSHAKE_BYTES]
        short_hash = peerwire.parse_handshake(handshake)
        self._given = self._find(short_hash)
        if self._given is None:
            raise NetworkError("nothing of that name is given here")
        self._given.connections.add(self)
        self._say(
            peerwire.render_handshake(short_hash, _PEER_ID)
            + peerwire.render(Message.HAVE_NONE)
            + peerwire.render(Message.UNCHOKE)
        )
        return True

    def _read_messages(self) -> None:
        at, head = 0, peerwire.LENGTH.size
        while len(self._pending) - at >= head:
            (size_bytes,) = peerwire.LENGTH.unpack_from(self._pending, at)
            peerwire.check_length(size_bytes)
            if len(self._pending) - at < head + size_bytes:
                break
            message = bytes(self._pending[at + head : at + head + size_bytes])
            at += head + size_bytes
            if message:  # none: it is there, and has nothing to say
                self._answer(message[0], message[1:])
        del self._pending[:at]

    def _answer(self, message: int, payload: bytes) -> None:
        given = self._given
        assert given is not None  # noqa: S101 - hands are shaken first
        pieces = len(given.torrent.files)
        if message == Message.HAVE:
            for piece in given.offers.note_has(self, peerwire.parse_number(payload), time.monotonic()):
                self.offer(piece)
            self._let_go_if_finished()
        elif message == Message.REQUEST:
            self._take_request(peerwire.parse_block(payload))
        elif message in (Message.INTERESTED, Message.NOT_INTERESTED):
            given.offers.note_interest(self, is_interested=message == Message.INTERESTED)
        elif message == Message.CANCEL:
            block = peerwire.parse_block(payload)
            if block in self._requests:
                self._requests.remove(block)
                self._say(peerwire.render_reject(block))
        elif message in (Message.BITFIELD, Message.HAVE_ALL, Message.HAVE_NONE):
            has: list[int] | range = range(pieces if message == Message.HAVE_ALL else 0)
            if message == Message.BITFIELD:
                has = peerwire.parse_bitfield(payload, pieces)
            given.offers.join(self, has, time.monotonic())
            given.offer()
            self._let_go_if_finished()
        elif message == Message.HASH_REQUEST:
            self._say(peerwire.render(Message.HASH_REJECT, payload))

    def _let_go_if_finished(self) -> None:
        """Who has everything is told that it is so here, too. Then it goes, and does not come again."""
        given = self._given
        if given is not None and not self._is_finished and given.offers.lacks_nothing(self):
            self._is_finished = True
            self._say(b"".join(peerwire.render_have(piece) for piece in range(len(given.torrent.files))))

    def _take_request(self, block: Block) -> None:
        given = self._given
        assert given is not None  # noqa: S101 - as above
        if not given.offers.is_offered(self, block.piece) or len(self._requests) >= _MOST_REQUESTS:
            self._say(peerwire.render_reject(block))
        elif block.offset + block.size_bytes > given.torrent.files[block.piece].size_bytes:
            raise NetworkError("a peer asks for what is behind the end of a piece")
        else:
            self._requests.append(block)

    def give_more(self) -> None:
        """Give what was asked for, as far as the peer takes it and the limit allows."""
        given = self._given
        if given is None or not self._requests:
            return
        try:
            self._give(given)
        except (NetworkError, OSError):  # a file that is not there any more, or a disk that fails
            self.close()

    def _give(self, given: GivenArtefact) -> None:
        while self._requests and self._may_write:
            chunks: list[bytes] = []
            while self._requests and len(chunks) < _CHUNKS_AT_ONCE:
                block = self._requests[0]
                if not self._spend(block.size_bytes):
                    break
                self._requests.popleft()
                chunks += (peerwire.render_block_head(block), given.read(block))
                given.sent_bytes += block.size_bytes
            if not chunks:
                break
            self._say(b"".join(chunks))
            given.offers.note_given(self, self._said_at_s)
