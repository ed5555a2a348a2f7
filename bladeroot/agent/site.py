"""What the initramfs knows of its cluster: the inventory as it was published, and trusted keys."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from bladeroot.core.cluster import Cluster
from bladeroot.core.clusterfile import FILE_NAME, parse_cluster
from bladeroot.core.signing import PublicKey
from bladeroot.errors import ConfigError, SigningKeyError
from bladeroot.host.keys import read_trusted_keys

FOLDER = Path("/etc/bladeroot")


@frozen
class Site:
    """The cluster that this machine is of, or would be, and whose signatures it believes."""

    cluster: Cluster
    trusted_keys: tuple[PublicKey, ...]


def read_site(folder: Path = FOLDER) -> Site:
    """Read it. Raises ConfigError, InventoryError, SigningKeyError."""
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", "publish the generation again") from error
    keys = read_trusted_keys(folder / "keys" / "trusted")
    if not keys:
        raise SigningKeyError(
            f"no trusted key in {folder}/keys/trusted", "`bladeroot publish` puts the cluster's keys there"
        )
    return Site(parse_cluster(text, str(path)), keys)
