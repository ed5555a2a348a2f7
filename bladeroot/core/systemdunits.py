"""Which links a unit's [Install] section asks for: what `systemctl enable` would make, without systemd.

After systemd.unit(5) and the rules of `systemctl --root`. Pure: units are looked up by a function that
the caller passes in. Drop-ins (`x.service.d/`) are not read for [Install] sections.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from attrs import evolve, frozen

from bladeroot.errors import OverlayError

CONFIG_DIRECTORY = "etc/systemd/system"
SEARCH_PATH = (
    CONFIG_DIRECTORY,
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
"""Where units are looked for, the strongest first (systemd.unit(5), "Unit File Load Path")."""

_SUFFIX = re.compile(r"\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)$")
_NAME = re.compile(r"[A-Za-z0-9:_\\-][A-Za-z0-9:_.\\-]*(@[A-Za-z0-9:_.\\@-]*)?")
_LINK_KINDS = {"wanted_by": "wants", "required_by": "requires", "upheld_by": "upholds"}
WANTS_SUFFIXES = (".wants", ".requires", ".upholds")


@frozen
class InstallSection:
    """A unit's [Install] section, with its specifiers not yet filled in."""

    wanted_by: tuple[str, ...] = ()
    required_by: tuple[str, ...] = ()
    upheld_by: tuple[str, ...] = ()
    alias: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    default_instance: str = ""

    def __bool__(self) -> bool:
        return self != InstallSection()


@frozen
class Unit:
    """A unit file that was found. `name` is its real name; `path` where it is, without a leading slash."""

    name: str
    path: str
    install: InstallSection
    masked_at: str = ""
    """Where the operating system itself masks it, outside of /etc; a mask in /etc is only a switch."""


@frozen
class UnitLink:
    """A symbolic link to make; `path` has no leading slash, `target` is absolute."""

    path: str
    target: str


class FindUnit(Protocol):
    """Finds a unit by its file's name; None where there is none."""

    def __call__(self, name: str) -> Unit | None: ...


def complete_name(name: str) -> str:
    """`nginx` as `nginx.service`, as systemctl does. Raises OverlayError for what cannot be a unit's name."""
    full = name if _SUFFIX.search(name) else name + ".service"
    if not _NAME.fullmatch(full) or len(full) > 255:
        raise OverlayError(f"not a unit's name: {name!r}", "write it as nginx.service or getty@tty1.service")
    return full


def template_of(name: str) -> str | None:
    """`getty@.service` for `getty@tty1.service`; None for a unit that is no instance of a template."""
    prefix, at, rest = name.partition("@")
    if not at or rest.startswith("."):
        return None
    return f"{prefix}@.{name.rpartition('.')[2]}"


def instance_of(name: str) -> str:
    """`tty1` for `getty@tty1.service`; empty for a template and for a plain unit."""
    return name.rpartition(".")[0].partition("@")[2]


def is_template(name: str) -> bool:
    """Whether the name is that of a template: `getty@.service`."""
    return "@." in name and not instance_of(name)


def parse_install(text: str) -> InstallSection:
    """The [Install] section of a unit file; assignments add up, an empty one starts again."""
    values: dict[str, list[str]] = {}
    default_instance = ""
    for key, value in _read_install_lines(text):
        if key == "DefaultInstance":
            default_instance = value
        elif value:
            values.setdefault(key, []).extend(value.replace('"', "").split())
        else:
            values.pop(key, None)
    return InstallSection(
        wanted_by=tuple(values.get("WantedBy", ())),
        required_by=tuple(values.get("RequiredBy", ())),
        upheld_by=tuple(values.get("UpheldBy", ())),
        alias=tuple(values.get("Alias", ())),
        also=tuple(values.get("Also", ())),
        default_instance=default_instance,
    )


def _read_install_lines(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    pending = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith(("#", ";")):  # also within a continued line, systemd.syntax(7)
            continue
        line = pending + line
        pending = ""
        if line.endswith("\\"):
            pending = line[:-1] + " "
        elif line.startswith("["):
            section = line.strip("[]")
        elif section == "Install" and "=" in line:
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()


def plan_enable(name: str, find: FindUnit, passed_over: Collection[str] = ()) -> tuple[UnitLink, ...]:
    """The links that enabling a unit makes, its `Also=` units included but for those `passed_over`.

    Raises OverlayError where there is no such unit, or nothing would start it. What `Also=` names and
    does not exist is passed over, as systemctl does.
    """
    unit = _require(name, find)
    if unit.masked_at:
        raise OverlayError(f"{unit.name} is masked by the snapshot itself: /{unit.masked_at}")
    if not unit.install:
        hint = "other units start it, or none does; give it a WantedBy= in an overlay's own unit file"
        raise OverlayError(f"{unit.name} has no [Install] section: enabling it would do nothing", hint)
    links: dict[str, UnitLink] = {}
    for each in _with_also(unit, find, passed_over):
        links.update((link.path, link) for link in _links_of(_with_instance(each)))
    return tuple(links.values())


def plan_disable(name: str, find: FindUnit, passed_over: Collection[str] = ()) -> frozenset[str]:
    """The units whose links have to go when one is disabled: itself and what its `Also=` names."""
    return frozenset(each.name for each in _with_also(_require(name, find), find, passed_over))


def is_link_of(path: str, target: str, units: Collection[str]) -> bool:
    """Whether a link below etc/systemd/system starts one of the units, or is another name of one.

    A template stands for all of its instances.
    """
    directory, _, own_name = path.rpartition("/")
    target_name = target.rpartition("/")[2]
    if directory.endswith(WANTS_SUFFIXES):
        return own_name in units or target_name in units or template_of(own_name) in units
    return target_name in units and target_name != own_name


def _require(name: str, find: FindUnit) -> Unit:
    unit = find(name)
    if unit is None:
        looked = ", ".join(f"/{directory}" for directory in SEARCH_PATH)
        raise OverlayError(f"there is no unit {name}; looked in {looked}")
    return unit


def _with_also(unit: Unit, find: FindUnit, passed_over: Collection[str]) -> list[Unit]:
    found = [unit]
    seen = {unit.name, *passed_over}
    for each in found:
        for also in each.install.also:
            other = find(complete_name(_fill_in(also, each)))
            if other is not None and other.name not in seen:
                seen.add(other.name)
                found.append(other)
    return found


def _with_instance(unit: Unit) -> Unit:
    if not is_template(unit.name) or not unit.install.default_instance:
        return unit
    instance = _fill_in(unit.install.default_instance, unit)
    return evolve(unit, name=unit.name.replace("@.", f"@{instance}."))


def _links_of(unit: Unit) -> Iterator[UnitLink]:
    target = "/" + unit.path
    for alias in unit.install.alias:
        alias_name = _fill_in(alias, unit)
        if alias_name != unit.name and "/" not in alias_name:
            yield UnitLink(f"{CONFIG_DIRECTORY}/{alias_name}", target)
    for attribute, kind in _LINK_KINDS.items():
        for by in getattr(unit.install, attribute):
            by_name = complete_name(_fill_in(by, unit))
            if is_template(unit.name) and not is_template(by_name):
                hint = f"name an instance: {unit.name.replace('@.', '@x.')}"
                raise OverlayError(f"{unit.name} is a template without a DefaultInstance", hint)
            yield UnitLink(f"{CONFIG_DIRECTORY}/{by_name}.{kind}/{unit.name}", target)


def _fill_in(text: str, unit: Unit) -> str:
    """Replace the specifiers that systemd.unit(5) allows in [Install] and that a unit's name answers."""
    stem = unit.name.rpartition(".")[0]
    prefix = stem.partition("@")[0]
    answers: Mapping[str, str] = {
        "n": unit.name,
        "N": stem,
        "p": prefix,
        "j": prefix.rpartition("-")[2],
        "i": instance_of(unit.name),
        "%": "%",
    }

    def answer(match: re.Match[str]) -> str:
        if match[1] not in answers:
            hint = f"{unit.name} is not one machine's own: use %n, %N, %p, %i or %j"
            raise OverlayError(
                f"{unit.path}: [Install] uses %{match[1]}, which only a booted machine knows", hint
            )
        return answers[match[1]]

    return re.sub(r"%(.)", answer, text)
