"""
A member of a swarm as a program, to be run in a network namespace:

    swarm_member.py root TORRENT SAVE_PATH
    swarm_member.py seed TORRENT SAVE_PATH
    swarm_member.py fetch TORRENT SAVE_PATH ROOT_ADDRESS [PEER:PORT ...]

It prints one JSON object per line: {"ready": port}; a fetch then waits for a line of input, and prints
{"seconds": ..., "stats": ...}; both give what they have until their input ends, and print {"end": stats}.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import attrs

from bladeroot.core.torrentfile import hash_file_root, parse_torrent
from bladeroot.net.swarm import Swarm


def _say(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201


def main(argv: list[str]) -> None:
    torrent, save_path = Path(argv[2]).read_bytes(), Path(argv[3])
    parsed = parse_torrent(torrent)
    roots = {file.name: file.root for file in parsed.files}
    root_address = argv[4] if len(argv) > 4 else None
    with Swarm(root_address=root_address, as_root=argv[1] == "root") as swarm:
        if argv[1] != "fetch":
            swarm.seed(torrent, save_path)
            _say({"ready": swarm.giving_port})
        else:
            _say({"ready": swarm.port})
            sys.stdin.readline()
            peers = [(peer.split(":")[0], int(peer.split(":")[1])) for peer in argv[5:]]
            given: list[str] = []

            def take(name: str, data: bytes) -> None:
                assert hash_file_root(data) == roots[name]
                given.append(name)

            began = time.monotonic()
            stats = swarm.fetch(torrent, save_path, peers=peers, on_piece=take)
            assert sorted(given) == sorted(roots)
            _say({"seconds": time.monotonic() - began, "stats": attrs.asdict(stats)})
        sys.stdin.read()
        _say({"end": attrs.asdict(swarm.stats(parsed.info_hash))})


if __name__ == "__main__":
    main(sys.argv)
