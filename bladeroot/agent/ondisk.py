"""`python3 -m bladeroot.agent.ondisk`: the agent for one disk of a machine that is not the blade.

It is the agent itself, told which blade and which disk, so that a blade without a machine of its own (a
process in a network namespace, with a file for a disk) is installed and reimaged as a real one is. It ends
where that would restart: with exit code 0, to whoever started it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bladeroot.agent.agent import Agent, Assignment
from bladeroot.agent.arguments import AgentArguments
from bladeroot.agent.loop import run_until_done
from bladeroot.agent.site import read_site
from bladeroot.core.agentdecision import Why
from bladeroot.errors import BladerootError
from bladeroot.events import Failed
from bladeroot.host.eventlines import EventLines


def main(argv: Sequence[str] | None = None) -> int:
    """Run until the blade is to restart; events are JSON lines on standard error."""
    parser = argparse.ArgumentParser(prog="bladeroot.agent.ondisk", description=__doc__)
    parser.add_argument("--blade", required=True)
    parser.add_argument("--disk", required=True, type=Path)
    parser.add_argument("--cluster", required=True, type=Path)
    parser.add_argument("--root")
    parser.add_argument("--why", type=Why, choices=list(Why), default=Why.UNKNOWN)
    words = parser.parse_args(argv)
    console = EventLines(sys.stderr)
    try:
        run_until_done(
            Agent(
                arguments=AgentArguments(root=words.root, why=words.why),
                site=read_site(words.cluster),
                console=console,
                assignment=Assignment(blade=words.blade, disk=words.disk),
            )
        )
    except BladerootError as error:
        console(Failed(text=str(error), hint=error.hint, exit_code=error.exit_code))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
