"""The hooks of an install: which facts they get, and where they run."""

from __future__ import annotations

import shutil
from pathlib import Path

from bladeroot.core.hardware import Hardware
from bladeroot.core.hooks import FIRST_BOOT_RECORD, HOOKS_DIRECTORY, HookFacts, When
from bladeroot.events import Note, Reporter
from bladeroot.host.hardware import read_hardware
from bladeroot.host.mounts import mounted_chroot
from bladeroot.ops.hooks import fetch_hooks, find_hook_files, open_log_in, run_hooks
from bladeroot.ops.installplan import InstallPlan
from bladeroot.ops.sources import Source


def make_hook_facts(plan: InstallPlan, hardware: Hardware, root_address: str = "") -> HookFacts:
    """What hooks are told of a blade that is installed. The inventory's MAC addresses and UUID go first."""
    blade = plan.entry.blade
    return HookFacts(
        blade=blade,
        cluster=plan.manifest.cluster_name,
        serial=plan.manifest.serial,
        macs=blade.macs or tuple(nic.mac for nic in hardware.nics),
        uuid=blade.uuid or hardware.uuid,
        disk=str(plan.disk.path),
        firmware=hardware.firmware,
        root_address=root_address,
    )


def run_pre_install(
    plan: InstallPlan, source: Source, hardware: Hardware, work: Path, reporter: Reporter, root_address: str
) -> Path:
    """Fetch the blade's hooks into `work`, and run those for before the disk is touched.

    Returns their log, for `apply_install`. Raises HookError, NetworkError, ArtefactError, DepotError.
    """
    directory = fetch_hooks(source, plan.manifest, plan.entry, work / "hooks")
    log = work / "hooks.log"
    facts = make_hook_facts(plan, hardware, root_address)
    run_hooks(When.PRE_INSTALL, directory, facts, reporter, log=log)
    return log


def run_post_install(
    plan: InstallPlan, slot: Path, reporter: Reporter, *, root_address: str = "", before: Path | None = None
) -> None:
    """Run the tree's post-install hooks in it. `before`: a log that its own begins with. Raises HookError."""
    # A captured tree's record would keep this blade's first-boot hooks from running.
    (slot / FIRST_BOOT_RECORD).unlink(missing_ok=True)
    directory = slot / HOOKS_DIRECTORY
    has_said = before is not None and before.is_file()
    if not has_said and not find_hook_files(When.POST_INSTALL, directory):
        return
    log = open_log_in(slot)
    if before is not None and has_said:
        shutil.copyfile(before, log)
    if not find_hook_files(When.POST_INSTALL, directory):
        return
    facts = make_hook_facts(plan, read_hardware(), root_address)
    with mounted_chroot(slot):
        done = run_hooks(When.POST_INSTALL, directory, facts, reporter, root=slot, log=log)
    reporter(Note(text=f"post-install hooks: {', '.join(done)}"))
