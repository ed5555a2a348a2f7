"""Claims: what a root announces, as mDNS TXT records and back; which of two claims wins. No I/O.

A claim offers, it never authorises: whatever it leads to is checked against signatures. So what is read
here only has to be well-formed and small.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.cluster import NAME_PATTERN
from bladeroot.errors import NetworkError

CLAIM_VERSION = 1
TXT_LIMIT_BYTES = 400
CLAIM_LIMIT_BYTES = 4 << 10
NO_MANIFEST = "0" * 16
"""The manifest hash of a claim without a generation (serial 0)."""

_CLUSTER_ID = re.compile(r"[0-9a-f]{32}")
_MANIFEST_HASH = re.compile(r"[0-9a-f]{16}")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
LARGEST = 2**53
"""Far more epochs and serials than there will be; a claim beyond it is malice or damage."""


class ClaimState(StrEnum):
    """Whether the blade is root already."""

    ROOT = "root"
    CANDIDATE = "candidate"


def _check_pattern(pattern: re.Pattern[str]) -> Callable[[Any, attrs.Attribute[str], str], None]:
    def check(_owner: object, attribute: attrs.Attribute[str], value: str) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise NetworkError(f"not a claim: {attribute.name} is {str(value)[:80]!r}")

    return check


def _check_range(low: int, high: int) -> Callable[[Any, attrs.Attribute[int], int], None]:
    def check(_owner: object, attribute: attrs.Attribute[int], value: int) -> None:
        if type(value) is not int or not low <= value <= high:
            raise NetworkError(f"not a claim: {attribute.name} is {str(value)[:80]}")

    return check


def _check_host(_owner: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if not 0 < len(value) <= 253 or not value.isprintable() or " " in value:
        raise NetworkError(f"not a claim: host is {value[:80]!r}")


def _check_successor(_owner: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if value and not NAME_PATTERN.fullmatch(value):
        raise NetworkError(f"not a claim: successor is {value[:80]!r}")


@frozen(kw_only=True)
class Claim:
    """What a root says of itself: who, of which cluster, with what, and where to reach its control service.

    `manifest_hash` is the first 8 bytes of the newest manifest's hash, in hexadecimal. Making a claim
    that is out of bounds raises NetworkError.
    """

    cluster_id: str = attrs.field(validator=_check_pattern(_CLUSTER_ID))
    epoch: int = attrs.field(validator=_check_range(0, LARGEST))
    serial: int = attrs.field(validator=_check_range(0, LARGEST))
    manifest_hash: str = attrs.field(default=NO_MANIFEST, validator=_check_pattern(_MANIFEST_HASH))
    state: ClaimState = ClaimState.ROOT
    priority: int = attrs.field(default=0, validator=_check_range(-1_000_000, 1_000_000))
    blade: str = attrs.field(validator=_check_pattern(NAME_PATTERN))
    host: str = attrs.field(validator=_check_host)
    port: int = attrs.field(validator=_check_range(1, 65535))
    successor: str = attrs.field(default="", validator=_check_successor)
    """The blade that is to take the role over, while it is handed over. Not announced, only answered."""
    version: int = attrs.field(default=CLAIM_VERSION, validator=_check_range(1, 1_000_000))

    @property
    def where(self) -> str:
        """The control service as `host:port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.state} {self.blade} at {self.where} (epoch {self.epoch}, generation {self.serial})"


def render_txt(claim: Claim) -> dict[str, str]:
    """The claim's TXT records. Blade, host and port are in the service's name and SRV record."""
    return {
        "v": str(claim.version),
        "cid": claim.cluster_id,
        "ep": str(claim.epoch),
        "sn": str(claim.serial),
        "mh": claim.manifest_hash,
        "st": str(claim.state),
        "p": str(claim.priority),
    }


def parse_txt(txt: Mapping[bytes, bytes | None], *, blade: str, host: str, port: int) -> Claim:
    """The claim that somebody announces; unknown keys are passed over. Raises NetworkError."""
    size = sum(len(key) + len(value or b"") + 2 for key, value in txt.items())
    if size > TXT_LIMIT_BYTES:
        raise NetworkError(f"not a claim: {size} bytes of TXT records, more than {TXT_LIMIT_BYTES}")
    state = _text(txt, b"st")
    if state not in set(ClaimState):
        raise NetworkError(f"not a claim: st is {state[:80]!r}")
    return Claim(
        version=_number(txt, b"v"),
        cluster_id=_text(txt, b"cid"),
        epoch=_number(txt, b"ep"),
        serial=_number(txt, b"sn"),
        manifest_hash=_text(txt, b"mh"),
        state=ClaimState(state),
        priority=_number(txt, b"p"),
        blade=blade,
        host=host,
        port=port,
    )


def which_wins(one: Claim, other: Claim) -> Claim:
    """Of two claims to one cluster's root role, the one that stays: higher epoch, then smaller name."""
    return min(one, other, key=_rank)


def which_candidate_wins(one: Claim, other: Claim) -> Claim:
    """Of two candidates the one that goes on: higher epoch, serial, priority, then smaller name."""
    return min(one, other, key=lambda claim: (-claim.epoch, -claim.serial, -claim.priority, claim.blade))


def is_answer_of(answer: Claim, announced: Claim) -> bool:
    """Whether who answers there is who announced that, and may have moved on since: it was not a claim to
    another's address, nor one of a former life.
    """
    return answer.blade == announced.blade and answer.epoch >= announced.epoch


def choose_root(claims: Iterable[Claim]) -> Claim | None:
    """The claim to follow among those heard: candidates do not count. None if nobody is root."""
    return min((claim for claim in claims if claim.state is ClaimState.ROOT), key=_rank, default=None)


def choose_epoch(claims: Iterable[Claim]) -> int:
    """The epoch of a new root that has heard these: above them all, as far as epochs go."""
    return min(max((claim.epoch for claim in claims), default=0) + 1, LARGEST)


def _rank(claim: Claim) -> tuple[int, str, str, int]:
    return (-claim.epoch, claim.blade, claim.host, claim.port)


def _text(txt: Mapping[bytes, bytes | None], key: bytes) -> str:
    value = txt.get(key)
    if value is None:
        raise NetworkError(f"not a claim: no {key.decode()} record")
    return value.decode("ascii", errors="replace")


def _number(txt: Mapping[bytes, bytes | None], key: bytes) -> int:
    text = _text(txt, key)
    if not _NUMBER.fullmatch(text):
        raise NetworkError(f"not a claim: {key.decode()} is {text[:80]!r}")
    return int(text)
