"""Is this tree fit to be published, and if not, what would make it so: for any distribution."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from bladeroot.errors import SnapshotError
from bladeroot.host.kernels import find_boot_files, find_kernel_images, resolve_inside
from bladeroot.ops.identity import read_machine_id
from bladeroot.ops.snapshots import selfcopy
from bladeroot.ops.snapshots.capture import read_marker
from bladeroot.ops.snapshots.tree import (
    Distribution,
    find_program,
    read_distribution,
    read_elf,
    require_tree,
)

_FAMILIES: Mapping[str, str] = {
    "debian": "apt-get install --yes",
    "fedora": "dnf install --assumeyes",
    "suse": "zypper --non-interactive install",
    "arch": "pacman --sync --noconfirm",
    "alpine": "apk add",
}
_ALIASES = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "sles": "suse", "opensuse": "suse"}

_PACKAGES: Mapping[str, Mapping[str, str]] = {
    "kernel": {
        "debian": "linux-image-amd64",
        "ubuntu": "linux-image-generic",
        "fedora": "kernel",
        "suse": "kernel-default",
        "arch": "linux",
        "alpine": "linux-lts",
    },
    "initrd": {
        "debian": "initramfs-tools",
        "fedora": "dracut",
        "suse": "dracut",
        "arch": "mkinitcpio",
        "alpine": "mkinitfs",
    },
    "init": {
        "debian": "systemd-sysv",
        "fedora": "systemd",
        "suse": "systemd",
        "arch": "systemd",
        "alpine": "openrc",
    },
    "python3": {
        "debian": "python3",
        "fedora": "python3",
        "suse": "python311",
        "arch": "python",
        "alpine": "python3",
    },
    "sshd": {
        "debian": "openssh-server",
        "fedora": "openssh-server",
        "suse": "openssh-server",
        "arch": "openssh",
        "alpine": "openssh-server",
    },
    "dnsmasq": {"debian": "dnsmasq-base", "": "dnsmasq"},
    "sfdisk": {"debian": "fdisk", "alpine": "sfdisk", "": "util-linux"},
    "mkfs.ext4": {"": "e2fsprogs"},
    "mkfs.vfat": {"": "dosfstools"},
    "mcopy": {"": "mtools"},
    "ip": {"debian": "iproute2", "suse": "iproute2", "alpine": "iproute2", "arch": "iproute2", "": "iproute"},
}
_PROGRAMS = {
    "sshd": "nobody can log in over the network",
    "dnsmasq": "a blade of it cannot answer network boot when it is root",
    "sfdisk": "a blade of it cannot cut a disk",
    "mkfs.ext4": "a blade of it cannot make the filesystems",
    "mkfs.vfat": "a blade of it cannot make the ESP",
    "mcopy": "a blade of it cannot write the ESP",
    "ip": "a blade of it cannot look at its network",
}
_GRUB_MODULES = ("usr/lib/grub/{}", "usr/share/grub2/{}", "usr/lib/grub2/{}", "usr/share/grub/{}")
_GRUB_TARGETS = ("i386-pc", "x86_64-efi")


@frozen
class Finding:
    """One thing that is wrong, what to do about it, and the package that would help."""

    text: str
    hint: str = ""
    package: str = ""


@frozen
class SnapshotReport:
    """What a tree is, and what it lacks. `problems` keep a blade from working."""

    path: Path
    distribution: str
    arch: str
    kernel: Path | None
    initrd: Path | None
    kernel_version: str
    bladeroot: bool
    problems: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    install_command: str
    """What installs every missing package; "" where none is missing or the distribution is unknown."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be published."""
        return not self.problems


def check_snapshot(path: Path, *, with_self: bool = True) -> SnapshotReport:
    """Look at a tree, changing nothing. `with_self`: bladeroot shall run in it, so its Python counts.

    Raises SnapshotError where the path is no snapshot at all.
    """
    require_tree(path)
    distribution = read_distribution(path) or Distribution("linux", "an unknown Linux", "", ("linux",))
    package = _package_finder(distribution)
    problems, warnings = list(_find_problems(path, package, with_self)), list(_find_warnings(path, package))
    kernels = find_kernel_images(path)
    kernel = kernels[0][1] if kernels else None
    initrd = None
    with suppress(SnapshotError):
        kernel, initrd = find_boot_files(path)
    names = dict.fromkeys(finding.package for finding in [*problems, *warnings] if finding.package)
    installer = _FAMILIES.get(_find_family(distribution), "")
    return SnapshotReport(
        path=path,
        distribution=distribution.name,
        arch=_read_arch(path),
        kernel=kernel,
        initrd=initrd,
        kernel_version=next((version for version, found in kernels if found == kernel), ""),
        bladeroot=find_program(path, "bladeroot") is not None,
        problems=tuple(problems),
        warnings=tuple(warnings),
        install_command=f"chroot {path} {installer} {' '.join(names)}" if names and installer else "",
    )


def require_ready(report: SnapshotReport) -> None:
    """Raise SnapshotError with the first problem, how many more there are, and what would help."""
    if report.problems:
        first, more = report.problems[0], len(report.problems) - 1
        others = f", and {more} more" if more else ""
        raise SnapshotError(f"{report.path}: {first.text}{others}", report.install_command or first.hint)


def adopt_snapshot(path: Path, *, with_self: bool = True) -> SnapshotReport:
    """Make an existing tree ready: check it, and put bladeroot into it. Returns what it is then.

    Raises SnapshotError where something essential is missing; then nothing is changed.
    """
    require_ready(check_snapshot(path, with_self=with_self))
    if with_self:
        selfcopy.copy_self(path)
    return check_snapshot(path, with_self=with_self)


def _find_family(distribution: Distribution) -> str:
    for name in distribution.family:
        base = name.split("-")[0]
        known = _ALIASES.get(name) or _ALIASES.get(base) or base
        if known in _FAMILIES:
            return known
    return ""


def _package_finder(distribution: Distribution) -> Callable[[str], str]:
    family = _find_family(distribution)

    def find(name: str) -> str:
        names = _PACKAGES[name]
        return names.get(distribution.id) or names.get(family) or names.get("", "")

    return find


def _find_problems(path: Path, package: Callable[[str], str], with_self: bool) -> Iterator[Finding]:
    if not any(find_program(path, name) for name in ("init", "systemd")) and not (
        resolve_inside(path, "usr/lib/systemd/systemd").is_file()
        or resolve_inside(path, "lib/systemd/systemd").is_file()
    ):
        yield Finding("no init: /sbin/init is missing", package=package("init"))
    kernels = find_kernel_images(path)
    if not kernels:
        yield Finding("no kernel in /boot or /usr/lib/modules", package=package("kernel"))
    else:
        try:
            find_boot_files(path)
        except SnapshotError:
            hint = _initrd_hint(path, kernels[0][0])
            yield Finding(f"no initrd in /boot for {kernels[0][1].name}", hint, package("initrd"))
    if with_self:
        python = selfcopy.find_python_problem(path)
        if python:
            missing = find_program(path, "python3") is None
            yield Finding(*python, package=package("python3") if missing else "")
    marker = read_marker(path)
    if marker is not None and not marker.get("complete"):
        yield Finding(
            "its capture is unfinished", f"bladeroot snapshot capture {marker.get('source')} {path}"
        )


def _initrd_hint(path: Path, version: str) -> str:
    for program, arguments in (
        ("update-initramfs", f"-c -k {version}"),
        ("dracut", f"--no-hostonly /boot/initramfs-{version}.img {version}"),
        ("mkinitcpio", "-P"),
        ("mkinitfs", version),
    ):
        if find_program(path, program):
            return f"chroot {path} {program} {arguments}"
    return ""


def _find_warnings(path: Path, package: Callable[[str], str]) -> Iterator[Finding]:
    for program, consequence in _PROGRAMS.items():
        if find_program(path, program) is None:
            yield Finding(f"no {program}: {consequence}", package=package(program))
    for target in _GRUB_TARGETS:
        if not any(resolve_inside(path, shape.format(target)).is_dir() for shape in _GRUB_MODULES):
            yield Finding(f"no GRUB modules for {target}: those of the machine that publishes are used")
    kernels = find_kernel_images(path)
    version = kernels[0][0] if kernels else ""
    if version and not resolve_inside(path, f"lib/modules/{version}").is_dir():
        yield Finding(f"no modules in /lib/modules for the kernel {version}")
    yield from _find_identity(path)
    yield from _find_fixed_addresses(path)
    mounts = [name for name in ("proc", "sys", "dev") if os.path.ismount(path / name)]
    if mounts:
        yield Finding(
            f"mounted in it: {', '.join('/' + name for name in mounts)}", "unmount it before publishing"
        )
    if not _can_log_in(path):
        yield Finding(
            "nobody can log in: no account has a password, and root has no authorized_keys",
            "an overlay can bring /root/.ssh/authorized_keys",
        )


def _find_identity(path: Path) -> Iterator[Finding]:
    """What would make two blades look like one; an install replaces it, a copy by hand would not."""
    if read_machine_id(resolve_inside(path, "etc/machine-id")) is not None:
        yield Finding("it has a machine-id of its own", "installs replace it; empty /etc/machine-id")
    keys = sorted(resolve_inside(path, "etc/ssh").glob("ssh_host_*_key"))
    if keys:
        yield Finding(f"it has SSH host keys ({keys[0].name}, …)", "installs replace them; remove them")


def _find_fixed_addresses(path: Path) -> Iterator[Finding]:
    places = (
        ("etc/network/interfaces", r"^\s*address\s"),
        ("etc/network/interfaces.d/*", r"^\s*address\s"),
        ("etc/netplan/*.yaml", r"^\s*addresses:"),
        ("etc/systemd/network/*.network", r"^\s*Address\s*="),
        ("etc/NetworkManager/system-connections/*", r"^\s*address1\s*="),
        ("etc/sysconfig/network-scripts/ifcfg-*", r"^\s*IPADDR"),
    )
    for pattern, address in places:
        for file in sorted(path.glob(pattern)):
            if file.is_symlink() or not file.is_file() or file.name == "ifcfg-lo":
                continue
            if re.search(address, file.read_text(errors="replace"), re.MULTILINE):
                yield Finding(
                    f"/{file.relative_to(path)} has a fixed address, which every blade would have",
                    "let overlays bring the blades' addresses",
                )


def _can_log_in(path: Path) -> bool:
    with_password = re.compile(r"^[^:]+:(\$|[./0-9A-Za-z]{13})", re.MULTILINE)
    shadow = resolve_inside(path, "etc/shadow")
    if shadow.is_file() and with_password.search(shadow.read_text(errors="replace")):
        return True
    keys = resolve_inside(path, "root/.ssh/authorized_keys")
    return keys.is_file() and keys.stat().st_size > 0


def _read_arch(path: Path) -> str:
    for name in ("sh", "bash", "ls", "python3"):
        program = find_program(path, name)
        facts = read_elf(program) if program else None
        if facts:
            return facts.machine
    return "unknown"
