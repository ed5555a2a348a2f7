"""What a root answers a machine that boots over the network, and the answer as an iPXE script. No I/O.

The answer is the machine's own disk, unless there is a reason for another. It authorises nothing: what is
installed, and whether, the agent decides by the disk and by what is signed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

import attrs
from attrs import frozen

from bladeroot.core.agentdecision import Why
from bladeroot.core.agentfiles import KERNEL_ARGUMENT
from bladeroot.core.cluster import StrangerPolicy, parse_mac
from bladeroot.core.hardware import Hardware, Nic
from bladeroot.core.machines import find_blade
from bladeroot.core.manifest import ArtefactKind, Manifest
from bladeroot.core.orders import Order, choose_order, describe_restart
from bladeroot.core.roomstate import BladePhase, BladeState, RoomState, stranger_name
from bladeroot.errors import ConfigError, DepotError, InventoryError, NetworkError

_UUID = re.compile(r"[0-9a-fA-F-]{1,36}")
_MOST_TEXT = 64
_MOST_SAID = 160
_ASKED_IN_VAIN = 8
"""Two lines of a screen."""
_NOT_SAID = frozenset("$&|")
"""They mean something in an iPXE script: settings, and what follows success or failure."""


@frozen(kw_only=True)
class BootQuery:
    """Who asks: as iPXE fills in its settings into the script's address."""

    mac: str
    uuid: str = ""
    is_uefi: bool = False
    has_failed: bool = False
    """The machine was sent to its own disk, and came back."""
    vendor: str = ""
    product: str = ""
    memory_bytes: int = 0

    def hardware(self) -> Hardware:
        """What the loader knows of the machine."""
        return Hardware(
            uuid=self.uuid,
            vendor=self.vendor,
            product=self.product,
            memory_bytes=self.memory_bytes,
            firmware="uefi" if self.is_uefi else "bios",
            nics=(Nic(name="", mac=self.mac, has_link=True),),
        )


class AnswerKind(StrEnum):
    """What the machine is to do."""

    LOCAL = "local"
    AGENT = "agent"


@frozen(kw_only=True)
class Answer:
    """What the machine is to do, and in words why. `blade` is empty for a stranger that waits."""

    kind: AnswerKind
    name: str
    """The blade's, or the stranger's."""
    words: str
    why: Why = Why.UNKNOWN
    assigned: str = ""
    """The blade of the pool that a stranger becomes."""
    is_held: bool = False


def parse_query(values: Mapping[str, str]) -> BootQuery:
    """The query of `/boot.ipxe`. Raises NetworkError for one without a MAC address."""
    try:
        mac = parse_mac(values.get("mac", ""))
    except ConfigError as error:
        raise NetworkError(str(error), error.hint) from error
    uuid, memory = values.get("uuid", ""), values.get("mem", "")
    return BootQuery(
        mac=mac,
        uuid=uuid.lower() if _UUID.fullmatch(uuid) else "",
        is_uefi=values.get("platform", "") == "efi",
        has_failed=values.get("local", "") == "failed",
        vendor=_clean(values.get("vendor", "")),
        product=_clean(values.get("product", "")),
        memory_bytes=int(memory) << 20 if re.fullmatch(r"\d{1,9}", memory) else 0,
    )


def choose_answer(
    query: BootQuery,
    manifest: Manifest,
    room: RoomState,
    orders: Collection[Order],
    assigned: Mapping[str, str],
    pool: Sequence[str] = (),
) -> Answer:
    """The answer. `assigned` is which blade of the `pool` each stranger's MAC address was given before."""
    try:
        blade = find_blade((entry.blade for entry in manifest.blades), query.hardware())
    except InventoryError as error:
        return Answer(
            kind=AnswerKind.LOCAL, name=stranger_name(query.mac), words=str(error), is_held=query.has_failed
        )
    if blade is not None:
        return _answer_blade(query, blade.name, room, orders)
    return _answer_stranger(query, manifest, room, orders, assigned, pool)


def _answer_blade(query: BootQuery, blade: str, room: RoomState, orders: Collection[Order]) -> Answer:
    known = room.blades.get(blade)
    order = choose_order(orders, blade, known.order if known else 0)
    if order is not None and known is not None and not query.has_failed and _is_armed(known, order):
        words = f"order {order.number} is for it: its disk has the agent"
        return Answer(kind=AnswerKind.LOCAL, name=blade, words=words)
    if order is not None:
        words = f"order {order.number} is for it: the agent carries it out"
        return Answer(kind=AnswerKind.AGENT, name=blade, words=words, why=Why.ORDER)
    if query.has_failed:
        words = "its disk does not boot: the agent looks at it"
        return Answer(kind=AnswerKind.AGENT, name=blade, words=words, why=Why.NO_BOOT)
    return Answer(kind=AnswerKind.LOCAL, name=blade, words="boots from its own disk")


def _is_armed(known: BladeState, order: Order) -> bool:
    """Whether the last that the blade said is that its own disk starts the agent next, for that order."""
    return known.phase is BladePhase.UP and known.note == describe_restart(order.number)


def _answer_stranger(
    query: BootQuery,
    manifest: Manifest,
    room: RoomState,
    orders: Collection[Order],
    assigned: Mapping[str, str],
    pool: Sequence[str],
) -> Answer:
    name = stranger_name(query.mac)
    before = _find_assigned(query.mac, manifest, assigned, pool)
    if before:
        answer = _answer_blade(query, before, room, orders)
        return attrs.evolve(answer, assigned=before if answer.kind is AnswerKind.AGENT else "")
    if not query.has_failed:
        return Answer(kind=AnswerKind.LOCAL, name=name, words="not in the inventory: boots from its own disk")
    if manifest.strangers.policy is StrangerPolicy.ASSIGN:
        free = _find_free(manifest, room, assigned, pool)
        if free:
            words = f"not in the inventory: becomes {free}"
            return Answer(kind=AnswerKind.AGENT, name=name, words=words, why=Why.STRANGER, assigned=free)
        words = f"not in the inventory, and no blade of the pool {manifest.strangers.pool!r} is free"
    else:
        words = "not in the inventory: it waits until somebody adopts it"
    return Answer(kind=AnswerKind.AGENT, name=name, words=words, why=Why.STRANGER, is_held=True)


def _find_assigned(mac: str, manifest: Manifest, assigned: Mapping[str, str], pool: Sequence[str]) -> str:
    """The pool's blade that this machine has become already, or ""."""
    name = assigned.get(mac, "")
    return (
        name if manifest.strangers.policy is StrangerPolicy.ASSIGN and name in _usable(manifest, pool) else ""
    )


def _find_free(manifest: Manifest, room: RoomState, assigned: Mapping[str, str], pool: Sequence[str]) -> str:
    """The pool's next blade that nobody has, or ""."""
    taken = {*assigned.values(), *(name for name, state in room.blades.items() if state.session)}
    return next((name for name in _usable(manifest, pool) if name not in taken), "")


def _usable(manifest: Manifest, pool: Sequence[str]) -> list[str]:
    """The pool's blades that are no machine of the inventory."""
    blades = {entry.blade.name: entry.blade for entry in manifest.blades}
    return [name for name in pool if name in blades and not blades[name].macs and not blades[name].uuid]


def find_boot_files(manifest: Manifest) -> tuple[str, str]:
    """The info-hashes of the generation's boot code and agent, "" for what it has not."""
    found = []
    for kind in (ArtefactKind.BOOT, ArtefactKind.AGENT):
        try:
            found.append(manifest.artefact(kind).info_hash)
        except DepotError:
            found.append("")
    return found[0], found[1]


def render_local_script(
    answer: Answer, query: BootQuery, *, root: str, local_loader: str, wait_s: int
) -> str:
    """Boot the disk; if that comes back, ask again and say so."""
    boot = ["sanboot --no-describe --drive 0x80 ||"]
    if query.is_uefi:  # a loader that cannot be fetched says nothing of the disk
        boot = [f"imgfetch --name local {local_loader} || goto unfetched", "chain --autofree local ||"]
    lines = [
        _say(f"{answer.name}: {answer.words}"),
        *boot,
        _say(f"{answer.name}: the disk does not boot; asking the root what to do"),
        *_render_asking(root, wait_s, failed=True),
    ]
    if query.is_uefi:
        lines += [":unfetched", *_render_asking(root, wait_s, failed=query.has_failed, label="again")]
    return _render(lines)


def render_agent_script(
    answer: Answer,
    query: BootQuery,
    *,
    root: str,
    agent_hash: str,
    holders: Sequence[str],
    kernel_command_line: str,
    wait_s: int,
) -> str:
    """Start the agent with its files from the first of `holders` (`host:port`) that gives them."""
    words = [kernel_command_line, "edd=off", KERNEL_ARGUMENT]
    words += [f"bladeroot.root={root}", f"bladeroot.mac={query.mac}"]
    words += [f"bladeroot.why={answer.why}"] if answer.why else []
    words += [f"bladeroot.blade={answer.assigned}"] if answer.assigned else []
    arguments = " ".join(word for word in words if word)
    lines = [_say(f"{answer.name}: {answer.words}")]
    if not query.is_uefi:
        lines += [
            "cpuid --ext 29 && goto start ||",
            _say("this processor has no 64-bit mode: it cannot run the agent"),
            "goto wait",
            ":start",
        ]
    for number, holder in enumerate(holders):
        following = f"holder{number + 1}" if number + 1 < len(holders) else "wait"
        where = f"http://{holder}/boot/{agent_hash}"
        lines += [
            f":holder{number}",
            _say(f"fetching the agent from {holder}"),
            "imgfree",
            # The stub in the kernel finds the initramfs by the name on its command line.
            f"kernel {where}/vmlinuz initrd=initramfs {arguments} || goto {following}",
            f"initrd --name initramfs {where}/initramfs || goto {following}",
            f"boot || goto {following}",
        ]
    lines += [":wait", "imgfree", *_render_asking(root, wait_s, failed=query.has_failed)]
    return _render(lines)


def render_waiting_script(name: str, words: str, *, root: str, wait_s: int) -> str:
    """Say why nothing is done, and ask again."""
    return _render([_say(f"{name}: {words}"), *_render_asking(root, wait_s, failed=False)])


def script_address(root: str, *, failed: bool = False) -> str:
    """Where a machine gets its script; iPXE fills in what stands in braces.

    Short, since a DHCP server hands it out too, in a field of 128 bytes (RFC 2131, 2).
    """
    address = f"http://{root}/boot.ipxe?mac=${{mac:hexhyp}}&uuid=${{uuid}}&platform=${{platform}}"
    if not failed:
        return address
    return (
        f"{address}&vendor=${{manufacturer:uristring}}&product=${{product:uristring}}&mem=${{memsize}}"
        "&local=failed"
    )


def _render_asking(root: str, wait_s: int, *, failed: bool, label: str = "ask") -> list[str]:
    """Ask the root again, for ever: after a power cut blades are up before any root is.

    Now and then begin anew, with a new address: by then another machine may be root.
    """
    return [
        "set asked:int32 0 ||",
        f":{label}",
        "inc asked ||",
        f"iseq ${{asked}} {_ASKED_IN_VAIN} && set asked:int32 0 && autoboot ||",
        _say(f"asking {root} again in {wait_s} s"),
        f"sleep {wait_s}",
        f"ifopen || goto {label}",
        f"chain --replace --autofree {script_address(root, failed=failed)} || goto {label}",
    ]


def _render(lines: Sequence[str]) -> str:
    return "\n".join(["#!ipxe", *lines]) + "\n"


def _say(text: str) -> str:
    """A line of script that puts it on the screen, whatever is in it."""
    plain = (
        char if char.isascii() and char.isprintable() and char not in _NOT_SAID else "?" for char in text
    )
    return f"echo bladeroot: {''.join(plain)[:_MOST_SAID]}"


def _clean(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:_MOST_TEXT]
