"""Services that layers switch -> the links and deletions that do it, laid over the tree. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from bladeroot.core.overlaysettings import ServiceSwitch, SwitchAction
from bladeroot.core.overlaytree import EntryKind, OverlayEntry, OverlayTree
from bladeroot.core.systemdunits import (
    CONFIG_DIRECTORY,
    SEARCH_PATH,
    WANTS_SUFFIXES,
    InstallSection,
    Unit,
    is_link_of,
    parse_install,
    plan_disable,
    plan_enable,
    template_of,
)
from bladeroot.errors import OverlayError

_MASK_TARGET = "/dev/null"


@frozen
class SwitchResult:
    """The switch of a unit that won, whose it is, and the layers that wanted something else or the same."""

    unit: str
    action: SwitchAction
    layer: str
    overrides: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    """The links made or deleted for it; none where the snapshot has it so already."""


@frozen
class _Chosen:
    switch: ServiceSwitch
    unit: Unit | None
    level: int
    overrides: tuple[str, ...] = ()


def apply_switches(
    tree: OverlayTree, layers: Sequence[tuple[str, Sequence[ServiceSwitch]]], *, has_units: bool
) -> tuple[tuple[SwitchResult, ...], tuple[str, ...]]:
    """Do what the layers (name, switches) want, the last layer's word for each unit; and notes for people.

    What a later layer than the switch's, or the same, itself says about a link in files or deletions
    stays. Without units to look at (`has_units` False) nothing is laid over the tree. Raises OverlayError.
    """
    return _Switching(tree, [name for name, _switches in layers], has_units).run(
        [switches for _name, switches in layers]
    )


class _Switching:
    def __init__(self, tree: OverlayTree, names: Sequence[str], has_units: bool) -> None:
        self._tree = tree
        self._names = names
        self._has_units = has_units
        self._said = {
            path: list(names).index(entry.layer)
            for path, entry in (*tree.deletions.items(), *tree.entries.items())
        }

    def run(
        self, layers: Sequence[Sequence[ServiceSwitch]]
    ) -> tuple[tuple[SwitchResult, ...], tuple[str, ...]]:
        chosen, notes = self._choose(layers)
        switched = frozenset(chosen)
        changes: dict[str, list[str]] = {name: [] for name in chosen}
        if self._has_units:
            for action in (SwitchAction.DISABLE, SwitchAction.MASK, SwitchAction.ENABLE):
                for name, one in chosen.items():
                    if one.switch.action is action:
                        changes[name] = self._apply(name, one, switched - {name})
        results = (
            SwitchResult(name, one.switch.action, self._names[one.level], one.overrides, tuple(changes[name]))
            for name, one in sorted(chosen.items())
        )
        return tuple(results), tuple(notes)

    def _choose(self, layers: Sequence[Sequence[ServiceSwitch]]) -> tuple[dict[str, _Chosen], list[str]]:
        chosen: dict[str, _Chosen] = {}
        notes = []
        for level, switches in enumerate(layers):
            for switch in switches:
                unit = self._find(switch.unit) if self._has_units else None
                if unit is None and self._has_units:
                    if not switch.optional:
                        raise self._unknown(switch, level)
                    notes.append(f"{switch.where}: {switch.unit} is not in the snapshot; passed over")
                    continue
                name = unit.name if unit else switch.unit
                earlier = chosen.get(name)
                overrides = (*earlier.overrides, self._names[earlier.level]) if earlier else ()
                chosen[name] = _Chosen(switch, unit, level, overrides)
        return chosen, notes

    def _unknown(self, switch: ServiceSwitch, level: int) -> OverlayError:
        looked = ", ".join(f"/{directory}" for directory in SEARCH_PATH)
        hint = f'install it in the snapshot, or write "-{switch.unit}" to pass it over where it is missing'
        return OverlayError(
            f"{switch.where}: layer {self._names[level]}: there is no unit {switch.unit}; looked in {looked}",
            hint,
        )

    def _apply(self, name: str, one: _Chosen, others: frozenset[str]) -> list[str]:
        try:
            if one.switch.action is SwitchAction.DISABLE:
                return self._disable(name, one, others)
            if one.switch.action is SwitchAction.MASK:
                return self._link(f"{CONFIG_DIRECTORY}/{name}", _MASK_TARGET, one)
            changes = self._unmask(name, one)
            for link in plan_enable(name, self._find, others):
                changes += self._link(link.path, link.target, one)
            return changes
        except OverlayError as error:
            where = f"{one.switch.where}: layer {self._names[one.level]}"
            raise OverlayError(f"{where}: {error}", error.hint) from None

    def _disable(self, name: str, one: _Chosen, others: frozenset[str]) -> list[str]:
        units = plan_disable(name, self._find, others)
        changes = self._unmask(name, one)
        for path, target in list(self._links()):
            if is_link_of(path, target, units) and self._said.get(path, -1) < one.level:
                self._tree.delete(path, self._names[one.level], one.switch.where)
                changes.append(path)
        return changes

    def _unmask(self, name: str, one: _Chosen) -> list[str]:
        path = f"{CONFIG_DIRECTORY}/{name}"
        if self._tree.link_target(path) != _MASK_TARGET or self._said.get(path, -1) >= one.level:
            return []
        self._tree.delete(path, self._names[one.level], one.switch.where)
        return [path]

    def _link(self, path: str, target: str, one: _Chosen) -> list[str]:
        place = self._tree.resolve(path)
        there = self._tree.link_target(place)
        leads = None if there is None else self._tree.resolve(path, follow_last=True)
        if leads == self._tree.resolve(target.lstrip("/"), follow_last=True):
            return []
        if self._said.get(place, -1) >= one.level:
            return []
        entry = OverlayEntry(
            path=path,
            kind=EntryKind.SYMLINK,
            layer=self._names[one.level],
            source=one.switch.where,
            target=target,
            mode=0o777,
        )
        self._tree.put(entry)
        return [place]

    def _links(self) -> Iterator[tuple[str, str]]:
        """Every symbolic link in etc/systemd/system and its .wants, .requires and .upholds directories."""
        for name in self._tree.names(CONFIG_DIRECTORY):
            path = f"{CONFIG_DIRECTORY}/{name}"
            target = self._tree.link_target(path)
            if target is not None:
                yield path, target
            elif name.endswith(WANTS_SUFFIXES):
                for inner in self._tree.names(path):
                    inner_target = self._tree.link_target(f"{path}/{inner}")
                    if inner_target is not None:
                        yield f"{path}/{inner}", inner_target

    def _find(self, name: str, *, depth: int = 0) -> Unit | None:
        """The unit file of that name, or of the template that it is an instance of; aliases followed."""
        for wanted in filter(None, (name, template_of(name))):
            masked_at = ""
            for directory in SEARCH_PATH:
                path = self._tree.resolve(f"{directory}/{wanted}")
                if self._tree.node(path) is None:
                    continue
                text = self._tree.read(path)
                real = self._tree.resolve(path, follow_last=True)
                if self._tree.link_target(path) == _MASK_TARGET or text == b"":
                    masked_at = masked_at or path
                    continue
                if text is None:
                    continue
                real_name = real.rpartition("/")[2]
                if real_name not in (wanted, template_of(wanted)) and depth < 8:
                    alias = self._find(real_name, depth=depth + 1)
                    if alias is not None:
                        return alias
                install = parse_install(text.decode("utf-8", "replace"))
                return Unit(name, real, install)
            if masked_at:
                return Unit(name, masked_at, InstallSection(), masked_at)
        return None
