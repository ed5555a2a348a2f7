"""How the services that speak HTTP answer."""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import Any, TypeVar

from aiohttp import web

from bladeroot.core import wire

_Value = TypeVar("_Value")

MSGPACK = "application/x-msgpack"


def present(value: _Value | None, otherwise: str) -> _Value:
    """The value; raises HTTPNotFound, which says `otherwise`, where there is none."""
    if value is None:
        raise web.HTTPNotFound(text=otherwise)
    return value


def answer_message(message: Any) -> web.Response:
    """One of `core.wire`'s messages."""
    return web.Response(body=wire.encode(message), content_type=MSGPACK)


def answer_packed(request: web.Request, data: bytes, content_type: str) -> web.Response:
    """Compressed for who takes that (RFC 9110, 12.5.3): each blade asks, all at once."""
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=data, content_type=content_type)
    return web.Response(body=_pack(data), content_type=content_type, headers={"Content-Encoding": "gzip"})


@lru_cache(maxsize=8)
def _pack(data: bytes) -> bytes:
    return gzip.compress(data)


def own_address(request: web.Request) -> str:
    """The address that the client reached us at: the one of our several that works for it."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return str(name[0]) if name else "127.0.0.1"
