"""What the kernel's command line tells the agent. Nothing of it is trusted: it only says where to begin."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from bladeroot.core.agentdecision import Why
from bladeroot.core.cluster import NAME_PATTERN, parse_mac
from bladeroot.errors import ConfigError

_PREFIX = "bladeroot."


class Then(StrEnum):
    """What follows when the work is done."""

    RESTART = "restart"
    POWER_OFF = "poweroff"


@frozen(kw_only=True)
class AgentArguments:
    """The words that begin with `bladeroot.`; what is missing, or makes no sense, has its default."""

    root: str | None = None
    """Which root to ask first, as HOST:PORT."""
    mac: str = ""
    """Which network card the machine booted from."""
    why: Why = Why.UNKNOWN
    blade: str | None = None
    """What a stranger is assigned to be."""
    debug: bool = False
    then: Then = Then.RESTART


def parse_arguments(command_line: str) -> AgentArguments:
    """The arguments in a kernel command line."""
    words = [word.removeprefix(_PREFIX) for word in command_line.split() if word.startswith(_PREFIX)]
    values = dict(word.partition("=")[::2] for word in words)
    blade = values.get("blade", "")
    return AgentArguments(
        root=values.get("root") or None,
        mac=_parse_mac(values.get("mac", "")),
        why=Why.DISK if values.get("from") == "disk" else _parse_why(values.get("why", "")),
        blade=blade if NAME_PATTERN.fullmatch(blade) else None,
        debug="debug" in values,
        then=Then.POWER_OFF if values.get("then") == Then.POWER_OFF else Then.RESTART,
    )


def _parse_why(text: str) -> Why:
    try:
        return Why(text)
    except ValueError:
        return Why.UNKNOWN


def _parse_mac(text: str) -> str:
    try:
        return parse_mac(text)
    except ConfigError:
        return ""
