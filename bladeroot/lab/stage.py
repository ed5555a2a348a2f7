"""What scenarios of process blades share: the room, an operator's machine in it, and its commands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Reporter
from bladeroot.host.run import Argument, require_root, require_tools, run
from bladeroot.lab.blade import ProcessBlade
from bladeroot.lab.network import LabHost, LabNetwork, start_network
from bladeroot.lab.room import Room, open_room
from bladeroot.lab.roomwatch import RoomWatch, cut_power
from bladeroot.lab.smallcluster import SmallCluster

OPERATOR = "operator"
_TOOLS = ("ip", "tc", "unshare", "nsenter", "sfdisk", "mkfs.ext4", "mkfs.vfat", "mcopy")
_COMMAND_TIMEOUT_S = 180.0
_LOOKS = 3
_LOOK_AGAIN_S = 1.0
_ALL_AT_ONCE = 2
"""Looking at a disk starts programs: more at once are not done sooner."""


class Stage:
    """Made by `open_stage`: all blades are there, switched off, with empty disks."""

    def __init__(self, cluster: SmallCluster, network: LabNetwork, room: Room, watch: RoomWatch) -> None:
        self.cluster = cluster
        self.network = network
        self.room = room
        self.watch = watch
        self.operator: LabHost = network.add_host(OPERATOR, str(network.subnet[-6]))

    @property
    def blades(self) -> dict[str, ProcessBlade]:
        """By name."""
        return self.room.machines

    def install(self, names: Collection[str], serial: int, timeout_s: float) -> None:
        """Switch them on, until each runs that generation."""
        for name in names:
            self.blades[name].power_on()
        self.wait_until_up(names, serial, timeout_s)

    def install_from_operator(self, names: Sequence[str], serial: int, timeout_s: float) -> None:
        """The same from a root of the operator's, which goes away when each can be root itself."""
        root = self.room.start_root(self.cluster.depot.path)
        self.install(names, serial, timeout_s)
        self.wait_until_held(names, serial, timeout_s)
        root.stop()
        self.watch.forget(root.name)

    def wait_until_up(self, names: Collection[str], serial: int, timeout_s: float) -> None:
        """Until each runs that generation. Raises ClaimNotHeldError."""

        def is_so() -> bool:
            return all(self.blades[name].serial == serial for name in names)

        try:
            self.watch.wait(is_so, timeout_s, f"not all run generation {serial}")
        except ClaimNotHeldError as error:
            lacking = {name: self.blades[name].serial for name in names}
            told = ", ".join(f"{name} runs {has}" for name, has in lacking.items() if has != serial)
            raise ClaimNotHeldError(f"{error}: {told}", f"logs: {self.log_folder}") from None

    def wait_until_held(self, names: Collection[str], serial: int, timeout_s: float) -> None:
        """Until each has that generation in its depot: it could be root with it."""

        def is_so() -> bool:
            return all(serial in self.blades[name].held_generations() for name in names)

        self.watch.wait(is_so, timeout_s, f"not all hold generation {serial}")

    def cut_power(self, name: str) -> float:
        """Cut it; returns when that was (of the monotonic clock)."""
        return cut_power(self.watch, self.blades[name])

    def cut_all(self) -> None:
        """Cut the power of all at once."""
        with ThreadPoolExecutor(len(self.blades)) as pool:
            list(pool.map(self.cut_power, self.blades))

    def run_as_operator(self, *words: Argument, root: str | None = None) -> dict[str, Any]:
        """The answer of a bladeroot command. Raises ClaimNotHeldError where it fails."""
        return run_command(self.operator.command(self._make_argv(words, root)))

    def publish_on(self, name: str, what: str) -> int:
        """Publish a changed snapshot with the operator's key, on a blade and into its depot; its serial."""
        self.cluster.change(what)
        words: list[Argument] = ["--depot", "{depot}", "publish", self.cluster.snapshot]
        facts = run_command(self.blades[name].command(self._make_argv(words, None)))
        return int(facts["serial"])

    def promote(self, name: str, timeout_s: float) -> None:
        """Have the operator promote that blade, as soon as its daemon listens: the system that has booted has
        only begun to start it.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.run_as_operator("promote", name)
                return
            except ClaimNotHeldError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_AGAIN_S)

    def reimage(self, names: Collection[str], root: str) -> dict[str, Any]:
        """Order them to install the newest generation of that root."""
        return self.run_as_operator("reimage", ",".join(sorted(names)), "--yes", root=root)

    def root_address(self, name: str) -> str:
        """Where that blade answers as root."""
        return f"{self.network.host(name).address}:{self.cluster.folder.cluster.network.port}"

    def check_disks(self) -> list[str]:
        """What is wrong with a disk: it has nothing that boots, and no agent to go on with an install."""
        with ThreadPoolExecutor(_ALL_AT_ONCE) as pool:
            return [wrong for wrong in pool.map(_check_disk, self.blades.values()) if wrong]

    @property
    def log_folder(self) -> Path:
        """Where what each blade has said is kept."""
        return next(iter(self.blades.values())).log.parent.parent

    def _make_argv(self, words: Sequence[Argument], root: str | None) -> list[Argument]:
        argv: list[Argument] = [sys.executable, "-m", "bladeroot", "--json"]
        argv += ["--cluster", self.cluster.folder.path, "--key", self.cluster.key_path, *words]
        return [*argv, "--root", self.root_address(root)] if root else argv


def run_command(argv: Sequence[Argument]) -> dict[str, Any]:
    """Run one with `--json`; its answer. Raises ClaimNotHeldError with what it said."""
    done = run(argv, check=False, timeout_s=_COMMAND_TIMEOUT_S, ends_with_parent=True)
    if done.code != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.code}"])[-1]
        what = " ".join(str(word) for word in argv[argv.index("bladeroot") + 1 :])
        raise ClaimNotHeldError(f"`bladeroot {what}` failed: {said}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _check_disk(blade: ProcessBlade) -> str:
    """While it is on, its ESP may be read in the middle of being written: FAT has no moment that is whole."""
    for look in range(_LOOKS if blade.is_on else 1):
        time.sleep(_LOOK_AGAIN_S if look else 0)
        if blade.facts().slot is not None or blade.has_agent():
            return ""
    return f"the disk of {blade.name} boots nothing, and keeps no agent"


@contextmanager
def open_stage(cluster: SmallCluster, work: Path, reporter: Reporter) -> Iterator[Stage]:
    """A room with all blades of that cluster, until the block ends.

    Raises PrivilegeError, MissingToolError.
    """
    require_root("a room of process blades")
    require_tools(_TOOLS)
    watch = RoomWatch(reporter)
    with (
        start_network("run") as network,
        open_room(network, cluster.folder.path, work, watch) as room,
    ):
        for name in cluster.blades:
            room.add_blade(name, cluster.disk_size_bytes)
        stage = Stage(cluster, network, room, watch)
        try:
            yield stage
        finally:
            stage.cut_all()
