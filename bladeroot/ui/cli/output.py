"""What a verb says: facts on standard output, everything else on standard error."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from bladeroot import events
from bladeroot.core.sizes import render_about
from bladeroot.errors import BladerootError, UsageError

if TYPE_CHECKING:  # rich itself is for those who show something: the daemon does without it
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_PIPE_WIDTH = 10_000
"""Lines into a pipe are not wrapped: `grep` and `awk` want them whole."""
_REDRAW_S = 0.1

Stream = IO[str]


class Output:
    """One way to speak for all verbs. With `as_json` facts are one JSON document on standard output, and
    events are JSON lines on standard error; else facts are text and tables, and events are lines.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._lock = threading.RLock()
        self._progress_shown = False
        self._progress_time = 0.0
        self._titles: dict[tuple[str, str], str] = {}

    @property
    def is_terminal(self) -> bool:
        """Whether facts go to a person's terminal."""
        return self._stdout.isatty()

    def console(self) -> Console:
        """A rich console on standard output, for live displays."""
        from rich.console import Console

        return Console(file=self._stdout, width=None if self.is_terminal else _PIPE_WIDTH, highlight=False)

    def facts(self, data: Any, rendered: RenderableType | Callable[[], RenderableType] = "") -> None:
        """The answer of a verb: `data` (plain values) with --json, else `rendered` (text, a rich renderable,
        or a function that makes one). An empty text prints nothing.
        """
        with self._lock:
            self._clear_progress()
            if self.as_json:
                self._stdout.write(json.dumps(data, indent=2, default=str) + "\n")
            else:
                self._print(rendered() if callable(rendered) else rendered)
            self._stdout.flush()

    def text(self, text: str) -> None:
        """Text that is the same for people and machines, such as what `export` writes."""
        with self._lock:
            self._clear_progress()
            self._stdout.write(text)
            self._stdout.flush()

    def binary(self) -> IO[bytes]:
        """Standard output for bytes. Raises UsageError where it is a terminal."""
        if self.is_terminal:
            raise UsageError("this writes bytes that a terminal cannot show", "redirect it: > FILE")
        self._stdout.flush()
        return cast(IO[bytes], cast(io.TextIOWrapper, self._stdout).buffer)

    def say(self, text: str) -> None:
        """A remark for people, on standard error; --quiet and --json leave it out."""
        if not self.quiet and not self.as_json:
            self._line(text)

    def warn(self, text: str, hint: str = "") -> None:
        """A warning, as `events.Warned` would give one."""
        self.reporter(events.Warned(text=text, hint=hint))

    def error(self, error: BladerootError) -> None:
        """The one line that a failure is; an object with --json."""
        if self.as_json:
            self._json_line({"error": str(error), "hint": error.hint, "exit_code": error.exit_code})
        else:
            self._line(f"bladeroot: {with_hint(str(error), error.hint)}", style="bold red")

    def reporter(self, event: events.Event) -> None:
        """Take an event, from any thread: a line on standard error, or a JSON line with --json."""
        try:
            with self._lock:
                if self.as_json:
                    if not self.quiet:
                        self._json_line(events.to_mapping(event))
                else:
                    self._show(event)
        except (OSError, ValueError):
            pass  # whoever reads our standard error has left; the work goes on

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep event lines away while something else draws on the terminal."""
        with self._lock:
            self._clear_progress()
            yield

    def _show(self, event: events.Event) -> None:
        who = f"{event.subject}: " if event.subject else ""
        match event:
            case events.Warned():
                self._line(f"{who}warning: {with_hint(event.text, event.hint)}", style="yellow")
            case events.Failed():
                self._line(f"{who}failed: {with_hint(event.text, event.hint)}", style="bold red")
            case _ if self.quiet:
                return
            case events.Progress():
                self._show_progress(who, event)
            case events.StepStarted():
                title = event.title or event.step
                self._titles[event.subject, event.step] = title
                if self.verbose or not self._stderr.isatty():
                    self._line(f"{who}{title} …")
                else:
                    self._draw_progress(f"{who}{title} …")
            case events.StepFinished():
                title = self._titles.pop((event.subject, event.step), event.step)
                self._line(f"{who}{title}: {event.duration_s:.1f} s")
            case events.Note():
                self._line(f"{who}{event.text}")
            case events.Held():
                self._line(f"{who}held: {with_hint(event.reason, event.hint)}", style="yellow")
            case events.Booted():
                self._line(f"{who}up with generation {event.serial}")
            case events.RootStarted():
                what = f"{event.cluster} with generation {event.serial}"
                self._line(f"{who}{event.blade} is root of {what}, port {event.port}")
            case events.SwarmStats() if self.verbose:
                have, total = render_about(event.have_bytes), render_about(event.total_bytes)
                self._line(f"{who}{event.artefact}: {have} of {total} from {event.peers} peers")
            case _:
                return

    def _show_progress(self, who: str, event: events.Progress) -> None:
        now = time.monotonic()
        if not self._stderr.isatty() or now - self._progress_time < _REDRAW_S:
            return
        title = self._titles.get((event.subject, event.step), event.step)
        done, total = _amount(event.done, event.unit), _amount(event.total, event.unit)
        share = f" {100 * event.done // event.total:3d} %" if event.total else ""
        of = f" of {total}" if event.total else ""
        extracted = ""
        if event.extracted is not None and event.total:
            extracted = f" fetched, {100 * event.extracted // event.total} % extracted"
        self._draw_progress(f"{who}{title}{share}  {done}{of}{extracted}")

    def _draw_progress(self, text: str) -> None:
        width = _terminal_width(self._stderr) - 1
        self._stderr.write(f"\r\x1b[K{text[:width]}")
        self._stderr.flush()
        self._progress_shown = True
        self._progress_time = time.monotonic()

    def _clear_progress(self) -> None:
        if self._progress_shown:
            self._stderr.write("\r\x1b[K")
            self._stderr.flush()
            self._progress_shown = False

    def _line(self, text: str, style: str = "") -> None:
        with self._lock:
            self._clear_progress()
            shown = make_printable(text)
            if style and self._stderr.isatty():
                from rich.console import Console
                from rich.text import Text

                Console(file=self._stderr, highlight=False).print(Text(shown, style=style))
            else:
                self._stderr.write(shown + "\n")
            self._stderr.flush()

    def _json_line(self, mapping: Mapping[str, Any]) -> None:
        with self._lock:
            self._stderr.write(json.dumps(mapping, default=str) + "\n")
            self._stderr.flush()

    def _print(self, rendered: RenderableType) -> None:
        if isinstance(rendered, str):
            if rendered:
                self._stdout.write(make_printable(rendered) + "\n")
        elif self.is_terminal:
            self.console().print(rendered)
        else:
            self._stdout.write(render_plain(rendered))


def render_plain(rendered: RenderableType, width: int = _PIPE_WIDTH) -> str:
    """A renderable as text without colours and without blanks at the ends of lines."""
    from rich.console import Console

    memory = io.StringIO()
    Console(file=memory, width=width, color_system=None, highlight=False).print(rendered)
    return "".join(line.rstrip() + "\n" for line in memory.getvalue().splitlines())


def make_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()
) -> Table:
    """A table in bladeroot's one style; the columns named in `right` are flush right. None shows as `-`."""
    from rich.table import Table

    numbers = set(right)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading.upper(), justify="right" if heading in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def make_facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values below each other, for what `show` prints."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, _cell(value))
    return table


def with_hint(what: str, hint: str) -> str:
    """One line: what, where, and what to do."""
    return f"{what} ({hint})" if hint else what


def make_printable(text: str) -> str:
    """Without what could steer a terminal: names come from trees and from the network."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else f"\\x{ord(character):02x}"
        for character in text
    )


def _cell(value: object) -> Text:
    from rich.text import Text

    return Text("-" if value is None or value == "" else make_printable(str(value)))


def _amount(number: int, unit: str) -> str:
    return render_about(number) if unit == "bytes" else f"{number} {unit}"


def _terminal_width(stream: Stream) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
