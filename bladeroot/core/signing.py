"""Ed25519 signatures, with a purpose bound into what is signed. The one door to PyNaCl; no I/O.

A signature over one kind of document can never be passed off as one over another: what is signed is
the purpose, a NUL byte, and the document.
"""

from __future__ import annotations

from enum import StrEnum

import nacl.exceptions
import nacl.pwhash.argon2id
import nacl.secret
import nacl.signing
import nacl.utils
from attrs import field, frozen

from bladeroot.errors import SigningKeyError

PUBLIC_KEY_BYTES = 32
SEED_BYTES = 32


class Purpose(StrEnum):
    """What a signature is for."""

    MANIFEST = "bladeroot manifest v1"
    ORDER = "bladeroot order v1"
    ROLE = "bladeroot role v1"

    def bind(self, document: bytes) -> bytes:
        """The bytes that are really signed."""
        return self.value.encode() + b"\0" + document


@frozen
class PublicKey:
    """A key that a blade may trust; 32 bytes."""

    raw: bytes = field()

    @raw.validator
    def _check_length(self, _attribute: object, value: bytes) -> None:
        if len(value) != PUBLIC_KEY_BYTES:
            raise SigningKeyError(f"not a public key: {len(value)} bytes, not {PUBLIC_KEY_BYTES}")

    @property
    def key_id(self) -> str:
        """The first 8 bytes in hexadecimal: how people and signatures call the key."""
        return self.raw[:8].hex()

    def verify(self, purpose: Purpose, document: bytes, signature: bytes) -> bool:
        """Whether this key signed that document for that purpose."""
        try:
            nacl.signing.VerifyKey(self.raw).verify(purpose.bind(document), signature)
        except (nacl.exceptions.BadSignatureError, ValueError):
            return False
        return True


@frozen
class SecretKey:
    """The operator's key. Its `repr` does not show it."""

    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key."""
        return cls(nacl.utils.random(SEED_BYTES))

    @property
    def public_key(self) -> PublicKey:
        """What blades get to see of it."""
        return PublicKey(bytes(nacl.signing.SigningKey(self.seed).verify_key))

    def sign(self, purpose: Purpose, document: bytes) -> bytes:
        """A detached signature of 64 bytes."""
        return bytes(nacl.signing.SigningKey(self.seed).sign(purpose.bind(document)).signature)


def seal(secret_key: SecretKey, passphrase: str) -> tuple[bytes, bytes]:
    """The key encrypted under a passphrase (Argon2id, XSalsa20-Poly1305), as salt and box."""
    salt = nacl.utils.random(nacl.pwhash.argon2id.SALTBYTES)
    return salt, bytes(_box(passphrase, salt).encrypt(secret_key.seed))


def unseal(salt: bytes, box: bytes, passphrase: str) -> SecretKey:
    """The inverse of `seal`. Raises SigningKeyError for a wrong passphrase or a damaged box."""
    try:
        return SecretKey(_box(passphrase, salt).decrypt(box))
    except (nacl.exceptions.CryptoError, ValueError):
        raise SigningKeyError("the passphrase does not open the operator's key") from None


def _box(passphrase: str, salt: bytes) -> nacl.secret.SecretBox:
    key = nacl.pwhash.argon2id.kdf(
        nacl.secret.SecretBox.KEY_SIZE,
        passphrase.encode(),
        salt,
        opslimit=nacl.pwhash.argon2id.OPSLIMIT_MODERATE,
        memlimit=nacl.pwhash.argon2id.MEMLIMIT_MODERATE,
    )
    return nacl.secret.SecretBox(key)
