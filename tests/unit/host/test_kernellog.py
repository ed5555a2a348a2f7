"""The kernel's log, record by record, from a socket that stands for /dev/kmsg."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.host.kernellog import KernelLog, follow_kernel_log


class Kernel:
    """The end that writes."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def say(self, text: str) -> None:
        self._end.send(f"6,1234,5678901,-;{text}\n SUBSYSTEM=block\n".encode())


@pytest.fixture
def pair() -> Iterator[tuple[Kernel, KernelLog]]:
    writer, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader.setblocking(False)
    with writer, reader:
        yield Kernel(writer), KernelLog(reader.fileno())


@pytest.mark.parametrize(
    "line",
    [
        "I/O error, dev vda, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
        "blk_update_request: I/O error, dev vda, sector 8 op 0x0:(READ)",
        "Buffer I/O error on dev vda3, logical block 0, lost async page write",
        "critical medium error, dev vda, sector 9 op 0x0:(READ)",
        "EXT4-fs error (device vda3): ext4_journal_check_start:83: comm x: Detected aborted journal",
    ],
)
def test_the_kernels_words_for_a_bad_disk(line: str, pair: tuple[Kernel, KernelLog]) -> None:
    kernel, log = pair
    kernel.say("EXT4-fs (vda3): mounted filesystem with ordered data mode")
    kernel.say("I/O error, dev vdab, sector 1")
    kernel.say(line)
    assert log.find_disk_error("vda") == line
    assert log.find_disk_error("vda") == ""


def test_a_partition_of_nvme(pair: tuple[Kernel, KernelLog]) -> None:
    kernel, log = pair
    kernel.say("Buffer I/O error on dev nvme0n1p4, logical block 7")
    assert log.find_disk_error("nvme0n1").startswith("Buffer I/O error")


def test_without_a_log_there_are_no_errors(tmp_path: Path) -> None:
    with follow_kernel_log(tmp_path / "kmsg") as log:
        assert log.find_disk_error("vda") == ""
