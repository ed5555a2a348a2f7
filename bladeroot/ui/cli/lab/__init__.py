"""`bladeroot lab`: a cluster in a box, to try and to show."""

from __future__ import annotations

from bladeroot.ui.cli.lab import demo, reach, scenarios, up
from bladeroot.ui.cli.parser import Verbs, add_verb, add_verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its verbs."""
    parser = add_verb(
        verbs,
        "lab",
        summary="a cluster in a box, on this machine alone",
        description="Blades in network namespaces (demo), or virtual machines with firmware, boot loader and "
        "console of their own (up, run). Nothing outside of a work directory, the cache and namespaces "
        "of its own is touched.",
        see="`bladeroot help lab demo`, `bladeroot help lab up`",
    )
    inner = add_verbs(parser)
    demo.add_parser(inner)
    up.add_parser(inner)
    reach.add_parsers(inner)
    scenarios.add_parser(inner)
