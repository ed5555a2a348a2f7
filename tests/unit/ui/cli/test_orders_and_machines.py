"""Verbs that ask a root: orders, and machines as they told of themselves."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from bladeroot import events
from bladeroot.core.bootanswer import BootQuery
from bladeroot.core.claims import Claim
from bladeroot.core.cluster import Cluster
from bladeroot.core.hardware import FoundDisk, Hardware, Nic
from bladeroot.core.orders import Order, SignedOrder, accept_order, choose_order
from bladeroot.net.control import ControlServer
from bladeroot.ops.folder import ClusterFolder
from tests.unit.ui.cli.conftest import Run
from tests.unit.ui.cli.test_status import CLAIM, View

MAC = "52:54:00:aa:bb:07"
STRANGER = "stranger-525400aabb07"
HARDWARE = Hardware(
    uuid="ab" * 16,
    vendor="ACME",
    product="Blade 1",
    cpu_model="Fast",
    cpus=8,
    memory_bytes=16 << 30,
    firmware="uefi",
    disks=(FoundDisk(name="sda", size_bytes=1 << 40, model="Disk", serial="S1"),),
    nics=(Nic(name="eth0", mac=MAC, driver="e1000e", has_link=True, speed_mbits=1000),),
)


class Boot:
    def __init__(self) -> None:
        self.book: list[SignedOrder] = []
        self.role_orders: list[SignedOrder] = []

    def boot_file(self, info_hash: str, name: str) -> Sequence[Path] | None:
        del info_hash, name
        return None

    def boot_script(self, query: BootQuery, root: str) -> str:
        return f"{query} {root}"

    def orders(self) -> tuple[SignedOrder, ...]:
        return tuple(self.book)

    def take_role_order(self, signed: SignedOrder) -> None:
        self.role_orders.append(signed)

    def take_order(self, signed: SignedOrder) -> None:
        self.book.append(signed)


@pytest.fixture
def boot() -> Boot:
    return Boot()


@pytest.fixture
def root(boot: Boot) -> Iterator[ControlServer]:
    with ControlServer(
        RootView(), cluster_id=CLAIM.cluster_id, address="127.0.0.1", port=0, boot=boot
    ) as server:
        yield server


class RootView(View):
    """A machine that is none of the blades."""

    def claim(self) -> Claim:
        return attrs.evolve(CLAIM, blade="desk")


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> ClusterFolder:
    assert (
        run("init", str(tmp_path / "lab"), "--blades", "web[01-03]=web", "--blades", "spare01=web").code == 0
    )
    return ClusterFolder.open(tmp_path / "lab")


def at(root: ControlServer) -> tuple[str, str]:
    return "--root", f"127.0.0.1:{root.port}"


def accepted(boot: Boot, folder: ClusterFolder) -> list[Order]:
    return [accept_order(signed, folder.trusted_keys(), folder.cluster.id) for signed in boot.book]


def test_a_reimage_is_a_signed_order(
    run: Run, folder: ClusterFolder, root: ControlServer, boot: Boot
) -> None:
    ran = run("reimage", "web[01-02]", "--yes", "--json", *at(root))
    assert ran.code == 0
    (order,) = accepted(boot, folder)
    assert (order.blades, order.serial, order.wipe_data) == (("web01", "web02"), None, False)
    assert ran.facts == {
        "number": order.number,
        "blades": ["web01", "web02"],
        "serial": 7,
        "to_newest": True,
        "wipe_data": False,
        "now": {name: {"phase": "waiting", "serial": 0} for name in ("web01", "web02")},
    }
    assert run("reimage", "@web", "--to", "6", "--wipe-data", "--yes", *at(root)).code == 0
    second = accepted(boot, folder)[1]
    assert second.number > order.number
    assert (second.serial, second.wipe_data) == (6, True)


def test_the_plan_tells_what_they_have_now(run: Run, folder: ClusterFolder, root: ControlServer) -> None:
    del folder
    for name in ("web01", "web02"):
        root.publish(events.Booted(subject=name, serial=7))
    root.publish(events.StepStarted(subject="web03", step="runtime"))
    lines = run("reimage", "@web", "--to", "6", "--dry-run", *at(root)).out.splitlines()
    assert lines == [
        "reimage 4: spare01,web[01-03]",
        "  to generation 6; their data is kept",
        "  spare01: not heard of",
        "  web[01-02]: up, generation 7",
        "  web03: working",
        "  web01 goes back from generation 7",
        "  web02 goes back from generation 7",
        "  web03 is in the middle of runtime",
        "(nothing was done: --dry-run)",
    ]


@pytest.mark.parametrize(
    ("nodeset", "said"),
    [("web01", "nobody would be left to install it"), ("@web", "leave it out: 'spare01,web[01-03]!web01'")],
)
def test_the_root_is_not_told_to_install_itself(
    run: Run, folder: ClusterFolder, boot: Boot, nodeset: str, said: str
) -> None:
    del folder
    with ControlServer(View(), cluster_id=CLAIM.cluster_id, address="127.0.0.1", port=0, boot=boot) as server:
        ran = run("reimage", nodeset, "--yes", *at(server))
        assert (ran.code, said in ran.err, boot.book) == (2, True, [])
        assert run("reimage", "@web!web01", "--yes", *at(server)).code == 0


def test_numbers_go_on_from_what_this_machine_was_root_with(
    run: Run, folder: ClusterFolder, root: ControlServer, boot: Boot, tmp_path: Path
) -> None:
    (tmp_path / "depot/orders").mkdir(parents=True)
    (tmp_path / "depot/orders" / str(2**40)).write_text("whatever")
    assert run("reimage", "web02", "--yes", *at(root)).code == 0
    assert accepted(boot, folder)[0].number == 2**40 + 1


@pytest.mark.parametrize("answer", ["no\n", "y\n", "", "\n"], ids=repr)
def test_whoever_does_not_say_yes_orders_nothing(
    run: Run,
    folder: ClusterFolder,
    root: ControlServer,
    boot: Boot,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    del folder
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    ran = run("reimage", "web02", *at(root))
    assert (ran.code, boot.book) == (130, [])
    assert ran.err.endswith("bladeroot: nothing was ordered\n")


def test_without_a_yes_nothing_is_ordered(
    run: Run, folder: ClusterFolder, root: ControlServer, boot: Boot
) -> None:
    del folder
    asked = run("reimage", "web01", *at(root))
    assert asked.code == 2
    assert "add --yes" in asked.err
    shown = run("reimage", "web01", "--dry-run", *at(root))
    assert shown.code == 0
    assert "generation 7, the newest; their data is kept" in shown.out
    assert boot.book == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("web09",), "no blade web09"),
        (("web01", "--to", "17"), "has no generation 17"),
        (("web[",), "not a set of blades"),
        (("web01", "--to", "0"), "from 1 on"),
    ],
)
def test_a_mistake_orders_nothing(
    run: Run, folder: ClusterFolder, root: ControlServer, boot: Boot, words: tuple[str, ...], said: str
) -> None:
    del folder
    ran = run("reimage", *words, "--yes", *at(root))
    assert ran.code != 0
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert boot.book == []


def test_orders_tell_who_is_left(run: Run, folder: ClusterFolder, root: ControlServer, boot: Boot) -> None:
    assert run("orders", *at(root)).out.strip() == "no orders"
    run("reimage", "web[01-02]", "--yes", *at(root))
    number = accepted(boot, folder)[0].number
    root.publish(events.Finished(subject="web01", facts={"order": number}))
    (told,) = run("orders", "--json", *at(root)).facts
    assert (told["number"], told["done"], told["open"]) == (number, ["web01"], ["web02"])
    assert "web02" in run("orders", *at(root)).out
    assert run("orders", "list", *at(root)).out == run("orders", *at(root)).out
    assert run("orders", "lits", *at(root)).code == 2


def test_a_stranger_is_shown_and_adopted(
    run: Run, folder: ClusterFolder, root: ControlServer, tmp_path: Path
) -> None:
    del folder
    root.publish(events.HardwareFound(subject=STRANGER, hardware=attrs.asdict(HARDWARE)))
    root.publish(events.Held(subject=STRANGER, reason="nobody knows it"))
    shown = run("blades", "strangers", *at(root)).out
    for fact in (
        STRANGER,
        MAC,
        HARDWARE.uuid,
        "ACME Blade 1",
        "16.0 GiB",
        "1.0 TiB",
        "held: nobody knows it",
    ):
        assert fact in shown
    assert f"`bladeroot blades adopt {MAC} NAME`" in shown
    (told,) = run("blades", "strangers", "--json", *at(root)).facts
    assert (told["name"], told["reason"], told["hardware"]["vendor"]) == (STRANGER, "nobody knows it", "ACME")
    assert run("blades", "adopt", STRANGER, "spare01", *at(root)).code == 0
    blade = ClusterFolder.open(tmp_path / "lab").cluster.blade("spare01")
    assert (blade.macs, blade.uuid) == ((MAC,), "abababab-abab-abab-abab-abababababab")
    again = run("blades", "adopt", "52:54:00:aa:bb:08", "spare01", *at(root))
    assert again.code != 0
    assert "is another machine" in again.err
    assert "blades replace spare01" in again.err


@pytest.mark.parametrize("uuid", ["", "0" * 32, "F" * 32, "no uuid", "ab" * 16], ids=str)
def test_a_uuid_that_is_not_one_machines_is_left_out(
    run: Run, folder: ClusterFolder, root: ControlServer, tmp_path: Path, uuid: str
) -> None:
    del folder
    run("blades", "set", "web01", f"uuid={'ab' * 16}")
    root.publish(events.HardwareFound(subject=STRANGER, hardware={"uuid": uuid}))
    assert run("blades", "adopt", MAC.upper(), "spare01", *at(root)).code == 0
    blade = ClusterFolder.open(tmp_path / "lab").cluster.blade("spare01")
    assert (blade.macs, blade.uuid) == ((MAC,), None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stranger-5254", "spare01"), "not a MAC address"),
        (("52:54:00:aa:bb", "spare01"), "not a MAC address"),
        ((MAC, "web01"), "is given to two blades: web01 and web02"),
        ((MAC, "Spare1", "--role", "web"), "not a usable name"),
        ((MAC, "db1", "--role", "wbe"), "no role 'wbe'"),
        ((MAC,), "required: NAME"),
    ],
)
def test_what_cannot_be_adopted_changes_nothing(
    run: Run, folder: ClusterFolder, root: ControlServer, words: tuple[str, ...], said: str
) -> None:
    run("blades", "set", "web02", f"mac={MAC}")
    before = folder.file.read_bytes()
    ran = run("blades", "adopt", *words, *at(root))
    assert ran.code in (2, 10, 11)
    assert said in ran.err
    assert folder.file.read_bytes() == before


def test_orders_are_taken_back(run: Run, folder: ClusterFolder, root: ControlServer, boot: Boot) -> None:
    run("reimage", "web[01-03]", "--yes", *at(root))
    number = accepted(boot, folder)[0].number
    root.publish(events.Finished(subject="web01", facts={"order": number}))
    dry = run("orders", "cancel", "web[01-02]", "--dry-run", *at(root))
    assert f"  orders: {number}" in dry.out
    assert len(boot.book) == 1
    assert run("orders", "cancel", "web[01-02]", *at(root)).code == 0
    cancelling, reimage = run("orders", "--json", *at(root)).facts
    assert (cancelling["kind"], cancelling["open"]) == ("cancel", [])
    assert cancelling["number"] > number
    assert (reimage["done"], reimage["open"], reimage["superseded"]) == (["web01"], ["web03"], ["web02"])
    orders = accepted(boot, folder)
    assert choose_order(orders, "web02", 0) is None
    assert choose_order(orders, "web03", 0) == orders[0]


def test_a_machine_that_no_root_has_seen_is_adopted_all_the_same(run: Run, folder: ClusterFolder) -> None:
    assert run("blades", "adopt", MAC, "spare01", "--root", "127.0.0.1:1").code == 30, "that root was meant"
    ran = run("blades", "adopt", MAC, "spare01", "--wait", "0")
    assert ran.code == 0
    assert "adopted without a UUID" in ran.err
    assert "`bladeroot publish` makes it known" in ran.err
    assert folder.reload().cluster.blade("spare01").macs == (MAC,)


def test_a_new_blade_needs_a_role(run: Run, folder: ClusterFolder, root: ControlServer) -> None:
    del folder
    assert "has no role" in run("blades", "adopt", MAC, "db1", *at(root)).err
    assert run("blades", "adopt", MAC, "db1", "--role", "web", *at(root)).code == 0


def test_show_tells_what_the_machine_is_made_of(run: Run, folder: ClusterFolder, root: ControlServer) -> None:
    del folder
    root.publish(events.HardwareFound(subject="web01", hardware=attrs.asdict(HARDWARE)))
    root.publish(events.Booted(subject="web01", serial=7, order=5))
    shown = run("blades", "show", "web01", *at(root)).out
    for fact in ("8 x Fast", "16.0 GiB", "sda (1.0 TiB, Disk, serial S1)", "e1000e, 1000 Mb/s", "up", "uefi"):
        assert fact in shown
    root.publish(events.Held(subject="web01", reason="no agent", hint="netboot it"))
    shown = run("blades", "show", "web01", *at(root)).out
    assert "held: no agent" in shown
    assert "netboot it" in shown
    assert run("blades", "show", "web01", "--json", *at(root)).facts["hardware"]["cpus"] == 8


def test_show_without_a_root_is_the_inventory(run: Run, folder: ClusterFolder) -> None:
    cluster: Cluster = folder.cluster
    ran = run("blades", "show", "web01", "--wait", "0")
    assert ran.code == 0
    assert cluster.blade("web01").role in ran.out
    assert "no root tells more" in ran.err


def test_a_machine_cannot_break_what_is_shown(run: Run, folder: ClusterFolder, root: ControlServer) -> None:
    del folder
    evil = {
        "disks": [7, {"name": "\x1b[2J", "size_bytes": "x"}],
        "nics": "no",
        "memory_bytes": "much",
        "cpus": [],
    }
    root.publish(events.HardwareFound(subject="web01", hardware=evil))
    ran = run("blades", "show", "web01", *at(root))
    assert ran.code == 0
    assert "\x1b" not in ran.out
