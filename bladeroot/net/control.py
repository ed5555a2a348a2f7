"""The control service: HTTP with msgpack (JSON for people), served by a root and, read-only, by any blade.

It holds no truth: what it gives out comes from a `ControlView` (the depot), what it is told is folded into
a `RoomState` that the next root will build anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import attrs
from aiohttp import web

from bladeroot import events
from bladeroot.core.claims import Claim
from bladeroot.core.cluster import DEFAULT_PORT
from bladeroot.core.neighbours import choose_neighbours
from bladeroot.core.reports import (
    NEW_SESSION,
    PAUSE_HEADER,
    REPORT_LIMIT_BYTES,
    SESSION_HEADER,
    GenerationList,
    PeerList,
    Report,
    choose_pause,
    parse_report,
)
from bladeroot.core.roomstate import BladePhase, RoomState
from bladeroot.errors import BladerootError, DepotError, NetworkError, PortTakenError
from bladeroot.net.answers import MSGPACK, answer_message, answer_packed, own_address, present
from bladeroot.net.bootservice import BootService, BootView
from bladeroot.net.listening import BACKLOG
from bladeroot.net.ranges import serve_files

_unheard = logging.getLogger("bladeroot.net.control.aiohttp")
"""aiohttp tells of every request that is no HTTP, with a traceback: any port scan would fill the terminal."""
_unheard.propagate = False
_unheard.addHandler(logging.NullHandler())

_HASH = "{info_hash:[0-9a-f]{64}}"
_MAX_LISTENERS = 64
_LISTENER_QUEUE = 4096
_LISTENER_PATIENCE_S = 30.0
"""How long a watcher may leave unread what it was sent."""
_KEEPALIVE_S = 10.0
_STRANGERS_TOLD = 20


class ControlView(Protocol):
    """What the service gives out. Called from the service's thread; None or DepotError is "not here"."""

    def claim(self) -> Claim:
        """The blade's claim; host and port are filled in with what a client used."""

    def serials(self) -> Sequence[int]:
        """The generations held."""

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        """`wire.encode(SignedManifest)`."""

    def torrent(self, info_hash: str) -> bytes | None:
        """The artefact's torrent file."""

    def artefact_files(self, info_hash: str) -> Sequence[Path] | None:
        """The artefact's files in the order of its torrent, if it is complete."""

    def swarm_port(self) -> int:
        """The port of this blade's `Swarm`, 0 if it gives nothing."""

    def blade_names(self) -> Collection[str]:
        """The inventory: whose reports count."""

    def racks(self) -> Mapping[str, str | None]:
        """The rack of each blade, where the inventory has one."""


OnReport = Callable[[Report, str], None]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ControlServer:
    """The service, in a thread of its own; a context manager. `port` 0 takes a free one.

    Events that blades report go to `reporter` with the blade as subject, and to `on_report` with the
    address that they came from. `publish` is a reporter for this process's own events: they appear
    on `/v1/events` and in `room` beside the reported ones. Raises PortTakenError.
    """

    def __init__(
        self,
        view: ControlView,
        *,
        cluster_id: str,
        address: str = "0.0.0.0",  # noqa: S104 - a blade serves its whole room
        port: int = DEFAULT_PORT,
        reporter: events.Reporter = events.ignore,
        on_report: OnReport | None = None,
        takes_reports: bool = True,
        boot: BootView | None = None,
    ) -> None:
        self._view = view
        self._cluster_id = cluster_id
        self._reporter = reporter
        self._on_report = on_report
        self._takes_reports = takes_reports
        self._boot = boot
        self._address = address
        self.port = port
        self._room = RoomState.of(view.blade_names())
        self._strangers: set[str] = set()
        self._failures_told: set[str] = set()
        self._listeners: set[asyncio.Queue[events.Event | None]] = set()
        self._loop = asyncio.new_event_loop()
        self._started: threading.Event = threading.Event()
        self._stop: asyncio.Event = asyncio.Event()
        self._failure: BladerootError | None = None
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()
        self._wait_until_started()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def room(self) -> RoomState:
        """What has been reported so far (frozen; safe to read from any thread)."""
        return self._room

    def publish(self, event: events.Event) -> None:
        """A reporter for this process's own events. From any thread; does not block."""
        with contextlib.suppress(RuntimeError):  # closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._take, event)

    def open_room(self) -> None:
        """Take reports from now on, of the blades that the view names; nothing has been heard of them yet."""
        self._set_room(RoomState.of(self._view.blade_names()), takes_reports=True)

    def close_room(self) -> None:
        """Take no reports any more, and forget what they have said."""
        self._set_room(RoomState.of(()), takes_reports=False)

    def _set_room(self, room: RoomState, *, takes_reports: bool) -> None:
        def apply() -> None:
            self._room, self._takes_reports = room, takes_reports

        with contextlib.suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(apply)

    def close(self) -> None:
        """Stop serving and free the port."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _wait_until_started(self) -> None:
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    # The thread and its loop

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # raised by whoever waits for the start; told to whoever listens later
            self._fail(NetworkError(f"cannot serve at {self._address}:{self.port}: {error}"))
        finally:
            self._started.set()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def _fail(self, error: BladerootError) -> None:
        if self._started.is_set():
            self._reporter(events.Warned(text=f"the control service has ended: {error}"))
        self._failure = error

    async def _serve(self) -> None:
        runner = web.AppRunner(
            self._make_application(), access_log=None, logger=_unheard, shutdown_timeout=1.0
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._address, self.port, backlog=BACKLOG)
            await site.start()
            addresses = runner.addresses
            self.port = int(addresses[0][1])
            self._started.set()
            await self._stop.wait()
            for queue in self._listeners:
                queue.put_nowait(None)
        except OSError as error:
            self._fail(_explain_binding(error, f"{self._address}:{self.port}"))
        finally:
            await runner.cleanup()

    def _make_application(self) -> web.Application:
        application = web.Application(client_max_size=REPORT_LIMIT_BYTES, middlewares=[self._explain_errors])
        add = application.router.add_get
        add("/v1/claim", self._get_claim)
        add("/v1/generations", self._get_generations)
        add(r"/v1/generations/{serial:\d{1,15}}/manifest", self._get_manifest)
        add(f"/v1/torrents/{_HASH}", self._get_torrent)
        add(f"/v1/artefacts/{_HASH}", self._get_artefact)
        add(f"/v1/artefacts/{_HASH}/{{name}}/{{file}}", self._get_artefact_file)
        add(f"/v1/peers/{_HASH}", self._get_peers)
        add("/v1/events", self._get_events)
        add("/v1/status", self._get_status)
        application.router.add_post("/v1/reports", self._post_report)
        if self._boot is not None:
            BootService(self._boot, lambda: self.port).add_to(application.router)
        return application

    @web.middleware
    async def _explain_errors(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError, TimeoutError):
            raise
        except DepotError as error:
            raise web.HTTPNotFound(text=str(error)) from error
        except NetworkError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        except Exception as error:
            self._warn_of_failure(request.path, error)
            raise web.HTTPInternalServerError(text=str(error)) from error

    def _warn_of_failure(self, path: str, error: Exception) -> None:
        text = f"could not answer {path[:80]}: {error if isinstance(error, BladerootError) else repr(error)}"
        if text not in self._failures_told and len(self._failures_told) < _STRANGERS_TOLD:
            self._failures_told.add(text)
            self._reporter(events.Warned(text=text))

    # What the depot has

    async def _get_claim(self, request: web.Request) -> web.Response:
        return answer_message(attrs.evolve(self._view.claim(), host=own_address(request), port=self.port))

    async def _get_generations(self, _request: web.Request) -> web.Response:
        return answer_message(GenerationList(serials=tuple(sorted(self._view.serials()))))

    async def _get_manifest(self, request: web.Request) -> web.Response:
        serial = int(request.match_info["serial"])
        data = present(self._view.signed_manifest_bytes(serial), f"no generation {serial} here")
        return answer_packed(request, data, MSGPACK)

    async def _get_torrent(self, request: web.Request) -> web.Response:
        data = present(self._view.torrent(request.match_info["info_hash"]), "no such artefact here")
        return answer_packed(request, data, "application/x-bittorrent")

    async def _get_artefact_file(self, request: web.Request) -> web.StreamResponse:
        """The layout of a multi-file web seed (BEP 19)."""
        wanted = (request.match_info["name"], request.match_info["file"])
        for path in self._artefact_files(request):
            if (path.parent.name, path.name) == wanted:
                return web.FileResponse(path)
        raise web.HTTPNotFound(text="no such file in that artefact")

    async def _get_artefact(self, request: web.Request) -> web.StreamResponse:
        """All files laid end to end, or a range of that: `runtime` is an ordinary .tar.zst so."""
        return await serve_files(request, self._artefact_files(request), etag=request.match_info["info_hash"])

    def _artefact_files(self, request: web.Request) -> Sequence[Path]:
        return present(self._view.artefact_files(request.match_info["info_hash"]), "no such artefact here")

    # What blades say

    async def _get_peers(self, request: web.Request) -> web.Response:
        members = self._room.members_of(request.match_info["info_hash"])
        asker = self._room.blade_at(request.remote or "")
        chosen = choose_neighbours(members, asker or (request.remote or ""), self._view.racks())
        peers = chosen.addresses
        if self._view.swarm_port():
            peers = (*peers, (own_address(request), self._view.swarm_port()))
        return answer_message(PeerList(peers=peers, are_all=chosen.are_all))

    async def _post_report(self, request: web.Request) -> web.Response:
        if not self._takes_reports:
            raise web.HTTPForbidden(text="this blade is not root")
        report, reported = parse_report(await request.read())
        if report.cluster_id != self._cluster_id:
            raise NetworkError(f"report of another cluster, {report.cluster_id}")
        if not self._room.lets_in(report.blade):
            self._room = self._room.expecting(self._view.blade_names())  # a newer generation may know it
        if not self._room.lets_in(report.blade):
            self._warn_of_stranger(report.blade, request.remote or "?")
            raise web.HTTPForbidden(text=f"no blade {report.blade} in this cluster")
        known = self._room.blades.get(report.blade)
        began_before = report.sequence > 1 and (known is None or known.session != report.session)
        if self._room.is_news(report):
            self._room = self._room.with_report(report, reported, request.remote or "")
            if self._on_report is not None:
                self._on_report(report, request.remote or "")
            for event in reported:
                self._reporter(event)
                self._tell_listeners(event)
        headers = {PAUSE_HEADER: f"{choose_pause(self._room.count(BladePhase.WORKING)):.1f}"}
        if began_before:
            headers[SESSION_HEADER] = NEW_SESSION
        return web.Response(status=204, headers=headers)

    def _warn_of_stranger(self, blade: str, address: str) -> None:
        if blade in self._strangers or len(self._strangers) >= _STRANGERS_TOLD:
            return
        self._strangers.add(blade)
        text = f"{address} reports as blade {blade}, which is not in the inventory"
        warning = events.Warned(text=text, hint=f"`bladeroot blades add {blade}` if it should be")
        self._reporter(warning)
        self._tell_listeners(warning)

    # Who watches

    def _take(self, event: events.Event) -> None:
        self._room = self._room.with_event(event)
        self._tell_listeners(event)

    def _tell_listeners(self, event: events.Event) -> None:
        for queue in list(self._listeners):
            if queue.qsize() < _LISTENER_QUEUE:
                queue.put_nowait(event)
            else:  # too slow to follow: it may come again and read the status
                self._listeners.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        if len(self._listeners) >= _MAX_LISTENERS:
            raise web.HTTPServiceUnavailable(text=f"{_MAX_LISTENERS} are watching already")
        queue: asyncio.Queue[events.Event | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            response = web.StreamResponse(headers={"Cache-Control": "no-store"})
            response.content_type = "text/event-stream"
            await response.prepare(request)
            await response.write(b": watching\n\n")
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _KEEPALIVE_S)
                except TimeoutError:
                    await response.write(b": still here\n\n")
                    continue
                if event is None:
                    return response
                data = json.dumps(events.to_mapping(event), default=str)
                async with asyncio.timeout(_LISTENER_PATIENCE_S):
                    await response.write(f"data: {data}\n\n".encode())
        finally:
            self._listeners.discard(queue)

    async def _get_status(self, request: web.Request) -> web.Response:
        claim = attrs.evolve(self._view.claim(), host=own_address(request), port=self.port)
        status = {
            "claim": attrs.asdict(claim),
            "swarm_port": self._view.swarm_port(),
            "generations": sorted(self._view.serials()),
            "blades": {name: attrs.asdict(state) for name, state in self._room.blades.items() if name},
        }
        return web.json_response(status, dumps=lambda value: json.dumps(value, default=str))


def _explain_binding(error: OSError, where: str) -> NetworkError:
    if error.errno == errno.EADDRINUSE:
        hint = "another bladeroot, or another program, runs here; choose another port"
        return PortTakenError(f"port {where} is taken", hint)
    return NetworkError(f"cannot serve at {where}: {error.strerror or error}")
