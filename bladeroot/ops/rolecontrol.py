"""How a person moves the root role: on the blade itself by a socket, from elsewhere by a signed order."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from typing import Any

import attrs

from bladeroot.core.orders import SignedOrder
from bladeroot.core.roleorders import accept_role_order
from bladeroot.core.signing import PublicKey
from bladeroot.core.takeover import Wish
from bladeroot.errors import BladerootError, ConfigError, NetworkError, UsageError
from bladeroot.events import Note, Reporter, Warned
from bladeroot.host import localsocket
from bladeroot.host.depot import Depot
from bladeroot.host.files import write_atomically
from bladeroot.ops.station import Station

SOCKET_NAME = "daemon.sock"
"""In the depot, which only the superuser may write."""
LAST_ORDER_NAME = "role-order.json"
_LOOK_S = 1.0
_ANSWER_TIMEOUT_S = 90.0


@attrs.define(kw_only=True)
class RoleControl:
    """Answers at the socket, in a thread of its own, until `stop` is set; takes signed orders from any."""

    station: Station
    depot: Depot
    blade: str
    trusted_keys: Collection[PublicKey]
    cluster_id: str
    stop: threading.Event
    reporter: Reporter
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def run(self) -> None:
        """Serve the socket."""
        try:
            with localsocket.listening(self.depot.path, SOCKET_NAME) as socket:
                while not self.stop.is_set():
                    self._serve_one(socket)
        except OSError as error:
            text = f"`bladeroot promote` and `demote` do not reach this daemon: {error.strerror}"
            self.reporter(Warned(text=text))

    def _serve_one(self, socket: localsocket.LocalSocket) -> None:
        try:
            socket.serve_one(self.answer, _LOOK_S)
        except OSError:  # no descriptor is free, for one: the next one may be answered
            self.stop.wait(_LOOK_S)

    def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what the socket was asked for."""
        match request["do"]:
            case "promote":
                return self.promote()
            case "demote":
                to = request.get("to")
                return self.demote(to=None if to is None else str(to), force=bool(request.get("force")))
            case "status":
                return self.status()
        raise UsageError(f"this daemon cannot {str(request['do'])[:40]!r}", "is it of another version?")

    def status(self) -> Mapping[str, Any]:
        """The role as plain values."""
        followed = self.station.followed
        return {
            "blade": self.blade,
            "role": str(self.station.state.role),
            "epoch": self.station.state.epoch,
            "serial": self.station.presence.holdings.newest_serial,
            "follows": followed.blade if followed else "",
        }

    def promote(self) -> Mapping[str, Any]:
        """Take the role; returns when it serves."""
        self.station.promote()
        why_not = self.station.why_no_netboot
        return {**self.status(), "netboot": str(why_not) if why_not else ""}

    def demote(self, *, to: str | None, force: bool) -> Mapping[str, Any]:
        """Hand the role over; with `force` give it up, whoever has it then."""
        if force:
            if self.station.root is None:
                raise UsageError("this machine is not root", "`bladeroot roots` shows who is")
            self.station.ask(Wish.DEMOTE)
            if not self.station.wait_until(lambda: self.station.root is None, _ANSWER_TIMEOUT_S):
                raise NetworkError("the root role was not given up in time", "see what the daemon says")
            return {**self.status(), "root": ""}
        return {"root": self.station.hand_over(to), **self.status()}

    def take_role_order(self, signed: SignedOrder) -> None:
        """Begin to obey a signed order, if this blade is to. Raises TrustError, DepotError."""
        with self._lock:
            order = accept_role_order(
                signed,
                self.trusted_keys,
                cluster_id=self.cluster_id,
                blade=self.blade,
                last_number=self._read_last(),
            )
            if order.wish is Wish.PROMOTE:
                self.station.presence.holdings.newest  # noqa: B018 - raises where it cannot be root
            write_atomically(self.depot.path / LAST_ORDER_NAME, json.dumps({"number": order.number}) + "\n")
        self.reporter(Note(text=f"order {order.number}: {order.wish}"))
        threading.Thread(target=self._obey, args=(order.wish,), name="role-order", daemon=True).start()

    def _obey(self, wish: Wish) -> None:
        try:
            if wish is Wish.PROMOTE:
                self.promote()
            else:
                self.demote(to=None, force=False)
        except BladerootError as error:
            self.reporter(Warned(text=f"{wish}: {error}", hint=error.hint))

    def _read_last(self) -> int:
        path = self.depot.path / LAST_ORDER_NAME
        try:
            return int(json.loads(path.read_bytes())["number"])
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            # it was written at once, so it is the disk that does not hold what it is told
            raise ConfigError(f"{path} is damaged: {error!r}", "remove it") from error
