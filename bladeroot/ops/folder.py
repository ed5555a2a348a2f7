"""The cluster folder: cluster.toml, the overlays, the rules and the trusted keys, in one directory."""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import attrs
from attrs import frozen

import bladeroot
from bladeroot.core.capturerules import DEFAULT_CAPTURE_RULES
from bladeroot.core.cluster import Blade, Cluster, Role
from bladeroot.core.clusteredit import render_edited, render_new_cluster
from bladeroot.core.clusterfile import FILE_NAME, parse_cluster
from bladeroot.core.signing import PublicKey, SecretKey
from bladeroot.core.splitdefaults import DEFAULT_SPLIT_RULES
from bladeroot.errors import ConfigError, SigningKeyError
from bladeroot.host.files import scratch_folder, sync_directory, write_atomically
from bladeroot.host.keys import (
    AskPassphrase,
    default_secret_key_path,
    read_secret_key,
    read_trusted_keys,
    render_public_key,
    render_secret_key,
    write_secret_key,
)

DEFAULT_FOLDER = Path("/etc/bladeroot")
DEFAULT_KERNEL_COMMAND_LINE = "console=tty0 console=ttyS0,115200"
"""Screen and first serial line: blades rarely have a keyboard."""


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
        """Read the folder at `path`, or at $BLADEROOT_CLUSTER, or at /etc/bladeroot.

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
    def is_of_blade(self) -> bool:
        """Whether it is what an installed blade has of it: the overlays were applied, and are not there."""
        return (self.path / "installed.json").exists() and not self.overlays.is_dir()

    def read_rules(self) -> dict[str, bytes]:
        """The files of rules that there are, by name."""
        paths = [self.split_rules_path, self.capture_rules_path]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

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

    def save(self, cluster: Cluster) -> ClusterFolder:
        """Write the inventory back, keeping what a person wrote into the file; the folder as it is then.

        Raises ConfigError if the file is not any more what this folder was opened with.
        """
        text = _read_text(self.path)
        if parse_cluster(text, str(self.file)) != self.cluster:
            raise ConfigError(f"{self.file} was changed meanwhile", "nothing was written: try again")
        file = self.file.resolve()
        mode = stat.S_IMODE(file.stat().st_mode)
        write_atomically(file, render_edited(text, cluster, str(self.file)), mode=mode)
        return attrs.evolve(self, cluster=cluster)

    def reload(self) -> ClusterFolder:
        """The same folder as it is now."""
        return attrs.evolve(self, cluster=ClusterFolder.open(self.path).cluster)


@frozen
class NewCluster:
    """What `init_cluster` made."""

    folder: ClusterFolder
    secret_key_path: Path
    public_key: PublicKey


def init_cluster(
    path: Path,
    *,
    name: str | None = None,
    roles: Sequence[Role] = (),
    blades: Sequence[Blade] = (),
    kernel_command_line: str = DEFAULT_KERNEL_COMMAND_LINE,
    passphrase: str | None = None,
    secret_key_path: Path | None = None,
) -> NewCluster:
    """Make a cluster folder and the operator's key; both are there afterwards, or neither.

    `path` must not be there, or be an empty directory. Roles that blades name are made too. Raises
    ConfigError, InventoryError, SigningKeyError.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "is a cluster folder already" if (path / FILE_NAME).exists() else "is there, and not empty"
        raise ConfigError(f"{path} {what}", "name a new directory: `bladeroot init DIR`")
    cluster = _make_cluster(name or _name_after(path), roles, blades, kernel_command_line)
    secret_key = SecretKey.generate()
    key_path = secret_key_path or default_secret_key_path(cluster.name, cluster.id)
    comment = f"operator of bladeroot cluster {cluster.name} ({cluster.id[:8]})"
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(f".{path.name}.new-", path.parent) as scratch:
            made = scratch / path.name
            _write_folder(made, cluster, render_public_key(secret_key.public_key, comment))
            write_secret_key(
                key_path, render_secret_key(secret_key, passphrase, f"The secret key of the {comment}.")
            )
            try:
                made.rename(path)
            except BaseException:
                key_path.unlink()
                raise
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(f"cannot make {path}: {error.strerror}", _permission_hint(error)) from error
    return NewCluster(ClusterFolder(path, cluster), key_path, secret_key.public_key)


def find_shipped_overlays() -> Path | None:
    """The overlays that ship: package data where bladeroot is installed, else beside the package."""
    package = Path(bladeroot.__file__).parent
    for candidate in (package / "shipped_overlays", package.parent / "overlays"):
        if candidate.is_dir():
            return candidate
    return None


def _make_cluster(
    name: str, roles: Sequence[Role], blades: Sequence[Blade], kernel_command_line: str
) -> Cluster:
    known = {role.name: role for role in roles}
    for blade in blades:
        known.setdefault(blade.role, Role(name=blade.role))
    if not known:
        known["blade"] = Role(name="blade")
    return Cluster(
        name=name,
        id=secrets.token_hex(16),
        arch=platform.machine(),
        kernel_command_line=kernel_command_line,
        roles=known,
        blades={blade.name: blade for blade in blades},
    )


def _name_after(path: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", path.absolute().name.lower()).strip("-")
    return name[:63].rstrip("-") or "cluster"


def _write_folder(folder: Path, cluster: Cluster, public_key: str) -> None:
    shipped = find_shipped_overlays()
    folder.mkdir(mode=0o755)
    if shipped is not None:
        ignored = shutil.ignore_patterns("__pycache__", ".gitkeep")
        shutil.copytree(shipped, folder / "overlays", symlinks=True, ignore=ignored)
    for layer in ("cluster", *(f"role/{role}" for role in cluster.roles), "blade"):
        (folder / "overlays" / layer).mkdir(parents=True, exist_ok=True)
    trusted = folder / "keys" / "trusted"
    trusted.mkdir(parents=True)
    write_atomically(trusted / f"{cluster.name}.pub", public_key)
    write_atomically(folder / "split.rules", DEFAULT_SPLIT_RULES)
    write_atomically(folder / "capture.rules", DEFAULT_CAPTURE_RULES)
    write_atomically(folder / FILE_NAME, render_new_cluster(cluster))


def _permission_hint(error: OSError) -> str:
    return "run it as root, or name a directory of your own" if isinstance(error, PermissionError) else ""


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
