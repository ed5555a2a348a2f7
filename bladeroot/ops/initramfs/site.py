"""What of the initramfs is the cluster's: its inventory and the keys that its blades trust."""

from __future__ import annotations

from collections.abc import Mapping

from bladeroot.core.cpio import Entry, find_parents, make_directory, make_file

FOLDER = "etc/bladeroot"


def make_site_entries(cluster_toml: str, trusted_keys: Mapping[str, bytes]) -> list[Entry]:
    """`cluster.toml` and `keys/trusted/<name>`, as the cluster folder has them."""
    files = {f"{FOLDER}/cluster.toml": cluster_toml.encode()}
    files |= {f"{FOLDER}/keys/trusted/{name}": data for name, data in sorted(trusted_keys.items())}
    return [
        *(make_directory(name) for name in find_parents(files)),
        *(make_file(name, data) for name, data in files.items()),
    ]
