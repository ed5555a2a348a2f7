"""An installed blade's first-boot hooks: each runs until it has ended well once, and that is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
from attrs import frozen

from bladeroot.core.hooks import FIRST_BOOT_RECORD, HOOKS_DIRECTORY, HookFacts, When
from bladeroot.errors import BladerootError, ConfigError, DiskError
from bladeroot.events import Reporter
from bladeroot.host.bootdisk import find_booted_disk
from bladeroot.host.files import write_atomically
from bladeroot.host.hardware import read_hardware
from bladeroot.ops.folder import DEFAULT_FOLDER, ClusterFolder
from bladeroot.ops.hooks import HOOK_TIMEOUT_S, find_hook_files, open_log_in, run_hook
from bladeroot.ops.identity import INSTALLED_FILE

_LIMIT_BYTES = 1 << 20


@frozen(kw_only=True)
class FirstBoot:
    """How the first-boot hooks of this install stand."""

    serial: int = 0
    done: tuple[str, ...] = ()
    """Hooks that have ended well."""
    pending: tuple[str, ...] = ()
    """Hooks that have not; the first of them is the one that failed, if one did."""
    error: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self.pending


def read_first_boot(root: Path = Path("/")) -> FirstBoot:
    """What the record says, and which hooks it does not know of. Of a tree without hooks all is done."""
    told = _read_json(root / FIRST_BOOT_RECORD)
    listed = told.get("done")
    done = tuple(str(name) for name in listed) if isinstance(listed, list) else ()
    files = find_hook_files(When.FIRST_BOOT, root / HOOKS_DIRECTORY)
    serial = told.get("serial")
    return FirstBoot(
        serial=serial if isinstance(serial, int) else 0,
        done=done,
        pending=tuple(path.name for path in files if path.name not in done),
        error=str(told.get("error") or ""),
    )


def run_first_boot(
    reporter: Reporter,
    *,
    root: Path = Path("/"),
    folder: Path = DEFAULT_FOLDER,
    again: bool = False,
    timeout_s: float = HOOK_TIMEOUT_S,
) -> FirstBoot:
    """Run the hooks that have not ended well since the install (`again`: all of them), up to one that fails.

    What came of it is recorded after each. Raises HookError for the one that failed, ConfigError where this
    is no blade that bladeroot has installed.
    """
    facts = read_own_facts(root, folder)
    state = attrs.evolve(read_first_boot(root), serial=facts.serial, error="")
    if again:
        state = attrs.evolve(state, done=(), pending=(*state.done, *state.pending))
    log = open_log_in(root)
    for hook in find_hook_files(When.FIRST_BOOT, root / HOOKS_DIRECTORY):
        if hook.name in state.done:
            continue
        try:
            run_hook(When.FIRST_BOOT, hook, facts, reporter, timeout_s=timeout_s, log=log)
        except BladerootError as error:
            _write_record(root, attrs.evolve(state, error=str(error)))
            raise
        state = attrs.evolve(state, done=(*state.done, hook.name))
        _write_record(root, state)
    _write_record(root, state)
    return read_first_boot(root)


def read_own_facts(root: Path = Path("/"), folder: Path = DEFAULT_FOLDER) -> HookFacts:
    """What this blade knows of itself, by what its install has left. Raises ConfigError."""
    installed = _read_json(root / INSTALLED_FILE)
    name, serial = installed.get("blade"), installed.get("serial")
    if not isinstance(name, str):
        raise ConfigError(
            f"{root / INSTALLED_FILE} does not say which blade this is",
            "bladeroot writes it when it installs",
        )
    cluster = ClusterFolder.open(folder).cluster
    hardware = read_hardware()
    blade = cluster.blade(name)
    try:
        disk = str(find_booted_disk().source)
    except (DiskError, OSError):
        disk = ""
    return HookFacts(
        blade=blade,
        cluster=cluster.name,
        serial=serial if isinstance(serial, int) else 0,
        macs=blade.macs or tuple(nic.mac for nic in hardware.nics),
        uuid=blade.uuid or hardware.uuid,
        disk=disk,
        firmware=hardware.firmware,
    )


def _write_record(root: Path, state: FirstBoot) -> None:
    record = {"serial": state.serial, "done": list(state.done), "error": state.error}
    write_atomically(root / FIRST_BOOT_RECORD, json.dumps(record, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            return {}
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
