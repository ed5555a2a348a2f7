"""`bladeroot plan`: what it prints, and what it says against it."""

from __future__ import annotations

import pytest

from tests.unit.ui.cli.conftest import Run

ROOM = ("plan", "--blades", "12", "--size", "256M", "--link", "1G")


def test_an_operator_reads_how_long_and_why(run: Run) -> None:
    ran = run(*ROOM)

    assert (ran.code, ran.err) == (0, "")
    assert "times the floor (256 MiB at 1 Gb/s: 2.1 s)" in ran.out
    assert (
        "what limits it   the blades' own links: 256 MiB at 1 Gb/s is 2.1 s; nothing in the room" in ran.out
    )
    assert "from one server  26.9 s" in ran.out
    assert "uplink " not in ran.out
    assert run(*ROOM).out == ran.out


def test_racks_show_their_uplinks(run: Run) -> None:
    ran = run(*ROOM, "--racks", "3", "--uplink", "100M")

    assert "busiest uplink" in ran.out
    assert "the racks' uplinks:" in ran.out
    assert "reimage a rack at a time" in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--root-link", "100M"), "the root's link: one copy at 100 Mb/s takes"),
        (("--pieces", "3"), "the piece count: with 3 pieces passing them on takes"),
        (("--size", "4K"), "the start: blades find each other in 0.5 s"),
    ],
)
def test_each_limit_has_its_sentence(run: Run, words: tuple[str, ...], said: str) -> None:
    assert said in run(*ROOM, *words).out


def test_json_has_all_of_it_in_numbers(run: Run) -> None:
    facts = run(*ROOM, "--root-link", "10G", "--pieces", "100", "--json").facts

    assert (facts["blades"], facts["size_bytes"], facts["link_bps"]) == (12, 256 << 20, 10**9)
    assert (facts["root_link_bps"], facts["pieces"], facts["racks"]) == (10**10, 100, 1)
    assert facts["uplink_bps"] is facts["uplink_copies"] is None
    assert facts["floor_s"] < facts["median_s"] <= facts["last_s"]
    assert facts["ratio"] == pytest.approx(facts["last_s"] / facts["floor_s"], rel=0.01)
    assert facts["root_copies"] >= 1
    assert facts["limit"] == "links"
    assert len(facts["up_link_use"]) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--blades", "0"), "argument --blades: not a whole number from 1 on: '0'"),
        (("--blades", "30000"), "30000 blades are too many to simulate"),
        (("--size", "much"), "argument --size: not a size: 'much'"),
        (("--size", "0"), "an image of no bytes"),
        (("--link", "0"), "argument --link: not a rate: '0'"),
        (("--root-link", "fast"), "argument --root-link: not a rate: 'fast'"),
        (("--uplink", "1G"), "--uplink without --racks"),
        (("--racks", "13"), "13 racks for 12 blades"),
        (("--racks", "0"), "argument --racks: not a whole number from 1 on: '0'"),
        (("--pieces", "5", "--size", "4"), "5 pieces are too many"),
    ],
)
def test_bad_input_is_one_line_and_code_2(run: Run, words: tuple[str, ...], said: str) -> None:
    ran = run(*ROOM, *words)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"bladeroot: {said}")
    assert ran.err.count("\n") == 1


def test_what_must_be_said_is_asked_for(run: Run) -> None:
    ran = run("plan", "--blades", "3")

    assert ran.code == 2
    assert "--size, --link" in ran.err
