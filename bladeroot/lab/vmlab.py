"""A room of virtual blades for anybody to try things on: up until it is told to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bladeroot.errors import UsageError
from bladeroot.events import Note, Reporter
from bladeroot.lab.power import CONSOLE_SOCKET
from bladeroot.lab.qemuplan import Start
from bladeroot.lab.remote import Answer, listening
from bladeroot.lab.roomprocess import RoomProcess
from bladeroot.lab.vmcluster import VmCluster
from bladeroot.lab.vmroom import VmRoom, open_vm_room

_LOOK_S = 0.5
_BUTTON_TIMEOUT_S = 45.0
POWER_ACTIONS = ("on", "off", "cut")


class VmLab:
    """A running lab: what `lab power`, `lab status` and so on ask it for."""

    def __init__(self, cluster: VmCluster, room: VmRoom, start: Start) -> None:
        self.cluster = cluster
        self.room = room
        self._start: Start = start
        self._is_told_to_end = False

    @property
    def is_told_to_end(self) -> bool:
        """Whether somebody asked for that."""
        return self._is_told_to_end

    def handle(self, request: Mapping[str, Any]) -> Answer:
        """Answer a request. Raises UsageError, InventoryError."""
        match request["verb"]:
            case "status":
                return self._status()
            case "power":
                return self._switch(str(request["blade"]), str(request["action"]))
            case "down":
                self._is_told_to_end = True
                return {}
        raise UsageError(f"a lab has no verb {request['verb']!r}")

    def _status(self) -> Answer:
        return {
            "holder": self.room.segment.holder,
            "environment": self.cluster.environment(),
            "blades": [
                {
                    "blade": blade.name,
                    "firmware": blade.spec.firmware,
                    "power": "on" if blade.is_on else "off",
                    "address": self.cluster.folder.cluster.blade(blade.name).address,
                    "disk": str(blade.disk),
                    "console": str(blade.folder / CONSOLE_SOCKET),
                    "log": str(blade.log),
                }
                for blade in self.room.blades.values()
            ],
        }

    def _switch(self, name: str, action: str) -> Answer:
        blade = self.room.blade(name)
        was_on = blade.is_on
        match action:
            case "on":
                blade.power_on(self._start)
                said = "on already" if was_on else "switched on"
            case "off" if was_on:
                obeyed = blade.press_power(_BUTTON_TIMEOUT_S)
                said = "switched itself off" if obeyed else "did not listen to its power button: power cut"
            case "cut" if was_on:
                blade.cut_power()
                said = "power cut"
            case "off" | "cut":
                said = "off already"
            case _:
                raise UsageError(f"not a way to switch: {action!r}", f"there is: {', '.join(POWER_ACTIONS)}")
        return {"blade": name, "said": said}


def run_vm_lab(
    cluster: VmCluster,
    work: Path,
    reporter: Reporter,
    *,
    start: Start = "network",
    when_up: Callable[[], None] = lambda: None,
) -> None:
    """Keep the room up until somebody asks for its end (or KeyboardInterrupt).

    Blades' disks are empty; `start` is what their firmware tries first. Raises ClaimNotHeldError if the root
    ends.
    """
    with open_vm_room(work, reporter) as room, listening(work) as control:
        lab = VmLab(cluster, room, start)
        cluster.furnish(room)
        root = room.start_root(cluster.folder.path, cluster.depot)
        room.wait_for_root(root)
        for blade in room.blades.values():
            blade.power_on(start)
        when_up()
        while not lab.is_told_to_end:
            control.serve_one(lab.handle, _LOOK_S)
            _check_root(root)
        reporter(Note(text="the lab ends: machines, root and network go, the files stay"))


def _check_root(root: RoomProcess) -> None:
    if root.has_ended:
        root.wait(_LOOK_S)
