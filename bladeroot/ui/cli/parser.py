"""One look for every `--help`: what it does, how it is called, examples, files, exit codes.

Every parser takes the global options, so they may stand before or after the verb.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import frozen

from bladeroot import __version__
from bladeroot.errors import BladerootError, UsageError

if TYPE_CHECKING:
    from bladeroot.ui.cli.output import Output

Run = Callable[[argparse.Namespace, "Output"], int]
"""What a verb does with its arguments; returns the exit code."""

_PROGRAM = "bladeroot"
_MAX_WIDTH = 100
_COMMAND = re.compile("`[^`]+`")
_NO_BREAK = "\N{NO-BREAK SPACE}"
_GLOBAL_SUMMARY = (
    "--json, --cluster DIR, --depot DIR, --key FILE, -q/--quiet, -v/--verbose, --debug, -h/--help: "
    "see `bladeroot --help`"
)
_GLOBAL_DEFAULTS: dict[str, Any] = {
    "cluster": None,
    "depot": None,
    "key": None,
    "json": False,
    "quiet": False,
    "verbose": False,
    "debug": False,
}


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises UsageError, and prints help like a manual page."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.manual: dict[str, Any] = options.pop("manual", {})
        options.setdefault("allow_abbrev", False)
        options["add_help"] = False
        super().__init__(*args, **options)
        self._optionals.title = "OPTIONS"
        self._positionals.title = "ARGUMENTS"
        self.global_options = _add_global_options(self)

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving, so that there is one place that turns errors into text."""
        if message.endswith("are required: VERB"):
            raise UsageError(f"`{self.prog}` needs a verb", f"`{self.prog} --help` lists them")
        raise UsageError(message, f"see `{self.prog} --help`")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Raise for what is not known here, where the verb's own options are known to compare with."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return parsed, unknown

    def _refuse(self, unknown: list[str]) -> NoReturn:
        from bladeroot.core.clusterfile import closest

        see = f"see `{self.prog} --help`"
        option = next((word.partition("=")[0] for word in unknown if word.startswith("-")), None)
        if option is not None:
            names = [name for name in self._option_string_actions if name.startswith("--")]
            near = closest(option, names)
            raise UsageError(f"no option {option!r} in {self.prog}", near if "mean" in near else see)
        takes_set = any(action.metavar == "NODESET" for action in self._actions)
        hint = "a set of blades is one word: web01,web02" if takes_set else see
        raise UsageError(f"{unknown[0]!r} is too much for {self.prog}", hint)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            from bladeroot.core.clusterfile import closest

            raise UsageError(f"no verb {value!r} in {self.prog}", closest(value, action.choices))
        super()._check_value(action, value)

    def format_help(self) -> str:
        """The page; on a terminal with its headings in bold."""
        page = self.render_page()
        return _embolden(page) if sys.stdout.isatty() and "NO_COLOR" not in os.environ else page

    def render_page(self) -> str:
        """NAME, USAGE, DESCRIPTION, arguments and options, EXAMPLES, FILES, EXIT CODES."""
        width = min(shutil.get_terminal_size().columns, _MAX_WIDTH) - 2
        summary = self.manual.get("summary", "")
        name = f"{self.prog} - {summary}" if summary else self.prog
        parts = [_section("NAME", textwrap.wrap(name, width, subsequent_indent="  "))]
        formatter = self._get_formatter()
        own = [action for action in self._actions if action not in self.global_options._group_actions]
        formatter.add_usage(self.usage, own, self._mutually_exclusive_groups, prefix="")
        parts.append(_section("USAGE", formatter.format_help().strip("\n").splitlines()))
        if self.description:
            parts.append(_section("DESCRIPTION", _fill(self.description, width)))
        for group in sorted(self._action_groups, key=lambda group: group.title != "VERBS"):
            if group is self.global_options and self.prog != _PROGRAM:
                continue
            verbs = group._group_actions[0] if group._group_actions else None
            if isinstance(verbs, argparse._SubParsersAction):
                pairs = [(choice.dest, choice.help or "") for choice in verbs._choices_actions]
                parts.append(_section(group.title or "", _columns(pairs, width)))
                continue
            formatter = self._get_formatter()
            formatter.start_section(group.title)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
            # argparse's own headings end with a colon
            parts.append(formatter.format_help().replace(f"{group.title}:\n", f"{group.title}\n", 1))
        if self.prog != _PROGRAM:
            parts.append(_section("GLOBAL OPTIONS", _fill(_GLOBAL_SUMMARY, width)))
        parts += _manual_sections(self.manual, width)
        if self.epilog:
            parts.append(self.epilog)
        return "\n".join(part.strip("\n") + "\n" for part in parts if part.strip())


@frozen
class Verbs:
    """Where a parser's verbs are added, and the manual of the verb that they are verbs of."""

    subparsers: Any
    """argparse has no public name for it."""
    manual_above: dict[str, Any]


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _MAX_WIDTH) - 2
        super().__init__(prog, max_help_position=28, width=width)


def make_parser() -> Parser:
    """The parser of `bladeroot` itself, without verbs."""
    parser = Parser(
        prog=_PROGRAM,
        formatter_class=_HelpFormatter,
        manual={
            "summary": "a peer-to-peer, self-replicating blade cluster",
            "environment": [
                ("BLADEROOT_CLUSTER", "the cluster folder, as --cluster"),
                ("BLADEROOT_DEPOT", "the depot, as --depot"),
                ("BLADEROOT_KEY", "the operator's secret key, as --key"),
                ("BLADEROOT_PASSPHRASE_FILE", "a file whose first line opens the operator's key"),
                ("BLADEROOT_DEBUG", "show tracebacks, as --debug"),
                ("NO_COLOR", "no colours"),
            ],
            "files": [
                ("/etc/bladeroot/", "the cluster folder: cluster.toml, overlays, rules, trusted keys"),
                ("/var/lib/bladeroot/", "the depot: generations and their artefacts"),
                ("~/.config/bladeroot/", "the operator's secret keys"),
            ],
            "see": "`bladeroot help VERB`, `bladeroot help exit-codes`",
        },
        description="One OS tree, the snapshot, becomes a signed generation; any blade that holds it can "
        "take the root role and have all the others installed over BitTorrent.",
    )
    parser.add_argument(
        "--version", action="version", version=f"bladeroot {__version__}", help="show the version"
    )
    parser.set_defaults(**_GLOBAL_DEFAULTS)
    return parser


def make_global_parser() -> Parser:
    """A parser of the global options alone: to find the verb without knowing any."""
    parser = Parser(prog=_PROGRAM)
    parser.set_defaults(**_GLOBAL_DEFAULTS)
    return parser


def add_verb(
    verbs: Verbs,
    name: str,
    *,
    summary: str,
    run: Run | None = None,
    description: str = "",
    examples: Iterable[tuple[str, str]] = (),
    files: Iterable[tuple[str, str]] | None = None,
    errors: Iterable[type[BladerootError]] | None = None,
    see: str = "",
) -> Parser:
    """A verb's parser with its manual, for verbs and for the verbs of a verb.

    `run` is what the verb does; None where its own verbs do it. `examples` are (command line, what it does),
    `files` are (path, what it is), `errors` the classes whose exit codes are worth knowing here (0 and 2
    stand by themselves); a verb of a verb has those of its verb unless it names its own.
    """
    above = verbs.manual_above
    parser: Parser = verbs.subparsers.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=_HelpFormatter,
        manual={
            "summary": summary,
            "examples": list(examples),
            "files": list(above.get("files", ()) if files is None else files),
            "errors": list(above.get("errors", ()) if errors is None else errors),
            "see": see,
        },
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def add_verbs(parser: Parser, *, required: bool = True) -> Verbs:
    """The place where a parser's verbs are added; one of them must be given, unless not `required`."""
    subparsers = parser.add_subparsers(
        title="VERBS", metavar="VERB", dest=argparse.SUPPRESS, required=required
    )
    return Verbs(subparsers, {} if parser.prog == _PROGRAM else parser.manual)


DRY_RUN_LINE = "(nothing was done: --dry-run)"
"""The last that a dry run says to people."""


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """`--dry-run`, spelled and explained the same everywhere."""
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="show what would be done, and do nothing"
    )


def _add_global_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    # SUPPRESS: a verb's parser must not put its defaults over what stood before the verb
    group = parser.add_argument_group("GLOBAL OPTIONS")

    def add(*names: str, **options: Any) -> None:
        group.add_argument(*names, default=argparse.SUPPRESS, **options)

    add("-h", "--help", action="help", help="show this page")
    add("--json", action="store_true", help="facts as one JSON document, events and errors as JSON lines")
    add("--cluster", type=Path, metavar="DIR", help="the cluster folder (default: /etc/bladeroot)")
    add("--depot", type=Path, metavar="DIR", help="the depot (default: /var/lib/bladeroot)")
    add("--key", type=Path, metavar="FILE", help="the operator's secret key")
    add("-q", "--quiet", action="store_true", help="only facts, warnings and errors")
    add("-v", "--verbose", action="store_true", help="more about what is going on")
    add("--debug", action="store_true", help="tracebacks")
    return group


def _manual_sections(manual: dict[str, Any], width: int) -> list[str]:
    parts = []
    examples: Sequence[tuple[str, str]] = manual.get("examples", ())
    if examples:
        lines: list[str] = []
        for command, what in examples:
            lines += [*textwrap.wrap(f"# {what}", width - 2, subsequent_indent="# "), f"$ {command}", ""]
        parts.append(_section("EXAMPLES", lines[:-1]))
    parts += [
        _section(heading.upper(), _columns(manual[heading], width))
        for heading in ("environment", "files")
        if manual.get(heading)
    ]
    if "errors" in manual:
        codes = [("0", "Done."), ("2", UsageError.__doc__ or "")]
        codes += [
            (str(error.exit_code), (error.__doc__ or "").strip().splitlines()[0])
            for error in sorted(manual["errors"], key=lambda error: error.exit_code)
        ]
        lines = [*_columns(codes, width), "", "All of them: `bladeroot help exit-codes`"]
        parts.append(_section("EXIT CODES", lines))
    if manual.get("see"):
        parts.append(_section("SEE ALSO", _fill(manual["see"], width)))
    return parts


def _section(heading: str, lines: Iterable[str]) -> str:
    return f"{heading}\n" + "".join(f"  {line}".rstrip() + "\n" for line in lines)


def _fill(text: str, width: int) -> list[str]:
    """Paragraphs wrapped, but not within a `command`; indented lines as they are."""
    lines: list[str] = []
    for paragraph in textwrap.dedent(text).strip("\n").split("\n\n"):
        if lines:
            lines.append("")
        if any(line.startswith(" ") for line in paragraph.splitlines()):
            lines += paragraph.splitlines()
        else:
            words = _COMMAND.sub(lambda match: match[0].replace(" ", _NO_BREAK), " ".join(paragraph.split()))
            lines += [line.replace(_NO_BREAK, " ") for line in textwrap.wrap(words, width)]
    return lines


def _columns(pairs: Iterable[tuple[str, str]], width: int) -> list[str]:
    rows = list(pairs)
    first = max(len(name) for name, _ in rows) + 2
    lines: list[str] = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(width - first - 2, 20)) or [""]
        lines += [f"{name:<{first}}{wrapped[0]}", *(" " * first + line for line in wrapped[1:])]
    return lines


def _embolden(text: str) -> str:
    return "\n".join(
        f"\x1b[1m{line}\x1b[0m" if line and line == line.upper() and line[0].isalpha() else line
        for line in text.split("\n")
    )
