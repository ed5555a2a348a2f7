"""Layers -> one set of entries for a blade: which file wins, what is deleted, which services start.

Later layers win: over a file, a deletion, a mode, or a service switch of an earlier one. No I/O: layers
come read, and the snapshot as a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from bladeroot.core.overlayservices import SwitchResult, apply_switches
from bladeroot.core.overlaysettings import LayerSettings, ModeSetting
from bladeroot.core.overlaytree import EntryKind, NoSnapshot, OverlayEntry, OverlayTree, SnapshotView
from bladeroot.core.tarformat import MemberKind
from bladeroot.core.templates import TemplateFacts, render_template
from bladeroot.errors import OverlayError

TEMPLATE_SUFFIX = ".j2"
WHITEOUT_PREFIX = ".wh."
"""OCI image specification, "Whiteouts": an empty file `.wh.NAME` deletes NAME of the lower layers."""


@frozen
class LayerFile:
    """One file, link or directory of a layer; `path` is where it goes, without a leading slash."""

    path: str
    kind: EntryKind
    source: str
    """Its own path, for messages."""
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    is_template: bool = False


@frozen
class Layer:
    """One layer as it was read. `settings_source` is its overlay.toml's path, for messages."""

    name: str
    files: tuple[LayerFile, ...] = ()
    settings: LayerSettings = field(factory=LayerSettings)
    settings_source: str = ""


@frozen
class MergedOverlay:
    """What a blade gets: deletions first, then entries with parents before what is in them.

    `notes` are for a person to look at: settings that came to nothing.
    """

    entries: tuple[OverlayEntry, ...]
    switches: tuple[SwitchResult, ...]
    notes: tuple[str, ...]


def merge_layers(
    layers: Sequence[Layer], facts: TemplateFacts, snapshot: SnapshotView | None
) -> MergedOverlay:
    """Lay the layers over the snapshot, in their order.

    Without a snapshot (None) files and fixed deletions are as they would be where nothing exists, owners
    are names only, and services stay switches. Raises OverlayError with the layer's file.
    """
    merge = _Merge(layers, snapshot)
    for layer in layers:
        merge.add(layer, facts)
    return merge.finish()


class _Merge:
    def __init__(self, layers: Sequence[Layer], snapshot: SnapshotView | None) -> None:
        self._layers = layers
        self._has_snapshot = snapshot is not None
        self._tree = OverlayTree(snapshot or NoSnapshot())
        self._modes: dict[str, tuple[str, ModeSetting]] = {}
        self._notes: list[str] = []

    def add(self, layer: Layer, facts: TemplateFacts) -> None:
        for pattern in layer.settings.delete:
            self._delete(layer, pattern)
        for file in layer.files:
            self._tree.put(_make_entry(layer, file, facts))
        for setting in layer.settings.modes:
            earlier = self._modes.pop(setting.path, None)
            self._modes[setting.path] = (layer.name, _combine(earlier[1] if earlier else None, setting))

    def finish(self) -> MergedOverlay:
        for layer, setting in self._modes.values():
            self._apply_mode(layer, setting)
        switches, notes = apply_switches(
            self._tree,
            [(layer.name, layer.settings.switches) for layer in self._layers],
            has_units=self._has_snapshot,
        )
        if self._has_snapshot:
            self._resolve_owners()
        return MergedOverlay(self._tree.all_entries(), switches, (*self._notes, *notes))

    def _delete(self, layer: Layer, pattern: str) -> None:
        found = self._tree.glob(pattern)
        for path in found:
            self._tree.delete(path, layer.name, layer.settings_source)
        if found:
            return
        if self._has_snapshot:
            self._notes.append(f"{layer.settings_source}: delete: nothing is at /{pattern}")
        else:
            self._tree.deletions[pattern] = OverlayEntry(
                path=pattern, kind=EntryKind.DELETION, layer=layer.name, source=layer.settings_source
            )

    def _apply_mode(self, layer: str, setting: ModeSetting) -> None:
        path = self._tree.resolve(setting.path)
        if path not in self._tree.entries:
            if self._tree.node(path) is None and self._tree.was_deleted(path):
                self._notes.append(f"{setting.where}: /{setting.path} is deleted, so it has no mode")
                return
            if not self._has_snapshot:
                self._notes.append(f"{setting.where}: the mode of /{setting.path} shows with a snapshot only")
                return
            self._take_from_snapshot(path, layer, setting)
        entry = self._tree.entries[path]
        if entry.kind is EntryKind.SYMLINK:
            raise OverlayError(
                f"{setting.where}: /{setting.path} is a symbolic link",
                f"name what it leads to: {entry.target}",
            )
        self._tree.entries[path] = evolve(
            entry,
            mode=entry.mode if setting.mode is None else setting.mode,
            owner=setting.owner or entry.owner,
            group=setting.group or entry.group,
            source=f"{entry.source}, {setting.where}" if entry.source else setting.where,
        )

    def _take_from_snapshot(self, path: str, layer: str, setting: ModeSetting) -> None:
        """Bring a file of the snapshot into the overlay as it is, so that its mode can be another."""
        member = self._tree.snapshot.member(path) if self._tree.node(path) is not None else None
        if member is None:
            hint = "neither the snapshot nor a layer up to here has it; look at how it is spelt"
            raise OverlayError(f"{setting.where}: there is no /{setting.path}", hint)
        kinds = {
            MemberKind.FILE: EntryKind.FILE,
            MemberKind.HARDLINK: EntryKind.FILE,
            MemberKind.DIRECTORY: EntryKind.DIRECTORY,
            MemberKind.SYMLINK: EntryKind.SYMLINK,
        }
        if member.kind not in kinds:
            raise OverlayError(f"{setting.where}: /{setting.path} is a {member.kind}: not in an overlay")
        kind = kinds[member.kind]
        self._tree.entries[path] = OverlayEntry(
            path=path,
            kind=kind,
            layer=layer,
            content=self._tree.snapshot.read(path) if kind is EntryKind.FILE else b"",
            target=member.link_target.decode("utf-8", "surrogateescape") if kind is EntryKind.SYMLINK else "",
            mode=member.mode,
            owner=str(member.uid),
            group=str(member.gid),
            xattrs=member.xattrs,
            overrides=("snapshot",),
        )

    def _resolve_owners(self) -> None:
        users = _read_ids(self._tree.read("etc/passwd"))
        groups = _read_ids(self._tree.read("etc/group"))
        for path, entry in self._tree.entries.items():
            self._tree.entries[path] = evolve(
                entry,
                uid=_find_id(entry.owner, users, "user", "etc/passwd", entry),
                gid=_find_id(entry.group, groups, "group", "etc/group", entry),
            )


def _make_entry(layer: Layer, file: LayerFile, facts: TemplateFacts) -> OverlayEntry:
    if file.path.rpartition("/")[2].startswith(WHITEOUT_PREFIX):
        hint = "list the path in `delete` of that layer's overlay.toml, or give the file another name"
        raise OverlayError(f"{file.source}: names that start with {WHITEOUT_PREFIX} mark deletions", hint)
    path, content = file.path, file.content
    if file.is_template:
        path = path.removesuffix(TEMPLATE_SUFFIX)
        content = render_template(content, file.source, facts)
    return OverlayEntry(
        path=path,
        kind=file.kind,
        layer=layer.name,
        source=file.source,
        content=content,
        target=file.target,
        mode=file.mode,
    )


def _combine(earlier: ModeSetting | None, later: ModeSetting) -> ModeSetting:
    if earlier is None:
        return later
    return evolve(
        later,
        mode=earlier.mode if later.mode is None else later.mode,
        owner=later.owner or earlier.owner,
        group=later.group or earlier.group,
    )


def _read_ids(database: bytes | None) -> Mapping[str, int]:
    """Name -> number of an /etc/passwd or /etc/group; root is always 0."""
    found = {"root": 0}
    for line in (database or b"").decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[2].isascii() and fields[2].isdigit():
            found.setdefault(fields[0], int(fields[2]))
    return found


def _find_id(name: str, known: Mapping[str, int], what: str, database: str, entry: OverlayEntry) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    if name not in known:
        hint = f"the package that makes it has to be in the snapshot; a number works without /{database}"
        raise OverlayError(f"{entry.source}: no {what} {name!r} in the snapshot's /{database}", hint)
    return known[name]
