"""The inventory in other programs' formats: CSV, dnsmasq, ISC dhcpd, hosts. Pure: text in, text out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any

import attrs

from bladeroot.core.cluster import Blade, parse_mac
from bladeroot.core.clusterfile import closest
from bladeroot.core.inventory import FACT_PREFIX
from bladeroot.errors import BladerootError, ConfigError, InventoryError

CSV_COLUMNS = ("name", "role", "macs", "address", "uuid", "disk", "layout", "rack", "location", "priority")
_ALIASES = {"mac": "macs", "host": "name", "hostname": "name", "ip": "address"}
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_ISC_HOST = re.compile(r"host\s+(?P<name>\S+)\s*\{(?P<body>[^}]*)\}", re.DOTALL)


def parse_blades(
    text: str, source: str, *, role: str | None = None, prefix_length: int | None = None
) -> list[dict[str, Any]]:
    """The blades of a CSV file with a header, of dnsmasq's `dhcp-host=` lines or of dhcpd's `host { … }`.

    Each is what the file says, by field of `Blade`. `role` and `prefix_length` (for addresses without
    one) are for what it does not say. Raises ConfigError or InventoryError with file and line.
    """
    text = text.removeprefix("\ufeff")
    if re.search(r"^\s*dhcp-host\s*=", text, re.MULTILINE):
        found = _parse_dnsmasq(text, source)
    elif _ISC_HOST.search(text):
        found = _parse_isc(text)
    else:
        found = _parse_csv(text, source)
    blades: list[dict[str, Any]] = []
    lines: dict[str, int] = {}
    for line, entry in found:
        where = f"{source}:{line}"
        if not entry.get("name"):
            raise ConfigError(f"{where}: no name", "every blade has one")
        if entry["name"] in lines:
            raise InventoryError(f"{where}: {entry['name']} is there twice (line {lines[entry['name']]} too)")
        lines[entry["name"]] = line
        if role is not None:
            entry.setdefault("role", role)
        try:
            if "address" in entry:
                entry["address"] = _with_prefix(entry["address"], prefix_length)
            Blade(**entry)
        except BladerootError as error:
            raise ConfigError(f"{where}: {error}", error.hint) from error
        blades.append(entry)
    if not blades:
        hint = f"a CSV file with a header ({','.join(CSV_COLUMNS)}), or dhcp-host= lines of dnsmasq"
        raise ConfigError(f"{source}: no blades in it", hint)
    return blades


def render_csv(blades: Iterable[Blade]) -> str:
    """A header and a line for each blade; several MACs are separated by blanks; a column for each fact."""
    chosen = list(blades)
    facts = sorted({name for blade in chosen for name in blade.facts})
    memory = io.StringIO()
    writer = csv.writer(memory, lineterminator="\n")
    writer.writerow([*CSV_COLUMNS, *(FACT_PREFIX + name for name in facts)])
    for blade in chosen:
        plain = {**attrs.asdict(blade), "macs": " ".join(blade.macs)}
        cells = ["" if plain[column] is None else plain[column] for column in CSV_COLUMNS]
        writer.writerow([*cells, *(blade.facts.get(name, "") for name in facts)])
    return memory.getvalue()


def render_hosts(blades: Iterable[Blade], domain: str = "") -> str:
    """Lines for /etc/hosts; blades without an address are left out."""
    lines = []
    for blade in blades:
        if blade.address:
            names = f"{blade.name}.{domain} {blade.name}" if domain else blade.name
            lines.append(f"{ip_interface(blade.address).ip}\t{names}\n")
    return "".join(lines)


def render_dnsmasq(blades: Iterable[Blade]) -> str:
    """`dhcp-host=` lines; blades without a MAC address are left out."""
    lines = []
    for blade in blades:
        if blade.macs:
            words = [*blade.macs]
            if blade.address:
                ip = ip_interface(blade.address).ip
                words.append(f"[{ip}]" if ip.version == 6 else str(ip))
            lines.append(f"dhcp-host={','.join([*words, blade.name])}\n")
    return "".join(lines)


def _with_prefix(address: str, prefix_length: int | None) -> str:
    if "/" in address:
        return address
    if prefix_length is None:
        raise ConfigError(f"the address {address} has no prefix length", "give one for all: --prefix 24")
    return f"{address}/{prefix_length}"


def _parse_csv(text: str, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.reader(io.StringIO(text))
    header: list[str] | None = None
    for row in rows:
        if not any(cell.strip() for cell in row) or row[0].lstrip().startswith("#"):
            continue
        where = f"{source}:{rows.line_num}"
        if header is None:
            header = [_read_column(cell, where) for cell in row]
            if "name" not in header:
                raise ConfigError(
                    f"{where}: no column `name` in the header", f"columns: {','.join(CSV_COLUMNS)}"
                )
            continue
        if len(row) > len(header):
            raise ConfigError(f"{where}: {len(row)} columns, but the header has {len(header)}")
        entry = dict(_read_cells(zip(header, row, strict=False), where))
        facts = {name: entry.pop(name) for name in list(entry) if name.startswith(FACT_PREFIX)}
        if facts:
            entry["facts"] = {name.removeprefix(FACT_PREFIX): value for name, value in facts.items()}
        yield rows.line_num, entry


def _read_column(cell: str, where: str) -> str:
    name = cell.strip().lower()
    name = _ALIASES.get(name, name)
    if name.startswith(FACT_PREFIX) and name != FACT_PREFIX:
        return cell.strip()
    if name not in CSV_COLUMNS:
        raise ConfigError(f"{where}: unknown column {cell.strip()!r}", closest(name, CSV_COLUMNS))
    return name


def _read_cells(cells: Iterable[tuple[str, str]], where: str) -> Iterator[tuple[str, Any]]:
    for column, cell in cells:
        value = cell.strip()
        if not value:
            continue
        if column == "macs":
            yield column, tuple(re.split(r"[\s;,]+", value))
        elif column == "priority":
            try:
                yield column, int(value)
            except ValueError:
                raise ConfigError(f"{where}: priority is a whole number, not {value!r}") from None
        else:
            yield column, value


def _parse_dnsmasq(text: str, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        match = re.fullmatch(r"\s*dhcp-host\s*=\s*([^#]*?)\s*(#.*)?", line)
        if match is None:
            continue
        entry: dict[str, Any] = {}
        macs = []
        for word in (word.strip() for word in match[1].split(",")):
            if _MAC.fullmatch(word):
                macs.append(parse_mac(word))
            elif _is_address(word.strip("[]")):
                entry["address"] = word.strip("[]")
            elif ":" not in word and not re.fullmatch(r"\d+[smhdw]?|infinite|ignore", word):
                entry["name"] = word
        entry["macs"] = tuple(macs)
        if "name" not in entry:
            raise ConfigError(f"{source}:{number}: dhcp-host without a name", "bladeroot needs names")
        yield number, entry


def _parse_isc(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for match in _ISC_HOST.finditer(re.sub(r"#[^\n]*", "", text)):
        statements: Mapping[str, str] = {
            words[0]: words[1]
            for statement in match["body"].replace("hardware ethernet", "hardware-ethernet").split(";")
            if len(words := statement.split(None, 1)) == 2
        }
        entry: dict[str, Any] = {"name": match["name"].strip('"')}
        if "hardware-ethernet" in statements:
            entry["macs"] = (statements["hardware-ethernet"].strip(),)
        address = statements.get("fixed-address", "").strip()
        if _is_address(address):
            entry["address"] = address
        yield text.count("\n", 0, match.start()) + 1, entry


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True
