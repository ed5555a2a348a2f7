"""What makes an installed blade itself: machine-id, SSH host keys, fstab, and the record of the install.

machine-id and host keys are made once and kept in the depot's `identity/`, on the `data` partition: a
reimaged blade is the same machine to its log server and to everybody's known_hosts.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bladeroot.host.files import write_atomically
from bladeroot.host.mounts import mounted_chroot
from bladeroot.host.run import DEVNULL, is_installed, run, start_process

_HOST_KEYS = "ssh_host_*_key*"
_MACHINE_ID = re.compile(r"([0-9a-f]{32})\s*")
_LOWEST_PRIORITY = 19
_KEYGEN_TIMEOUT_S = 300.0
INSTALLED_FILE = Path("etc/bladeroot/installed.json")


def write_machine_id(slot: Path, identity: Path) -> str:
    """Give the tree the blade's machine-id, a new one if the blade has none (machine-id(5))."""
    kept = identity / "machine-id"
    machine_id = read_machine_id(kept)
    if machine_id is None:
        machine_id = secrets.token_hex(16)
        write_atomically(kept, f"{machine_id}\n", mode=0o444)
    write_atomically(slot / "etc/machine-id", f"{machine_id}\n", mode=0o444)
    dbus = slot / "var/lib/dbus/machine-id"
    if dbus.is_file() and not dbus.is_symlink():
        dbus.unlink()
        dbus.symlink_to("/etc/machine-id")
    return machine_id


def read_machine_id(path: Path) -> str | None:
    """The file's machine-id; None where it is not there or holds none: that stops nobody."""
    if not path.is_file():
        return None
    match = _MACHINE_ID.fullmatch(path.read_text(encoding="utf-8", errors="replace"))
    return match[1] if match else None


def has_host_keys(identity: Path) -> bool:
    """Whether the blade has SSH host keys."""
    return any(identity.glob(_HOST_KEYS))


@contextmanager
def making_host_keys(folder: Path) -> Iterator[Callable[[], list[Path]]]:
    """Have this machine's ssh-keygen make host keys in `folder` meanwhile, which takes it a second or more.

    What is yielded waits for them; it gives none where there is no ssh-keygen.
    """
    ssh = folder / "etc/ssh"
    ssh.mkdir(parents=True)
    if not is_installed("ssh-keygen"):
        yield list
        return
    with start_process(["ssh-keygen", "-A", "-f", folder], stdout=DEVNULL, stderr=DEVNULL) as process:
        # An RSA key takes a core a second or more: it is to have what extraction leaves.
        os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST_PRIORITY)

        def wait() -> list[Path]:
            return sorted(ssh.glob(_HOST_KEYS)) if process.wait() == 0 else []

        yield wait


def write_host_keys(slot: Path, identity: Path, made: Callable[[], list[Path]] = list) -> bool:
    """Give the tree the blade's SSH host keys, new ones if the blade has none; False without an sshd.

    New ones are those that were `made` meanwhile; else the tree's own ssh-keygen makes them.
    """
    ssh = slot / "etc/ssh"
    if not (slot / "usr/bin/ssh-keygen").exists() or not ssh.is_dir():
        return False
    for stale in ssh.glob(_HOST_KEYS):
        stale.unlink()
    if not has_host_keys(identity):
        keys = made()
        if not keys:
            with mounted_chroot(slot):  # it wants /dev/null, which a captured tree does not have
                run(["chroot", slot, "/usr/bin/ssh-keygen", "-A"], timeout_s=_KEYGEN_TIMEOUT_S)
            keys = sorted(ssh.glob(_HOST_KEYS))
        for key in keys:
            # Whole or not at all: what is there is the blade's for ever.
            write_atomically(identity / key.name, key.read_bytes(), mode=_mode_of(key))
    for key in sorted(identity.glob(_HOST_KEYS)):
        copy = ssh / key.name
        copy.write_bytes(key.read_bytes())
        copy.chmod(_mode_of(key))
    return True


def write_installed(slot: Path, facts: Mapping[str, Any]) -> None:
    """Record on the blade's own disk what was installed: what it goes by, whatever a root believes."""
    path = slot / INSTALLED_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(dict(facts), indent=2, sort_keys=True) + "\n")


def _mode_of(key: Path) -> int:
    return 0o644 if key.suffix == ".pub" else 0o600
