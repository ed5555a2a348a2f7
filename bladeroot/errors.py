"""What can go wrong, as one tree: each error says what, where and what to do, and has an exit code.

The command line prints `str(error)` and `error.hint`, and exits with `error.exit_code`; library users
catch the class. `bladeroot help exit-codes` is made from this file, so a docstring's first line is what
an operator reads there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class BladerootError(Exception):
    """Something failed in a way that bladeroot has no better name for."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class UsageError(BladerootError):
    """The command line does not make sense."""

    exit_code = 2


class PrivilegeError(BladerootError):
    """Needs the rights of the user root on this machine."""

    exit_code = 3


class ConfigError(BladerootError):
    """A file of the cluster folder is wrong: cluster.toml, split or capture rules, an overlay."""

    exit_code = 10


class InventoryError(ConfigError):
    """The inventory contradicts itself or does not know a blade (two blades with one MAC, unknown name)."""

    exit_code = 11


class OverlayError(ConfigError):
    """An overlay cannot be made: an undefined name in a template, an unknown service, a bad path."""

    exit_code = 12


class SnapshotError(BladerootError):
    """The path is not a snapshot, or lacks something that a blade needs."""

    exit_code = 13


class SigningKeyError(BladerootError):
    """The operator's key is missing, unreadable, or the passphrase does not open it."""

    exit_code = 14


class TrustError(BladerootError):
    """What was offered is not signed by a trusted key, is another cluster's, or has too low a serial."""

    exit_code = 20


class ArtefactError(BladerootError):
    """An artefact is torn or tampered with: its bytes do not have the hash that was signed."""

    exit_code = 21


class DepotError(BladerootError):
    """The depot does not hold what was asked for, or is not usable."""

    exit_code = 22


class NoRoomError(BladerootError):
    """There is no room left on a filesystem: a snapshot's, the cluster folder's, or the one of /tmp."""

    exit_code = 24


class DepotFullError(DepotError):
    """There is no room left where the depot is."""

    exit_code = 23


class NetworkError(BladerootError):
    """A machine on the network did not answer, or answered something that makes no sense."""

    exit_code = 30


class NoRootFoundError(NetworkError):
    """Nobody on the network announced itself as blade root."""

    exit_code = 31


class RefusedError(NetworkError):
    """A machine on the network answered that it does not: it is not root, or has no such thing."""

    exit_code = 33


class PortTakenError(NetworkError):
    """Another program has the port."""

    exit_code = 32


class DiskError(BladerootError):
    """The disk cannot be used."""

    exit_code = 40


class DiskTooSmallError(DiskError):
    """The disk is too small for the layout or the image."""

    exit_code = 41


class DiskBusyError(DiskError):
    """The disk or a part of it is mounted or in use."""

    exit_code = 42


class DiskChoiceError(DiskError):
    """No disk, or more than one, fits the blade's disk rule."""

    exit_code = 43


class FirmwareError(BladerootError):
    """The firmware's boot entries cannot be read or written."""

    exit_code = 44


class ToolError(BladerootError):
    """A program that bladeroot runs failed."""

    exit_code = 50


class MissingToolError(ToolError):
    """A program that bladeroot needs is not installed."""

    exit_code = 51


class HookError(ToolError):
    """A hook of the blade's overlay failed, or took too long."""

    exit_code = 52


class ClaimNotHeldError(BladerootError):
    """A check or a lab scenario ran to its end, and what it should show was not so."""

    exit_code = 60


class InterruptedByUserError(BladerootError):
    """Stopped by the user (Ctrl-C)."""

    exit_code = 130


def iter_error_classes() -> Iterator[type[BladerootError]]:
    """Every error class once, by exit code: what `bladeroot help exit-codes` lists."""
    found: list[type[BladerootError]] = [BladerootError]
    for error_class in found:
        found.extend(error_class.__subclasses__())
    yield from sorted(found, key=lambda error_class: error_class.exit_code)


def find_error_class(exit_code: object) -> type[BladerootError]:
    """The class with that exit code, for an error that another process had; BladerootError for no class's."""
    known = {error_class.exit_code: error_class for error_class in iter_error_classes()}
    return known.get(exit_code, BladerootError) if isinstance(exit_code, int) else BladerootError
