"""Boot scripts, boot files and orders over HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from bladeroot.core.bootanswer import BootQuery
from bladeroot.core.orders import Order, SignedOrder, sign_order
from bladeroot.core.signing import SecretKey
from bladeroot.errors import DepotError, NetworkError, TrustError
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer
from tests.unit.net.test_control import CLUSTER_ID, HASH, FakeView

ORDER = Order(cluster_id=CLUSTER_ID, number=3, blades=("web01",))
SIGNED = sign_order(ORDER, SecretKey(bytes(32)))


class FakeBoot:
    def __init__(self, folder: Path) -> None:
        self.parts = [folder / "initramfs.00", folder / "initramfs.01"]
        for path, data in zip(self.parts, (b"first,", b"second"), strict=True):
            path.write_bytes(data)
        self.book: list[SignedOrder] = []
        self.role_orders: list[SignedOrder] = []
        self.asked: list[tuple[BootQuery, str]] = []

    def boot_file(self, info_hash: str, name: str) -> Sequence[Path] | None:
        return self.parts if (info_hash, name) == (HASH, "initramfs") else None

    def boot_script(self, query: BootQuery, root: str) -> str:
        self.asked.append((query, root))
        return "#!ipxe\nexit\n"

    def orders(self) -> tuple[SignedOrder, ...]:
        return tuple(self.book)

    def take_role_order(self, signed: SignedOrder) -> None:
        self.role_orders.append(signed)

    def take_order(self, signed: SignedOrder) -> None:
        if signed != SIGNED:
            raise TrustError("whoever that is")
        self.book.append(signed)


@pytest.fixture
def boot(tmp_path: Path) -> FakeBoot:
    return FakeBoot(tmp_path)


@pytest.fixture
def server(tmp_path: Path, boot: FakeBoot) -> Iterator[ControlServer]:
    with ControlServer(
        FakeView(tmp_path), cluster_id=CLUSTER_ID, address="127.0.0.1", port=0, boot=boot
    ) as server:
        yield server


def get(server: ControlServer, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()


def test_a_boot_file_is_its_parts_put_together(server: ControlServer) -> None:
    assert get(server, f"/boot/{HASH}/initramfs") == (200, b"first,second")
    assert get(server, f"/boot/{HASH}/initramfs", {"Range": "bytes=4-8"}) == (206, b"t,sec")


@pytest.mark.parametrize(
    "path", [f"/boot/{HASH}/vmlinuz", f"/boot/{HASH}/..%2Fmanifest", "/boot/ab/initramfs"]
)
def test_other_files_are_not_there(server: ControlServer, path: str) -> None:
    assert get(server, path)[0] == 404


def test_a_machine_gets_its_script(server: ControlServer, boot: FakeBoot) -> None:
    status, text = get(server, "/boot.ipxe?mac=52-54-00-00-00-01&uuid=12&platform=efi&local=failed")
    assert (status, text) == (200, b"#!ipxe\nexit\n")
    query, root = boot.asked[0]
    assert query == BootQuery(mac="52:54:00:00:00:01", uuid="12", is_uefi=True, has_failed=True)
    assert root == f"127.0.0.1:{server.port}"


def test_what_is_no_query_gets_a_script_that_says_so(server: ControlServer) -> None:
    status, text = get(server, "/boot.ipxe?mac=nonsense")
    assert status == 200
    assert text.startswith(b"#!ipxe\necho bladeroot: this machine: not a MAC address")


def test_an_order_is_given_and_read(server: ControlServer) -> None:
    client = RootClient("127.0.0.1", server.port)
    assert client.read_orders().orders == ()
    client.give_order(SIGNED)
    assert client.read_orders().orders == (SIGNED,)


def test_an_order_that_nobody_would_believe_is_refused(server: ControlServer, boot: FakeBoot) -> None:
    client = RootClient("127.0.0.1", server.port)
    with pytest.raises(NetworkError, match="403 whoever that is"):
        client.give_order(SignedOrder(body=b"x", signatures=()))
    assert boot.book == []


def test_an_order_with_anothers_number_is_a_conflict(
    server: ControlServer, boot: FakeBoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_signed: SignedOrder) -> None:
        raise DepotError("there is another order 7 already")

    monkeypatch.setattr(boot, "take_order", refuse)
    with pytest.raises(NetworkError, match="409 there is another order 7 already"):
        RootClient("127.0.0.1", server.port).give_order(SIGNED)


def test_what_is_no_order_is_a_bad_request(server: ControlServer) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("POST", "/v1/orders", body=b"\xc1nonsense")
        assert connection.getresponse().status == 400


def test_the_clock_is_told(server: ControlServer) -> None:
    assert RootClient("127.0.0.1", server.port).read_clock() > 1_700_000_000
