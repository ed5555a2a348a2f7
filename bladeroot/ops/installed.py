"""What an installed blade's disk says of its install, and how often it was restarted for an order."""

from __future__ import annotations

import json
from pathlib import Path

from attrs import frozen

from bladeroot.errors import ConfigError
from bladeroot.host.files import write_atomically

INSTALLED_NAME = "installed.json"
"""In the cluster folder of an installed blade; see `ops.identity`."""
RESTARTS_NAME = "restarts.json"
"""In the depot, which outlasts a restart."""


@frozen(kw_only=True)
class Installed:
    """What the install recorded on the disk."""

    blade: str
    cluster_id: str
    serial: int
    order: int = 0


def read_installed(folder: Path) -> Installed:
    """Of an installed blade's cluster folder. Raises ConfigError elsewhere."""
    path = folder / INSTALLED_NAME
    try:
        told = json.loads(path.read_bytes())
        return Installed(
            blade=str(told["blade"]),
            cluster_id=str(told["cluster_id"]),
            serial=int(told["serial"]),
            order=int(told.get("order") or 0),
        )
    except FileNotFoundError:
        raise ConfigError(
            f"this machine is no installed blade: there is no {path}", "the daemon is for those"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {error!r}", "`bladeroot reimage` of this blade") from error


class RestartLog:
    """How often the machine was restarted for its latest order: what keeps it from doing so for ever."""

    def __init__(self, depot: Path) -> None:
        self._path = depot / RESTARTS_NAME

    def count(self, order: int) -> int:
        """For that order; 0 where nothing is noted."""
        try:
            told = json.loads(self._path.read_bytes())
            return int(told["restarts"]) if told["order"] == order else 0
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            # it was written at once, so it is the disk that does not hold what it is told
            raise ConfigError(f"{self._path} is damaged: {error!r}", "remove it") from error

    def note(self, order: int) -> None:
        """One more restart for that order. Raises ConfigError where that cannot be written."""
        text = json.dumps({"order": order, "restarts": self.count(order) + 1}) + "\n"
        try:
            write_atomically(self._path, text)
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from error
