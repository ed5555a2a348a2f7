"""The cluster folder: cluster.toml, the overlays, the rules and the trusted keys, in one directory."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
from attrs import frozen

from bladeroot.core.cluster import Cluster
from bladeroot.core.clusterfile import FILE_NAME, parse_cluster
from bladeroot.core.signing import PublicKey, SecretKey
from bladeroot.errors import ConfigError, SigningKeyError
from bladeroot.host.keys import AskPassphrase, default_secret_key_path, read_secret_key, read_trusted_keys

DEFAULT_FOLDER = Path("/etc/bladeroot")


def find_folder(path: Path | None = None) -> Path:
    """`path`, or else $BLADEROOT_CLUSTER, or else /etc/bladeroot."""
    if path is not None:
        return path
    chosen = os.environ.get("BLADEROOT_CLUSTER")
    return Path(chosen) if chosen else DEFAULT_FOLDER


@frozen
class ClusterFolder:
    """An opened cluster folder: where its files are, and the inventory that was read from it."""

    path: Path
    cluster: Cluster

    @classmethod
    def open(cls, path: Path | None = None) -> ClusterFolder:
        """
        Read the folder at `path`, or at $BLADEROOT_CLUSTER, or at /etc/bladeroot.

        Raises ConfigError or InventoryError with file, line, key and what was expected.
        """
        folder = find_folder(path)
        return cls(folder, parse_cluster(_read_text(folder), str(folder / FILE_NAME)))

    @property
    def file(self) -> Path:
        """cluster.toml."""
        return self.path / FILE_NAME

    @property
    def overlays(self) -> Path:
        """The directory with `cluster/`, `role/<role>/` and `blade/<blade>/`."""
        return self.path / "overlays"

    @property
    def split_rules_path(self) -> Path:
        """What is runtime, extras, or left out."""
        return self.path / "split.rules"

    @property
    def capture_rules_path(self) -> Path:
        """What `snapshot capture` does not copy."""
        return self.path / "capture.rules"

    @property
    def trusted_keys_path(self) -> Path:
        """The directory of the public keys that blades of this cluster trust."""
        return self.path / "keys" / "trusted"

    @property
    def secret_key_path(self) -> Path:
        """Where the operator's key is, unless told otherwise."""
        return default_secret_key_path(self.cluster.name, self.cluster.id)

    def trusted_keys(self) -> tuple[PublicKey, ...]:
        """The public keys that this cluster trusts. Raises SigningKeyError for a damaged one, or for none."""
        keys = read_trusted_keys(self.trusted_keys_path)
        if not keys:
            hint = "put the operator's public key there, as `bladeroot init` does"
            raise SigningKeyError(f"no trusted key in {self.trusted_keys_path}", hint)
        return keys

    def secret_key(self, ask_passphrase: AskPassphrase, path: Path | None = None) -> SecretKey:
        """The operator's key, from `path` or from where it is by default. Raises SigningKeyError."""
        return read_secret_key(path or self.secret_key_path, ask_passphrase)

    def reload(self) -> ClusterFolder:
        """The same folder as it is now."""
        return attrs.evolve(self, cluster=ClusterFolder.open(self.path).cluster)


def _read_text(folder: Path) -> str:
    file = folder / FILE_NAME
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        hint = f"make one with `bladeroot init {folder}`, or name yours with --cluster or BLADEROOT_CLUSTER"
        raise ConfigError(f"no cluster folder at {folder}: there is no {FILE_NAME}", hint) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 (byte {error.start})", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
