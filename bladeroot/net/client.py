"""Talking to a root's (or any blade's) control service. Every answer is size-limited and checked."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, TypeVar, cast

from attrs import evolve, frozen

from bladeroot.core import wire
from bladeroot.core.claims import CLAIM_LIMIT_BYTES, Claim
from bladeroot.core.cluster import NAME_PATTERN
from bladeroot.core.manifest import (
    MANIFEST_LIMIT_BYTES,
    MAX_SIGNATURES,
    MAX_SIGNED_CONTAINERS,
    SignedManifest,
)
from bladeroot.core.orders import MAX_ORDERS, ORDERS_LIMIT_BYTES, OrderList, SignedOrder
from bladeroot.core.reports import (
    NEW_SESSION,
    PAUSE_HEADER,
    SESSION_HEADER,
    GenerationList,
    Heard,
    PeerList,
    Report,
    parse_event,
    parse_pause,
)
from bladeroot.core.torrentfile import MAX_TORRENT_BYTES
from bladeroot.errors import NetworkError, RefusedError
from bladeroot.events import Event

Address = tuple[str, int]
_Message = TypeVar("_Message")

_LIST_LIMIT_BYTES = 64 << 10
_STATUS_LIMIT_BYTES = 8 << 20
_EVENT_LIMIT_BYTES = 128 << 10
_SIGNED_LIMIT_BYTES = MANIFEST_LIMIT_BYTES + (64 << 10)
_MOST_PEERS = 64
_MOST_ORDER_CONTAINERS = 2 + MAX_ORDERS * (2 + MAX_SIGNATURES)
_CHUNK_BYTES = 64 << 10
_GZIP = 16 + zlib.MAX_WBITS
_DOWN_HINT = "is it still up? `bladeroot status` shows which roots there are"


@frozen
class RootClient:
    """The control service at `host:port`. Each call is a connection of its own, and ends within `timeout_s`;
    but what hundreds may ask for at once, and is large, may go on coming for `bulk_s`, without a pause as
    long as `timeout_s`.

    Whatever goes wrong is one NetworkError that names the service and what was asked of it. What is
    returned has the right form, and is not to be trusted before its signature or hash is checked.
    """

    host: str
    port: int
    timeout_s: float = 10.0
    bulk_s: float = 600.0

    def claim(self) -> Claim:
        """What the blade announces, its address being the one that was used to reach it, whatever it says."""
        return evolve(
            self._get_message(Claim, "/v1/claim", CLAIM_LIMIT_BYTES), host=self.host, port=self.port
        )

    def serials(self) -> tuple[int, ...]:
        """The generations that it holds, ascending."""
        return self._get_message(GenerationList, "/v1/generations", _LIST_LIMIT_BYTES).serials

    def manifest(self, serial: int) -> SignedManifest:
        """A generation's manifest, for `core.manifest.accept_manifest`."""
        path = f"/v1/generations/{serial}/manifest"
        return self._get_message(
            SignedManifest, path, _SIGNED_LIMIT_BYTES, MAX_SIGNED_CONTAINERS, is_bulk=True
        )

    def read_orders(self) -> OrderList:
        """The orders that it has, for `core.orders.accept_order` one by one."""
        return self._get_message(OrderList, "/v1/orders", ORDERS_LIMIT_BYTES, _MOST_ORDER_CONTAINERS)

    def give_order(self, signed: SignedOrder) -> None:
        """Hand it an order, which it keeps and passes on. Raises NetworkError where it does not."""
        self._request("POST", "/v1/orders", _LIST_LIMIT_BYTES, body=wire.encode(signed))

    def give_role_order(self, signed: SignedOrder) -> None:
        """Have a blade take the root role or give it up. Raises NetworkError where it does not obey."""
        self._request("POST", "/v1/role", _LIST_LIMIT_BYTES, body=wire.encode(signed))

    def read_clock(self) -> float:
        """What time it is there, in seconds since the epoch, to a second (RFC 9110, 6.6.1)."""
        headers, _data = self._exchange("GET", "/v1/claim", CLAIM_LIMIT_BYTES)
        try:
            return parsedate_to_datetime(headers.get("Date") or "").timestamp()
        except (ValueError, OverflowError) as error:
            raise self._explain("GET /v1/claim", "does not say what time it is") from error

    def read_boot_script(self, mac: str, uuid: str) -> str:
        """What it tells a machine that boots over the network and has nothing to boot from its disk."""
        path = f"/boot.ipxe?mac={mac.replace(':', '-')}&uuid={uuid}&local=failed"
        return self._request("GET", path, _LIST_LIMIT_BYTES).decode(errors="replace")

    def torrent(self, info_hash: str) -> bytes:
        """An artefact's torrent file, for `core.torrentfile.parse_torrent` with the signed info-hash."""
        return self._request("GET", f"/v1/torrents/{info_hash}", MAX_TORRENT_BYTES, is_bulk=True)

    def artefact_file(self, info_hash: str, name: str, file: str, size_bytes: int) -> bytes:
        """A file of the artefact of that name, which its torrent says has so many bytes; not checked."""
        path = f"/v1/artefacts/{info_hash}/{name}/{file}"
        return self._request("GET", path, size_bytes, is_bulk=True)

    def peers(self, info_hash: str) -> PeerList:
        """A few members of the artefact's swarm, the root among them. What is no address is left out."""
        found = self._get_message(PeerList, f"/v1/peers/{info_hash}", _LIST_LIMIT_BYTES)
        sound = [(address, port) for address, port in found.peers if _is_address(address, port)]
        return evolve(found, peers=tuple(sound[:_MOST_PEERS]))

    def report(self, report: Report) -> Heard:
        """Tell the root (see `core.reports.plan_reports`). A report that is sent twice counts once."""
        headers, _data = self._exchange("POST", "/v1/reports", _LIST_LIMIT_BYTES, wire.encode(report))
        is_known = headers.get(SESSION_HEADER) != NEW_SESSION
        return Heard(is_known, parse_pause(headers.get(PAUSE_HEADER)))

    def status(self) -> dict[str, Any]:
        """The root's view of the room, as plain values."""
        data = self._request("GET", "/v1/status", _STATUS_LIMIT_BYTES)
        try:
            status = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._explain("GET /v1/status", f"not JSON: {error}") from error
        if not isinstance(status, dict):
            raise self._explain("GET /v1/status", "not a JSON object")
        return status

    def events(self, *, silence_s: float = 60.0) -> Iterator[Event]:
        """The root's event stream from now on. Raises NetworkError when it breaks or falls silent."""
        what = "GET /v1/events"
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=silence_s)) as connection:
            try:
                connection.request("GET", "/v1/events")
                response = connection.getresponse()
                if response.status != 200:
                    raise self._explain(what, f"answered {response.status}")
                while line := response.readline(_EVENT_LIMIT_BYTES):
                    if line.startswith(b"data: "):
                        yield self._parse_event(line[6:])
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                raise self._explain(what, _say(error)) from error
        raise self._explain(what, "the stream ended")

    def _parse_event(self, data: bytes) -> Event:
        try:
            mapping = json.loads(data)
            subject = str(mapping.get("subject", ""))
            return parse_event(mapping, subject if NAME_PATTERN.fullmatch(subject) else "")
        except (ValueError, AttributeError, RecursionError) as error:
            raise self._explain("GET /v1/events", f"not an event: {error}") from error

    def _get_message(
        self,
        message_class: type[_Message],
        path: str,
        limit_bytes: int,
        most_containers: int | None = None,
        *,
        is_bulk: bool = False,
    ) -> _Message:
        data = self._request("GET", path, limit_bytes, is_bulk=is_bulk)
        try:
            return wire.decode(message_class, data, limit_bytes, most_containers=most_containers)
        except NetworkError as error:
            raise self._explain(f"GET {path}", str(error)) from error

    def _request(
        self, method: str, path: str, limit_bytes: int, body: bytes | None = None, *, is_bulk: bool = False
    ) -> bytes:
        return self._exchange(method, path, limit_bytes, body, is_bulk=is_bulk)[1]

    def _exchange(
        self, method: str, path: str, limit_bytes: int, body: bytes | None = None, *, is_bulk: bool = False
    ) -> tuple[http.client.HTTPMessage, bytes]:
        what = f"{method} {path}"
        headers = {"Accept-Encoding": "gzip"}
        if body is not None:
            headers["Content-Type"] = "application/x-msgpack"
        try:
            with closing(_Connection(self.host, self.port, timeout=self.timeout_s)) as connection:
                connection.request(method, path, body=body, headers=headers)
                with connection.getresponse() as response:
                    if is_bulk:
                        cast(_Response, response).give_time(self.bulk_s)
                    unpack = _choose_unpacking(response)
                    data = bytearray()
                    while chunk := response.read1(_CHUNK_BYTES):
                        data += unpack(chunk, limit_bytes + 1 - len(data))
                        if len(data) > limit_bytes:
                            raise self._explain(what, f"answer is larger than {limit_bytes} bytes")
        except (OSError, http.client.HTTPException, UnicodeError, zlib.error) as error:
            raise self._explain(what, _say(error)) from error
        if not 200 <= response.status < 300:
            said = bytes(data[:200]).decode(errors="replace").strip()
            refused = self._explain(what, f"answered {response.status} {said}".strip())
            raise RefusedError(str(refused), refused.hint)
        return response.headers, bytes(data)

    def _explain(self, what: str, why: str) -> NetworkError:
        shown = what if len(what) <= 60 else what[:57] + "..."
        clean = "".join(character if character.isprintable() else " " for character in why[:300])
        where = f"[{self.host}]" if ":" in self.host else self.host
        return NetworkError(f"{where}:{self.port}: {shown}: {clean}", _DOWN_HINT)


def _choose_unpacking(response: http.client.HTTPResponse) -> Callable[[bytes, int], bytes]:
    """What makes the answer's content of a chunk of it, at most so many bytes."""
    if response.headers.get("Content-Encoding") == "gzip":
        return zlib.decompressobj(_GZIP).decompress
    return lambda chunk, _most_bytes: chunk


class _Response(http.client.HTTPResponse):
    """An answer that is read until the deadline, however many bytes come in between: headers, too."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._stream = _UntilDeadline(sock)
        self.fp = io.BufferedReader(self._stream)  # one that keeps the socket, as the first did

    def give_time(self, most_s: float) -> None:
        """What is still to come may take so long from now on."""
        self._stream.give_time(most_s)


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _UntilDeadline(io.RawIOBase):
    """What a socket receives until its timeout has passed since this was made, or without anything."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._stream = sock.makefile("rb", buffering=0)
        self._silence_s = sock.gettimeout() or 0.0
        self.give_time(self._silence_s)

    def give_time(self, most_s: float) -> None:
        self._until = time.monotonic() + most_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(min(left_s, self._silence_s))
        return self._stream.readinto(buffer) or 0

    def close(self) -> None:
        self._stream.close()
        super().close()


def _is_address(address: str, port: int) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return 0 < port < 65536


def _say(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
