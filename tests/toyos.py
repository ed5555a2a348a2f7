"""
An operating system of 11 MB for tests that are not about Debian: Debian's cloud kernel and busybox.

It boots to a line on the console that says who it is, and switches itself off.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bladeroot.host.run import run
from bladeroot.lab.qemuplan import NO_TIMER_CHECK

TOY_BOOT_MARKER = "TOYOS-BOOTED"
"""Begins the line `TOYOS-BOOTED hostname=… says=… machine-id=…` on the console.

Where bladeroot installed it, a line `bladeroot-booted {json}` follows, as the shipped overlay writes it.
"""
TOY_SAYS_FILE = "etc/toyos-says"
"""Its first line is printed behind the marker: for a test to see which files a slot got."""
TOY_KERNEL_COMMAND_LINE = f"console=ttyS0,115200 quiet panic=-1 {NO_TIMER_CHECK}"

_KERNEL_PACKAGE = "linux-image-cloud-amd64"
_BUSYBOX = Path("/usr/bin/busybox")
_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
_AGENT_MODULES = (
    "virtio_net",
    "virtio_rng",
    "virtio_scsi",
    "sd_mod",
    "nvme",
    "xfs",
    "btrfs",
    "efivarfs",
    "nls_ascii",
)
"""Installing needs these beside; a toy OS is installed by the agent of its own kernel."""
_APPLETS = (
    "sh",
    "mount",
    "umount",
    "cat",
    "echo",
    "hostname",
    "head",
    "ls",
    "poweroff",
    "reboot",
    "sed",
    "sleep",
    "sync",
)

_INITRAMFS_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs none /dev; $b mount -t proc none /proc; $b mount -t sysfs none /sys
while read -r module; do $b insmod "/modules/$module"; done </modules/order
for word in $($b cat /proc/cmdline); do case $word in root=*) root=${word#root=};; esac; done
tries=0
until device=$($b findfs "$root" 2>/dev/null) || [ $tries = 100 ]; do
  tries=$((tries + 1)); $b usleep 100000
done
$b mount -o ro "$device" /root || { echo "toyos: no root filesystem $root"; $b poweroff -f; }
$b mount --move /dev /root/dev
exec $b switch_root /root /sbin/init
"""

_INIT = f"""#!/bin/sh
mount -t proc none /proc
hostname "$(cat /etc/hostname)"
first() {{ [ -r "$1" ] && head -n 1 "$1" || echo none; }}
id=$(first /etc/machine-id)
echo "{TOY_BOOT_MARKER} hostname=$(hostname) says=$(first /{TOY_SAYS_FILE}) machine-id=$id"
installed=/etc/bladeroot/installed.json
fact() {{ sed -n "s/^ *\\"$1\\": *\\(\\"[^\\"]*\\"\\|[0-9]*\\).*/\\1/p" $installed; }}
if [ -r $installed ]; then
  facts="\\"blade\\": $(fact blade), \\"role\\": $(fact role), \\"serial\\": $(fact serial)"
  echo "bladeroot-booted {{\\"hostname\\": \\"$(hostname)\\", $facts}}"
fi
sync
poweroff -f
"""


def build_toy_os(target: Path, *, links: bool = False) -> None:
    """
    Write the tree. `links` adds /vmlinuz and /initrd.img as Debian's kernel packages do.

    The kernel comes from Debian's archive, once, into a cache.
    """
    kernel = find_toy_kernel()
    version = kernel.name.removeprefix("vmlinuz-")
    for name in (
        "bin",
        "boot",
        "dev",
        "etc",
        "proc",
        "root",
        "run",
        "sbin",
        "sys",
        "tmp",
        "usr/bin",
        "var/lib",
    ):
        (target / name).mkdir(parents=True, exist_ok=True)
    (target / "tmp").chmod(0o1777)
    (target / "root").chmod(0o700)
    shutil.copy2(kernel, target / "boot" / kernel.name)
    shutil.copy2(kernel.with_name(f"initrd.img-{version}"), target / "boot" / f"initrd.img-{version}")
    shutil.copyfile(_BUSYBOX, target / "bin/busybox")
    (target / "bin/busybox").chmod(0o755)
    shutil.copytree(kernel.with_name(f"modules-{version}"), target / "lib/modules" / version)
    for applet in _APPLETS:
        (target / "bin" / applet).symlink_to("busybox")
    if links:
        (target / "vmlinuz").symlink_to(f"boot/{kernel.name}")
        (target / "initrd.img").symlink_to(f"boot/initrd.img-{version}")
    for name, text, mode in (
        ("sbin/init", _INIT, 0o755),
        ("etc/hostname", "toyos\n", 0o644),
        ("etc/os-release", 'ID=toyos\nNAME="Toy OS"\nVERSION_ID=1\nPRETTY_NAME="Toy OS 1"\n', 0o644),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644),
        ("etc/group", "root:x:0:\n", 0o644),
        (TOY_SAYS_FILE, "nothing\n", 0o644),
    ):
        (target / name).write_text(text)
        (target / name).chmod(mode)


def put_daemon_into(tree: Path) -> None:
    """What says that bladeroot's daemon will run there, as `snapshot adopt` leaves it; nothing starts it."""
    unit, wants = "usr/lib/systemd/system", "etc/systemd/system/multi-user.target.wants"
    for directory in (unit, wants, "usr/bin"):
        (tree / directory).mkdir(parents=True, exist_ok=True)
    (tree / unit / "bladeroot.service").write_text("[Service]\nExecStart=/usr/bin/bladeroot daemon\n")
    (tree / wants / "bladeroot.service").symlink_to(f"/{unit}/bladeroot.service")
    (tree / "usr/bin/bladeroot").write_text("#!/bin/sh\n")
    (tree / "usr/bin/bladeroot").chmod(0o755)


def find_toy_kernel() -> Path:
    """The cached kernel, its initramfs beside it; fetched and made where there is none yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bladeroot" / "toyos"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        kernels = sorted(cache.glob("vmlinuz-*"))
        return kernels[-1] if kernels and [*cache.glob("modules-*")] else _fetch_kernel(cache)


def _fetch_kernel(cache: Path) -> Path:
    depends = run(["apt-cache", "depends", _KERNEL_PACKAGE]).stdout
    package = next(word for word in depends.split() if word.startswith("linux-image-"))
    if package == _KERNEL_PACKAGE:
        package = [word for word in depends.split() if word.startswith("linux-image-")][1]
    version = package.removeprefix("linux-image-")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
        folder = Path(name)
        run(["apt-get", "download", "-o", "APT::Sandbox::User=root", package], cwd=folder, timeout_s=300)
        run(["dpkg-deb", "--extract", next(folder.glob("*.deb")), folder / "tree"])
        modules = folder / "tree/lib/modules" / version
        image = render_initramfs(find_modules(modules, _MODULES))
        (cache / f"initrd.img-{version}").write_bytes(image)
        _keep_modules(modules, cache / f"modules-{version}")
        # The kernel last: it is what says that the cache is whole.
        return (folder / "tree/boot" / f"vmlinuz-{version}").rename(cache / f"vmlinuz-{version}")


def _keep_modules(source: Path, target: Path) -> None:
    """What the agent needs in QEMU, not the forty megabytes of them all."""
    shutil.rmtree(target, ignore_errors=True)
    chosen = find_modules(source, (*_MODULES, *_AGENT_MODULES))
    for path in (*chosen, *source.glob("modules.*")):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def find_modules(folder: Path, names: Sequence[str]) -> list[Path]:
    """
    The modules and what they depend on, in the order to load them; those that are built in are left out.

    A kernel package that was only unpacked has no modules.dep, so the modules' own `depends=` is read.
    """
    found = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    built_in = {
        Path(line).stem.replace("-", "_") for line in (folder / "modules.builtin").read_text().split()
    }
    ordered: list[Path] = []

    def add(name: str) -> None:
        if name in built_in or found.get(name) in ordered:
            return
        path = found[name]  # KeyError: this kernel does not know the module at all
        match = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for needed in match.group(1).decode().split(",") if match and match.group(1) else ():
            add(needed.replace("-", "_"))
        ordered.append(path)

    for name in names:
        add(name)
    return ordered


def render_initramfs(modules: list[Path]) -> bytes:
    """A gzipped cpio archive (format newc) that loads modules in order and goes on in `root=`."""
    entries: list[tuple[str, int, bytes]] = [
        *((name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "modules", "proc", "root", "sys")),
        ("bin/busybox", stat.S_IFREG | 0o755, _BUSYBOX.read_bytes()),
        ("init", stat.S_IFREG | 0o755, _INITRAMFS_INIT.encode()),
        ("modules/order", stat.S_IFREG | 0o644, "".join(f"{path.name}\n" for path in modules).encode()),
        *((f"modules/{path.name}", stat.S_IFREG | 0o644, path.read_bytes()) for path in modules),
    ]
    archive = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return gzip.compress(bytes(archive), compresslevel=1, mtime=0)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
