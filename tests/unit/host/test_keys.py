from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bladeroot.core import signing
from bladeroot.core.signing import PublicKey, SecretKey
from bladeroot.errors import SigningKeyError
from bladeroot.host import keys

SEED = SecretKey(bytes(range(32)))


def nobody(_prompt: str) -> str:
    raise AssertionError("asked for a passphrase that is not needed")


def test_a_plain_key_reads_back_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "lab.key"

    keys.write_secret_key(path, keys.render_secret_key(SEED, None, "of lab"))

    assert keys.read_secret_key(path, nobody) == SEED
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_with_a_passphrase_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "lab.key"
    keys.write_secret_key(path, keys.render_secret_key(SEED, "päss", "of lab"))

    assert keys.read_secret_key(path, lambda _prompt: "päss") == SEED
    assert "plain" not in path.read_text()
    with pytest.raises(SigningKeyError, match="passphrase does not open"):
        keys.read_secret_key(path, lambda _prompt: "pass")


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "lab.key"
    path.write_text("precious")

    with pytest.raises(SigningKeyError, match="is there already"):
        keys.write_secret_key(path, "other")

    assert path.read_text() == "precious"


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lab.key"
    keys.write_secret_key(path, keys.render_secret_key(SEED, None, "of lab"))
    path.chmod(0o640)

    with pytest.raises(SigningKeyError, match="can be read by others") as caught:
        keys.read_secret_key(path, nobody)

    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no key in it"),
        ("# only a remark\n", "has no key in it"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "is not a bladeroot-secret-key-v1"),
        ("bladeroot-secret-key-v1 plain !!!\n", "is damaged"),
        ("bladeroot-secret-key-v1 plain AAAA\n", "is damaged"),
        ("bladeroot-secret-key-v1 rot13 AAAA\n", "is damaged"),
        ("bladeroot-secret-key-v1\n", "is damaged"),
    ],
)
def test_what_is_no_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "lab.key"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(SigningKeyError) as caught:
        keys.read_secret_key(path, nobody)

    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_key_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match="no key at") as caught:
        keys.read_secret_key(tmp_path / "lab.key", nobody)

    assert "BLADEROOT_KEY" in caught.value.hint


def test_trusted_keys_in_the_order_of_names(tmp_path: Path) -> None:
    others = [SecretKey(bytes([number]) * signing.SEED_BYTES).public_key for number in range(3)]
    for name, key in zip("bca", others, strict=True):
        (tmp_path / f"{name}.pub").write_text(keys.render_public_key(key, "somebody"))
    (tmp_path / "README").write_text("not a key")

    assert keys.read_trusted_keys(tmp_path) == (others[2], others[0], others[1])


@pytest.mark.parametrize("text", ["bladeroot-public-key-v1 AAAA x\n", "bladeroot-public-key-v1\n", "x\n"])
def test_a_damaged_trusted_key_is_not_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.pub").write_text(text)

    with pytest.raises(SigningKeyError):
        keys.read_trusted_keys(tmp_path)


def test_where_the_key_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLADEROOT_KEY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = keys.default_secret_key_path("lab", "0123456789abcdef")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    configured = keys.default_secret_key_path("lab", "0123456789abcdef")
    monkeypatch.setenv("BLADEROOT_KEY", "/k")

    assert usual == tmp_path / ".config" / "bladeroot" / "lab-01234567.key"
    assert configured == Path("/x/bladeroot/lab-01234567.key")
    assert keys.default_secret_key_path("lab", "0123456789abcdef") == Path("/k")


def test_a_public_key_is_its_32_bytes() -> None:
    with pytest.raises(SigningKeyError):
        PublicKey(b"short")


@pytest.mark.parametrize("body", [b"plain \xc3\xa9\xff", b"argon2id AAAA \xff", b"argon2id AAAA AAAA"])
def test_a_key_file_with_rubbish_in_it_is_damaged(tmp_path: Path, body: bytes) -> None:
    secret, public = tmp_path / "lab.key", tmp_path / "lab.pub"
    secret.touch(mode=0o600)
    secret.write_bytes(b"bladeroot-secret-key-v1 " + body + b"\n")
    public.write_bytes(b"bladeroot-public-key-v1 " + body.split()[-1] + b"\n")
    with pytest.raises(SigningKeyError):
        keys.read_secret_key(secret, lambda _prompt: "pass")
    with pytest.raises(SigningKeyError):
        keys.read_public_key(public)
