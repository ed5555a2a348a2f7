"""The global options as the things they mean: the cluster folder, the depot, the operator's key."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bladeroot.errors import InterruptedByUserError, SigningKeyError

if TYPE_CHECKING:
    from bladeroot.core.signing import SecretKey
    from bladeroot.host.depot import Depot
    from bladeroot.ops.folder import ClusterFolder


def open_folder(args: argparse.Namespace) -> ClusterFolder:
    """The cluster folder of --cluster, $BLADEROOT_CLUSTER or /etc/bladeroot."""
    from bladeroot.ops.folder import ClusterFolder

    return ClusterFolder.open(args.cluster)


def find_folder_if_any(args: argparse.Namespace) -> ClusterFolder | None:
    """The cluster folder; None on a machine that has none, unless one was named."""
    from bladeroot.ops.folder import DEFAULT_FOLDER

    if args.cluster is None and not os.environ.get("BLADEROOT_CLUSTER") and not DEFAULT_FOLDER.exists():
        return None
    return open_folder(args)


def depot_path(args: argparse.Namespace) -> Path:
    """--depot, $BLADEROOT_DEPOT or /var/lib/bladeroot."""
    if args.depot is not None:
        return Path(args.depot)
    from bladeroot.host.depot import DEFAULT_DEPOT

    chosen = os.environ.get("BLADEROOT_DEPOT")
    return Path(chosen) if chosen else DEFAULT_DEPOT


def open_depot(args: argparse.Namespace) -> Depot:
    """The depot of --depot, $BLADEROOT_DEPOT or /var/lib/bladeroot, which must be there."""
    from bladeroot.host.depot import Depot

    return Depot.open(depot_path(args))


def read_secret_key(args: argparse.Namespace, folder: ClusterFolder) -> SecretKey:
    """The operator's key of --key, $BLADEROOT_KEY or ~/.config/bladeroot; may ask for its passphrase."""
    return folder.secret_key(ask_passphrase, args.key)


def ask_yes(question: str, otherwise: str) -> None:
    """Go on only for a typed yes. Raises InterruptedByUserError, which says `otherwise`."""
    try:
        answer = input(f"{question} Type yes: ")
    except EOFError:
        answer = ""
    if answer.strip() != "yes":
        raise InterruptedByUserError(otherwise)


def parse_count(text: str) -> int:
    """A number for an option: 1 or more. Raises ArgumentTypeError, as argparse wants it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a whole number from 1 on: {text!r}")
    return int(text)


def parse_seconds(text: str) -> float:
    """A time for an option: 0 or more seconds. Raises ArgumentTypeError, as argparse wants it."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e7:
        raise argparse.ArgumentTypeError(f"not a number of seconds from 0 up: {text!r}")
    return seconds


def ask_passphrase(prompt: str) -> str:
    """From the file of $BLADEROOT_PASSPHRASE_FILE, else from the terminal. Raises SigningKeyError."""
    file = os.environ.get("BLADEROOT_PASSPHRASE_FILE")
    if file:
        return read_passphrase_file(Path(file))
    if not sys.stdin.isatty():
        hint = "set BLADEROOT_PASSPHRASE_FILE to a file whose first line it is"
        raise SigningKeyError("the operator's key has a passphrase, and there is no terminal to ask on", hint)
    return ask_secret(prompt)


def ask_secret(prompt: str) -> str:
    """From the terminal, unseen. Raises InterruptedByUserError at its end (Ctrl-D)."""
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise InterruptedByUserError("nothing was typed: nothing was done") from None


def read_passphrase_file(path: Path) -> str:
    """The first line of a file. Raises SigningKeyError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SigningKeyError(f"cannot read the passphrase file {path}: {reason}") from None
    if not lines or not lines[0]:
        raise SigningKeyError(f"the passphrase file {path} has an empty first line")
    return lines[0]
