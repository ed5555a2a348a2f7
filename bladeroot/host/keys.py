"""Keys as files: the operator's secret one, and the public ones that blades trust."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from bladeroot.core import signing
from bladeroot.core.signing import PublicKey, SecretKey
from bladeroot.errors import SigningKeyError
from bladeroot.host.files import sync_directory

AskPassphrase = Callable[[str], str]
"""Takes a prompt; gives the passphrase. Raises SigningKeyError where nobody can be asked."""

_PUBLIC = "bladeroot-public-key-v1"
_SECRET = "bladeroot-secret-key-v1"  # noqa: S105 - names a file format
_LIMIT_BYTES = 4096


def default_secret_key_path(cluster_name: str, cluster_id: str) -> Path:
    """Where the operator's key of a cluster is: $BLADEROOT_KEY, or below the user's configuration."""
    chosen = os.environ.get("BLADEROOT_KEY")
    if chosen:
        return Path(chosen).expanduser()
    configuration = os.environ.get("XDG_CONFIG_HOME")
    base = Path(configuration) if configuration else Path.home() / ".config"
    return base / "bladeroot" / f"{cluster_name}-{cluster_id[:8]}.key"


def render_public_key(key: PublicKey, comment: str) -> str:
    """The text of a `.pub` file."""
    return f"{_PUBLIC} {_encode(key.raw)} {comment}\n"


def render_secret_key(key: SecretKey, passphrase: str | None, comment: str) -> str:
    """The text of a key file; without a passphrase only the file's mode protects it."""
    if passphrase:
        salt, box = signing.seal(key, passphrase)
        body = f"{_SECRET} argon2id {_encode(salt)} {_encode(box)}"
    else:
        body = f"{_SECRET} plain {_encode(key.seed)}"
    return f"# {comment}\n# It signs generations: keep it off blades, snapshots and overlays.\n{body}\n"


def write_secret_key(path: Path, text: str) -> None:
    """Put the key where only its owner reads it: mode 0600, in a directory of mode 0700 if that is new.

    Raises SigningKeyError where a file is already: a key is never overwritten.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SigningKeyError(
            f"{path} is there already", "a key is never overwritten: move it away"
        ) from None
    except OSError as error:
        raise SigningKeyError(f"cannot write the operator's key {path}: {error.strerror}") from error
    try:
        with open(descriptor, "w", encoding="ascii", errors="replace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def read_secret_key(path: Path, ask_passphrase: AskPassphrase) -> SecretKey:
    """The operator's key; asks only where it has a passphrase. Raises SigningKeyError."""
    words = _read_words(path, _SECRET, private=True)
    try:
        if len(words) == 2 and words[0] == "plain":
            seed = _decode(words[1])
            if len(seed) == signing.SEED_BYTES:
                return SecretKey(seed)
        if len(words) == 3 and words[0] == "argon2id":
            salt, box = _decode(words[1]), _decode(words[2])
            return signing.unseal(salt, box, ask_passphrase(f"Passphrase of {path}: "))
    except ValueError:
        pass
    raise SigningKeyError(f"{path} is damaged: not a {_SECRET}", "restore it from your backup")


def read_public_key(path: Path) -> PublicKey:
    """One `.pub` file. Raises SigningKeyError."""
    words = _read_words(path, _PUBLIC, private=False)
    try:
        return PublicKey(_decode(words[0]))
    except (ValueError, IndexError):
        raise SigningKeyError(f"{path} is damaged: not a {_PUBLIC}") from None


def read_trusted_keys(directory: Path) -> tuple[PublicKey, ...]:
    """Every `*.pub` of a directory, in the order of names. Raises SigningKeyError for a damaged one."""
    return tuple(read_public_key(path) for path in sorted(directory.glob("*.pub")))


def _read_words(path: Path, magic: str, *, private: bool) -> list[str]:
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            text = stream.read(_LIMIT_BYTES).decode(errors="replace")
    except FileNotFoundError:
        hint = "give its path with --key FILE or BLADEROOT_KEY" if private else ""
        raise SigningKeyError(f"no key at {path}", hint) from None
    except OSError as error:
        raise SigningKeyError(f"cannot read the key {path}: {error.strerror}") from error
    if private and stat.S_IMODE(mode) & 0o077:
        raise SigningKeyError(f"{path} can be read by others", f"chmod 600 {path}")
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            if words[0] != magic:
                raise SigningKeyError(f"{path} is not a {magic}, but begins with {words[0][:40]!r}")
            return words[1:]
    raise SigningKeyError(f"{path} has no key in it")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
