"""The control service for machines without an operating system, and the orders for blades."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from aiohttp import web

from bladeroot.core import wire
from bladeroot.core.bootanswer import BootQuery, parse_query, render_waiting_script
from bladeroot.core.orders import ORDER_LIMIT_BYTES, OrderList, SignedOrder
from bladeroot.errors import DepotError, NetworkError, TrustError
from bladeroot.net.answers import answer_message, own_address
from bladeroot.net.ranges import serve_files

_SCRIPT = "text/plain"
_WAIT_S = 10


class BootView(Protocol):
    """What netbooting machines get. Called from the service's thread; None is "not here"."""

    def boot_file(self, info_hash: str, name: str) -> Sequence[Path] | None:
        """The files that are `name` of the artefact, one behind the other."""

    def boot_script(self, query: BootQuery, root: str) -> str:
        """The iPXE script for who asks; `root` is this service as it was reached, `host:port`."""

    def orders(self) -> tuple[SignedOrder, ...]:
        """The orders for blades."""

    def take_order(self, signed: SignedOrder) -> None:
        """Keep an order. Raises TrustError for one that no blade would believe, DepotError for one that
        has another's number.
        """

    def take_role_order(self, signed: SignedOrder) -> None:
        """Begin to obey an order of `core.roleorders`. Raises TrustError, DepotError."""


class BootService:
    """The routes; `port` tells on which port a client reached us."""

    def __init__(self, view: BootView, port: Callable[[], int]) -> None:
        self._view = view
        self._port = port

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Answer `/boot.ipxe`, `/boot/<info-hash>/<name>` and `/v1/orders`."""
        router.add_get("/boot.ipxe", self._get_script)
        router.add_get(r"/boot/{info_hash:[0-9a-f]{64}}/{name:[A-Za-z0-9._-]{1,64}}", self._get_file)
        router.add_get("/v1/orders", self._get_orders)
        router.add_post("/v1/orders", self._post_order)
        router.add_post("/v1/role", self._post_role)

    async def _get_script(self, request: web.Request) -> web.Response:
        root = f"{own_address(request)}:{self._port()}"
        try:
            text = self._view.boot_script(parse_query(request.query), root)
        except NetworkError as error:
            text = render_waiting_script("this machine", str(error), root=root, wait_s=_WAIT_S)
        return web.Response(text=text, content_type=_SCRIPT)

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        paths = self._view.boot_file(request.match_info["info_hash"], request.match_info["name"])
        if not paths:
            raise web.HTTPNotFound(text="no such boot file here")
        return await serve_files(request, paths)

    async def _get_orders(self, _request: web.Request) -> web.Response:
        return answer_message(OrderList(orders=self._view.orders()))

    async def _post_order(self, request: web.Request) -> web.Response:
        return await self._take(request, self._view.take_order)

    async def _post_role(self, request: web.Request) -> web.Response:
        return await self._take(request, self._view.take_role_order)

    async def _take(self, request: web.Request, take: Callable[[SignedOrder], None]) -> web.Response:
        signed = wire.decode(SignedOrder, await request.read(), ORDER_LIMIT_BYTES)
        try:
            take(signed)
        except TrustError as error:
            raise web.HTTPForbidden(text=str(error)) from error
        except DepotError as error:
            raise web.HTTPConflict(text=str(error)) from error
        return web.Response(status=204)
