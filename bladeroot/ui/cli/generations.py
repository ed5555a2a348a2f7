"""`bladeroot generations`: what the depot holds."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
from rich.console import Group
from rich.text import Text

from bladeroot.core.sizes import render_about
from bladeroot.errors import (
    ArtefactError,
    DepotError,
    TrustError,
    UsageError,
)
from bladeroot.ui.cli.options import find_folder_if_any, open_depot, parse_count
from bladeroot.ui.cli.output import Output, make_facts, make_table
from bladeroot.ui.cli.parser import Verbs, add_dry_run, add_verb, add_verbs

if TYPE_CHECKING:
    from bladeroot.core.manifest import Artefact
    from bladeroot.host.depot import Depot
    from bladeroot.ops.generations import HeldGeneration, Trust

_KINDS = ("runtime", "extras", "overlays", "boot", "agent")
_DEFAULT_KEEP = 3


def add_parser(verbs: Verbs) -> None:
    """`generations list|show|verify|prune|export`."""
    parser = add_verb(
        verbs,
        "generations",
        summary="what the depot holds: list, show, verify, prune, export",
        description="A generation is an immutable, signed, numbered release; its number is its serial.",
        files=[("/var/lib/bladeroot/", "the depot")],
        errors=[DepotError],
        see="`bladeroot help publish`",
    )
    actions = add_verbs(parser)
    _add_list(actions)
    _add_show(actions)
    _add_verify(actions)
    _add_prune(actions)
    _add_export(actions)


def _add_list(actions: Verbs) -> None:
    add_verb(
        actions,
        "list",
        run=run_list,
        summary="the generations in the depot, newest first",
        description="SIGNED says whether a key that this cluster trusts signed it (unchecked: there is no "
        "cluster folder here to check with); WHOLE, whether all its artefacts are here.",
        examples=[
            ("bladeroot generations list", "what this machine can seed, install from and be root with"),
            ("bladeroot generations list --json | jq '.[0].serial'", "the newest serial, for a script"),
        ],
    )


def _add_show(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "show",
        run=run_show,
        summary="what a generation consists of",
        examples=[("bladeroot generations show 7", "its artefacts and blades")],
    )
    parser.add_argument("serial", type=parse_count, metavar="N", help="its serial")


def _add_verify(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "verify",
        run=run_verify,
        summary="read generations through and check signatures and hashes",
        description="A damaged artefact is not offered to others any more, and the next install or publish "
        "fetches or makes again what is damaged of it.",
        examples=[("bladeroot generations verify", "all of them; ends with an error if one is not sound")],
        errors=[DepotError, ArtefactError, TrustError],
    )
    parser.add_argument("serial", nargs="?", type=parse_count, metavar="N", help="one serial (default: all)")


def _add_prune(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "prune",
        run=run_prune,
        summary="drop old generations and what only they need",
        examples=[("bladeroot generations prune --keep 2 --dry-run", "see what would go")],
    )
    parser.add_argument(
        "--keep",
        type=parse_count,
        default=_DEFAULT_KEEP,
        metavar="K",
        help=f"how many stay (default: {_DEFAULT_KEEP})",
    )
    add_dry_run(parser)


def _add_export(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "export",
        run=run_export,
        summary="write a tarball of a generation as an ordinary file",
        description="runtime and extras are .tar.zst files that tar and zstd read. Of overlays and boot, "
        "--file names one file; of the agent, vmlinuz or initramfs, in one piece. Every byte is checked "
        "against its hash before it is written.",
        examples=[
            ("bladeroot generations export 7 runtime > runtime.tar.zst", "an ordinary tarball"),
            ("bladeroot generations export 7 runtime | tar --zstd -tv", "what is in it"),
            ("bladeroot generations export 7 overlays --file web01.tar.zst -o o.tar.zst", "one overlay"),
            (
                "bladeroot generations export 7 agent --file vmlinuz -o vmlinuz",
                "for a boot server of your own",
            ),
        ],
        errors=[DepotError, ArtefactError],
    )
    parser.add_argument("serial", type=parse_count, metavar="N", help="its serial")
    parser.add_argument("kind", choices=_KINDS, metavar="KIND", help=", ".join(_KINDS))
    parser.add_argument("--file", metavar="NAME", help="one file of the artefact alone")
    parser.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="where to (default: standard output)"
    )


def run_list(args: argparse.Namespace, out: Output) -> int:
    """Print a line for each generation."""
    from bladeroot.ops.generations import read_generations

    held = read_generations(open_depot(args), _find_trust(args))
    out.facts([_summary(generation) for generation in held], lambda: _render_list(held))
    return 0


def run_show(args: argparse.Namespace, out: Output) -> int:
    """Print all about one generation."""
    from bladeroot.ops.generations import read_generation

    depot = open_depot(args)
    held = read_generation(depot, args.serial, _find_trust(args))
    facts = {
        **_summary(held),
        "artefacts": [
            {**attrs.asdict(artefact), "whole": depot.has(artefact.info_hash)}
            for artefact in held.manifest.artefacts
        ],
        "blades": [attrs.asdict(entry.blade) for entry in held.manifest.blades],
    }
    out.facts(facts, lambda: _render_show(held, depot))
    return 0


def run_verify(args: argparse.Namespace, out: Output) -> int:
    """Check generations; ends with the error's code if something is wrong."""
    from bladeroot.ops.generations import find_problems, read_generation

    depot, trust = open_depot(args), _find_trust(args)
    serials = [args.serial] if args.serial is not None else depot.serials()
    report: dict[int, dict[str, list[str]]] = {}
    read: set[str] = set()
    damaged: set[str] = set()
    for serial in serials:
        held = read_generation(depot, serial, trust)
        report[serial] = find_problems(depot, held, out.reporter, known=read - damaged)
        hashes = {artefact.kind: artefact.info_hash for artefact in held.manifest.artefacts}
        read.update(hashes.values())
        damaged.update(hash_ for kind, hash_ in hashes.items() if kind in report[serial])
    _distrust(depot, damaged, out)
    facts = [{"serial": serial, "ok": not found, "problems": found} for serial, found in report.items()]
    out.facts(facts, "\n".join(_render_verified(report, checked=trust is not None)))
    bad = {serial: found for serial, found in report.items() if found}
    if bad:
        only_trust = all(set(found) == {"manifest"} for found in bad.values())
        what = f"{len(bad)} of {len(report)} generations are not sound: {', '.join(map(str, bad))}"
        raise (
            TrustError(what)
            if only_trust
            else ArtefactError(what, "install or publish makes them whole again")
        )
    return 0


def run_prune(args: argparse.Namespace, out: Output) -> int:
    """Drop old generations."""
    from bladeroot.host.pruning import prune_depot

    depot = open_depot(args)
    with depot.lock():
        pruned = prune_depot(depot, args.keep, dry_run=args.dry_run)
    verb = "would drop" if args.dry_run else "dropped"
    serials = ", ".join(map(str, pruned.serials)) or "none"
    text = (
        f"{verb} generations: {serials}; artefacts: {len(pruned.artefacts)}; "
        f"frames: {pruned.frames}; {render_about(pruned.freed_bytes)} freed"
    )
    out.facts({"dry_run": args.dry_run, **attrs.asdict(pruned)}, text)
    return 0


def run_export(args: argparse.Namespace, out: Output) -> int:
    """Write an artefact, or one file of it."""
    from bladeroot.core.agentfiles import join_parts
    from bladeroot.core.manifest import TARBALLS, ArtefactKind
    from bladeroot.ops.generations import read_generation

    depot = open_depot(args)
    artefact = read_generation(depot, args.serial).manifest.artefact(ArtefactKind(args.kind))
    if args.file is None and artefact.kind not in TARBALLS:
        names = [file.name for file in depot.read_torrent(artefact.info_hash).files]
        told = ", ".join(join_parts(names))
        raise UsageError(f"{args.kind} is several files", f"name one with --file: {told}")
    if args.output is None:
        stream = out.binary()
        _export(depot, artefact, args.file, stream)
        stream.flush()
        return 0
    try:
        stream = args.output.open("xb")
    except FileExistsError:
        raise UsageError(f"{args.output} is there already", "name a new file") from None
    try:
        with stream:
            _export(depot, artefact, args.file, stream)
    except BaseException:
        args.output.unlink()
        raise
    return 0


def _export(depot: Depot, artefact: Artefact, file: str | None, stream: IO[bytes]) -> None:
    from bladeroot.core.agentfiles import WHOLE_FILES
    from bladeroot.core.manifest import ArtefactKind
    from bladeroot.host.agentpayload import read_agent_file
    from bladeroot.ops.generations import write_artefact

    if file is None:
        write_artefact(depot, artefact, stream.write)
    elif artefact.kind is ArtefactKind.AGENT and file in WHOLE_FILES:
        stream.writelines(read_agent_file(depot, artefact.info_hash, file))
    else:
        stream.write(depot.read_file(artefact.info_hash, file))


def _find_trust(args: argparse.Namespace) -> Trust | None:
    from bladeroot.ops.generations import Trust

    folder = find_folder_if_any(args)
    if folder is None:
        return None
    return Trust(cluster_id=folder.cluster.id, keys=folder.trusted_keys())


def _distrust(depot: Depot, damaged: set[str], out: Output) -> None:
    try:
        for info_hash in damaged:
            depot.distrust(info_hash)
    except OSError as error:
        out.warn(f"cannot mark what is damaged in {depot.path}: {error.strerror}", "run it as root")


def _size(held: HeldGeneration, kind: str) -> int | None:
    sizes = {artefact.kind.value: artefact.size_bytes for artefact in held.manifest.artefacts}
    return sizes.get(kind)


def _summary(held: HeldGeneration) -> dict[str, Any]:
    manifest = held.manifest
    return {
        "serial": manifest.serial,
        "hash": held.signed.hash,
        "previous": manifest.previous,
        "cluster_id": manifest.cluster_id,
        "cluster_name": manifest.cluster_name,
        "arch": manifest.arch,
        "created": manifest.created,
        "kernel_command_line": manifest.kernel_command_line,
        "runtime_bytes": _size(held, "runtime"),
        "extras_bytes": _size(held, "extras"),
        "blade_count": len(manifest.blades),
        "signers": list(held.signers),
        "trusted": not held.distrusted if held.checked else None,
        "distrusted": held.distrusted,
        "whole": held.whole,
    }


def _date(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _about(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else render_about(size_bytes)


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _render_list(held: list[HeldGeneration]) -> Any:
    if not held:
        return "no generations yet: `bladeroot publish`"
    rows = [
        (
            generation.manifest.serial,
            _date(generation.manifest.created),
            _about(_size(generation, "runtime")),
            _about(_size(generation, "extras")),
            len(generation.manifest.blades),
            "REFUSED" if generation.distrusted else generation.standing,
            _yes(generation.whole),
        )
        for generation in held
    ]
    headings = ["serial", "created", "runtime", "extras", "blades", "signed", "whole"]
    return make_table(headings, rows, right=["serial", "runtime", "extras", "blades"])


def _render_show(held: HeldGeneration, depot: Depot) -> Group:
    manifest = held.manifest
    facts = make_facts(
        [
            ("generation", manifest.serial),
            ("cluster", f"{manifest.cluster_name} ({manifest.cluster_id})"),
            ("manifest", held.signed.hash),
            ("previous", manifest.previous),
            ("signed by", f"{', '.join(held.signers)}: {held.standing}"),
            ("created", _date(manifest.created)),
            ("architecture", manifest.arch),
            ("kernel line", manifest.kernel_command_line),
        ]
    )
    artefacts = make_table(
        ["artefact", "size", "unpacked", "files", "whole", "info-hash"],
        [
            (
                artefact.kind,
                render_about(artefact.size_bytes),
                render_about(artefact.raw_size_bytes),
                artefact.files,
                _yes(depot.has(artefact.info_hash)),
                artefact.info_hash[:16],
            )
            for artefact in manifest.artefacts
        ],
        right=["size", "unpacked", "files"],
    )
    blades = make_table(
        ["blade", "role", "macs", "address", "disk", "layout"],
        [
            (
                entry.blade.name,
                entry.blade.role,
                " ".join(entry.blade.macs),
                entry.blade.address,
                entry.disk.name,
                entry.layout.name,
            )
            for entry in manifest.blades
        ],
    )
    return Group(facts, Text(), artefacts, Text(), blades)


def _render_verified(report: dict[int, dict[str, list[str]]], *, checked: bool) -> list[str]:
    lines = []
    signature = (
        "signature and hashes are good"
        if checked
        else "hashes are good (no cluster folder: signature unchecked)"
    )
    for serial, problems in report.items():
        if not problems:
            lines.append(f"generation {serial}: {signature}")
        lines += [
            f"generation {serial}: {kind}: {line}" for kind, found in problems.items() for line in found
        ]
    return lines or ["no generations yet: `bladeroot publish`"]
