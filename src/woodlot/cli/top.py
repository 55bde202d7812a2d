"""``container top``: the processes of a container, in the columns of ps."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from woodlot.cli import completion
from woodlot.cli.output import print_table
from woodlot.errors import ConfigError
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot.aio import RunningProcess
    from woodlot.cli.app import App

# Device numbers, linux/Documentation/admin-guide/devices.txt.
_PTY_MAJOR = 136
_CONSOLE = (5 << 8) | 1


@dataclass(frozen=True, slots=True)
class Row:
    """A process, and what it is compared with."""

    process: "RunningProcess"
    memory_bytes: int
    now: float

    def cpu_percent(self) -> float:
        """Of one processor, over all its life."""
        return 100 * self.process.cpu_s / self.process.age_s if self.process.age_s else 0.0

    def started(self) -> str:
        """Hour and minute, of another day its date, of another year that."""
        then = time.localtime(self.now - self.process.age_s)
        today = time.localtime(self.now)
        if then[:3] == today[:3]:
            return time.strftime("%H:%M", then)
        return time.strftime("%b%d" if then.tm_year == today.tm_year else "%Y", then)

    def terminal(self) -> str:
        """Its name; ``?`` for none."""
        number = self.process.terminal
        major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
        if number == _CONSOLE:
            return "console"
        return f"pts/{minor}" if major == _PTY_MAJOR else "?"

    def user(self) -> str:
        """Its name, or its number."""
        return self.process.user or str(self.process.uid)


def _clock(seconds: float) -> str:
    """``[DD-]HH:MM:SS``."""
    whole = int(seconds)
    days = f"{whole // 86400}-" if whole >= 86400 else ""
    return f"{days}{whole // 3600 % 24:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


Cell = Callable[[Row], str]

_COLUMNS: Mapping[str, tuple[str, Cell]] = {
    "args": ("COMMAND", lambda row: row.process.command),
    "c": ("C", lambda row: f"{min(row.cpu_percent(), 99):.0f}"),
    "cmd": ("CMD", lambda row: row.process.command),
    "comm": ("COMMAND", lambda row: row.process.name),
    "etime": ("ELAPSED", lambda row: _clock(row.process.age_s)),
    "nice": ("NI", lambda row: str(row.process.nice)),
    "nlwp": ("NLWP", lambda row: str(row.process.threads)),
    "pcpu": ("%CPU", lambda row: f"{row.cpu_percent():.1f}"),
    "pgid": ("PGID", lambda row: str(row.process.group_id)),
    "pid": ("PID", lambda row: str(row.process.pid)),
    "pmem": ("%MEM", lambda row: f"{100 * row.process.resident_bytes / row.memory_bytes:.1f}"),
    "ppid": ("PPID", lambda row: str(row.process.parent_pid)),
    "rss": ("RSS", lambda row: str(row.process.resident_bytes // 1024)),
    "sid": ("SID", lambda row: str(row.process.session_id)),
    "start": ("START", Row.started),
    "stat": ("STAT", lambda row: row.process.state),
    "stime": ("STIME", Row.started),
    "time": ("TIME", lambda row: _clock(row.process.cpu_s)),
    "tty": ("TTY", Row.terminal),
    "uid": ("UID", lambda row: str(row.process.uid)),
    "user": ("USER", Row.user),
    "vsz": ("VSZ", lambda row: str(row.process.virtual_bytes // 1024)),
}
_MORE_NAMES = {
    "%cpu": "pcpu", "%mem": "pmem", "command": "args", "cputime": "time", "euid": "uid", "euser": "user", "ni": "nice",
    "pgrp": "pgid", "rssize": "rss", "s": "stat", "sess": "sid", "session": "sid", "start_time": "stime", "state": "stat",
    "thcount": "nlwp", "tname": "tty", "tt": "tty", "ucmd": "comm", "uname": "user", "vsize": "vsz",
}  # fmt: skip
_FULL: Sequence[tuple[str, Cell]] = (
    ("UID", Row.user),
    *(_COLUMNS[name] for name in ("pid", "ppid", "c", "stime", "tty", "time", "cmd")),
)
_SHORT: Sequence[tuple[str, Cell]] = (
    *(_COLUMNS[name] for name in ("pid", "tty", "time")),
    ("CMD", _COLUMNS["comm"][1]),
)
_BSD: Sequence[tuple[str, Cell]] = (
    *(_COLUMNS[name] for name in ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start")),
    ("TIME", lambda row: _minutes(row.process.cpu_s)),
    _COLUMNS["args"],
)  # fmt: skip


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("container", shell_complete=completion.containers)
@click.argument("columns", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def top(app: "App", container: str, columns: Sequence[str]) -> None:
    """Show the processes of a container, which needs no ps for it.

    COLUMNS are those of ps, as in `pid user args`, or the options -ef (as without any), -e, aux and -o pid,args. Process
    ids are those in the container.
    """
    wanted = parse_columns(columns)
    found = app.client.containers.get(container)
    processes = asyncio.run(found.top())
    rows = [Row(one, found.spec.memory_bytes, time.time()) for one in processes]
    print_table([name for name, _ in wanted], [[cell(row) for _, cell in wanted] for row in rows])
    if processes.left_out:
        click.echo(f"{processes.left_out} more are not shown", err=True)


def parse_columns(words: Sequence[str]) -> Sequence[tuple[str, Cell]]:
    """Headings and cells that the words after a container's name ask for.

    Raises:
        ConfigError: Something that ps may know and we do not.
    """
    names: list[str] = []
    ready: Sequence[tuple[str, Cell]] = _FULL
    waiting = False
    for word in words:
        options = word.removeprefix("-")
        if waiting or (word == options and word not in {"aux", "ax", "o"}):
            names += word.split(",")
            waiting = False
        elif options in {"ef", "f", "Af"}:
            ready = _FULL
        elif options in {"e", "A", "ax"}:
            ready = _SHORT
        elif options == "aux":
            ready = _BSD
        elif options in {"o", "eo", "Ao", "axo"}:
            waiting = True
        elif options.startswith("o"):
            names += options[1:].split(",")
        else:
            raise _unknown(word)
    if waiting:
        raise ConfigError(f"{words[-1]} needs columns", hint="such as pid,user,args")
    return [_find(name) for name in names] or ready


def _find(text: str) -> tuple[str, Cell]:
    name, is_titled, title = text.partition("=")
    name = _MORE_NAMES.get(name.lower(), name.lower())
    if name not in _COLUMNS:
        raise _unknown(text)
    heading, cell = _COLUMNS[name]
    return title if is_titled else heading, cell


def _unknown(word: str) -> ConfigError:
    return ConfigError(
        f"{word!r} is no column of container top",
        hint=f"use -ef, -e, aux, or some of {', '.join(_COLUMNS)}",
    )
