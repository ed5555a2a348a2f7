"""Claims survive the way over mDNS, bad ones do not, and everybody agrees on who wins."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core import wire
from bladeroot.core.claims import (
    CLAIM_LIMIT_BYTES,
    TXT_LIMIT_BYTES,
    Claim,
    ClaimState,
    choose_epoch,
    choose_root,
    is_answer_of,
    parse_txt,
    render_txt,
    which_wins,
)
from bladeroot.errors import NetworkError

CLUSTER_ID = "0123456789abcdef" * 2

claims = st.builds(
    Claim,
    cluster_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    epoch=st.integers(0, 2**53),
    serial=st.integers(0, 2**53),
    manifest_hash=st.text("0123456789abcdef", min_size=16, max_size=16),
    state=st.sampled_from(ClaimState),
    priority=st.integers(-1_000_000, 1_000_000),
    blade=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    host=st.just("10.77.0.1"),
    port=st.integers(1, 65535),
)


def make_claim(**changes: Any) -> Claim:
    claim = Claim(
        cluster_id=CLUSTER_ID, epoch=3, serial=7, blade="blade01", host="10.77.0.1", port=7474, priority=5
    )
    return attrs.evolve(claim, **changes)


def as_received(txt: dict[str, str]) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in txt.items()}


@given(claims)
def test_a_claim_comes_back_from_its_txt_records(claim: Claim) -> None:
    txt = render_txt(claim)
    assert sum(len(key) + len(value) + 2 for key, value in txt.items()) < TXT_LIMIT_BYTES
    assert parse_txt(as_received(txt), blade=claim.blade, host=claim.host, port=claim.port) == claim


def test_the_keys_are_those_of_the_contract() -> None:
    assert render_txt(make_claim(manifest_hash="00112233445566aa")) == {
        "v": "1",
        "cid": CLUSTER_ID,
        "ep": "3",
        "sn": "7",
        "mh": "00112233445566aa",
        "st": "root",
        "p": "5",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"cid": "XYZ"},
        {"cid": CLUSTER_ID + "0"},
        {"ep": "-1"},
        {"ep": "1e3"},
        {"ep": "9" * 17},
        {"ep": "9" * 5000},
        {"sn": ""},
        {"mh": "zz"},
        {"st": "king"},
        {"p": "99999999"},
        {"v": "0"},
        {"new": "x" * TXT_LIMIT_BYTES},
        {"ep": "\u0663"},
    ],
)
def test_a_malformed_claim_is_refused(changes: dict[str, str]) -> None:
    txt = as_received({**render_txt(make_claim()), **changes})
    with pytest.raises(NetworkError, match="not a claim"):
        parse_txt(txt, blade="blade01", host="10.77.0.1", port=7474)


@pytest.mark.parametrize("key", list(render_txt(make_claim())))
def test_no_key_may_be_missing(key: str) -> None:
    txt = as_received(render_txt(make_claim()))
    del txt[key.encode()]
    with pytest.raises(NetworkError, match="not a claim"):
        parse_txt(txt, blade="blade01", host="10.77.0.1", port=7474)


@pytest.mark.parametrize(
    ("blade", "host", "port"),
    [("Not A Blade", "h", 1), ("b", "", 1), ("b", "h\x1b[2J", 1), ("b", "h", 0), ("b", "h", 70000)],
)
def test_who_and_where_are_checked_too(blade: str, host: str, port: int) -> None:
    with pytest.raises(NetworkError, match="not a claim"):
        parse_txt(as_received(render_txt(make_claim())), blade=blade, host=host, port=port)


def test_a_key_of_a_later_version_is_passed_over() -> None:
    txt = as_received({**render_txt(make_claim()), "new": "thing"})
    assert parse_txt(txt, blade="blade01", host="10.77.0.1", port=7474) == make_claim()


def test_a_claim_over_http_is_checked_like_one_over_mdns() -> None:
    data = wire.encode(make_claim())
    assert wire.decode(Claim, data, CLAIM_LIMIT_BYTES) == make_claim()
    bad = wire.encode({**attrs.asdict(make_claim()), "epoch": -1})
    with pytest.raises(NetworkError, match="epoch"):
        wire.decode(Claim, bad, CLAIM_LIMIT_BYTES)


def test_the_higher_epoch_wins_then_the_smaller_name() -> None:
    old, new = make_claim(epoch=1, blade="a"), make_claim(epoch=2, blade="z")
    assert which_wins(old, new) == which_wins(new, old) == new
    low, high = make_claim(blade="a"), make_claim(blade="b", priority=9, serial=99)
    assert which_wins(low, high) == which_wins(high, low) == low


@given(st.permutations([make_claim(epoch=e, blade=b) for e in (1, 2) for b in ("a", "b", "c")]))
def test_everybody_chooses_the_same_root(heard: list[Claim]) -> None:
    chosen = choose_root(heard)
    assert chosen is not None
    assert (chosen.epoch, chosen.blade) == (2, "a")


def test_a_candidate_is_not_followed() -> None:
    candidate = make_claim(state=ClaimState.CANDIDATE, epoch=99)
    assert choose_root([candidate]) is None
    assert choose_root([candidate, make_claim()]) == make_claim()


def test_no_claim_keeps_others_from_claiming() -> None:
    largest = Claim(cluster_id=CLUSTER_ID, epoch=2**53, serial=1, blade="a", host="10.0.0.1", port=1)
    assert choose_epoch([]) == 1
    assert choose_epoch([attrs.evolve(largest, epoch=4), attrs.evolve(largest, epoch=7)]) == 8
    assert attrs.evolve(largest, epoch=choose_epoch([largest])) == largest


def test_a_successor_is_answered_and_not_announced() -> None:
    claim = make_claim(successor="blade02")
    assert wire.decode(Claim, wire.encode(claim), CLAIM_LIMIT_BYTES) == claim
    back = parse_txt(as_received(render_txt(claim)), blade="blade01", host="10.77.0.1", port=7474)
    assert back == make_claim()
    assert make_claim(successor="").successor == ""


@pytest.mark.parametrize("successor", ["Blade", "a b", "-", "x" * 64, "blade02\n"])
def test_a_successor_is_a_blade(successor: str) -> None:
    with pytest.raises(NetworkError, match="successor"):
        make_claim(successor=successor)


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ({}, True),
        ({"epoch": 4, "serial": 9}, True),
        ({"epoch": 2}, False),
        ({"blade": "blade02"}, False),
        ({"blade": "blade02", "epoch": 9}, False),
    ],
    ids=str,
)
def test_who_answers_is_who_announced(answer: dict[str, Any], fits: bool) -> None:
    assert is_answer_of(make_claim(**answer), make_claim()) is fits
