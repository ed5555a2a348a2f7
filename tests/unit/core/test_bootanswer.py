"""What a machine that netboots is told."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.agentdecision import Why
from bladeroot.core.bootanswer import (
    AnswerKind,
    BootQuery,
    choose_answer,
    parse_query,
    render_agent_script,
    render_local_script,
    render_waiting_script,
    script_address,
)
from bladeroot.core.cluster import Blade, DiskRule, Layout, StrangerPolicy, Strangers
from bladeroot.core.manifest import BladeEntry, Manifest
from bladeroot.core.orders import Order, describe_restart
from bladeroot.core.roomstate import BladePhase, BladeState, RoomState
from bladeroot.errors import NetworkError

CLUSTER = "0" * 32
MAC, UNKNOWN = "52:54:00:00:00:01", "52:54:00:00:00:99"
ROOT = "10.77.0.1:7474"


def entry(name: str, *macs: str) -> BladeEntry:
    blade = Blade(name=name, macs=macs)
    return BladeEntry(blade=blade, disk=DiskRule(), layout=Layout(), overlay=f"{name}.tar.zst")


MANIFEST = Manifest(
    cluster_id=CLUSTER,
    cluster_name="room",
    serial=4,
    previous=None,
    arch="x86_64",
    created=0,
    kernel_command_line="console=ttyS0",
    artefacts=(),
    blades=(entry("web01", MAC), entry("spare01"), entry("spare02")),
)
ASSIGNING = attrs.evolve(
    MANIFEST, strangers=Strangers(policy=StrangerPolicy.ASSIGN, pool="spare[01-02],web01")
)
POOL = ("spare01", "spare02", "web01")
ORDER = Order(cluster_id=CLUSTER, number=7, blades=("web01",))
ROOM = RoomState.of(["web01", "spare01", "spare02"])


def test_a_blade_boots_its_own_disk_by_default() -> None:
    answer = choose_answer(BootQuery(mac=MAC), MANIFEST, ROOM, [], {})
    assert (answer.kind, answer.name) == (AnswerKind.LOCAL, "web01")


def test_a_blade_whose_disk_did_not_boot_gets_the_agent() -> None:
    answer = choose_answer(BootQuery(mac=MAC, has_failed=True), MANIFEST, ROOM, [], {})
    assert (answer.kind, answer.why) == (AnswerKind.AGENT, Why.NO_BOOT)


def test_a_blade_with_an_open_order_gets_the_agent_at_once() -> None:
    answer = choose_answer(BootQuery(mac=MAC), MANIFEST, ROOM, [ORDER], {})
    assert (answer.kind, answer.why) == (AnswerKind.AGENT, Why.ORDER)


def test_an_order_that_the_blade_has_done_is_none() -> None:
    room = attrs.evolve(ROOM, blades={**ROOM.blades, "web01": BladeState(blade="web01", order=7)})
    assert choose_answer(BootQuery(mac=MAC), MANIFEST, room, [ORDER], {}).kind is AnswerKind.LOCAL


def test_a_blade_that_restarts_into_its_own_agent_is_left_to_its_disk_until_that_fails() -> None:
    armed = BladeState(blade="web01", phase=BladePhase.UP, note=describe_restart(7))
    room = attrs.evolve(ROOM, blades={**ROOM.blades, "web01": armed})
    assert choose_answer(BootQuery(mac=MAC), MANIFEST, room, [ORDER], {}).kind is AnswerKind.LOCAL
    back = choose_answer(BootQuery(mac=MAC, has_failed=True), MANIFEST, room, [ORDER], {})
    assert (back.kind, back.why) == (AnswerKind.AGENT, Why.ORDER)


@pytest.mark.parametrize(
    "known",
    [
        BladeState(blade="web01", phase=BladePhase.UP),
        BladeState(blade="web01", phase=BladePhase.UP, note=describe_restart(6)),
        BladeState(blade="web01", phase=BladePhase.HELD, note=describe_restart(7)),
    ],
)
def test_a_blade_whose_disk_does_not_carry_the_order_out_gets_the_agent(known: BladeState) -> None:
    room = attrs.evolve(ROOM, blades={**ROOM.blades, "web01": known})
    assert choose_answer(BootQuery(mac=MAC), MANIFEST, room, [ORDER], {}).kind is AnswerKind.AGENT


def test_a_stranger_is_left_to_its_disk_and_held_when_that_fails() -> None:
    first = choose_answer(BootQuery(mac=UNKNOWN), MANIFEST, ROOM, [], {})
    assert (first.kind, first.is_held) == (AnswerKind.LOCAL, False)
    second = choose_answer(BootQuery(mac=UNKNOWN, has_failed=True), MANIFEST, ROOM, [], {})
    assert (second.kind, second.why, second.is_held) == (AnswerKind.AGENT, Why.STRANGER, True)
    assert second.assigned == ""
    assert second.name == "stranger-525400000099"


def test_an_assigned_stranger_becomes_the_next_free_blade_and_stays_it() -> None:
    query = BootQuery(mac=UNKNOWN, has_failed=True)
    assert choose_answer(query, ASSIGNING, ROOM, [], {}, POOL).assigned == "spare01"
    others = {"52:54:00:00:00:50": "spare01"}
    assert choose_answer(query, ASSIGNING, ROOM, [], others, POOL).assigned == "spare02"
    assert choose_answer(query, ASSIGNING, ROOM, [], {UNKNOWN: "spare02"}, POOL).assigned == "spare02"


def test_a_machine_that_became_a_blade_of_the_pool_has_its_orders() -> None:
    order = Order(cluster_id=CLUSTER, number=8, blades=("spare02",))
    given = {UNKNOWN: "spare02"}
    asked = BootQuery(mac=UNKNOWN)
    answer = choose_answer(asked, ASSIGNING, ROOM, [order], given, POOL)
    assert (answer.kind, answer.why, answer.assigned) == (AnswerKind.AGENT, Why.ORDER, "spare02")
    answer = choose_answer(asked, ASSIGNING, ROOM, [], given, POOL)
    assert (answer.kind, answer.name) == (AnswerKind.LOCAL, "spare02")
    answer = choose_answer(asked, MANIFEST, ROOM, [order], given, POOL)
    assert answer.kind is AnswerKind.LOCAL, "strangers are nobody any more"


def test_a_blade_that_is_at_work_already_is_not_free() -> None:
    room = attrs.evolve(ROOM, blades={**ROOM.blades, "spare01": BladeState(blade="spare01", session="s")})
    query = BootQuery(mac=UNKNOWN, has_failed=True)
    assert choose_answer(query, ASSIGNING, room, [], {}, POOL).assigned == "spare02"


def test_where_the_pool_is_used_up_a_stranger_waits() -> None:
    taken = {"52:54:00:00:00:50": "spare01", "52:54:00:00:00:51": "spare02"}
    answer = choose_answer(BootQuery(mac=UNKNOWN, has_failed=True), ASSIGNING, ROOM, [], taken, POOL)
    assert answer.is_held
    assert answer.assigned == ""


@given(failed=st.booleans(), mac=st.sampled_from([MAC, UNKNOWN]))
def test_nobody_is_sent_to_the_agent_at_the_first_question_without_an_order(failed: bool, mac: str) -> None:
    answer = choose_answer(BootQuery(mac=mac, has_failed=failed), ASSIGNING, ROOM, [], {}, POOL)
    assert (answer.kind is AnswerKind.AGENT) == failed


def test_a_query_is_read_as_ipxe_writes_it() -> None:
    query = parse_query(
        {"mac": "52-54-00-00-00-01", "uuid": "ABCD-1", "platform": "efi", "mem": "512", "local": "failed"}
    )
    assert query == BootQuery(mac=MAC, uuid="abcd-1", is_uefi=True, has_failed=True, memory_bytes=512 << 20)


@given(st.dictionaries(st.sampled_from(["mac", "uuid", "platform", "mem", "local", "vendor"]), st.text()))
def test_any_query_is_read_or_refused(values: dict[str, str]) -> None:
    try:
        query = parse_query(values)
    except NetworkError:
        return
    assert len(query.vendor) <= 64
    assert query.vendor == "".join(char for char in query.vendor if char.isprintable())


@pytest.mark.parametrize("uefi", [False, True])
def test_scripts_ask_for_ever(uefi: bool) -> None:
    query = BootQuery(mac=MAC, is_uefi=uefi)
    answer = choose_answer(query, MANIFEST, ROOM, [], {})
    script = render_local_script(answer, query, root=ROOT, local_loader="http://r/local.efi", wait_s=3)
    lines = script.splitlines()
    assert lines[0] == "#!ipxe"
    asks = [line for line in lines if line.startswith("chain --replace ")]
    assert asks[0].startswith(f"chain --replace --autofree http://{ROOT}/boot.ipxe?")
    assert asks[0].endswith("&local=failed || goto ask")
    assert ":ask" in lines
    assert lines[-1] == asks[-1]
    assert ("sanboot" in script) is not uefi


def test_a_loader_that_could_not_be_fetched_is_not_a_disk_that_does_not_boot() -> None:
    query = BootQuery(mac=MAC, is_uefi=True)
    answer = choose_answer(query, MANIFEST, ROOM, [], {})
    script = render_local_script(answer, query, root=ROOT, local_loader="http://r/local.efi", wait_s=3)
    lines = script.splitlines()
    assert "imgfetch --name local http://r/local.efi || goto unfetched" in lines
    after = lines[lines.index(":unfetched") :]
    assert "local=failed" not in "".join(after)
    assert after[-1].endswith("|| goto again")


def test_who_asks_in_vain_begins_anew_with_another_address() -> None:
    lines = render_waiting_script("this machine", "wait", root=ROOT, wait_s=3).splitlines()
    again = next(line for line in lines if "autoboot" in line)
    assert lines.index(":ask") < lines.index(again) < lines.index("sleep 3")
    assert again.endswith("||"), "where that fails it goes on asking"


@given(st.text(max_size=300))
def test_words_are_words_to_ipxe_whatever_is_in_them(words: str) -> None:
    lines = render_waiting_script("this machine", words, root=ROOT, wait_s=3).split("\n")
    assert lines[2:4] == ["set asked:int32 0 ||", ":ask"], "one line of words"
    said = lines[1].removeprefix("echo bladeroot: ")
    assert said.isascii()
    assert said.isprintable()
    assert not set(said) & set("$|&")
    assert len(said) <= 160


def test_an_agents_script_tries_each_holder_in_turn() -> None:
    query = BootQuery(mac=MAC, is_uefi=True)
    answer = choose_answer(query, MANIFEST, ROOM, [ORDER], {})
    script = render_agent_script(
        answer,
        query,
        root=ROOT,
        agent_hash="ab" * 32,
        holders=["10.77.0.12:7474", ROOT],
        kernel_command_line="console=ttyS0",
        wait_s=3,
    )
    kernels = [line for line in script.splitlines() if line.startswith("kernel ")]
    assert [line.split("/")[2] for line in kernels] == ["10.77.0.12:7474", ROOT]
    assert kernels[0].endswith("|| goto holder1")
    assert kernels[1].endswith("|| goto wait")
    assert "initrd=initramfs console=ttyS0" in kernels[0]
    assert f"bladeroot.root={ROOT} bladeroot.mac={MAC} bladeroot.why=order" in kernels[0]


def test_the_first_address_fits_a_dhcp_packet() -> None:
    assert len(script_address("192.168.100.100:65535")) < 128
