"""Machines that claim to be root and should not be believed, in a process of its own: see test_stations.py.

Its only argument is JSON: a list of claims, each with `manifest` (a file, or null for none) and, where it
announces an address that is another's, `at` (`host:port`). It writes
a line for each question that it is asked.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import frozen

from bladeroot.core import wire
from bladeroot.core.claims import Claim
from bladeroot.core.manifest import SignedManifest
from bladeroot.net import discovery
from bladeroot.net.control import ControlServer

_LIMIT_BYTES = 1 << 20
_ANY = "0.0.0.0"  # noqa: S104 - the one that is asked fills it in


@frozen
class Rogue:
    """A `net.control.ControlView`."""

    own: Claim
    manifest: bytes | None

    def claim(self) -> Claim:
        say(self.own.blade)
        return self.own

    def serials(self) -> Sequence[int]:
        return (self.own.serial,)

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        del serial
        return self.manifest

    def torrent(self, info_hash: str) -> bytes | None:
        del info_hash
        return None

    def artefact_files(self, info_hash: str) -> Sequence[Path] | None:
        del info_hash
        return None

    def swarm_port(self) -> int:
        return 0

    def blade_names(self) -> Collection[str]:
        return ("web01", "web02", "web03")

    def racks(self) -> dict[str, str | None]:
        return {}


def say(line: str) -> None:
    """At once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def start(told: dict[str, Any], stack: ExitStack) -> None:
    """Announce it, and serve it unless it is at another's address."""
    manifest, at = told.pop("manifest"), told.pop("at")
    data = Path(manifest).read_bytes() if manifest else None
    if data is not None:
        told["manifest_hash"] = wire.decode(SignedManifest, data, _LIMIT_BYTES).hash[:16]
    if at is None:
        server = ControlServer(
            Rogue(Claim(host=_ANY, port=1, **told), data), cluster_id=told["cluster_id"], port=0
        )
        stack.enter_context(server)
        stack.enter_context(discovery.announce(Claim(host=_ANY, port=server.port, **told)))
        return
    host, _, port = at.rpartition(":")
    daemon = stack.enter_context(discovery._start_daemon(discovery.find_interfaces()))
    lie = Claim(host=host, port=int(port), **told)
    stack.callback(discovery.Announcement(daemon, [discovery.Interface("eth0", host, 24)], lie).update, lie)


def main() -> None:
    with ExitStack() as stack:
        for told in json.loads(sys.argv[1]):
            start(told, stack)
        threading.Event().wait()


if __name__ == "__main__":
    main()
