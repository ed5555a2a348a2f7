"""`bladeroot help`: the pages of the verbs, and the exit codes."""

from __future__ import annotations

import argparse

from bladeroot.errors import UsageError, iter_error_classes
from bladeroot.ui.cli.output import Output, make_table
from bladeroot.ui.cli.parser import Parser, Verbs, add_verb

TOPIC_EXIT_CODES = "exit-codes"
TOPIC_INVENTORY = "cluster.toml"


def add_parser(verbs: Verbs) -> None:
    """`help [WORD …]`."""
    parser = add_verb(
        verbs,
        "help",
        run=run,
        summary="what the verbs do, and what the exit codes mean",
        description="Without words: the verbs. With a verb, and a verb of that verb: its page, the same as "
        "with --help. `exit-codes`: every exit code and what it means; scripts may rely on them. "
        "`cluster.toml`: the inventory's keys, explained as `bladeroot init` writes them.",
        examples=[
            ("bladeroot help blades add", "the page of `blades add`"),
            ("bladeroot help cluster.toml", "what an inventory may say of network, disks, strangers, blades"),
            ("bladeroot help exit-codes --json", "the exit codes, for a script"),
        ],
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help=f"a verb, {TOPIC_EXIT_CODES} or {TOPIC_INVENTORY}"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Print a page."""
    if args.words == [TOPIC_EXIT_CODES]:
        _show_exit_codes(out)
        return 0
    if args.words == [TOPIC_INVENTORY]:
        _show_inventory(out)
        return 0
    from bladeroot.ui.cli import build_parser

    parser = build_parser(args.words)
    for position, word in enumerate(args.words):
        found = _verbs_of(parser).get(word)
        if found is None:
            shown = " ".join(args.words[: position + 1])
            raise UsageError(f"no help on {shown!r}", "`bladeroot help` lists the verbs")
        parser = found
    if out.as_json:
        out.facts({"help": parser.render_page()})
    else:
        out.text(parser.format_help())
    return 0


def _verbs_of(parser: Parser) -> dict[str, Parser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _show_inventory(out: Output) -> None:
    from bladeroot.core.cluster import Cluster, Role
    from bladeroot.core.clusteredit import render_new_cluster

    text = render_new_cluster(Cluster(name="example", id="0" * 32, roles={"web": Role(name="web")}))
    if out.as_json:
        out.facts({"help": text})
    else:
        out.text(text)


def _show_exit_codes(out: Output) -> None:
    rows = [(0, "Success", "Done.")]
    rows += [
        (error.exit_code, error.__name__, (error.__doc__ or "").strip().splitlines()[0])
        for error in iter_error_classes()
    ]
    out.facts(
        [{"exit_code": code, "name": name, "meaning": meaning} for code, name, meaning in rows],
        make_table(["code", "name", "meaning"], rows, right=["code"]),
    )
