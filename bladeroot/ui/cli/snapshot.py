"""`bladeroot snapshot`: where OS trees come from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bladeroot.core.sizes import render_about
from bladeroot.errors import (
    ConfigError,
    MissingToolError,
    NetworkError,
    PrivilegeError,
    SnapshotError,
    ToolError,
    UsageError,
)
from bladeroot.ui.cli.output import Output, make_facts, with_hint
from bladeroot.ui.cli.parser import Verbs, add_dry_run, add_verb, add_verbs

if TYPE_CHECKING:
    from bladeroot.core.capturerules import CaptureRules
    from bladeroot.ops.snapshots.adopt import SnapshotReport


def add_parser(verbs: Verbs) -> None:
    """`snapshot debian|adopt|capture`."""
    parser = add_verb(
        verbs,
        "snapshot",
        summary="OS trees: make a Debian, adopt an existing tree, capture a running system",
        description="""
A snapshot is a directory tree that is an OS installation. It is maintained in place, with chroot and its
own package manager, and `bladeroot publish` makes a generation of it.
""",
        errors=[SnapshotError],
        see="`bladeroot help publish`",
    )
    actions = add_verbs(parser)
    _add_debian(actions)
    _add_adopt(actions)
    _add_capture(actions)


def _add_debian(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "debian",
        run=run_debian,
        summary="make a bootable Debian with mmdebstrap",
        description="""
Makes a Debian that boots on BIOS and UEFI, with systemd, sshd, what a blade needs to be root, and
bladeroot itself. It comes from this machine's apt sources for the suite, or from --mirror.

It has no host name, machine-id or SSH host keys, and root has no password: overlays bring what makes a
blade itself, such as /root/.ssh/authorized_keys. Services of included packages are enabled as Debian
does it; overlays switch them off where they do not belong.

It is made beside PATH and renamed when complete, so a failure leaves nothing.
""",
        examples=[
            ("bladeroot snapshot debian /srv/snapshots/bookworm", "a minute or two, 0.8 GB"),
            (
                "bladeroot snapshot debian /srv/snapshots/web --include nginx-light",
                "with more packages",
            ),
            ("chroot /srv/snapshots/web apt-get install htop", "maintained in place, later"),
        ],
        errors=[PrivilegeError, SnapshotError, ToolError, MissingToolError],
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a directory that does not exist yet")
    parser.add_argument("--suite", default="bookworm", help="the Debian release (default: bookworm)")
    parser.add_argument(
        "--mirror", metavar="URL", help="where packages come from (default: this machine's apt sources)"
    )
    parser.add_argument(
        "--include", action="append", default=[], metavar="PKG,…", help="more packages; may be repeated"
    )
    parser.add_argument(
        "--kernel",
        default="linux-image-amd64",
        metavar="PKG",
        help="the kernel's package (default: linux-image-amd64)",
    )
    parser.add_argument(
        "--root-password-file", type=Path, metavar="FILE", help="root's password is the first line of FILE"
    )
    parser.add_argument("--no-self", action="store_true", help="do not put bladeroot into it")


def _add_adopt(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "adopt",
        run=run_adopt,
        summary="check an existing tree of any distribution, and put bladeroot into it",
        description="""
Says what of a blade's needs the tree has: a kernel and an initrd for any hardware, an init, the right
Python, sshd and the tools. If something essential is missing it says which command installs it, and
changes nothing. Otherwise bladeroot is installed into it, in /usr/lib/bladeroot and /usr/bin/bladeroot.
""",
        examples=[
            ("bladeroot snapshot adopt --check /srv/snapshots/rocky9", "only look"),
            ("bladeroot snapshot adopt /srv/snapshots/rocky9", "make it ready"),
        ],
        errors=[PrivilegeError, SnapshotError],
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the tree")
    parser.add_argument("--check", action="store_true", help="only say what is there and what is missing")
    parser.add_argument("--no-self", action="store_true", help="do not put bladeroot into it")


def _add_capture(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "capture",
        run=run_capture,
        summary="a running system, here or over ssh, becomes a snapshot",
        description="""
Copies a golden blade with rsync: all its local filesystems, without what is its own or does not belong
into a copy (machine-id, host keys, leases, logs, caches, pseudo filesystems, the depot). What is left out
stands in capture.rules in the cluster folder, to be read and edited; without a cluster folder the
defaults apply.

A second capture into the same PATH copies what has changed, and deletes what is gone. PATH must be new,
or an earlier capture of the same SOURCE. Capture a quiet machine: a file that is written meanwhile is
copied as it happens to be.
""",
        examples=[
            ("bladeroot snapshot capture / /srv/snapshots/golden", "this machine"),
            ("bladeroot snapshot capture root@gold: /srv/snapshots/golden", "another one, over ssh"),
            ("bladeroot snapshot capture -n root@gold: /srv/snapshots/golden", "what has changed since"),
        ],
        files=[("capture.rules", "in the cluster folder: what is not copied")],
        errors=[PrivilegeError, ConfigError, SnapshotError, NetworkError, ToolError, MissingToolError],
    )
    parser.add_argument("source", metavar="SOURCE", help="/, another directory, or [user@]host:[/directory]")
    parser.add_argument("path", type=Path, metavar="PATH", help="the snapshot")
    parser.add_argument(
        "--rules", type=Path, metavar="FILE", help="instead of the cluster folder's capture.rules"
    )
    parser.add_argument("--no-self", action="store_true", help="do not put bladeroot into it")
    add_dry_run(parser)


def run_debian(args: argparse.Namespace, out: Output) -> int:
    """Make a Debian, and print what it is."""
    from bladeroot.ops.snapshots.debian import build_debian

    build_debian(
        args.path,
        suite=args.suite,
        mirror=args.mirror,
        include=[name for group in args.include for name in group.split(",") if name],
        kernel=args.kernel,
        root_password=_read_password(args.root_password_file),
        with_self=not args.no_self,
        reporter=out.reporter,
    )
    _show_report(_check(args), out)
    return 0


def run_adopt(args: argparse.Namespace, out: Output) -> int:
    """Check a tree, and unless --check or something is missing put bladeroot into it."""
    from bladeroot.ops.snapshots.adopt import adopt_snapshot

    report = _check(args)
    if args.check or report.problems:
        _show_report(report, out)
        return 0 if report.is_ready else SnapshotError.exit_code
    _show_report(adopt_snapshot(args.path, with_self=not args.no_self), out)
    return 0


def run_capture(args: argparse.Namespace, out: Output) -> int:
    """Copy a running system, and unless --dry-run put bladeroot into the copy."""
    from bladeroot.ops.snapshots.capture import capture_snapshot
    from bladeroot.ops.snapshots.source import parse_source

    result = capture_snapshot(
        parse_source(args.source),
        args.path,
        rules=_read_rules(args, out),
        dry_run=args.dry_run,
        reporter=out.reporter,
    )
    facts: dict[str, Any] = {
        "source": result.source,
        "path": str(args.path),
        "filesystems": list(result.filesystems),
        "left_out_mounts": list(result.left_out_mounts),
        "files": result.files,
        "size_bytes": result.size_bytes,
        "transferred_files": result.transferred_files,
        "transferred_bytes": result.transferred_bytes,
        "deleted_files": result.deleted_files,
        "dry_run": result.dry_run,
    }
    would = "to transfer" if result.dry_run else "transferred"
    rendered = make_facts(
        [
            ("source", result.source),
            ("filesystems", " ".join(result.filesystems)),
            ("files", f"{result.files}, {render_about(result.size_bytes)}"),
            (would, f"{result.transferred_files}, {render_about(result.transferred_bytes)}"),
            ("to delete" if result.dry_run else "deleted", result.deleted_files),
        ]
    )
    out.facts(facts, rendered)
    return 0 if args.dry_run else _finish_capture(args, out)


def _finish_capture(args: argparse.Namespace, out: Output) -> int:
    """Put bladeroot into the capture; what it lacks to be a snapshot is said, but it stays a capture."""
    from bladeroot.ops.snapshots.adopt import adopt_snapshot

    report = _check(args)
    for finding in (*report.problems, *report.warnings):
        out.warn(finding.text, finding.hint)
    if report.problems:
        out.say(report.install_command)
        return SnapshotError.exit_code
    adopt_snapshot(args.path, with_self=not args.no_self)
    return 0


def _check(args: argparse.Namespace) -> SnapshotReport:
    from bladeroot.ops.snapshots.adopt import check_snapshot

    return check_snapshot(args.path, with_self=not args.no_self)


def _read_rules(args: argparse.Namespace, out: Output) -> CaptureRules:
    from bladeroot.ops.folder import ClusterFolder, find_folder
    from bladeroot.ops.snapshots.capture import read_capture_rules

    if args.rules is not None:
        return read_capture_rules(args.rules)
    folder = find_folder(args.cluster)
    if args.cluster is None and not folder.exists():
        out.say("no cluster folder: the default capture.rules apply")
        return read_capture_rules(None)
    path = ClusterFolder.open(folder).capture_rules_path
    return read_capture_rules(path if path.exists() else None)


def _read_password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        first = path.read_text(encoding="utf-8").splitlines()[:1]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not first or not first[0]:
        raise UsageError(f"{path} has no password in its first line")
    return first[0]


def _show_report(report: SnapshotReport, out: Output) -> None:
    findings = [*report.problems, *report.warnings]
    data = {
        "path": str(report.path),
        "ready": report.is_ready,
        "distribution": report.distribution,
        "arch": report.arch,
        "kernel": report.kernel and str(report.kernel),
        "kernel_version": report.kernel_version,
        "initrd": report.initrd and str(report.initrd),
        "bladeroot": report.bladeroot,
        "problems": [{"text": finding.text, "hint": finding.hint} for finding in report.problems],
        "warnings": [{"text": finding.text, "hint": finding.hint} for finding in report.warnings],
        "install_command": report.install_command,
    }
    kinds = ["missing"] * len(report.problems) + ["look at"] * len(report.warnings)
    rows: list[tuple[str, object]] = [
        ("snapshot", report.path),
        ("distribution", f"{report.distribution}, {report.arch}"),
        ("kernel", report.kernel_version or report.kernel),
        ("initrd", report.initrd and report.initrd.name),
        ("bladeroot", "in it" if report.bladeroot else "not in it"),
        *((kind, with_hint(found.text, found.hint)) for kind, found in zip(kinds, findings, strict=True)),
    ]
    if report.install_command:
        rows.append(("to install", report.install_command))
    rows.append(("ready", "yes" if report.is_ready else "no"))
    out.facts(data, lambda: make_facts(rows))
