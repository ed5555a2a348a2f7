from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core import wire
from bladeroot.core.cluster import Blade, Cluster, Role
from bladeroot.core.manifest import (
    MAX_SIGNATURES,
    MAX_SIGNED_CONTAINERS,
    Artefact,
    ArtefactKind,
    Manifest,
    Signature,
    SignedManifest,
    accept_manifest,
    make_blade_entries,
    sign_manifest,
)
from bladeroot.core.signing import PublicKey, Purpose, SecretKey, seal, unseal
from bladeroot.errors import (
    BladerootError,
    DepotError,
    InventoryError,
    NetworkError,
    SigningKeyError,
    TrustError,
)

KEY, OTHER_KEY = SecretKey.generate(), SecretKey.generate()
CLUSTER = Cluster(
    name="lab",
    id="ab" * 16,
    roles={"web": Role(name="web")},
    blades={name: Blade(name=name, role="web") for name in ("web02", "web01")},
)
MANIFEST = Manifest(
    cluster_id=CLUSTER.id,
    cluster_name="lab",
    serial=7,
    previous="00" * 32,
    arch="x86_64",
    created=1_700_000_000,
    kernel_command_line="quiet",
    artefacts=(
        Artefact(
            kind=ArtefactKind.RUNTIME,
            info_hash="12" * 32,
            size_bytes=10,
            raw_size_bytes=20,
            piece_length=16384,
            files=2,
        ),
    ),
    blades=make_blade_entries(CLUSTER),
)


def test_a_signed_manifest_survives_the_wire() -> None:
    signed = sign_manifest(MANIFEST, KEY)
    received = wire.decode(SignedManifest, wire.encode(signed), 1 << 20)
    assert accept_manifest(received, [OTHER_KEY.public_key, KEY.public_key], CLUSTER.id) == MANIFEST
    assert received.hash == signed.hash


def test_the_same_manifest_is_the_same_bytes() -> None:
    assert sign_manifest(MANIFEST, KEY) == sign_manifest(attrs.evolve(MANIFEST), KEY)


def test_blades_are_in_the_order_of_their_names() -> None:
    assert [entry.blade.name for entry in MANIFEST.blades] == ["web01", "web02"]


def _sign_body(body: bytes) -> SignedManifest:
    signature = Signature(key_id=KEY.public_key.key_id, signature=KEY.sign(Purpose.MANIFEST, body))
    return SignedManifest(body=body, signatures=(signature,))


REFUSALS: list[tuple[str, Callable[[], SignedManifest], str]] = [
    ("another key", lambda: sign_manifest(MANIFEST, OTHER_KEY), "does not trust"),
    ("nobody", lambda: attrs.evolve(sign_manifest(MANIFEST, KEY), signatures=()), "signed by nobody"),
    ("another body", lambda: attrs.evolve(sign_manifest(MANIFEST, KEY), body=b"x"), "tampered with"),
    (
        "a signature for another purpose",
        lambda: SignedManifest(
            body=wire.encode(MANIFEST),
            signatures=(
                Signature(
                    key_id=KEY.public_key.key_id,
                    signature=KEY.sign(Purpose.ORDER, wire.encode(MANIFEST)),
                ),
            ),
        ),
        "tampered with",
    ),
    ("another cluster", lambda: sign_manifest(attrs.evolve(MANIFEST, cluster_id="cd" * 16), KEY), "not of"),
    ("a lower serial", lambda: sign_manifest(attrs.evolve(MANIFEST, serial=4), KEY), "older than 5"),
    ("a later format", lambda: sign_manifest(attrs.evolve(MANIFEST, version=2), KEY), "format 2"),
]


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_what_a_blade_refuses(make: Callable[[], SignedManifest], message: str) -> None:
    with pytest.raises(TrustError, match=message):
        accept_manifest(make(), [KEY.public_key], CLUSTER.id, lowest_serial=5)


def test_a_signed_body_that_is_no_manifest_is_one_clear_error() -> None:
    with pytest.raises(NetworkError, match="not a valid Manifest"):
        accept_manifest(_sign_body(b"\x93\x01\x02\x03"), [KEY.public_key], CLUSTER.id)


@given(st.binary(max_size=200))
def test_rubbish_from_the_network_is_a_network_error(data: bytes) -> None:
    with pytest.raises(NetworkError):
        wire.decode(SignedManifest, data, 1 << 20)


@given(st.data())
def test_a_damaged_manifest_is_an_error_of_ours_or_equal(data: st.DataObject) -> None:
    good = wire.encode(MANIFEST)
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    try:
        wire.decode(Manifest, damaged, 1 << 20)
    except BladerootError:
        return


def test_the_size_limit_comes_first() -> None:
    with pytest.raises(NetworkError, match="larger than the limit of 10"):
        wire.decode(Manifest, wire.encode(MANIFEST), 10)


def test_numbers_are_not_made_of_strings() -> None:
    plain = wire.encode(attrs.evolve(MANIFEST)).replace(b"\xa6serial\x07", b"\xa6serial\xa17")
    with pytest.raises(NetworkError, match="expected int, found str"):
        wire.decode(Manifest, plain, 1 << 20)


def test_who_signed_is_nothing_that_could_steer_a_terminal() -> None:
    forged = wire.encode(sign_manifest(MANIFEST, OTHER_KEY)).replace(
        OTHER_KEY.public_key.key_id.encode(), b"\x1b[2J\x1b]0;own!\x07\x07\x07\x07"
    )
    with pytest.raises(NetworkError, match="not a key's id") as caught:
        wire.decode(SignedManifest, forged, 1 << 20)
    assert str(caught.value).isprintable()


def test_signatures_are_few() -> None:
    signed = sign_manifest(MANIFEST, KEY)
    many = {"body": signed.body, "signatures": [attrs.asdict(signed.signatures[0])] * (MAX_SIGNATURES + 1)}
    with pytest.raises(NetworkError, match="9 signatures"):
        wire.decode(SignedManifest, wire.encode(many), 1 << 20)


def test_a_large_message_of_nothing_but_lists_is_given_up_early() -> None:
    most = sign_manifest(MANIFEST, KEY)
    most = attrs.evolve(most, signatures=most.signatures * MAX_SIGNATURES)
    data = wire.encode(most)
    assert (
        wire.decode(SignedManifest, data, len(data), most_containers=MAX_SIGNED_CONTAINERS).hash == most.hash
    )
    bomb = b"\xdd" + (1 << 20).to_bytes(4, "big") + b"\x90" * (1 << 20)
    with pytest.raises(NetworkError, match="more than 32 lists and maps"):
        wire.decode(SignedManifest, bomb, 8 << 20, most_containers=MAX_SIGNED_CONTAINERS)


def test_a_key_of_a_newer_version_is_passed_over() -> None:
    @attrs.frozen(kw_only=True)
    class NewerSignature(Signature):
        algorithm: str = "ed25519"

    newer = NewerSignature(key_id="00", signature=b"s")
    assert wire.decode(Signature, wire.encode(newer), 99) == Signature(key_id="00", signature=b"s")


def test_what_the_manifest_does_not_have() -> None:
    with pytest.raises(InventoryError, match="does not know a blade 'db01'"):
        MANIFEST.entry("db01")
    with pytest.raises(DepotError, match="no extras artefact"):
        MANIFEST.artefact(ArtefactKind.EXTRAS)
    assert MANIFEST.entry("web01").overlay == "web01.tar.zst"


def test_a_passphrase_opens_only_its_own_box() -> None:
    salt, box = seal(KEY, "correct horse")
    assert unseal(salt, box, "correct horse") == KEY
    with pytest.raises(SigningKeyError, match="does not open"):
        unseal(salt, box, "battery staple")
    assert KEY.seed.hex() not in repr(KEY)


def test_a_public_key_has_its_length() -> None:
    with pytest.raises(SigningKeyError, match="3 bytes"):
        PublicKey(b"abc")
