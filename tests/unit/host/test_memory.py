"""What is given back to the machine."""

from __future__ import annotations

import mmap
import os
import re
import tempfile
from pathlib import Path

from bladeroot.host.memory import give_back_memory, parse_programs

MAPS = """\
55d0c8a00000-55d0c8a5f000 r--p 00000000 fe:00 1311 /usr/bin/python3.11
55d0c8a5f000-55d0c8cf3000 r-xp 0005f000 fe:00 1311 /usr/bin/python3.11
55d0c8ee8000-55d0c8f86000 rw-p 002c8000 fe:00 1311 /usr/bin/python3.11
55d0c9800000-55d0c9a00000 rw-p 00000000 00:00 0    [heap]
7f0000000000-7f0000400000 r--s 00000000 fe:00 2412 /var/lib/bladeroot/artefacts/some runtime.tar
7f1000000000-7f1000001000 r--p 00000000 fe:00 2413 /usr/lib/a name with  spaces.so (deleted)
7f1000100000-7f1000101000 r--p 00000000 00:00 0
7ffd5d5f2000-7ffd5d5f4000 r-xp 00000000 00:00 0    [vdso]
"""


def test_programs_are_what_is_mapped_privately_and_not_written() -> None:
    assert list(parse_programs(MAPS)) == [
        (0x55D0C8A00000, 0x5F000),
        (0x55D0C8A5F000, 0x294000),
        (0x7F1000000000, 0x1000),
    ]


def test_pages_that_were_read_are_given_back_and_can_be_read_again() -> None:
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:  # by the FHS on a disk
        file.write(b"code" * 262144)
        file.flush()
        os.fsync(file.fileno())
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapping:
            assert mapping[:] == b"code" * 262144
            assert measure_resident_kib(file.name) == 1024
            give_back_memory()
            assert measure_resident_kib(file.name) < 1024
            assert mapping[:] == b"code" * 262144


def measure_resident_kib(path: str) -> int:
    """What of a mapped file is in this process's memory."""
    facts = Path("/proc/self/smaps").read_text(encoding="utf-8")
    match = re.search(rf"{re.escape(path)}\n(?:.*\n)*?Rss: +(\d+) kB", facts)
    assert match is not None
    return int(match[1])
