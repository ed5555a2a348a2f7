"""A network segment for virtual machines: a bridge with a tap for each, in a namespace without a name.

A process holds the namespace. When that ends, and it does so with whoever started it however that ends, the
kernel takes bridge and taps away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

from attrs import frozen

from bladeroot.errors import ToolError
from bladeroot.host.run import PIPE, Argument, require_root, require_tools, run, start_process

BRIDGE = "br0"
_IPV6_ADDRESS = "fd77::1/64"
"""A root advertises routes of networks that it is in; iPXE that hears of none waits for 13 s."""
_READY = b"ready\n"
# A sysfs of its own: what is below /sys/class/net is of the namespace that it was mounted in.
_HOLD = "mount -t sysfs sysfs /sys && echo ready && exec sleep infinity"


@frozen
class Segment:
    """The segment, and how a program is started in it. Make it with `start_segment`."""

    holder: int
    """The process whose namespaces (network and mount) it is."""
    address: IPv4Interface
    """What programs in it have, on the bridge itself."""

    def command(self, argv: Sequence[Argument], folder: Path | None = None) -> list[Argument]:
        """What runs `argv` in the segment, in `folder`; see `enter_segment`."""
        return enter_segment(self.holder, argv, folder)

    def add_tap(self, name: str) -> str:
        """A socket of the switch, for a virtual machine; returns its name."""
        self._ip(f"tuntap add dev {name} mode tap", f"link set {name} master {BRIDGE} up")
        return name

    def set_link(self, name: str, *, up: bool) -> None:
        """Pull the cable of a tap, or put it back."""
        self._ip(f"link set {name} {'up' if up else 'down'}")

    def _ip(self, *commands: str) -> None:
        run(self.command(["ip", "-batch", "-"]), stdin="\n".join(commands) + "\n")


@contextmanager
def start_segment(address: str = "10.77.0.1/24") -> Iterator[Segment]:
    """A segment until the block ends. Raises PrivilegeError, MissingToolError."""
    require_root("a network for virtual machines")
    require_tools(["ip", "nsenter", "setpriv", "unshare"])
    holding = ["unshare", "--net", "--mount", "--", "sh", "-c", _HOLD]
    with start_process(holding, stdout=PIPE, cwd=Path("/"), ends_with_parent=True) as holder:
        assert holder.stdout is not None  # noqa: S101 - it was started with a pipe
        if holder.stdout.readline() != _READY:
            raise ToolError("cannot make a network namespace", "in a container even the superuser may not")
        segment = Segment(holder.pid, IPv4Interface(address))
        # Snooping without a querier would keep mDNS and local service discovery from most ports.
        segment._ip(
            "link set lo up",
            f"link add {BRIDGE} type bridge mcast_snooping 0 forward_delay 0",
            f"address add {address} dev {BRIDGE}",
            f"address add {_IPV6_ADDRESS} dev {BRIDGE} nodad",
            f"link set {BRIDGE} up",
            f"route add 224.0.0.0/4 dev {BRIDGE}",
        )
        yield segment


def enter_segment(holder: int, argv: Sequence[Argument], folder: Path | None = None) -> list[Argument]:
    """What runs `argv` in the segment that this process holds, in `folder` or the current directory.

    It becomes the program itself, no process in between.
    """
    there = folder or Path.cwd()
    return ["nsenter", "--target", str(holder), "--net", "--mount", f"--wdns={there}", "--", *argv]
