"""`bladeroot first-boot`: what runs once on a blade that was installed."""

from __future__ import annotations

import argparse
from typing import Any

import attrs

from bladeroot.errors import ConfigError, HookError, PrivilegeError
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "first-boot",
        run=run,
        summary="run this blade's first-boot hooks",
        description="Runs the programs in /etc/bladeroot/hooks/first-boot in the order of their names, each "
        "until it has ended well once since the blade was installed; one that fails is tried again by the "
        "next run, and those behind it wait. bladeroot-first-boot.service does it at boot.",
        examples=[
            ("bladeroot first-boot", "run what has not run yet"),
            ("bladeroot first-boot --again", "run all of them, whatever was before"),
            ("journalctl -u bladeroot-first-boot", "what came of it at boot"),
        ],
        files=[
            ("/etc/bladeroot/first-boot.json", "which hooks are done, and what failed"),
            ("/var/log/bladeroot/hooks.log", "what this blade's hooks have said, at its install too"),
        ],
        errors=[HookError, ConfigError, PrivilegeError],
        see="`bladeroot help overlay`",
    )
    parser.add_argument("--again", action="store_true", help="run those too that have ended well")


def run(args: argparse.Namespace, out: Output) -> int:
    """Run what is left to run."""
    from bladeroot.host.run import require_root
    from bladeroot.ops.firstboot import run_first_boot
    from bladeroot.ops.folder import find_folder

    require_root("running hooks")
    state = run_first_boot(out.reporter, folder=find_folder(args.cluster), again=args.again)
    facts: dict[str, Any] = attrs.asdict(state)
    done = ", ".join(state.done)
    out.facts(facts, f"first-boot hooks: {done}" if done else "this blade has no first-boot hooks")
    return 0
