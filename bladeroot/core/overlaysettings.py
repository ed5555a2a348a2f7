"""`overlay.toml` of a layer: what it deletes, modes and owners, and services. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NoReturn

from attrs import field, frozen

from bladeroot.core import tomllines
from bladeroot.core.systemdunits import complete_name
from bladeroot.errors import OverlayError

SETTINGS_FILE = "overlay.toml"
_MODE = re.compile(r"[0-7]{3,4}")


class SwitchAction(StrEnum):
    """What a layer wants of a service."""

    ENABLE = "enable"
    DISABLE = "disable"
    MASK = "mask"


@frozen
class ModeSetting:
    """A path's mode (None: as it is) and owner and group (names or numbers; empty: as they are)."""

    path: str
    mode: int | None = None
    owner: str = ""
    group: str = ""
    where: str = ""
    """File and line, for messages."""


@frozen
class ServiceSwitch:
    """A service to enable, disable or mask. An `optional` one may be missing from the snapshot."""

    unit: str
    action: SwitchAction
    optional: bool = False
    where: str = ""


@frozen
class LayerSettings:
    """All that an overlay.toml says."""

    delete: tuple[str, ...] = ()
    modes: tuple[ModeSetting, ...] = ()
    switches: tuple[ServiceSwitch, ...] = field(default=())


def parse_layer_settings(text: str, source: str) -> LayerSettings:
    """The settings that a text is; `source` is the file's name for messages. Raises OverlayError."""
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OverlayError(f"{source}: {error}", "see https://toml.io for how to write it") from None
    return _SettingsReader(source, tomllines.find_lines(text)).read(plain)


class _SettingsReader:
    def __init__(self, source: str, lines: Mapping[tomllines.KeyPath, int]) -> None:
        self._source = source
        self._lines = lines

    def read(self, plain: Mapping[str, Any]) -> LayerSettings:
        self._check_keys((), plain, ("delete", "modes", "services"))
        return LayerSettings(
            delete=tuple(
                self._path(("delete",), pattern)
                for pattern in self._strings(("delete",), plain.get("delete", []))
            ),
            modes=tuple(self._modes(self._table(("modes",), plain.get("modes", {})))),
            switches=tuple(self._switches(self._table(("services",), plain.get("services", {})))),
        )

    def _modes(self, modes: Mapping[str, Any]) -> list[ModeSetting]:
        found = []
        for path, value in modes.items():
            key = ("modes", path)
            table = self._table(key, value)
            self._check_keys(key, table, ("mode", "owner", "group"))
            mode = table.get("mode")
            if mode is not None and not (isinstance(mode, str) and _MODE.fullmatch(mode)):
                self._fail((*key, "mode"), 'expected octal digits in quotes, as in "0640"')
            names = {name: self._string((*key, name), table.get(name, "")) for name in ("owner", "group")}
            found.append(
                ModeSetting(
                    self._path(key, path),
                    None if mode is None else int(mode, 8),
                    where=self._where(key),
                    **names,
                )
            )
        return found

    def _switches(self, services: Mapping[str, Any]) -> list[ServiceSwitch]:
        self._check_keys(("services",), services, tuple(SwitchAction))
        found: dict[str, ServiceSwitch] = {}
        for action in SwitchAction:
            key = ("services", action.value)
            for name in self._strings(key, services.get(action.value, [])):
                unit = self._unit(key, name.removeprefix("-"))
                if unit in found:
                    self._fail(key, f"{unit} is already in {found[unit].action}")
                found[unit] = ServiceSwitch(unit, action, name.startswith("-"), self._where(key))
        return list(found.values())

    def _unit(self, key: tomllines.KeyPath, name: str) -> str:
        try:
            return complete_name(name)
        except OverlayError as error:
            self._fail(key, str(error))

    def _path(self, key: tomllines.KeyPath, path: str) -> str:
        """The path without its leading slash; it has to name something below the root, in one spelling."""
        parts = path.rstrip("/").split("/")
        if (
            len(parts) < 2
            or parts[0] != ""
            or any(part in ("", ".", "..") for part in parts[1:])
            or "\0" in path
        ):
            self._fail(key, f"expected an absolute path, found {path!r}")
        return "/".join(parts[1:])

    def _table(self, key: tomllines.KeyPath, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._fail(key, "expected a table")
        return value

    def _string(self, key: tomllines.KeyPath, value: Any) -> str:
        if not isinstance(value, str):
            self._fail(key, 'expected a name in quotes, as in "root"')
        return value

    def _strings(self, key: tomllines.KeyPath, value: Any) -> Sequence[str]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            self._fail(key, 'expected a list of strings, as in ["a", "b"]')
        return value

    def _check_keys(self, key: tomllines.KeyPath, table: Mapping[str, Any], known: Sequence[str]) -> None:
        for name in table:
            if name not in known:
                self._fail((*key, name), f"no such key here; there is {', '.join(known)}")

    def _where(self, key: tomllines.KeyPath) -> str:
        return f"{self._source}:{tomllines.line_of(self._lines, key)}"

    def _fail(self, key: tomllines.KeyPath, what: str) -> NoReturn:
        raise OverlayError(f"{self._where(key)}: {'.'.join(key)}: {what}")
