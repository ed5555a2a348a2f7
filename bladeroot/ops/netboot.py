"""Answering netboot, as part of the root role: dnsmasq with a configuration made from the manifest."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from bladeroot.core.bootanswer import find_boot_files
from bladeroot.core.cluster import Netboot
from bladeroot.core.dnsmasqplan import NetbootSetup, find_unreachable, render_dnsmasq
from bladeroot.core.manifest import Manifest
from bladeroot.core.nodesets import fold_names
from bladeroot.core.reports import RoomState
from bladeroot.errors import ConfigError, NetworkError
from bladeroot.events import Note, Reporter, Warned
from bladeroot.host.depot import Depot
from bladeroot.host.dnsmasq import Dnsmasq
from bladeroot.host.ipxe import LOADERS
from bladeroot.host.run import require_root
from bladeroot.net.dhcpprobe import find_dhcp_servers
from bladeroot.net.interfaces import choose_interface, find_interfaces

_WATCH_S = 60.0


class NetbootService:
    """What answers netboot while a root is root; see `start_netboot`."""

    def __init__(self, depot: Depot, setup: NetbootSetup, dnsmasq: Dnsmasq, reporter: Reporter) -> None:
        self._depot = depot
        self._setup = setup
        self._dnsmasq = dnsmasq
        self._reporter = reporter
        self._rogues: set[str] = set()
        self._stop = threading.Event()

    def update(self, manifest: Manifest, room: RoomState) -> None:
        """Take in a newer generation, and what blades have told of their hardware."""
        hardware = _find_hardware(room) if manifest.network.dns else {}
        setup = attrs.evolve(self._setup, boot_hash=find_boot_files(manifest)[0], hardware=hardware)
        if setup.boot_hash != self._setup.boot_hash:
            _place_loaders(self._depot, setup)
        self._setup = setup
        self._dnsmasq.reconfigure(render_dnsmasq(manifest, setup))

    def watch_for_rogues(self) -> None:
        """Look from time to time who else gives addresses; a thread's work, until the role ends."""
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
            service = NetbootService(depot, setup, dnsmasq, reporter)
            if mode is Netboot.DHCP:
                threading.Thread(target=service.watch_for_rogues, name="dhcp-watch", daemon=True).start()
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
    gaps = find_unreachable(manifest, setup)
    if gaps:
        hint = f"give them addresses in {setup.address.network}, or set dhcp_range under [network]"
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
        shutil.copyfile(paths[name], setup.tftp_folder / name)


def _find_hardware(room: RoomState) -> Mapping[str, Mapping[str, Any]]:
    return {name: state.hardware for name, state in room.blades.items() if state.hardware}
