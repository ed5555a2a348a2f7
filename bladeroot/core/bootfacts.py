"""What a disk says of itself in grubenv: what it boots, and how often that was tried. No I/O.

All of it is in one sector, so that it changes at once: see `render_grubenv`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs
from attrs import frozen

from bladeroot.core.disklayout import SLOTS, Use

SLOT_VARIABLE = "bladeroot_slot"
SERIAL_VARIABLE = "bladeroot_serial"
CLUSTER_VARIABLE = "bladeroot_cluster"
ORDER_VARIABLE = "bladeroot_order"
VISITS_VARIABLE = "bladeroot_visits"
TRIES_VARIABLE = "bladeroot_tries"
WIPED_VARIABLE = "bladeroot_wiped"
NEXT_VARIABLE = "bladeroot_next"
NEXT_AGENT = "agent"

_CLUSTER_ID = re.compile(r"[0-9a-z-]{1,64}")
_NUMBER = re.compile(r"\d{1,16}")
_TRIES = re.compile(r"(\d{1,16}):(\d{1,9})")


@frozen(kw_only=True)
class BootFacts:
    """The facts in grubenv; what it does not say is 0, empty or None."""

    slot: Use | None = None
    """The slot that GRUB boots; None: nothing is installed, or an install was cut off."""
    serial: int = 0
    """The generation that was committed last, also while no slot is: the disk does not go below it."""
    cluster_id: str = ""
    order: int = 0
    """Number of the last order that was carried out."""
    visits: int = 0
    """How often the agent sent the blade to this disk since it booted from it last."""
    tries_order: int = 0
    tries: int = 0
    """How many installs began for order `tries_order` (0: for none) without one that ended well."""
    wiped: int = 0
    """Number of the order under way that said to wipe `data`, once that is done."""
    next_agent: bool = False
    """GRUB starts the agent at the next boot, and only at that one."""

    def count_tries(self, order: int) -> int:
        """How many installs for that order (0: for none) began."""
        return self.tries if self.tries_order == order else 0

    def with_try(self, order: int) -> BootFacts:
        """One more install for that order (0: for none) begins."""
        return attrs.evolve(self, tries_order=order, tries=self.count_tries(order) + 1)

    def with_visit(self) -> BootFacts:
        """The agent sends the blade to this disk once more."""
        return attrs.evolve(self, visits=self.visits + 1)

    def when_booted(self) -> BootFacts:
        """The installed system runs: whatever failed before is over."""
        return attrs.evolve(self, visits=0, tries_order=0, tries=0, wiped=0, next_agent=False)

    def when_released(self) -> BootFacts:
        """No slot boots any more. What the disk was, and what was done to it, is not forgotten."""
        return attrs.evolve(self, slot=None, next_agent=False)

    def when_committed(self, slot: Use, serial: int, cluster_id: str, order: int | None) -> BootFacts:
        """A new slot boots. `order`: the one that was carried out.

        Tries without an order are only over when the system runs: else a disk that takes every install and
        never boots would be installed for ever.
        """
        # What an order wiped, it must not wipe again, whoever has carried on with the install since.
        done = max(self.order, self.wiped) if self.cluster_id in ("", cluster_id) else 0
        return BootFacts(
            slot=slot,
            serial=serial,
            cluster_id=cluster_id,
            order=max(done, order or 0),
            tries=self.count_tries(0),
        )


def parse_boot_facts(values: Mapping[str, str]) -> BootFacts:
    """The facts in GRUB's variables; what makes no sense counts as not there."""
    tries = _TRIES.fullmatch(values.get(TRIES_VARIABLE, ""))
    cluster_id = values.get(CLUSTER_VARIABLE, "")
    return BootFacts(
        slot=next((slot for slot in SLOTS if slot == values.get(SLOT_VARIABLE)), None),
        serial=_parse_number(values, SERIAL_VARIABLE),
        cluster_id=cluster_id if _CLUSTER_ID.fullmatch(cluster_id) else "",
        order=_parse_number(values, ORDER_VARIABLE),
        visits=_parse_number(values, VISITS_VARIABLE),
        tries_order=int(tries.group(1)) if tries else 0,
        tries=int(tries.group(2)) if tries else 0,
        wiped=_parse_number(values, WIPED_VARIABLE),
        next_agent=values.get(NEXT_VARIABLE) == NEXT_AGENT,
    )


def render_boot_facts(facts: BootFacts) -> dict[str, str]:
    """The inverse of `parse_boot_facts`; what is 0, empty or None has no variable."""
    values = {
        SLOT_VARIABLE: str(facts.slot or ""),
        SERIAL_VARIABLE: str(facts.serial or ""),
        CLUSTER_VARIABLE: facts.cluster_id,
        ORDER_VARIABLE: str(facts.order or ""),
        VISITS_VARIABLE: str(facts.visits or ""),
        TRIES_VARIABLE: f"{facts.tries_order}:{facts.tries}" if facts.tries else "",
        WIPED_VARIABLE: str(facts.wiped or ""),
        NEXT_VARIABLE: NEXT_AGENT if facts.next_agent else "",
    }
    return {name: value for name, value in values.items() if value}


def _parse_number(values: Mapping[str, str], name: str) -> int:
    text = values.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else 0
