"""The unit that runs a blade's first-boot hooks, on blades that have some. Pure."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from bladeroot.core.overlay import Layer, LayerFile
from bladeroot.core.overlaysettings import ServiceSwitch, SwitchAction
from bladeroot.core.overlaytree import EntryKind

FIRST_BOOT_UNIT = "bladeroot-first-boot.service"
_PROGRAM = "usr/bin/bladeroot"
_SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")

# Nothing waits for it: a hook that hangs for want of a network would keep everybody out.
_UNIT_TEXT = f"""\
# Runs the hooks in /etc/bladeroot/hooks/first-boot, each until it has ended well once.
[Unit]
Description=Run this blade's first-boot hooks
Wants=network-online.target
After=multi-user.target network-online.target
ConditionPathExists=/{_PROGRAM}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/{_PROGRAM} first-boot
TimeoutStartSec=infinity
Restart=on-failure
RestartSec=120

[Install]
WantedBy=multi-user.target
"""


def make_first_boot_layer(own: Layer, has_file: Callable[[str], bool]) -> tuple[Layer, tuple[str, ...]]:
    """The own layer with the unit, and notes about what is missing in the snapshot for it."""
    missing = [f"/{_PROGRAM}"] if not has_file(_PROGRAM) else []
    if not any(map(has_file, _SYSTEMD)):
        missing.append("systemd")
    if missing:
        return own, (f"first-boot hooks will not run: the snapshot has no {' and no '.join(missing)}",)
    path = f"etc/systemd/system/{FIRST_BOOT_UNIT}"
    unit = LayerFile(path, EntryKind.FILE, own.settings_source, content=_UNIT_TEXT.encode())
    switch = ServiceSwitch(FIRST_BOOT_UNIT, SwitchAction.ENABLE, where=own.settings_source)
    settings = evolve(own.settings, switches=(*own.settings.switches, switch))
    return evolve(own, files=(*own.files, unit), settings=settings), ()
