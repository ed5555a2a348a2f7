"""The command line: a thin face on the package. `main` is the only place that turns errors into text.

A verb is a module here with `add_parser(verbs)`, which makes its parser with `parser.add_verb` and sets
`run=function(args, out) -> int`. Its name stands in `VERBS`; heavy imports belong into `run`.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from bladeroot.errors import BladerootError, InterruptedByUserError, NoRoomError, PrivilegeError
from bladeroot.host import interrupts
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Parser, add_verbs, make_global_parser, make_parser

VERBS = (
    "init",
    "blades",
    "snapshot",
    "overlay",
    "publish",
    "generations",
    "promote",
    "demote",
    "roots",
    "install",
    "reimage",
    "orders",
    "daemon",
    "plan",
    "status",
    "first-boot",
    "lab",
    "help",
)
"""Every verb, in the order of `--help`; each is a module of this package, named without its hyphens."""

EXIT_BUG = BladerootError.exit_code
_STOPPED = InterruptedByUserError("stopped")
EXIT_PIPE_CLOSED = 141
"""As of a program that SIGPIPE ended (128 + 13): what a shell shows for `bladeroot … | head`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Ends by SystemExit only for --help and --version.

    SIGTERM and Ctrl-C unwind it, so that what is mounted, attached and started is given back. Called without
    `argv` it is the process, and both are passed over when it is done.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with interrupts.handled(restore=argv is not None):
        try:
            return _run(words)
        except KeyboardInterrupt:  # at the very beginning, or while the end was told
            interrupts.finish()
            Output(as_json="--json" in words).error(_STOPPED)
            return _STOPPED.exit_code


def _run(words: Sequence[str]) -> int:
    out = Output(as_json="--json" in words)
    debug = "--debug" in words or bool(os.environ.get("BLADEROOT_DEBUG"))
    try:
        args = build_parser(words).parse_args(words)
        out = Output(as_json=args.json, quiet=args.quiet, verbose=args.verbose)
        code: int = args.run(args, out)
        sys.stdout.flush()
        interrupts.finish()
    except BrokenPipeError:
        # what is still buffered must not raise again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except (Exception, KeyboardInterrupt) as error:
        was_stopped = interrupts.was_requested() or isinstance(error, KeyboardInterrupt)
        interrupts.finish()
        known = _STOPPED if was_stopped else _explain(error, debug)
        if debug and not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        out.error(known)
        return known.exit_code
    return code


def _explain(error: BaseException, debug: bool) -> BladerootError:
    if isinstance(error, BladerootError):
        return error
    if isinstance(error, OSError):
        return _explain_os_error(error)
    # the last line of defence: a bug is one line too
    hint = "" if debug else "run it again with --debug for the traceback, and report it"
    return BladerootError(f"this is a bug: {type(error).__name__}: {error}", hint)


def _explain_os_error(error: OSError) -> BladerootError:
    """What the system refused, with the file's name: not every open() needs its own words."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    what = f"{where}{error.strerror or error}"
    if isinstance(error, PermissionError):
        as_root = "root may not either: is it immutable, on a read-only or remote filesystem, or kept from a "
        hint = f"{as_root}container?" if os.geteuid() == 0 else "run it as root, or with sudo"
        return PrivilegeError(what, hint)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoomError(what, "make room there: `df -h` and `df -i` show where it went")
    if error.errno == errno.EIO:
        return BladerootError(what, "a disk fails, or something else has it: see `dmesg`")
    return BladerootError(what)


def build_parser(words: Sequence[str] = ()) -> Parser:
    """The whole parser; only of the verb that `words` name where they name one, which starts quicker."""
    parser = make_parser()
    verbs = add_verbs(parser)
    verb = _find_verb(words)
    for name in (verb,) if verb in VERBS else VERBS:
        importlib.import_module(f"{__name__}.{name.replace('-', '')}").add_parser(verbs)
    return parser


def _find_verb(words: Sequence[str]) -> str:
    try:
        _, rest = make_global_parser().parse_known_args(
            [word for word in words if word not in ("-h", "--help")]
        )
    except BladerootError:
        return ""
    return rest[0] if rest else ""
