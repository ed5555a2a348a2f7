"""`python3 -m bladeroot.agent`, as /init of the initramfs starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from bladeroot.agent.agent import Agent
from bladeroot.agent.arguments import Then, parse_arguments
from bladeroot.agent.console import Console, find_consoles
from bladeroot.agent.loop import run_until_done
from bladeroot.agent.shells import keep_shells
from bladeroot.agent.site import read_site
from bladeroot.errors import BladerootError
from bladeroot.events import Failed
from bladeroot.host.power import restart, switch_off


def main() -> int:
    """Run until the machine is to restart, and restart it."""
    arguments = parse_arguments(Path("/proc/cmdline").read_text(encoding="utf-8", errors="replace"))
    consoles = find_consoles()
    console = Console(consoles)
    if arguments.debug:
        keep_shells(consoles)
    try:
        run_until_done(Agent(arguments=arguments, site=read_site(), console=console))
        console.say("switching off" if arguments.then is Then.POWER_OFF else "restarting")
        console.flush()
        if arguments.then is Then.POWER_OFF:
            switch_off()
        restart()
    except BladerootError as error:
        console(Failed(text=str(error), hint=error.hint, exit_code=error.exit_code))
        console.flush()
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
