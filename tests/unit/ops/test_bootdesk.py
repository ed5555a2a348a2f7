"""What a root hands to machines that netboot."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bladeroot.core.bootanswer import BootQuery
from bladeroot.core.cluster import Blade, DiskRule, Layout, StrangerPolicy, Strangers
from bladeroot.core.manifest import Artefact, ArtefactKind, BladeEntry, Manifest
from bladeroot.core.orders import Order, sign_order
from bladeroot.core.roomstate import BladeState, RoomState
from bladeroot.core.signing import SecretKey
from bladeroot.errors import TrustError
from bladeroot.events import Event, Held, Note, Warned
from bladeroot.host.depot import Depot
from bladeroot.ops import bootdesk
from bladeroot.ops.bootdesk import BootDesk

CLUSTER = "0" * 32
KEY, OTHER = SecretKey(bytes(32)), SecretKey(bytes([1]) * 32)
MAC, UNKNOWN, ANOTHER = "52:54:00:00:00:01", "52:54:00:00:00:98", "52:54:00:00:00:99"
ROOT = "10.77.0.1:7474"
FAILED = BootQuery(mac=MAC, has_failed=True)


def entry(name: str, *macs: str) -> BladeEntry:
    blade = Blade(name=name, macs=macs, address="10.77.0.12/24" if name == "spare01" else None)
    return BladeEntry(blade=blade, disk=DiskRule(), layout=Layout(), overlay=f"{name}.tar.zst")


class Desk:
    """A desk, with a depot that has boot code and an agent."""

    def __init__(self, folder: Path) -> None:
        self.depot = Depot.create(folder / "depot")
        artefacts = tuple(
            self._add(kind, names)
            for kind, names in (
                (ArtefactKind.BOOT, ("boot.img", "snponly.efi")),
                (ArtefactKind.AGENT, ("info", "initramfs.00", "initramfs.01", "vmlinuz.00")),
            )
        )
        self.boot, self.agent = (artefact.info_hash for artefact in artefacts)
        self.manifest = Manifest(
            cluster_id=CLUSTER,
            cluster_name="room",
            serial=4,
            previous=None,
            arch="x86_64",
            created=0,
            kernel_command_line="console=ttyS0",
            artefacts=artefacts,
            blades=(entry("web01", MAC), entry("spare01"), entry("spare02")),
        )
        self.room = RoomState.of(["web01", "spare01", "spare02"])
        self.events: list[Event] = []
        self.desk = self.open()

    def open(self) -> BootDesk:
        """As a root does that has just started."""
        return BootDesk(
            self.depot,
            [KEY.public_key],
            CLUSTER,
            newest=lambda: self.manifest,
            room=lambda: self.room,
            reporter=lambda: self.events.append,
        )

    def _add(self, kind: ArtefactKind, names: tuple[str, ...]) -> Artefact:
        with self.depot.new_artefact() as writer:
            files = [writer.add_file(name, f"{name} of {kind};".encode()) for name in names]
            return writer.finish(kind, files, 1)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_boot_files_are_of_the_newest_generation_and_nothing_else(desk: Desk) -> None:
    parts = desk.desk.boot_file(desk.agent, "initramfs")
    assert parts is not None
    assert b"".join(path.read_bytes() for path in parts) == b"initramfs.00 of agent;initramfs.01 of agent;"
    assert desk.desk.boot_file(desk.boot, "snponly.efi") is not None
    for info_hash, name in ((desk.agent, "info"), (desk.boot, "initramfs"), ("ab" * 32, "vmlinuz")):
        assert desk.desk.boot_file(info_hash, name) is None


def test_an_order_is_kept_and_changes_the_answer_until_it_is_done(desk: Desk) -> None:
    assert "boots from its own disk" in desk.desk.boot_script(BootQuery(mac=MAC), ROOT)
    desk.desk.take_order(sign_order(Order(cluster_id=CLUSTER, number=9, blades=("web01",)), KEY))
    assert "bladeroot.why=order" in desk.open().boot_script(BootQuery(mac=MAC), ROOT)
    desk.room = attrs.evolve(desk.room, blades={"web01": BladeState(blade="web01", order=9)})
    assert "boots from its own disk" in desk.desk.boot_script(BootQuery(mac=MAC), ROOT)


def test_an_order_that_nobody_would_believe_is_not_kept(desk: Desk) -> None:
    with pytest.raises(TrustError):
        desk.desk.take_order(sign_order(Order(cluster_id=CLUSTER, number=9, blades=("web01",)), OTHER))
    assert desk.desk.orders() == ()


def test_blades_that_have_the_agent_give_it_too(desk: Desk) -> None:
    state = BladeState(blade="spare01", address="10.77.0.12", http_port=7474, has=(desk.agent,))
    desk.room = attrs.evolve(desk.room, blades={"spare01": state})
    script = desk.desk.boot_script(FAILED, ROOT)
    holders = [line.split("/")[2] for line in script.splitlines() if line.startswith("kernel ")]
    assert set(holders) == {"10.77.0.12:7474", ROOT}
    assert holders[-1] == ROOT, "when nobody else answers, the root does"


def test_nobody_is_sent_to_a_machine_that_is_not_where_the_inventory_says(desk: Desk) -> None:
    anywhere = BladeState(blade="spare01", address="203.0.113.9", http_port=80, has=(desk.agent,))
    stranger = attrs.evolve(anywhere, blade="stranger-525400000098", address="10.77.0.12")
    desk.room = attrs.evolve(desk.room, blades={state.blade: state for state in (anywhere, stranger)})
    script = desk.desk.boot_script(FAILED, ROOT)
    assert [line.split("/")[2] for line in script.splitlines() if line.startswith("kernel ")] == [ROOT]


def test_a_pool_gives_each_stranger_a_blade_and_a_restarted_root_the_same(desk: Desk) -> None:
    desk.manifest = attrs.evolve(
        desk.manifest, strangers=Strangers(policy=StrangerPolicy.ASSIGN, pool="spare[01-02]")
    )
    first = desk.desk.boot_script(BootQuery(mac=UNKNOWN, has_failed=True), ROOT)
    second = desk.desk.boot_script(BootQuery(mac=ANOTHER, has_failed=True), ROOT)
    assert "bladeroot.blade=spare01" in first
    assert "bladeroot.blade=spare02" in second
    assert "bladeroot.blade=spare02" in desk.open().boot_script(BootQuery(mac=ANOTHER, has_failed=True), ROOT)
    third = desk.desk.boot_script(BootQuery(mac="52:54:00:00:00:97", has_failed=True), ROOT)
    assert "no blade of the pool" in third
    assert "bladeroot.blade" not in third


def test_a_stranger_that_waits_is_told_of_once(desk: Desk) -> None:
    for _ in range(3):
        desk.desk.boot_script(BootQuery(mac=UNKNOWN, has_failed=True, vendor="ACME"), ROOT)
    held = [event for event in desk.events if isinstance(event, Held)]
    assert [event.subject for event in held] == ["stranger-525400000098"]
    assert "bladeroot blades adopt" in held[0].hint


def test_a_generation_without_an_agent_says_so(desk: Desk) -> None:
    desk.manifest = attrs.evolve(desk.manifest, artefacts=desk.manifest.artefacts[:1])
    script = desk.desk.boot_script(FAILED, ROOT)
    assert "generation 4 has no agent" in script
    assert script.splitlines()[-1].endswith("|| goto ask")


def test_what_happens_is_told(desk: Desk) -> None:
    desk.desk.boot_script(FAILED, ROOT)
    assert any("its disk does not boot" in event.text for event in desk.events if isinstance(event, Note))


def test_a_machine_that_gets_the_agent_and_stays_silent_is_warned_of_once(desk: Desk) -> None:
    def warnings() -> list[str]:
        return [event.text for event in desk.events if isinstance(event, Warned)]

    for _ in range(5):
        desk.desk.boot_script(FAILED, ROOT)
    assert warnings() == []
    for _ in range(3):
        assert "bladeroot.why=no-boot" in desk.desk.boot_script(FAILED, ROOT), "it is answered all the same"
    assert len(warnings()) == 1
    assert f"web01 ({MAC}) got the agent 5 times" in warnings()[0]


def test_a_blade_that_is_sent_to_its_disk_and_never_comes_up_is_warned_of(desk: Desk) -> None:
    for _ in range(8):
        assert "sanboot" in desk.desk.boot_script(BootQuery(mac=MAC), ROOT)
    (warned,) = [event for event in desk.events if isinstance(event, Warned)]
    assert f"web01 ({MAC}) was sent to its disk 5 times" in warned.text
    assert "bladeroot reimage web01" in warned.hint


def test_a_machine_that_reports_may_come_as_often_as_it_likes(desk: Desk) -> None:
    for sequence in range(20):
        state = BladeState(blade="web01", session="s", sequence=sequence)
        desk.room = attrs.evolve(desk.room, blades={"web01": state})
        desk.desk.boot_script(FAILED, ROOT)
    assert not any(isinstance(event, Warned) for event in desk.events)


def test_made_up_addresses_do_not_fill_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootdesk, "_MOST_TOLD", 8)
    for number in range(50):
        query = BootQuery(mac=f"52:54:00:00:01:{number:02x}", has_failed=True)
        desk.desk.boot_script(query, ROOT)
    assert len(desk.desk._told) == len(desk.desk._in_vain) == 8


def test_two_machines_do_not_become_one_blade_when_a_root_forgot_who_was_what(desk: Desk) -> None:
    desk.manifest = attrs.evolve(
        desk.manifest, strangers=Strangers(policy=StrangerPolicy.ASSIGN, pool="spare[01-02]")
    )
    for damaged in ("torn", "[1]"):
        (desk.depot.path / "assigned.json").write_text(damaged)
        for _ in range(2):
            script = desk.desk.boot_script(BootQuery(mac=UNKNOWN, has_failed=True), ROOT)
            assert "bladeroot.blade" not in script
        assert (desk.depot.path / "assigned.json").read_text() == damaged, "a person may mend it"
    warnings = [event.text for event in desk.events if isinstance(event, Warned)]
    assert len(warnings) == 2
    assert all("assigned.json is damaged" in text for text in warnings)
