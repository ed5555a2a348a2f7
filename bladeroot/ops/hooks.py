"""Runs a blade's hooks, and gets them for where there is no disk yet to have them on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bladeroot.core.hooks import HOOKS_DIRECTORY, HookFacts, When, render_environment
from bladeroot.core.manifest import ArtefactKind, BladeEntry, Manifest
from bladeroot.errors import HookError, ToolError
from bladeroot.events import Note, Reporter
from bladeroot.host.archive import read_plain_files
from bladeroot.host.files import explain_full_disk
from bladeroot.host.kernels import resolve_inside
from bladeroot.host.limited import Ended, end_processes_in, run_limited
from bladeroot.host.run import Argument
from bladeroot.ops.sources import Source

HOOK_TIMEOUT_S = 300.0
"""What a hook has, unless it is said otherwise."""
LOG = "var/log/bladeroot/hooks.log"
"""In the installed tree: what its hooks have said, those before the install too."""
_BASE_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
_MOST_LINES_TOLD = 40
_SAID_LINES = 3


def fetch_hooks(source: Source, manifest: Manifest, entry: BladeEntry, into: Path) -> Path:
    """Get a blade's hooks out of its overlay without a depot: `into` then has `<when>/NAME`, and is returned.

    The overlay's file is verified, and no larger than its torrent says. Raises NetworkError, ArtefactError,
    DepotError.
    """
    artefact = manifest.artefact(ArtefactKind.OVERLAYS)
    archive = source.read_file(artefact, entry.overlay)
    for path, content in read_plain_files(archive, HOOKS_DIRECTORY.encode()):
        when, _, name = path.decode(errors="replace").partition("/")
        if when not in list(When) or not name or "/" in name:
            continue
        target = into / when / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with explain_full_disk(target):
            target.write_bytes(content)
        target.chmod(0o755)
    return into


def find_hook_files(when: When, directory: Path) -> list[Path]:
    """The hooks of that kind below `directory`, in the order in which they run."""
    try:
        found = sorted((directory / when).iterdir(), key=lambda path: path.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in found if path.is_file() and not path.is_symlink()]


def run_hooks(
    when: When,
    directory: Path,
    facts: HookFacts,
    reporter: Reporter,
    *,
    timeout_s: float = HOOK_TIMEOUT_S,
    root: Path | None = None,
    log: Path | None = None,
) -> tuple[str, ...]:
    """Run the hooks in `directory/<when>/`, one after the other as `run_hook` does; returns their names.

    Raises HookError at the first that fails; those behind it do not run.
    """
    hooks = find_hook_files(when, directory)
    for hook in hooks:
        run_hook(when, hook, facts, reporter, timeout_s=timeout_s, root=root, log=log)
    return tuple(hook.name for hook in hooks)


def run_hook(
    when: When,
    hook: Path,
    facts: HookFacts,
    reporter: Reporter,
    *,
    timeout_s: float = HOOK_TIMEOUT_S,
    root: Path | None = None,
    log: Path | None = None,
) -> None:
    """Run one hook; with `root`, which it is in, in a chroot there.

    It has `timeout_s`, then it and all that it started is killed. The end of what it says goes to the
    reporter, all of it (up to 1 MiB) to the end of `log`. Raises HookError.
    """
    reporter(Note(text=f"{when} hook {hook.name}"))
    environment = {**_BASE_ENVIRONMENT, **render_environment(facts, when, hook.name)}
    with _open_log(log, when, hook.name) as stream:
        ended = _run(when, hook, environment, timeout_s, root, stream)
    lines = _clean_lines(ended.tail)
    for line in lines[-_MOST_LINES_TOLD:]:
        reporter(Note(text=f"{hook.name}: {line}"))
    _check_ended(when, hook.name, ended, lines, timeout_s)
    reporter(Note(text=f"{when} hook {hook.name} is done after {ended.duration_s:.1f} s"))


def open_log_in(root: Path) -> Path:
    """Where hooks of that tree write their log, its folder made; never outside of the tree."""
    folder = resolve_inside(root, str(Path(LOG).parent))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(LOG).name
    if path.is_symlink():
        path.unlink()
    return path


def _run(
    when: When,
    hook: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    root: Path | None,
    log: IO[bytes] | None,
) -> Ended:
    argv: list[Argument] = [str(hook)]
    if root is not None:
        argv = ["chroot", root, f"/{hook.relative_to(root)}"]
    try:
        return run_limited(argv, environment=environment, timeout_s=timeout_s, log=log)
    except ToolError as error:
        hint = "does its first line name a program that is there? The agent has /bin/sh and /usr/bin/python3"
        raise HookError(f"{when} hook {hook.name} cannot be started: {error}", hint) from error
    finally:
        if root is not None:
            end_processes_in(root)


def _check_ended(when: When, name: str, ended: Ended, lines: list[str], timeout_s: float) -> None:
    if ended.code == 0:
        return
    if ended.code is None:
        how = f"not done after {timeout_s:g} s, and killed"
    elif ended.code < 0:
        how = f"killed by signal {-ended.code}"
    else:
        how = f"exit code {ended.code}"
    said = " | ".join(lines[-_SAID_LINES:])
    raise HookError(
        f"{when} hook {name}: {how}{': ' if said else ''}{said}",
        f"mend it in the overlay's hooks/{when}/{name}, and publish again",
    )


@contextmanager
def _open_log(log: Path | None, when: When, name: str) -> Iterator[IO[bytes] | None]:
    if log is None:
        yield None
        return
    with explain_full_disk(log), open(log, "ab") as stream:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        stream.write(f"--- {stamp} {when}/{name}\n".encode())
        stream.flush()
        yield stream


def _clean_lines(output: bytes) -> list[str]:
    """The lines of an output that say something, without what would move a terminal's cursor."""
    text = output.decode(errors="replace")
    lines = (
        "".join(character if character.isprintable() else " " for character in line).rstrip()
        for line in text.splitlines()
    )
    return [line for line in lines if line]
