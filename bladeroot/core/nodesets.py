"""Sets of blades, as ClusterShell writes them: `web[01-40]`, `db1,db2`, `@web` (a role), `@all`, `a!b`.

Besides, `!` may stand inside of brackets: `web[01-40,!07]`. Groups come from the inventory alone; what
/etc/clustershell says about groups is never looked at. The one door to ClusterShell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ClusterShell.NodeSet import NodeSet, NodeSetException
from ClusterShell.NodeUtils import GroupResolver, GroupResolverError, GroupSource

from bladeroot.core.cluster import Blade, Cluster
from bladeroot.errors import InventoryError

_LIMIT = 100_000
"""Blades in one set; a slip of the finger in a range must not eat the memory."""
_HINT = "a set is written web[01-40], web[01-40,!07], db1,db2, @ROLE or @all"
_EXCLUDING = re.compile(
    r"(?P<before>[^\s,!&^\[\]]*)\[(?P<ranges>[^\[\]]*![^\[\]]*)\](?P<after>[^\s,!&^\[\]]*)"
)


class _Roles(GroupSource):  # type: ignore[misc]
    def __init__(self, groups: Mapping[str, str]) -> None:
        super().__init__("roles", groups=dict(groups), allgroups=groups["all"])

    def resolv_map(self, group: str) -> str:
        try:
            return str(self.groups[group])
        except KeyError:
            hint = f"there is: {', '.join('@' + name for name in self.groups)}"
            raise InventoryError(f"no role {group!r} for the set @{group}", hint) from None


def find_blades(text: str, cluster: Cluster) -> list[Blade]:
    """The blades of a set, in its natural order (web2 before web10).

    Raises InventoryError for what is not a set, for an unknown name, and for an empty set.
    """
    names = expand_names(text, cluster)
    unknown = [name for name in names if name not in cluster.blades]
    if unknown:
        raise InventoryError(
            f"no blade {fold_names(unknown)} in cluster {cluster.name}", "see `bladeroot blades list`"
        )
    if not names:
        raise InventoryError(f"{text!r} is no blade at all", _HINT)
    return [cluster.blades[name] for name in names]


def expand_names(text: str, cluster: Cluster | None = None) -> list[str]:
    """The names that a set says, known or not. Raises InventoryError for what is not a set."""
    if any(int(end or 0) - int(start) > _LIMIT for start, end in re.findall(r"(\d+)-(\d+)", text)):
        raise InventoryError(f"{text!r} is more than {_LIMIT} blades", _HINT)
    try:
        nodes = NodeSet(_resolve_exclusions(text.strip()), resolver=_make_resolver(cluster))
        return [str(name) for name in nodes]
    except (NodeSetException, GroupResolverError) as error:
        raise InventoryError(f"not a set of blades: {text!r}: {error}", _HINT) from None


def fold_names(names: Iterable[str]) -> str:
    """Names as the shortest set: `web[01-03],db1`."""
    return str(NodeSet.fromlist(list(names), resolver=_make_resolver(None)))


def sort_names(names: Iterable[str]) -> list[str]:
    """Names in the order in which people count: web2 before web10."""
    return [str(name) for name in NodeSet.fromlist(list(names), resolver=_make_resolver(None))]


def _resolve_exclusions(text: str) -> str:
    """`web[1-3,!2]` -> `web[1,3]`: ClusterShell knows `!` between sets, but not inside of brackets."""

    def resolve(match: re.Match[str]) -> str:
        before, after = match["before"], match["after"]
        parts = [part.strip() for part in match["ranges"].split(",")]
        kept = ",".join(part for part in parts if not part.startswith("!"))
        dropped = ",".join(part[1:] for part in parts if part.startswith("!"))
        nodes = NodeSet(f"{before}[{kept}]{after}", resolver=_make_resolver(None))
        nodes.difference_update(NodeSet(f"{before}[{dropped}]{after}", resolver=_make_resolver(None)))
        return str(nodes)

    return _EXCLUDING.sub(resolve, text)


def _make_resolver(cluster: Cluster | None) -> GroupResolver:
    blades = list(cluster.blades.values()) if cluster else []
    groups = dict.fromkeys(cluster.roles, "") if cluster else {}
    for role in groups:
        groups[role] = ",".join(blade.name for blade in blades if blade.role == role)
    groups["all"] = ",".join(blade.name for blade in blades)
    return GroupResolver(_Roles(groups))
