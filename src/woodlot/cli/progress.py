"""Drawing the progress of long work, always on stderr: a bar on a terminal, lines elsewhere, or nothing."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Literal, TextIO

from woodlot.errors import ConfigError
from woodlot.progress import NoProgress, Progress
from woodlot.units import format_size
from woodlot.values import dataclass

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

KINDS = ("auto", "none", "ansi", "plain", "color")
_PLAIN_EVERY_S = 5.0
_LATE_S = 1.0


@contextlib.contextmanager
def make_progress(kind: str = "auto", *, stream: TextIO | None = None) -> Generator[Progress]:
    """What draws progress during the block; afterwards nothing of it is left moving.

    Args:
        kind: ``none``; ``plain`` lines; bars as ``ansi`` (without colour) or ``color``; ``auto`` is a bar on a
            terminal, in colour unless ``NO_COLOR`` is set, and lines elsewhere.
        stream: Where to; None is stderr.

    Raises:
        ConfigError: ``kind`` is none of `KINDS`.
    """
    output = stream or sys.stderr
    match _resolve(kind, output):
        case "none":
            yield NoProgress()
        case "plain":
            yield PlainProgress(output)
        case "ansi":
            with _bars(output, color=False) as progress:
                yield progress
        case "color":
            with _bars(output, color=True) as progress:
                yield progress


def _resolve(kind: str, stream: TextIO) -> Literal["none", "ansi", "plain", "color"]:
    no_color = bool(os.environ.get("NO_COLOR"))
    match kind:
        case "none" | "plain" | "ansi":
            return kind
        case "color":
            return "ansi" if no_color else "color"
        case "auto":
            if not stream.isatty() or os.environ.get("TERM") == "dumb":
                return "plain"
            return "ansi" if no_color else "color"
        case _:
            raise ConfigError(f"progress must be {', '.join(KINDS)}, got {kind!r}")


@dataclass(slots=True, kw_only=True)
class _Task:
    label: str
    total: int | None
    started: float
    shown: float
    done: int = 0


class PlainProgress:
    """A line when a task begins and ends, and now and then between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tasks: dict[str, _Task] = {}
        self._lock = threading.Lock()

    def start(self, key: str, label: str, *, total: int | None = None) -> None:
        """Say that the task begins."""
        now = time.monotonic()
        with self._lock:
            self._tasks[key] = _Task(label=label, total=total, started=now, shown=now)
            self._write(label + (f" ({format_size(total)})" if total else ""))

    def advance(self, key: str, amount: int) -> None:
        """Say how far the task is, not too often."""
        now = time.monotonic()
        with self._lock:
            task = self._tasks.get(key)
            if task is None:
                return
            task.done += amount
            if now - task.shown >= _PLAIN_EVERY_S:
                task.shown = now
                of = f" of {format_size(task.total)}" if task.total else ""
                self._write(f"{task.label}: {format_size(task.done)}{of}")

    def finish(self, key: str, note: str = "") -> None:
        """Say that the task is done, and how long it took."""
        with self._lock:
            task = self._tasks.pop(key, None)
            if task is not None:
                took = f"{time.monotonic() - task.started:.1f} s"
                self._write(f"{task.label}: {note or f'done in {took}'}")

    def _write(self, line: str) -> None:
        # Work does not fail because nobody listens any more.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()


class LateProgress:
    """Bars on a terminal, for work that turns out to take long; nothing for all other."""

    def __init__(self, bars: contextlib.ExitStack, *, stream: TextIO | None = None) -> None:
        """``bars`` is left by the caller when the work is done, and takes the drawing down."""
        self._bars = bars
        self._stream = stream or sys.stderr
        self._drawn: Progress | None = None
        self._begun = time.monotonic()
        self._label = ""
        self._total: int | None = None
        self._done = 0

    def start(self, key: str, label: str, *, total: int | None = None) -> None:
        """Remember what it is; there is one task at a time."""
        if self._drawn is not None:
            self._drawn.start(key, label, total=total)
        self._begun, self._label, self._total, self._done = time.monotonic(), label, total, 0

    def advance(self, key: str, amount: int) -> None:
        """Draw, if it takes long already."""
        self._done += amount
        if self._drawn is not None:
            self._drawn.advance(key, amount)
        elif time.monotonic() - self._begun > _LATE_S and self._stream.isatty():
            self._drawn = self._bars.enter_context(make_progress("auto", stream=self._stream))
            self._drawn.start(key, self._label, total=self._total)
            self._drawn.advance(key, self._done)

    def finish(self, key: str, note: str = "") -> None:
        """The task is done."""
        if self._drawn is not None:
            self._drawn.finish(key, note)


class BarProgress:
    """One bar for each task, drawn by rich, and a last line with everything."""

    def __init__(self, bars: "RichBars") -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def start(self, key: str, label: str, *, total: int | None = None) -> None:
        """Add a bar."""
        with self._lock:
            old = self._tasks.pop(key, None)
            if old is not None:
                self._bars.remove_task(old)
            self._tasks[key] = self._bars.add_task(_escape(label), total=total, note="")

    def advance(self, key: str, amount: int) -> None:
        """Move its bar."""
        with self._lock:
            task = self._tasks.get(key)
            if task is not None:
                self._bars.advance(task, amount)

    def finish(self, key: str, note: str = "") -> None:
        """Fill its bar."""
        with self._lock:
            task = self._tasks.get(key)
            if task is None:
                return
            bar = self._bars.tasks[self._bars.task_ids.index(task)]
            done = bar.total if bar.total is not None else max(bar.completed, 1)
            self._bars.update(task, total=done, completed=done, note=_escape(note))


@contextlib.contextmanager
def _bars(stream: TextIO, *, color: bool) -> Generator[BarProgress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Amount(ProgressColumn):
        """Bytes and rate, for tasks that are counted in bytes."""

        _download = DownloadColumn(binary_units=True)
        _speed = TransferSpeedColumn()

        def render(self, task: Task) -> Text:
            if task.total is None or task.total <= 1:
                return Text("")
            if task.finished:
                return Text(format_size(task.total))
            return Text.assemble(self._download.render(task), "  ", self._speed.render(task))

    console = Console(
        file=stream,
        force_terminal=True,
        no_color=not color,
        color_system="auto" if color else None,
        highlight=False,
    )
    bars = Bars(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        Amount(),
        TextColumn("{task.fields[note]}"),
        console=console,
        # stdout is for results: it must not be redirected into the drawing.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bars:
        yield BarProgress(bars)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
