"""bladeroot: a peer-to-peer, self-replicating blade cluster.

Whatever the command does, this package does: typed, documented, and usable without the command line.

```python
import bladeroot

folder = bladeroot.ClusterFolder.open(Path("/etc/bladeroot"))
depot = bladeroot.Depot.create(Path("/var/lib/bladeroot"))
plan = bladeroot.plan_publish(folder, Path("/srv/snapshot"))
published = bladeroot.publish_snapshot(plan, depot, folder.secret_key(getpass))
```

Names are loaded when they are first used, so that a program pays only for the parts that it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bladeroot.core.cluster import Blade as Blade
    from bladeroot.core.cluster import Cluster as Cluster
    from bladeroot.core.manifest import Manifest as Manifest
    from bladeroot.core.manifest import SignedManifest as SignedManifest
    from bladeroot.core.orders import Order as Order
    from bladeroot.core.roomstate import RoomState as RoomState
    from bladeroot.errors import BladerootError as BladerootError
    from bladeroot.events import Event as Event
    from bladeroot.events import Reporter as Reporter
    from bladeroot.host.blockdev import open_disk as open_disk
    from bladeroot.host.depot import Depot as Depot
    from bladeroot.net.client import RootClient as RootClient
    from bladeroot.net.discovery import find_claims as find_claims
    from bladeroot.ops.folder import ClusterFolder as ClusterFolder
    from bladeroot.ops.folder import init_cluster as init_cluster
    from bladeroot.ops.follow import follow_root as follow_root
    from bladeroot.ops.install import InstallPlan as InstallPlan
    from bladeroot.ops.install import apply_install as apply_install
    from bladeroot.ops.install import choose_install_disk as choose_install_disk
    from bladeroot.ops.install import plan_install as plan_install
    from bladeroot.ops.orders import ReimagePlan as ReimagePlan
    from bladeroot.ops.orders import give_order as give_order
    from bladeroot.ops.orders import plan_reimage as plan_reimage
    from bladeroot.ops.orders import read_order_states as read_order_states
    from bladeroot.ops.promote import RootRole as RootRole
    from bladeroot.ops.promote import take_root_role as take_root_role
    from bladeroot.ops.publish import Published as Published
    from bladeroot.ops.publish import PublishPlan as PublishPlan
    from bladeroot.ops.publish import plan_publish as plan_publish
    from bladeroot.ops.publish import publish_snapshot as publish_snapshot
    from bladeroot.ops.snapshots.capture import capture_snapshot as capture_snapshot
    from bladeroot.ops.snapshots.debian import build_debian as build_debian
    from bladeroot.ops.sources import DepotSource as DepotSource
    from bladeroot.ops.status import find_room as find_room
    from bladeroot.ops.status import read_status as read_status

__version__ = "0.1.0"

_HOMES = {
    "Blade": "core.cluster",
    "BladerootError": "errors",
    "Cluster": "core.cluster",
    "ClusterFolder": "ops.folder",
    "Depot": "host.depot",
    "DepotSource": "ops.sources",
    "Event": "events",
    "InstallPlan": "ops.install",
    "Manifest": "core.manifest",
    "Order": "core.orders",
    "PublishPlan": "ops.publish",
    "Published": "ops.publish",
    "ReimagePlan": "ops.orders",
    "Reporter": "events",
    "RoomState": "core.roomstate",
    "RootClient": "net.client",
    "RootRole": "ops.promote",
    "SignedManifest": "core.manifest",
    "apply_install": "ops.install",
    "build_debian": "ops.snapshots.debian",
    "capture_snapshot": "ops.snapshots.capture",
    "choose_install_disk": "ops.install",
    "find_claims": "net.discovery",
    "find_room": "ops.status",
    "follow_root": "ops.follow",
    "give_order": "ops.orders",
    "init_cluster": "ops.folder",
    "open_disk": "host.blockdev",
    "plan_install": "ops.install",
    "plan_publish": "ops.publish",
    "plan_reimage": "ops.orders",
    "publish_snapshot": "ops.publish",
    "read_order_states": "ops.orders",
    "read_status": "ops.status",
    "take_root_role": "ops.promote",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
