"""Answering netboot, as part of the root role: dnsmasq with a configuration made from the manifest."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from bladeroot.core.bootanswer import find_boot_files
from bladeroot.core.cluster import Netboot
from bladeroot.core.dnsmasqplan import NetbootSetup, find_far_networks, find_unreachable, render_dnsmasq
from bladeroot.core.manifest import Manifest
from bladeroot.core.nodesets import fold_names
from bladeroot.core.roomstate import RoomState
from bladeroot.errors import BladerootError, ConfigError, NetworkError
from bladeroot.events import Note, Reporter, Warned
from bladeroot.host.depot import Depot
from bladeroot.host.dnsmasq import Dnsmasq
from bladeroot.host.ipxe import LOADERS
from bladeroot.host.run import require_root
from bladeroot.net.dhcpprobe import find_dhcp_servers
from bladeroot.net.interfaces import choose_interface, find_interfaces

_WATCH_S = 60.0
_QUIET_S = 10.0
"""dnsmasq starts anew for news of hardware that are so old, and when nothing has booted by it for so long:
transfers break off.
"""
_LONGEST_WAIT_S = 300.0


class NetbootService:
    """What answers netboot while a root is root; see `start_netboot`."""

    def __init__(
        self, depot: Depot, manifest: Manifest, setup: NetbootSetup, dnsmasq: Dnsmasq, reporter: Reporter
    ) -> None:
        self._depot = depot
        self._manifest = manifest
        self._tried_serial = manifest.serial
        self._setup = setup
        self._dnsmasq = dnsmasq
        self._reporter = reporter
        self._rogues: set[str] = set()
        self._news_since: float | None = None
        self._refused: set[str] = set()
        self._stop = threading.Event()

    def update(self, manifest: Manifest, room: RoomState) -> None:
        """Take in a newer generation at once, and when it is quiet what blades have told of their hardware.

        What cannot be taken in is warned of, and what there was goes on.
        """
        hardware = _find_hardware(room) if manifest.network.dns else {}
        setup = attrs.evolve(self._setup, boot_hash=find_boot_files(manifest)[0], hardware=hardware)
        if (manifest, setup) == (self._manifest, self._setup):
            self._news_since = None
            return
        if manifest.serial == self._tried_serial and not self._is_time():
            return
        self._tried_serial, self._news_since = manifest.serial, None
        try:
            if setup.boot_hash != self._setup.boot_hash:
                _place_loaders(self._depot, setup)
            self._dnsmasq.reconfigure(render_dnsmasq(manifest, setup))
            self._manifest, self._setup = manifest, setup
        except BladerootError as error:
            self._refuse(manifest, str(error), error.hint)
        except OSError as error:
            self._refuse(manifest, str(error), f"is there room in {self._setup.tftp_folder.parent}?")

    def _is_time(self) -> bool:
        """Whether dnsmasq may be disturbed for what is new since some time, or could not be taken in."""
        if self._news_since is None:
            self._news_since = time.monotonic()
        waited_s = time.monotonic() - self._news_since
        return min(waited_s, self._dnsmasq.quiet_s) >= _QUIET_S or waited_s >= _LONGEST_WAIT_S

    def _refuse(self, manifest: Manifest, why: str, hint: str) -> None:
        text = f"netboot goes on without what is new in generation {manifest.serial}: {why}"
        if text not in self._refused:
            self._refused.add(text)
            self._reporter(Warned(text=text, hint=hint))

    def watch(self) -> None:
        """Look who else gives addresses, and warn of what should not be; a thread's work."""
        if self._setup.mode is Netboot.PROXY:
            self._look_for_partner()
        else:
            self._watch_for_rogues()

    def _look_for_partner(self) -> None:
        with suppress(NetworkError):
            if not _find_others(self._setup):
                text = f"no DHCP server answers on {self._setup.interface}: nothing gets an address there"
                hint = 'a proxy only adds to what another server says; netboot = "dhcp" gives addresses too'
                self._reporter(Warned(text=text, hint=hint))

    def _watch_for_rogues(self) -> None:
        while not self._stop.wait(_WATCH_S):
            try:
                found = _find_others(self._setup)
            except NetworkError:
                continue
            for server in found:
                if server not in self._rogues:
                    self._rogues.add(server)
                    hint = "machines may get addresses and boot programs from it: find it, and switch it off"
                    self._reporter(Warned(text=f"another DHCP server has appeared: {server}", hint=hint))

    def stop(self) -> None:
        """End the watching."""
        self._stop.set()


@contextmanager
def start_netboot(
    depot: Depot,
    manifest: Manifest,
    *,
    mode: Netboot,
    port: int,
    interface: str | None = None,
    room: Callable[[], RoomState] = RoomState,
    reporter: Reporter,
) -> Iterator[NetbootService | None]:
    """Answer netboot for the length of the block; with mode `off` there is nothing in it.

    Raises PrivilegeError, ConfigError for an unclear interface, NetworkError where another DHCP server
    answers on the segment (in mode `dhcp`) or dnsmasq cannot start.
    """
    if mode is Netboot.OFF:
        yield None
        return
    require_root("answering netboot")
    name, address = choose_interface(manifest, find_interfaces(), interface)
    with tempfile.TemporaryDirectory(prefix="bladeroot-tftp-") as folder:
        Path(folder).chmod(0o755)
        setup = NetbootSetup(
            mode=mode,
            interface=name,
            address=address,
            port=port,
            boot_hash=find_boot_files(manifest)[0],
            tftp_folder=Path(folder),
            lease_file=depot.path / "dnsmasq.leases",
            hardware=_find_hardware(room()) if manifest.network.dns else {},
        )
        _refuse_to_be_second(setup)
        _warn_of_gaps(manifest, setup, reporter)
        _place_loaders(depot, setup)
        with Dnsmasq(render_dnsmasq(manifest, setup), reporter) as dnsmasq:
            service = NetbootService(depot, manifest, setup, dnsmasq, reporter)
            threading.Thread(target=service.watch, name="dhcp-watch", daemon=True).start()
            reporter(Note(text=f"answering netboot on {name} ({address}) as {mode}"))
            try:
                yield service
            finally:
                service.stop()


def _refuse_to_be_second(setup: NetbootSetup) -> None:
    if setup.mode is not Netboot.DHCP:
        return
    others = _find_others(setup)
    if others:
        raise NetworkError(
            f"another DHCP server answers on {setup.interface}: {', '.join(others)}",
            'set netboot = "proxy" to work beside it, or switch it off',
        )


def _find_others(setup: NetbootSetup) -> list[str]:
    servers = find_dhcp_servers(setup.interface)
    return [str(server) for server in servers if server.address != str(setup.address.ip)]


def _warn_of_gaps(manifest: Manifest, setup: NetbootSetup, reporter: Reporter) -> None:
    far = ", ".join(map(str, find_far_networks(manifest, setup)))
    if far:
        reporter(
            Note(text=f"blades in {far} get addresses where a DHCP relay hands them on to {setup.address.ip}")
        )
    gaps = find_unreachable(manifest, setup)
    if gaps:
        hint = f"give them macs and an address in {setup.address.network}, or set dhcp_range under [network]"
        reporter(Warned(text=f"no addresses for {fold_names(gaps)}: they cannot netboot here", hint=hint))


def _place_loaders(depot: Depot, setup: NetbootSetup) -> None:
    """Put iPXE's loaders where TFTP finds them. Raises ConfigError for a generation without them."""
    paths = {path.name: path for path in depot.artefact_files(setup.boot_hash)}
    missing = [name for name in LOADERS if name not in paths]
    if missing:
        raise ConfigError(
            f"the generation has no {' and no '.join(missing)}: nothing can boot over the network",
            "install the package ipxe where you publish, and publish again",
        )
    for name in LOADERS:
        # A transfer may be reading what is there.
        draft = setup.tftp_folder / f"{name}.new"
        shutil.copyfile(paths[name], draft)
        draft.rename(setup.tftp_folder / name)


def _find_hardware(room: RoomState) -> Mapping[str, Mapping[str, Any]]:
    return {name: state.hardware for name, state in room.blades.items() if state.hardware}
