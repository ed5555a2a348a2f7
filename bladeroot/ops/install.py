"""Install: one disk becomes one blade. The same steps in an initramfs, on an image file, and in the lab.

Plan first (what is on the disk, what will be), then the steps of `STEPS`, in their order. *Commit* is the
one write that makes the new slot bootable, after everything in it was verified; what comes behind it (the
extras, and holding the whole generation so that the blade can be root) can be cut off and taken up again,
or left to the daemon of the blade that was installed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import attrs

from bladeroot.core import agentfiles
from bladeroot.core.bootplan import render_fstab
from bladeroot.core.disklayout import Use
from bladeroot.core.manifest import ArtefactKind
from bladeroot.core.sizes import render_about
from bladeroot.errors import DiskTooSmallError
from bladeroot.events import Finished, Note, Reporter, ignore
from bladeroot.host.archive import extract_plain
from bladeroot.host.blockdev import OpenDisk, apply_partitions, format_partition
from bladeroot.host.bootloader import (
    commit_slot,
    install_boot_code,
    release_slot,
    write_slot_config,
)
from bladeroot.host.depot import DEFAULT_DEPOT, Depot
from bladeroot.host.esp import (
    ensure_grubenv,
    has_sound_grubenv,
    read_boot_facts,
    write_boot_facts,
)
from bladeroot.host.espagent import write_agent
from bladeroot.host.files import (
    explain_full_disk,
    scratch_folder,
    sync_filesystem,
    write_atomically,
    writing_back,
)
from bladeroot.host.kernellog import KernelLog, follow_kernel_log
from bladeroot.host.kernels import find_kernels
from bladeroot.host.mounts import mounted
from bladeroot.ops.brokendisk import explain_broken_disk
from bladeroot.ops.fetching import Fetcher
from bladeroot.ops.identity import (
    has_host_keys,
    making_host_keys,
    write_host_keys,
    write_installed,
    write_machine_id,
)
from bladeroot.ops.installhooks import run_post_install
from bladeroot.ops.installplan import InstallPlan, choose_install_disk, plan_install
from bladeroot.ops.owndaemon import runs_daemon
from bladeroot.ops.resume import Standing
from bladeroot.ops.sources import Source
from bladeroot.ops.steps import step

__all__ = ["STEPS", "InstallPlan", "Installation", "apply_install", "choose_install_disk", "plan_install"]


def apply_install(
    plan: InstallPlan,
    opened: OpenDisk,
    source: Source,
    *,
    reporter: Reporter = ignore,
    linger: Callable[[dict[str, Any]], None] | None = None,
    serve: Callable[[Depot], AbstractContextManager[object]] = nullcontext,
    root_address: str = "",
    hooks_log: Path | None = None,
    leave_rest: bool = False,
) -> dict[str, Any]:
    """Carry the plan out. Returns the facts of the finished install; they are its `Finished` event too.

    `linger` is called with them at the end: until it returns the blade's depot stays mounted, and a swarm
    goes on giving what is in it. `serve` is entered with the depot when it is mounted, and left before it is
    unmounted. `root_address` is for hooks; `hooks_log` is what those before the install have said. With
    `leave_rest` the install ends with its commit where what was installed will run bladeroot's daemon, which
    sees to the rest (`ops.completing`): the fact `complete` says whether there is none.

    If it is cut off, the disk boots what it booted before, or nothing; started again, it does not fetch
    again what it has. Raises ArtefactError, DepotFullError, NetworkError, ToolError, HookError, DiskError.
    """
    with follow_kernel_log() as log, Installation(plan, opened, source, reporter, serve) as installation:
        installation.root_address, installation.hooks_log = root_address, hooks_log
        installation.leave_rest = leave_rest
        # All that only the root has, before the disk is touched: it may vanish at any time from now on.
        steps = steps_of(plan)
        for artefact in plan.manifest.artefacts if steps else ():
            source.read_torrent(artefact)
        for name, title, run_step in steps:
            with step(name, title, reporter), installation.explain_broken_disk(title, log):
                run_step(installation)
            if installation.is_rest_left:
                break
        installation.let_go_of_slot()
        facts = installation.facts()
        reporter(Finished(facts=facts))
        if linger is not None:
            linger(facts)
    return facts


class Installation:
    """An install under way: what is mounted where. Leaving it unmounts everything."""

    def __init__(
        self,
        plan: InstallPlan,
        opened: OpenDisk,
        source: Source,
        reporter: Reporter,
        serve: Callable[[Depot], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._serve = serve
        self.root_address = ""
        self.hooks_log: Path | None = None
        self.leave_rest = False
        self.is_rest_left = False
        """Whether it is committed, and the daemon that it installed does what comes behind that."""
        self.plan = plan
        self.opened = opened
        self.source = source
        self.reporter = reporter
        self._uuids: dict[Use, str] = {}
        self._installed_bytes = 0
        self._host_keys: Callable[[], list[Path]] = list
        self._stack = ExitStack()
        self._slot_mount = ExitStack()

    def __enter__(self) -> Installation:
        self._work = self._stack.enter_context(scratch_folder("bladeroot-install-"))
        self._get = Fetcher(self.source, self.depot, self.plan.manifest, self.reporter)
        self._stack.push(self._slot_mount)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def slot(self) -> Path:
        """Where the slot's filesystem is mounted."""
        return self._work / "slot"

    @property
    def depot(self) -> Depot:
        """The blade's own depot, on its data partition."""
        return Depot(self._work / "data")

    def facts(self) -> dict[str, Any]:
        """What was installed, as plain values."""
        plan = self.plan
        return {
            "blade": plan.entry.blade.name,
            "role": plan.entry.blade.role,
            "serial": plan.manifest.serial,
            "manifest": plan.signed.hash,
            "order": self._order_number,
            "disk": str(plan.disk.path),
            "slot": str(plan.layout.slot),
            "standing": str(plan.standing),
            "complete": not self.is_rest_left,
            "installed_bytes": self._installed_bytes,
            "filesystems": {str(use): uuid for use, uuid in self._uuids.items()},
        }

    # The steps

    def partition_disk(self) -> None:
        """Let go of a slot that will be written over, then cut the disk; a table that is as planned stays.

        Before all of it the try is counted, on a disk that can: it counts whatever becomes of it.
        """
        if has_sound_grubenv(self.opened):
            write_boot_facts(self.opened, read_boot_facts(self.opened).with_try(self._order_number or 0))
        release_slot(self.opened, self.plan.layout)
        apply_partitions(self.opened, self.plan.layout)

    def make_filesystems(self) -> None:
        """New filesystems, but for what the plan keeps; then mount the slot and `data`."""
        layout = self.plan.layout
        for partition in layout.partitions:
            if partition.filesystem is not None:
                self._uuids[partition.use] = format_partition(self.opened, layout, partition)
        self._carry_boot_facts_over()
        self._mount_data()
        self._mount_slot()

    def mount_installed(self) -> None:
        """Take up an install that was committed: nothing is formatted."""
        for partition in self.plan.layout.partitions:
            if partition.filesystem_uuid is not None:
                self._uuids[partition.use] = partition.filesystem_uuid
        self._mount_data()

    def install_agent(self) -> None:
        """The agent's kernel and initramfs to the ESP, and GRUB to start them: from now on the disk takes the
        install up again by itself, if it is cut off. Nothing, where the generation has no agent.
        """
        agent = self.plan.agent
        if agent is None:
            return
        self._get.fetch(ArtefactKind.AGENT)
        files = {path.name: path for path in self.depot.artefact_files(agent.info_hash)}
        kernel, initramfs = (
            [files[name] for name in agentfiles.choose_parts(what, files)]
            for what in (agentfiles.KERNEL, agentfiles.INITRAMFS)
        )
        write_agent(self.opened, kernel, initramfs, self.plan.manifest.kernel_command_line)
        self._install_boot_code()

    def fetch_runtime(self) -> None:
        """Fetch the runtime, and extract each frame as it comes.

        All that can be done before its last byte comes is done before, or meanwhile.
        """
        for kind in (ArtefactKind.OVERLAYS, ArtefactKind.BOOT):
            self._get.fetch(kind)
        if not has_host_keys(self.depot.identity):
            self._host_keys = self._stack.enter_context(making_host_keys(self._work / "keys"))
        with self._explain_full_slot(), writing_back(self.slot, self.depot.path):
            self._get.fetch_and_extract(ArtefactKind.RUNTIME, self.slot)
        self._count_installed(ArtefactKind.RUNTIME)

    def apply_overlay(self) -> None:
        """Make the tree this blade's own."""
        archive = self._get.fetch_overlay(self.plan.entry.overlay)
        with self._explain_full_slot():
            extract_plain(archive, self.slot)

    def write_identity(self) -> None:
        """fstab, machine-id, host keys, and the record of this install."""
        layout = self.plan.layout
        fstab = render_fstab(
            root_uuid=self._uuids[layout.slot],
            filesystem=self.plan.entry.layout.filesystem,
            data_uuid=self._uuids[Use.DATA],
            data_filesystem=layout.partition(Use.DATA).filesystem or "ext4",
            esp_uuid=self._uuids[Use.ESP],
            depot=DEFAULT_DEPOT,
        )
        for directory in ("etc", str(DEFAULT_DEPOT).lstrip("/")):
            (self.slot / directory).mkdir(parents=True, exist_ok=True)
        write_atomically(self.slot / "etc/fstab", fstab)
        write_machine_id(self.slot, self.depot.identity)
        if not write_host_keys(self.slot, self.depot.identity, self._host_keys):
            self.reporter(Note(text="the snapshot has no sshd: no host keys were made"))
        self._record(complete=False)

    def install_boot_loader(self) -> None:
        """GRUB for BIOS and UEFI, and its configuration; nothing is chosen to boot yet."""
        self._install_boot_code()
        slot = self.plan.layout.slot
        write_slot_config(
            self.opened,
            slot,
            partition_number=self.plan.layout.partition(slot).number,
            filesystem_uuid=self._uuids[slot],
            kernels=find_kernels(self.slot),
            kernel_command_line=self.plan.manifest.kernel_command_line,
        )

    def run_hooks(self) -> None:
        """The overlay's post-install hooks, in the tree. One that fails fails the install."""
        run_post_install(
            self.plan, self.slot, self.reporter, root_address=self.root_address, before=self.hooks_log
        )

    def commit(self) -> None:
        """Everything is on the disk and verified: from now on the disk boots the new slot."""
        sync_filesystem(self.slot)
        sync_filesystem(self.depot.path)
        is_rest_left = self.leave_rest and runs_daemon(self.slot)
        self._slot_mount.close()
        manifest = self.plan.manifest
        commit_slot(
            self.opened,
            self.plan.layout.slot,
            serial=manifest.serial,
            cluster_id=manifest.cluster_id,
            order=self._order_number,
        )
        self.is_rest_left = is_rest_left

    def fetch_extras(self) -> None:
        """The extras, and what of the overlay belongs over them."""
        self._mount_slot()
        with self._explain_full_slot(), writing_back(self.slot, self.depot.path):
            self._get.fetch_extras(self.plan.entry.overlay, self.slot)
        self._count_installed(ArtefactKind.EXTRAS)

    def keep_generation(self) -> None:
        """Enter the generation into the blade's own depot: it can be root with it from now on."""
        self._get.fetch_rest()
        self.depot.add_generation(self.plan.signed, self.plan.manifest)
        self._record(complete=True)
        sync_filesystem(self.slot)
        sync_filesystem(self.depot.path)

    def let_go_of_slot(self) -> None:
        """Unmount the slot: nothing more is written to it."""
        self._slot_mount.close()

    # Their parts

    def explain_broken_disk(self, title: str, log: KernelLog) -> AbstractContextManager[None]:
        """See `ops.brokendisk`."""
        return explain_broken_disk(self.plan.disk, self.opened.device.name, title, log, inside=self._work)

    @property
    def _order_number(self) -> int | None:
        return self.plan.order.number if self.plan.order else None

    def _carry_boot_facts_over(self) -> None:
        """What the disk said of itself, to an ESP that is new; and that its data was wiped, if it was."""
        order = self.plan.order
        facts = self.plan.before.with_try(self._order_number or 0).when_released()
        ensure_grubenv(self.opened, facts)
        if order is not None and order.wipe_data:
            facts = read_boot_facts(self.opened)
            write_boot_facts(self.opened, attrs.evolve(facts, wiped=order.number))

    def _install_boot_code(self) -> None:
        payload = self._work / "boot"
        payload.mkdir(exist_ok=True)
        self._get.fetch(ArtefactKind.BOOT, lambda name, data: _write(payload / name, data))
        kernel_command_line = self.plan.manifest.kernel_command_line
        install_boot_code(self.opened, payload, kernel_command_line=kernel_command_line)

    def _mount_data(self) -> None:
        data = self.plan.layout.partition(Use.DATA)
        self._stack.enter_context(
            mounted(self.opened.partition(data.number), self.depot.path, filesystem=data.filesystem)
        )
        self._stack.enter_context(self._serve(Depot.create(self.depot.path)))

    def _explain_full_slot(self) -> AbstractContextManager[None]:
        layout = self.plan.layout
        slot = layout.partition(layout.slot)
        return explain_full_disk(
            Path(f"{slot.label} of {self.plan.disk.path} ({render_about(layout.size_bytes(slot))})"),
            DiskTooSmallError,
            "make slot_size larger in cluster.toml, or leave out more with the split rules",
        )

    def _count_installed(self, kind: ArtefactKind) -> None:
        self._installed_bytes += self.plan.manifest.artefact(kind).raw_size_bytes

    def _mount_slot(self) -> None:
        partition = self.plan.layout.partition(self.plan.layout.slot)
        node = self.opened.partition(partition.number)
        self._slot_mount.enter_context(mounted(node, self.slot, filesystem=partition.filesystem))

    def _record(self, *, complete: bool) -> None:
        blade, manifest = self.plan.entry.blade, self.plan.manifest
        write_installed(
            self.slot,
            {
                "blade": blade.name,
                "role": blade.role,
                "cluster": manifest.cluster_name,
                "cluster_id": manifest.cluster_id,
                "serial": manifest.serial,
                "manifest": self.plan.signed.hash,
                "slot": str(self.plan.layout.slot),
                "extras": complete,
                "order": self._order_number or self.plan.before.order or None,
                "filesystems": {str(use): uuid for use, uuid in self._uuids.items()},
            },
        )


STEPS: tuple[tuple[str, str, Callable[[Installation], None]], ...] = (
    ("partition", "Partition the disk", Installation.partition_disk),
    ("format", "Make filesystems", Installation.make_filesystems),
    ("agent", "Keep the agent on the disk", Installation.install_agent),
    ("runtime", "Fetch and extract the runtime", Installation.fetch_runtime),
    ("overlay", "Apply the blade's overlay", Installation.apply_overlay),
    ("identity", "Write fstab, machine-id and host keys", Installation.write_identity),
    ("bootloader", "Install GRUB for BIOS and UEFI", Installation.install_boot_loader),
    ("hooks", "Run post-install hooks", Installation.run_hooks),
    ("commit", "Commit: make it bootable", Installation.commit),
    ("extras", "Fetch and extract the extras", Installation.fetch_extras),
    ("depot", "Keep the generation", Installation.keep_generation),
)
"""Every step of an install: its name, what a person reads, and what it does."""
_MOUNT = ("mount", "Mount what is installed", Installation.mount_installed)


def steps_of(plan: InstallPlan) -> tuple[tuple[str, str, Callable[[Installation], None]], ...]:
    """The steps that a plan comes to: all, those behind the commit, or none."""
    if plan.standing is Standing.NEW:
        return STEPS
    names = [name for name, _title, _run in STEPS]
    return (_MOUNT, *STEPS[names.index("commit") + 1 :]) if plan.standing is Standing.COMMITTED else ()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
