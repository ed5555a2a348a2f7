"""What the agent does, as a table of steps. Each begins with a line on the console that stays as it is:
`bladeroot: step <name>: <title>`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from attrs import frozen

from bladeroot.agent.agent import Agent, DoneError, HeldError
from bladeroot.agent.disks import name_disks, wait_for_disks
from bladeroot.agent.identify import find_identity
from bladeroot.agent.installing import install_it
from bladeroot.agent.session import warn_of_orders
from bladeroot.core.agentdecision import BootLocally, Hold, Install, decide, take_over, with_tries
from bladeroot.core.machines import find_blade
from bladeroot.core.manifest import accept_manifest
from bladeroot.errors import BladerootError, NetworkError, NoRootFoundError
from bladeroot.events import Finished, Note, Warned
from bladeroot.host.blockdev import open_disk
from bladeroot.host.clock import set_clock
from bladeroot.host.coldplug import load_drivers
from bladeroot.host.esp import read_boot_facts, write_boot_facts
from bladeroot.host.hardware import read_hardware
from bladeroot.host.links import StaticAddress, connected
from bladeroot.ops import install
from bladeroot.ops.bootentry import apply_boot_entry
from bladeroot.ops.diskfacts import read_disk_facts
from bladeroot.ops.installplan import choose_install_disk, plan_install
from bladeroot.ops.resume import Standing
from bladeroot.ops.steps import step

_ROOT_ROUNDS = 6
"""So often the agent looks for a root before it brings the network up anew."""
_ROOT_PAUSE_S = (4.0, 9.0)
_CLOCK_SLACK_S = 2.0
_EARLIEST_S = 1_735_689_600.0
"""2025-01-01: whatever is told as earlier is of a clock that was never set."""


@frozen
class AgentStep:
    """A step: its name, what a person reads, and what it does."""

    name: str
    title: str
    run: Callable[[Agent], None]
    changes_machine: bool = False
    """It is about the machine that the agent runs on, and left out where that is not the blade."""


def plug_drivers(agent: Agent) -> None:
    """Load what the hardware asks for."""
    count = load_drivers()
    agent.disks = name_disks()
    agent.disks_since_s = time.monotonic()
    agent.console(Note(text=f"{count} kinds of devices"))


def look_at_hardware(agent: Agent) -> None:
    """Find out what machine this is."""
    agent.hardware = read_hardware()
    hardware = agent.hardware
    disks = ", ".join(disk.name for disk in hardware.disks) or "none"
    nics = ", ".join(f"{nic.name} {nic.mac}" for nic in hardware.nics) or "none"
    what = " ".join(part for part in (hardware.vendor, hardware.product) if part) or "a machine"
    agent.console(
        Note(
            text=f"{what}, {hardware.firmware}, {hardware.cpus} CPUs, {hardware.memory_bytes >> 20} MiB;"
            f" disks: {disks}; network cards: {nics}"
        )
    )


def bring_up_network(agent: Agent) -> None:
    """Get an address, unless there is one already."""
    if agent.connection is not None:
        return
    blade = find_blade(agent.site.cluster.blades.values(), agent.hardware)
    network = agent.site.cluster.network
    static = None
    if blade is not None and blade.address is not None:
        static = StaticAddress(
            address=blade.address, gateway=network.gateway, nameservers=network.nameservers
        )
    # A machine that was started from its disk does not say which card netboots: the inventory does.
    known = [nic.mac for nic in agent.hardware.nics if blade is not None and nic.mac in blade.macs]
    preferred_mac = agent.arguments.mac or next(iter(known), "")
    agent.connection = agent.lasting.enter_context(connected(preferred_mac=preferred_mac, static=static))
    agent.report(Note(text=str(agent.connection)))
    # A link's speed is known now.
    agent.hardware = read_hardware()


def find_root(agent: Agent) -> None:
    """Find a root that answers, for as long as it takes."""
    if agent.session is not None:
        try:
            agent.offer = agent.session.read_offer()
        except NetworkError as error:
            agent.report(Note(text=f"the root is gone: {error}"))
            agent.leave_root()
        else:
            return
    for _round in range(_ROOT_ROUNDS):
        try:
            agent.offer = agent.follow(agent.look_for_root(agent.console)).read_offer()
        except BladerootError as error:
            pause_s = agent.chance(*_ROOT_PAUSE_S)
            agent.console(Note(text=f"no root answers yet ({error}); trying again in {pause_s:.0f} s"))
            agent.sleep(pause_s)
        else:
            agent.console(Note(text=f"following {agent.offer.claim}"))
            return
    let_go_of_network(agent)
    raise NoRootFoundError(
        "no root answers", "`bladeroot promote` on any blade, or on the machine that published"
    )


def let_go_of_network(agent: Agent) -> None:
    """The network is brought up anew by the next attempt: the cable may be in another socket by then."""
    agent.leave_root()
    agent.connection = None
    agent.lasting.close()
    agent.lasting = ExitStack()


def set_the_clock(agent: Agent) -> None:
    """Take the root's time over, before anything is made that has a date."""
    assert agent.session is not None  # noqa: S101 - the step before found it
    now_s = agent.session.client.read_clock()
    wrong_by_s = now_s - time.time()
    if now_s < _EARLIEST_S:
        agent.report(Warned(text="the root's clock is not set; this machine's is left as it is"))
    elif abs(wrong_by_s) > _CLOCK_SLACK_S:
        set_clock(now_s)
        agent.console(Note(text=f"the clock was wrong by {abs(wrong_by_s):.0f} s"))


def identify(agent: Agent) -> None:
    """Accept the newest manifest, and find out which of its blades this machine is."""
    assert agent.session is not None and agent.offer is not None  # noqa: S101, PT018
    signed = agent.session.client.manifest(agent.offer.claim.serial)
    agent.manifest = accept_manifest(signed, agent.trusted_keys, agent.cluster_id)
    agent.signed = signed
    agent.be(find_identity(agent))
    agent.console(Note(text=f"this machine is {agent.blade} of cluster {agent.manifest.cluster_name}"))


def decide_what_to_do(agent: Agent) -> None:
    """Look at the disk and at the orders, and make a plan of it. Raises HeldError, DoneError."""
    assert agent.session is not None and agent.offer is not None  # noqa: S101, PT018
    assert agent.signed is not None and agent.manifest is not None  # noqa: S101, PT018
    assigned = agent.assignment
    if assigned is None:
        wait_for_disks(agent)
    disk = choose_install_disk(
        agent.signed, agent.trusted_keys, agent.cluster_id, agent.blade, assigned.disk if assigned else None
    )
    opened = agent.attempt.enter_context(open_disk(disk.path))
    orders, errors = agent.offer.accept_orders(agent.trusted_keys, agent.cluster_id)
    for warning in warn_of_orders(errors):
        agent.report(warning)
    facts = read_disk_facts(opened, agent.cluster_id)
    for number, count in agent.begun.items():
        if number >= facts.tries_order:
            facts = with_tries(facts, number, count)
    decision = decide(
        agent.blade,
        facts,
        newest=agent.manifest.serial,
        orders=orders,
        why=agent.arguments.why,
        # A clock may be wrong, and a root's may lie; it was not before this was signed.
        now_s=max(int(time.time()), agent.manifest.created),
    )
    match decision:
        case Hold():
            raise HeldError(decision.reason, decision.hint)
        case BootLocally():
            if decision.counts:
                with suppress(BladerootError, OSError):  # a disk that cannot note it may boot all the same
                    write_boot_facts(opened, read_boot_facts(opened).with_visit())
            agent.report(Note(text=f"{decision.reason}: nothing to do but to boot it"))
            if assigned is None:  # The last visit may have been cut off between the commit and this.
                apply_boot_entry(opened, reporter=agent.report)
            # Roots forget: this one shall know which orders are done before the machine asks it again.
            told = {"blade": agent.blade, "disk": facts.path, "serial": facts.serial, "order": facts.order}
            agent.report(Finished(facts={**told, "complete": facts.is_complete}))
            raise DoneError(decision.reason)
        case Install():
            agent.report(Note(text=decision.reason))
            if facts.holds:
                agent.report(Note(text=f"lost: {facts.holds}"))
    signed = agent.signed
    if decision.serial != agent.manifest.serial:
        signed = agent.session.client.manifest(decision.serial)
    agent.plan = plan_install(
        signed,
        agent.trusted_keys,
        agent.cluster_id,
        agent.blade,
        disk,
        opened,
        again=decision.anew,
        order=next((take_over(order, decision) for order in orders if order.number == decision.order), None),
    )
    if not decision.anew and agent.plan.standing is Standing.NEW:
        # Nothing asks for it, so that it boots is worth more than what it lacks.
        raise HeldError(
            f"{disk.path} lacks a part of its generation, and cannot get it without being written over",
            f"`bladeroot reimage {agent.blade}` orders the install",
        )
    agent.opened, agent.decision = opened, decision
    for line in agent.plan.lines():
        agent.console(Note(text=line))


def set_boot_entry(agent: Agent) -> None:
    """Have the firmware start the disk before the network, from now on."""
    assert agent.opened is not None  # noqa: S101 - the plan is for it
    apply_boot_entry(agent.opened, reporter=agent.report)


def finish(agent: Agent) -> None:
    """Let the root know, and leave the machine to what was installed."""
    agent.report(Finished(facts=agent.facts))
    raise DoneError(f"{agent.blade} is installed")


BEFORE: tuple[AgentStep, ...] = (
    AgentStep("drivers", "Load drivers", plug_drivers, changes_machine=True),
    AgentStep("hardware", "Look at the machine", look_at_hardware),
    AgentStep("network", "Bring up the network", bring_up_network, changes_machine=True),
    AgentStep("root", "Find a blade root", find_root),
    AgentStep("clock", "Set the clock", set_the_clock, changes_machine=True),
    AgentStep("blade", "Find out which blade this is", identify),
    AgentStep("decide", "Look at the disk and decide", decide_what_to_do),
)
"""What comes before the disk is touched."""
AFTER: tuple[AgentStep, ...] = (
    AgentStep("boot-entry", "Have the firmware start the disk first", set_boot_entry, changes_machine=True),
    AgentStep("restart", "Restart into what was installed", finish),
)
"""What comes when the disk boots."""


def list_step_names() -> tuple[str, ...]:
    """Every step of a machine that is installed, in order, those of the install itself among them."""
    return (
        *(one.name for one in BEFORE),
        "pre-install",
        *(name for name, _title, _run in install.STEPS),
        *(one.name for one in AFTER),
    )


def run_steps(agent: Agent) -> None:
    """One attempt from the beginning to the end, which is always an error: see `Agent`'s module."""
    _run(agent, BEFORE)
    install_it(agent)
    _run(agent, AFTER)


def _run(agent: Agent, steps: tuple[AgentStep, ...]) -> None:
    for one in steps:
        if agent.assignment is None or not one.changes_machine:
            with step(one.name, one.title, agent.report):
                one.run(agent)
