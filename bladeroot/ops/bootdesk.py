"""What a root hands to machines that come without an operating system, and the orders that it passes on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import attrs

from bladeroot.core.agentfiles import INITRAMFS, KERNEL
from bladeroot.core.bootanswer import (
    Answer,
    AnswerKind,
    BootQuery,
    choose_answer,
    find_boot_files,
    render_agent_script,
    render_local_script,
    render_waiting_script,
)
from bladeroot.core.manifest import Manifest
from bladeroot.core.nodesets import expand_names
from bladeroot.core.orders import Order, SignedOrder, accept_order
from bladeroot.core.roomstate import RoomState
from bladeroot.core.signing import PublicKey
from bladeroot.errors import BladerootError, InventoryError, TrustError
from bladeroot.events import HardwareFound, Held, Note, Reporter, Warned
from bladeroot.host.agentpayload import find_agent_parts
from bladeroot.host.depot import Depot
from bladeroot.host.files import write_atomically
from bladeroot.host.orderbook import OrderBook

_WAITS_S = range(5, 16)
"""Between a machine's questions, another each time: hundreds that power up at once must not stay in step."""
_WAITS_FOR_DISK_S = range(1, 5)
"""The same where a disk has just failed to boot: somebody may be watching."""
_MOST_HOLDERS = 3
_MOST_IN_VAIN = 5
"""So often a machine gets the agent and says nothing before somebody is told."""
_MOST_TOLD = 4096
"""Whoever asks can make up MAC addresses."""
_Value = TypeVar("_Value")
_ASSIGNED_FILE = "assigned.json"
_LOCAL_LOADER = "local.efi"


class BootDesk:
    """Answers for the control service (`net.bootservice.BootView`), from what the root serves and hears."""

    def __init__(
        self,
        depot: Depot,
        trusted_keys: Collection[PublicKey],
        cluster_id: str,
        *,
        newest: Callable[[], Manifest],
        room: Callable[[], RoomState],
        reporter: Callable[[], Reporter],
    ) -> None:
        self._depot = depot
        self._trusted_keys = trusted_keys
        self._cluster_id = cluster_id
        self._newest = newest
        self._room = room
        self._reporter = reporter
        self._book = OrderBook(depot.path, lambda event: reporter()(event))
        self._checked: dict[SignedOrder, Order | None] = {}
        self._told: dict[str, str] = {}
        self._in_vain: dict[str, tuple[tuple[str, int], int]] = {}
        """By who asks, and what for: what it had reported when it got that last, and how often since."""

    def orders(self) -> tuple[SignedOrder, ...]:
        """What is in the depot's order book."""
        return self._book.read()

    def take_order(self, signed: SignedOrder) -> None:
        """Keep an order. Raises TrustError."""
        order = accept_order(signed, self._trusted_keys, self._cluster_id)
        self._book.add(signed, order)
        blades = ", ".join(order.blades[:8]) + (" …" if len(order.blades) > 8 else "")
        self._reporter()(Note(text=f"order {order.number}: {order.kind} {blades}"))

    def take_role_order(self, signed: SignedOrder) -> None:
        """Raise TrustError: it is not the desk's to move the role."""
        del signed
        raise TrustError("no daemon runs here that could take the role")

    def boot_file(self, info_hash: str, name: str) -> Sequence[Path] | None:
        """Part of the newest generation's boot code, or its agent's kernel or initramfs."""
        boot, agent = find_boot_files(self._newest())
        if info_hash not in (boot, agent) or not self._depot.has(info_hash):
            return None
        if info_hash == agent:
            return find_agent_parts(self._depot, agent, name) if name in (KERNEL, INITRAMFS) else None
        return [path for path in self._depot.artefact_files(boot) if path.name == name] or None

    def boot_script(self, query: BootQuery, root: str) -> str:
        """The answer for a machine, as an iPXE script. What is new in it is told."""
        manifest, room = self._newest(), self._room()
        assigned = self._read_assigned()
        # Without knowing what was assigned nothing is: two machines must not become one blade.
        pool = _pool(manifest) if assigned is not None else []
        answer = choose_answer(query, manifest, room, self._accepted(), assigned or {}, pool)
        self._tell(query, answer)
        boot, agent = find_boot_files(manifest)
        waits = _WAITS_FOR_DISK_S if answer.kind is AnswerKind.LOCAL else _WAITS_S
        wait_s = random.choice(waits)  # noqa: S311 - no secret
        if answer.kind is AnswerKind.LOCAL:
            loader = f"http://{root}/boot/{boot}/{_LOCAL_LOADER}"
            return render_local_script(answer, query, root=root, local_loader=loader, wait_s=wait_s)
        if not agent:
            words = f"generation {manifest.serial} has no agent: nothing can be installed over the network"
            return render_waiting_script(answer.name, words, root=root, wait_s=wait_s)
        if answer.assigned:
            self._write_assigned(query.mac, answer.assigned)
        return render_agent_script(
            answer,
            query,
            root=root,
            agent_hash=agent,
            holders=self._choose_holders(manifest, room, agent, root),
            kernel_command_line=manifest.kernel_command_line,
            wait_s=wait_s,
        )

    def _accepted(self) -> list[Order]:
        """The orders that blades would believe. Each is checked once: hundreds ask at the same time."""
        self._checked = {
            signed: self._checked[signed] if signed in self._checked else self._accept(signed)
            for signed in self.orders()
        }
        return [order for order in self._checked.values() if order is not None]

    def _accept(self, signed: SignedOrder) -> Order | None:
        try:
            return accept_order(signed, self._trusted_keys, self._cluster_id)
        except BladerootError:
            return None

    def _choose_holders(self, manifest: Manifest, room: RoomState, agent: str, root: str) -> list[str]:
        """Some blades that have the agent, by chance, and the root in the end."""
        known = {
            entry.blade.name: entry.blade.address.partition("/")[0]
            for entry in manifest.blades
            if entry.blade.address
        }
        blades = [f"{address}:{port}" for address, port in room.holders_of(agent, known)]
        chosen = random.sample(blades, min(len(blades), _MOST_HOLDERS - 1))
        if len(chosen) < _MOST_HOLDERS - 1:  # with few others the root does its share
            return random.sample([*chosen, root], len(chosen) + 1) + ([root] if chosen else [])
        return [*chosen, root]

    def _tell(self, query: BootQuery, answer: Answer) -> None:
        report = self._reporter()
        self._count(query, answer)
        key = f"{answer.kind} {answer.words}"
        if self._told.get(query.mac) == key:
            return
        _keep(self._told, query.mac, key)
        report(Note(text=f"{answer.name} ({query.mac}) netboots: {answer.words}"))
        if answer.is_held:
            hardware = attrs.asdict(query.hardware())
            report(HardwareFound(subject=answer.name, hardware=hardware))
            hint = f"`bladeroot blades adopt {query.mac} NAME`, then publish"
            report(Held(subject=answer.name, reason=answer.words, hint=hint))

    def _count(self, query: BootQuery, answer: Answer) -> None:
        """Somebody has to look at a machine that comes again and again, and never says a word."""
        blade = self._room().blades.get(answer.assigned or answer.name)
        heard = (blade.session, blade.sequence) if blade else ("", 0)
        key = f"{query.mac} {answer.kind}"
        before, count = self._in_vain.get(key, (heard, 0))
        count = count + 1 if before == heard else 1
        _keep(self._in_vain, key, (heard, count))
        if count != _MOST_IN_VAIN + 1:
            return
        who = f"{answer.name} ({query.mac})"
        if answer.kind is AnswerKind.AGENT:
            text = f"{who} got the agent {_MOST_IN_VAIN} times, and has reported nothing"
            hint = "its screen or serial console says why; `bladeroot.debug` on the kernel line gives a shell"
        else:  # a blade whose daemon is disabled does that too: nothing is installed for it
            text = f"{who} was sent to its disk {_MOST_IN_VAIN} times, and has not reported that it is up"
            hint = f"if it does not come up, `bladeroot reimage {answer.name}` installs it anew"
        self._reporter()(Warned(text=text, hint=hint))

    def _read_assigned(self) -> dict[str, str] | None:
        """By MAC address; None where there is something, but not that."""
        path = self._depot.path / _ASSIGNED_FILE
        try:
            told = json.loads(path.read_bytes())
            return {str(mac): str(name) for mac, name in told.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            text = f"{path} is damaged, and no blade of the pool is assigned: {error}"
            if self._told.get(_ASSIGNED_FILE) != text:
                _keep(self._told, _ASSIGNED_FILE, text)
                hint = "correct it, or remove it where no machine was assigned a blade"
                self._reporter()(Warned(text=text, hint=hint))
            return None

    def _write_assigned(self, mac: str, name: str) -> None:
        assigned = self._read_assigned()
        if assigned is not None and assigned.get(mac) != name:
            assigned[mac] = name
            write_atomically(self._depot.path / _ASSIGNED_FILE, json.dumps(assigned, indent=1) + "\n")


def _pool(manifest: Manifest) -> list[str]:
    try:
        return expand_names(manifest.strangers.pool) if manifest.strangers.pool else []
    except InventoryError:
        return []  # publish refuses such a pool


def _keep(kept: dict[str, _Value], key: str, value: _Value) -> None:
    """In place of the oldest, where there are too many."""
    kept.pop(key, None)
    if len(kept) >= _MOST_TOLD:
        del kept[next(iter(kept))]
    kept[key] = value
