"""A real Debian made from nothing with mmdebstrap, and kept in a cache for tests and the demo."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bladeroot.errors import SnapshotError, ToolError, UsageError
from bladeroot.events import Note, Progress, Reporter, ignore
from bladeroot.host.cache import default_cache_directory
from bladeroot.host.files import scratch_folder
from bladeroot.host.kernels import find_kernel_images
from bladeroot.host.run import PIPE, STDOUT, require_root, require_tools, run, start_process
from bladeroot.ops.snapshots.selfcopy import copy_self
from bladeroot.ops.snapshots.tree import parse_os_release
from bladeroot.ops.steps import step

DEFAULT_SUITE = "bookworm"
DEFAULT_KERNEL = "linux-image-amd64"
DEBIAN_PACKAGES = (
    # what boots
    *("systemd", "systemd-sysv", "systemd-timesyncd", "libpam-systemd", "dbus", "udev", "kmod"),
    *("initramfs-tools", "busybox", "zstd"),
    *("grub-pc-bin", "grub-efi-amd64-bin", "grub-common", "efibootmgr"),
    # what bladeroot needs to install other blades, and to be root
    *("python3", "dnsmasq-base", "fdisk", "e2fsprogs", "dosfstools", "mtools", "iproute2", "rsync"),
    # what a person needs
    *("openssh-server", "openssh-client", "ca-certificates", "netbase", "iputils-ping", "procps"),
    *("less", "nano"),
)

_STEP = "debian"
_RECIPE = 3
"""Counts what `_finish` and mmdebstrap's options do, so that an older cached snapshot is not taken for it."""

_DHCP_NETWORK = """\
# Any wired card, until an overlay brings a file that sorts before this one.
[Match]
Type=ether
Name=en* eth*

[Network]
DHCP=yes
MulticastDNS=no
"""
_ANY_LINK_SOON = """\
# A blade also boots where no network is: services that want one do not hold it up for two minutes.
[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=15
"""
_WRITTEN = {
    "etc/systemd/network/90-dhcp.network": _DHCP_NETWORK,
    "etc/systemd/system/systemd-networkd-wait-online.service.d/10-any.conf": _ANY_LINK_SOON,
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/machine-id": "",
}
_UNITS = {
    "enable": ("systemd-networkd.service",),
    # A blade changes by being reimaged: packages that upgrade by themselves would make it another one.
    "disable": ("apt-daily.timer", "apt-daily-upgrade.timer"),
}
_REMOVED = (
    "etc/hostname",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "initrd.img.old",
    "vmlinuz.old",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/lists/*_*",
    "var/log/*.log",
    "var/log/apt/*",
    "run/*",
    "tmp/*",
)
_AUTOMATIC = re.compile(r"^(\d+) upgraded, (\d+) newly installed")
_MIRROR_LINE = re.compile(r"deb(?:\s+\[[^\]]*\])?\s+(\S+)\s+(\S+)\s+(.+)")


def build_debian(
    path: Path,
    *,
    suite: str = DEFAULT_SUITE,
    mirror: str | None = None,
    include: Iterable[str] = (),
    kernel: str = DEFAULT_KERNEL,
    root_password: str | None = None,
    with_self: bool = True,
    reporter: Reporter = ignore,
) -> Path:
    """Make `path` a bootable Debian with bladeroot in it (unless `with_self` is off); returns `path`.

    It is made in a directory beside `path` and renamed when complete: a failure leaves nothing. `mirror`
    is one that mmdebstrap takes; without it this machine's apt sources for the suite are used. root has no
    password unless one is given.

    Raises SnapshotError where `path` is not free, ToolError with what mmdebstrap said last.
    """
    require_root("making a Debian snapshot")
    require_tools(["mmdebstrap", "unshare", "chroot"])
    _require_free(path)
    packages = _check_packages([kernel, *DEBIAN_PACKAGES, *include])
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", suite):
        raise UsageError(f"not the name of a suite: {suite!r}", "for example: bookworm")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _removed_on_failure(path.with_name(f".{path.name}.{os.getpid()}.new")) as new:
        with step(_STEP, f"Debian {suite} from its packages", reporter):
            _bootstrap(new, suite, mirror, packages, reporter)
        with step("finish", "initrd, services, nothing of this machine left behind", reporter):
            _finish(new, root_password)
        if with_self:
            with step("self", "bladeroot itself", reporter):
                copy_self(new)
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()
        new.rename(path)
    return path


def ensure_cached_debian(
    cache_dir: Path | None = None, *, include: Iterable[str] = (), reporter: Reporter = ignore
) -> Path:
    """A Debian snapshot *without* bladeroot from the cache, made now if it is not there; do not change it.

    Processes that want the same one at the same time wait for the first. `clone_snapshot` copies it.
    """
    extra = sorted(set(include))
    recipe = repr((_RECIPE, DEFAULT_SUITE, DEFAULT_KERNEL, DEBIAN_PACKAGES, extra, sorted(_WRITTEN.items())))
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    directory = (cache_dir or default_cache_directory()) / "snapshots"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{DEFAULT_SUITE}-{key}"
    with (directory / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_dir():
            reporter(Note(text=f"snapshot from the cache: {path}"))
        else:
            build_debian(path, include=extra, with_self=False, reporter=reporter)
    return path


def clone_snapshot(source: Path, path: Path) -> Path:
    """A copy of a snapshot to change, with everything a file has; by reference where the filesystem can."""
    require_root("copying a snapshot")
    _require_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _removed_on_failure(path.with_name(f".{path.name}.{os.getpid()}.new")) as new:
        run(["cp", "--archive", "--reflink=auto", "--sparse=auto", source, new])
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()
        new.rename(path)
    return path


def plan_mirrors(suite: str, sources: Sequence[str]) -> list[str]:
    """Of the one-line sources of a Debian machine those that are for this suite, as mmdebstrap takes them.

    Only main, and without options: mmdebstrap finds the keyring. Empty where nothing fits: then it uses its
    own default.
    """
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    lines = []
    for source in sources:
        match = _MIRROR_LINE.fullmatch(source.strip())
        if match and match[2] in wanted and "main" in match[3].split():
            lines.append(f"deb {match[1]} {match[2]} main")
    return list(dict.fromkeys(lines)) if any(f" {suite} " in line for line in lines) else []


def parse_deb822_sources(text: str) -> list[str]:
    """A .sources file as one-line sources (sources.list(5)); options are dropped."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(x for x in text.splitlines() if not x.startswith("#"))):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        lines += [
            f"deb {uri} {suite} {fields.get('components', '')}".strip()
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return lines


def read_host_sources() -> list[str]:
    """The apt sources of this machine, one a line; empty where it is not a Debian."""
    try:
        if parse_os_release(Path("/etc/os-release").read_text(encoding="utf-8")).id != "debian":
            return []
    except OSError:
        return []
    lines: list[str] = []
    folder = Path("/etc/apt/sources.list.d")
    for file in [
        Path("/etc/apt/sources.list"),
        *sorted(folder.glob("*.list")),
        *sorted(folder.glob("*.sources")),
    ]:
        with contextlib.suppress(OSError):
            text = file.read_text(encoding="utf-8", errors="replace")
            lines += parse_deb822_sources(text) if file.suffix == ".sources" else text.splitlines()
    return lines


def _bootstrap(
    new: Path, suite: str, mirror: str | None, packages: Sequence[str], reporter: Reporter
) -> None:
    mirrors = [mirror] if mirror else plan_mirrors(suite, read_host_sources())
    with scratch_folder("bladeroot-apt-") as private:
        argv = [
            # Its mounts of /proc, /sys and /dev must not outlive it, whatever ends it.
            *("unshare", "--mount", "--propagation", "private", "--"),
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--verbose"),
            f"--include={','.join(packages)}",
            f"--aptopt={_write_apt_options(private)}",
            *(suite, str(new), *mirrors),
        ]
        # The initrd is made once, at the end, and not by every package that would like one.
        with start_process(
            argv, stdout=PIPE, stderr=STDOUT, environment={"INITRD": "No"}, new_group=True
        ) as child:
            assert child.stdout is not None  # noqa: S101  # for mypy: PIPE was asked for
            complaints = _follow((line.decode(errors="replace") for line in child.stdout), reporter)
            code = child.wait()
    if code != 0:
        said = " | ".join(complaints[-2:]) or f"exit code {code}"
        hint = "a mirror that answers can be named with --mirror; package names with --include"
        raise ToolError(f"mmdebstrap {suite}: {said}", hint)


def _write_apt_options(folder: Path) -> Path:
    """How this machine's apt reaches the network, in a private file: proxies may carry passwords."""
    dump = run(["apt-config", "dump"], check=False).stdout if shutil.which("apt-config") else ""
    wanted = re.compile(r'Acquire::(https?|ftp)::(\S*proxy\S*|timeout)\s+".+";', re.I)
    path = folder / "apt.conf"
    path.touch(mode=0o600)
    path.write_text(
        "".join(f"{line}\n" for line in dump.splitlines() if wanted.match(line)), encoding="utf-8"
    )
    return path


def _follow(lines: Iterable[str], reporter: Reporter) -> list[str]:
    """Report mmdebstrap's output at a coarse level; returns its complaints."""
    complaints: list[str] = []
    total = done = 0
    for raw in lines:
        line = raw.strip()
        counted = _AUTOMATIC.match(line)
        if counted:
            total += int(counted[2])
        elif line.startswith("Setting up "):
            done += 1
            reporter(Progress(step=_STEP, done=min(done, total), total=total, unit="packages"))
        elif line.startswith(("E: ", "dpkg: error")):
            complaints.append(line.removeprefix("E: "))
        elif line.startswith("I: ") and line.endswith("..."):
            reporter(Note(text=line.removeprefix("I: ")))
    return complaints


def _finish(root: Path, root_password: str | None) -> None:
    for name, text in _WRITTEN.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
    for verb, units in _UNITS.items():
        run(["systemctl", f"--root={root}", "--quiet", verb, *units])
    if root_password is not None:
        run(["chroot", root, "chpasswd"], stdin=f"root:{root_password}\n")
    # MODULES=most, Debian's default: this initrd is for all hardware, not for the machine that makes it.
    for version, _kernel in find_kernel_images(root):
        run(["chroot", root, "update-initramfs", "-c", "-k", version])
    for pattern in _REMOVED:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _check_packages(names: Sequence[str]) -> list[str]:
    for name in names:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise UsageError(f"not the name of a Debian package: {name!r}", "--include nginx-light,memcached")
    return list(dict.fromkeys(names))


def _require_free(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise SnapshotError(f"{path} is there already and is not a directory")
    if path.is_dir() and any(path.iterdir()):
        raise SnapshotError(f"{path} is not empty", "name a directory that does not exist yet")


@contextlib.contextmanager
def _removed_on_failure(new: Path) -> Iterator[Path]:
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
