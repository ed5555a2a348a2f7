"""A blade's overlay, from the cluster folder's layers: bladeroot's own, cluster, role, blade; later wins.

The archive is deterministic: the same layers over the same snapshot are the same bytes on any machine.
For that, times come from contents (see `_content_time`), owners from [modes], and a file's mode from the
layer's folder, less the write permission of group and others, which is but a matter of umask.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import evolve, frozen

from bladeroot.core.cluster import Blade, Cluster
from bladeroot.core.firstboot import make_first_boot_layer
from bladeroot.core.hooks import (
    HOOKS_DIRECTORY,
    HOOKS_FOLDER,
    Hook,
    When,
    check_hook_name,
    find_hooks,
    parse_when,
)
from bladeroot.core.overlay import TEMPLATE_SUFFIX, Layer, LayerFile, merge_layers
from bladeroot.core.overlayservices import SwitchResult
from bladeroot.core.overlaysettings import SETTINGS_FILE, LayerSettings, parse_layer_settings
from bladeroot.core.overlaytree import EntryKind, OverlayEntry, OverlayTree
from bladeroot.core.ownlayer import make_own_layer
from bladeroot.core.systemdunits import SEARCH_PATH
from bladeroot.core.tarformat import Member, MemberKind
from bladeroot.core.templates import make_template_facts
from bladeroot.errors import OverlayError
from bladeroot.host.archive import PlainEntry, make_whiteout, pack_plain
from bladeroot.host.snapshottree import SnapshotTree

FILES_FOLDER = "files"
BOOTED_UNIT = "bladeroot-booted.service"
"""The unit that ships and reports services; not one of those that it reports."""

_TIME_BASE_S = 1577836800
"""2020-01-01 00:00 UTC: the time of everything without content."""
_TIME_SPAN_S = 1 << 26
_MODE_MASK = 0o7755
_KINDS = {
    EntryKind.FILE: MemberKind.FILE,
    EntryKind.DIRECTORY: MemberKind.DIRECTORY,
    EntryKind.SYMLINK: MemberKind.SYMLINK,
}
_NOT_A_LAYER = (".gitkeep", "__pycache__")


@frozen
class OverlayPlan:
    """What a blade gets on top of the snapshot, and from which layer (`layers`, lowest first)."""

    blade: str
    layers: tuple[str, ...]
    entries: tuple[OverlayEntry, ...]
    switches: tuple[SwitchResult, ...]
    notes: tuple[str, ...]
    with_snapshot: bool
    hooks: tuple[Hook, ...] = ()
    """In the order in which they run; they are among the entries too."""


@frozen
class BuiltOverlay:
    """A blade's overlay as the archive that it is published as."""

    plan: OverlayPlan
    tar_zst: bytes
    raw_size_bytes: int
    """What the files hold, before compression."""

    @property
    def entries(self) -> tuple[OverlayEntry, ...]:
        """Every path, deletions first."""
        return self.plan.entries


class OverlayBuilder:
    """Plans and builds the overlays of a cluster's blades; what it has read once is taken to stay as it is.

    `layers_folder` holds `cluster/`, `role/<role>/` and `blade/<blade>/`; `trusted_keys` are public key
    files by name, `rules` the cluster folder's rules. Raises OverlayError, and SnapshotError for a path that
    is no snapshot.
    """

    def __init__(
        self,
        cluster: Cluster,
        layers_folder: Path,
        trusted_keys: Mapping[str, bytes],
        cluster_toml: str,
        snapshot: Path | None,
        rules: Mapping[str, bytes] | None = None,
    ) -> None:
        self._cluster = cluster
        self._rules = rules or {}
        self._folder = layers_folder
        self._trusted_keys = {_key_file_name(name): key for name, key in trusted_keys.items()}
        self._cluster_toml = cluster_toml
        self._tree = None if snapshot is None else SnapshotTree(snapshot)
        self._layers: dict[str, Layer] = {}
        self._switched_services = find_switched_services(layers_folder)

    def plan(self, blade: Blade) -> OverlayPlan:
        """What the blade will get, not yet packed."""
        own, notes = make_own_layer(
            self._cluster, blade, self._trusted_keys, self._cluster_toml, self._has_unit, self._rules
        )
        names = ("cluster", f"role/{blade.role}", f"blade/{blade.name}")
        layers = (own, *(self._read_layer(name) for name in names))
        facts = make_template_facts(self._cluster, blade, self._switched_services)
        merged = merge_layers(layers, facts, self._tree)
        hooks = find_hooks(merged.entries)
        if any(hook.when is When.FIRST_BOOT for hook in hooks):
            own, more_notes = make_first_boot_layer(own, self._has_file)
            notes = (*notes, *more_notes)
            merged = merge_layers((own, *layers[1:]), facts, self._tree)
        return OverlayPlan(
            blade=blade.name,
            layers=tuple(layer.name for layer in layers),
            entries=merged.entries,
            switches=merged.switches,
            notes=(*notes, *merged.notes),
            with_snapshot=self._tree is not None,
            hooks=hooks,
        )

    def build(self, blade: Blade) -> BuiltOverlay:
        """The blade's archive. Needs a snapshot."""
        plan = self.plan(blade)
        if not plan.with_snapshot:
            raise OverlayError("an overlay is made for a snapshot, and there is none", "pass the snapshot")
        packed = pack_plain(_make_plain(entry) for entry in plan.entries)
        return BuiltOverlay(plan, packed, sum(len(entry.content) for entry in plan.entries))

    def _read_layer(self, name: str) -> Layer:
        if name not in self._layers:
            self._layers[name] = read_layer(self._folder / name, name)
        return self._layers[name]

    def _has_file(self, path: str) -> bool:
        """Whether the snapshot has it; all that can be asked for, where there is none."""
        if self._tree is None:
            return True
        tree = OverlayTree(self._tree)
        return tree.node(tree.resolve(path, follow_last=True)) is not None

    def _has_unit(self, name: str) -> bool:
        if self._tree is None:
            return name.startswith("systemd-networkd.")
        tree = OverlayTree(self._tree)
        return any(tree.read(f"{directory}/{name}") for directory in SEARCH_PATH)


def build_overlay(
    cluster: Cluster,
    layers_folder: Path,
    trusted_keys: Mapping[str, bytes],
    cluster_toml: str,
    snapshot: Path,
    blade: Blade,
) -> BuiltOverlay:
    """One blade's overlay; `OverlayBuilder` does many of them quicker."""
    return OverlayBuilder(cluster, layers_folder, trusted_keys, cluster_toml, snapshot).build(blade)


def read_layer(folder: Path, name: str) -> Layer:
    """A layer's folder as it is; one that is not there is an empty layer. Raises OverlayError."""
    settings_path = folder / SETTINGS_FILE
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            _check_layer_content(path)
        files = tuple(_read_files(folder / FILES_FOLDER, "")) if (folder / FILES_FOLDER).is_dir() else ()
        hooks = tuple(_read_hooks(folder / HOOKS_FOLDER)) if (folder / HOOKS_FOLDER).is_dir() else ()
        settings = _read_settings(settings_path)
    except OSError as error:
        raise OverlayError(f"cannot read {error.filename}: {error.strerror}") from error
    gone = tuple(file.path for file in hooks if not file.content)
    settings = evolve(settings, delete=(*settings.delete, *gone))
    files = (*files, *(file for file in hooks if file.content))
    return Layer(name, files, settings, str(settings_path))


def find_switched_services(layers_folder: Path) -> tuple[str, ...]:
    """Every unit that any layer of the cluster folder switches, of whichever role or blade."""
    names: set[str] = set()
    for path in sorted(
        (*layers_folder.glob(f"*/{SETTINGS_FILE}"), *layers_folder.glob(f"*/*/{SETTINGS_FILE}"))
    ):
        names.update(switch.unit for switch in _read_settings(path).switches)
    return tuple(sorted(names - {BOOTED_UNIT}))


def _check_layer_content(path: Path) -> None:
    known = (FILES_FOLDER, HOOKS_FOLDER, SETTINGS_FILE, *_NOT_A_LAYER)
    if path.name not in known and not path.name.startswith("README"):
        hint = (
            f"a layer has {FILES_FOLDER}/ (laid over /), {HOOKS_FOLDER}/, {SETTINGS_FILE}, perhaps a README"
        )
        raise OverlayError(f"{path}: does not belong into a layer", hint)


def _read_settings(path: Path) -> LayerSettings:
    try:
        return parse_layer_settings(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return LayerSettings()
    except UnicodeDecodeError as error:
        raise OverlayError(f"{path}: not UTF-8 (byte {error.start})", "save it as UTF-8") from None


def _read_files(directory: Path, below: str) -> Iterator[LayerFile]:
    """Everything below a `files/`, parents first. Links are taken as links, never followed."""
    for path in sorted(directory.iterdir()):
        if path.name in _NOT_A_LAYER:
            continue
        place = f"{below}/{path.name}" if below else path.name
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            target = os.readlink(path)
            yield LayerFile(place, EntryKind.SYMLINK, str(path), target=target, mode=0o777)
        elif stat.S_ISDIR(mode):
            yield LayerFile(place, EntryKind.DIRECTORY, str(path), mode=0o755)
            yield from _read_files(path, place)
        elif stat.S_ISREG(mode):
            yield _read_file(path, place)
        else:
            raise OverlayError(f"{path}: neither a file, a directory nor a symbolic link")


def _read_file(path: Path, place: str) -> LayerFile:
    return LayerFile(
        place,
        EntryKind.FILE,
        str(path),
        content=path.read_bytes(),
        mode=stat.S_IMODE(path.lstat().st_mode) & _MODE_MASK,
        is_template=path.name.endswith(TEMPLATE_SUFFIX) and path.name != TEMPLATE_SUFFIX,
    )


def _read_hooks(folder: Path) -> Iterator[LayerFile]:
    """The hooks of a layer, as files of the tree; an empty one takes an earlier layer's away."""
    for kind in sorted(folder.iterdir()):
        if kind.name in _NOT_A_LAYER or kind.name.startswith("README"):
            continue
        when = parse_when(kind.name, str(kind))
        if not stat.S_ISDIR(kind.lstat().st_mode):
            raise OverlayError(f"{kind}: a folder of hooks has to be here", f"mkdir {kind}")
        for path in sorted(kind.iterdir()):
            if path.name in _NOT_A_LAYER or path.name.startswith("README"):
                continue
            if not stat.S_ISREG(path.lstat().st_mode):
                raise OverlayError(f"{path}: a hook is a file", "copy what it should be there")
            file = _read_file(path, f"{HOOKS_DIRECTORY}/{when}/{path.name}")
            check_hook_name(path.name.removesuffix(TEMPLATE_SUFFIX), str(path))
            if not file.content and file.is_template:
                file = evolve(file, path=file.path.removesuffix(TEMPLATE_SUFFIX))
            yield file


def _key_file_name(name: str) -> str:
    return name if name.endswith(".pub") else f"{name}.pub"


def _make_plain(entry: OverlayEntry) -> PlainEntry:
    path = os.fsencode(entry.path)
    if entry.kind is EntryKind.DELETION:
        return make_whiteout(path)
    member = Member(
        path,
        _KINDS[entry.kind],
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=_content_time(entry) * 1_000_000_000,
        link_target=os.fsencode(entry.target),
        xattrs=entry.xattrs,
    )
    return PlainEntry(member, entry.content)


def _content_time(entry: OverlayEntry) -> int:
    """A time (seconds) that is the same on every machine, and another when the content is another: what
    compares times to see a change (HTTP's ETag, Python's .pyc, systemd's "unit changed on disk") sees it.
    """
    if entry.kind is not EntryKind.FILE:
        return _TIME_BASE_S
    digest = hashlib.sha256(entry.content).digest()
    return _TIME_BASE_S + int.from_bytes(digest[:8]) % _TIME_SPAN_S
