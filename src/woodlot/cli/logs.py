"""``container logs``."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from woodlot.cli import completion
from woodlot.container.logs import LogReader, Record, parse_records
from woodlot.errors import NotFoundError, StateError
from woodlot.units import parse_moment

if TYPE_CHECKING:
    from woodlot.cli.app import App
    from woodlot.container.lifecycle import Container


@click.command()
@click.argument("container", shell_complete=completion.containers)
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.option("-n", "--tail", "tail", default="all", metavar="LINES", help="Only the last ones.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line came.")
@click.option("--since", metavar="TIME", help="From then on: 10m, 2026-01-31T10:00:00Z, seconds.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option("--boot", is_flag=True, help="What the guest's kernel said, in place of the process.")
@click.pass_obj
def logs(
    app: "App",
    container: str,
    *,
    follow: bool,
    tail: str,
    timestamps: bool,
    since: str | None,
    until: str | None,
    boot: bool,
) -> None:
    """Show what a container has printed: its stdout on stdout, its stderr on stderr."""
    from woodlot.container.lifecycle import find

    count = _parse_tail(tail)
    earliest = parse_time(since) if since else ""
    latest = parse_time(until) if until else "~"
    found = find(app.store, container)
    directory = app.paths.container(found.spec.id)
    if boot:
        _print_console(directory / "console.log", found)
        return

    def show(records: Iterable[Record]) -> None:
        for one in records:
            if earliest <= one.time <= latest:
                _print(one, timestamps=timestamps)
        sys.stdout.flush()

    def last(records: Iterable[Record]) -> Iterable[Record]:
        if count is None:
            return records
        return deque((one for one in records if earliest <= one.time <= latest), maxlen=count)

    reader = LogReader(directory / "stdio.log")
    try:
        reader.open()
        if not (follow and found.is_live):
            show(last(reader.read()))
            return
        asyncio.run(_follow(app, found, reader, lambda records: show(last(records)), show))
    finally:
        reader.close()


async def _follow(
    app: "App",
    found: "Container",
    reader: LogReader,
    show_old: Callable[[Iterable[Record]], None],
    show: Callable[[Iterable[Record]], None],
) -> None:
    """Show the log's files up to the moment the supervisor's stream begins, and then the stream until it ends.

    One stream is one start of the container; if it is started again by its restart policy, there is another.
    """
    from woodlot.container.lifecycle import find

    since = seen = ""

    def noted(records: Iterable[Record]) -> Iterable[Record]:
        nonlocal seen
        for one in records:
            seen = one.time
            yield one

    def unseen(records: Iterable[Record]) -> Iterable[Record]:
        # A stream gives all that one start writes, and the next start writes later.
        return noted(one for one in records if one.time > since)

    def show_unseen(records: Iterable[Record]) -> None:
        # `--tail` is about what there was before the first stream.
        (show if since else show_old)(unseen(records))

    def show_noted(records: Iterable[Record]) -> None:
        show(noted(records))

    while await _follow_once(app, found, reader, show_unseen, show_noted):
        if found.spec.restart.name == "no" or not find(app.store, found.spec.id).is_live:
            return
        since = seen or "0"
        reader.close()
        reader.open()


async def _follow_once(
    app: "App",
    found: "Container",
    reader: LogReader,
    show_old: Callable[[Iterable[Record]], None],
    show: Callable[[Iterable[Record]], None],
) -> bool:
    """Follow one stream; whether it came to its end, and there may be another."""
    from woodlot.container.client import Supervised

    began = False
    try:
        async with (
            Supervised(app.paths.sockets(found.spec.id) / "s.sock") as supervised,
            supervised.follow() as (position, records),
        ):
            began = True
            # It may have been rotated since.
            reader.open()
            # In threads: a slow reader of ours must not keep Ctrl-C from being seen.
            await asyncio.to_thread(show_old, reader.read(position))
            async for piece in records:
                await asyncio.to_thread(show, parse_records(piece))
    except StateError:
        # The supervisor is gone: killed, or done before we came, and then all it wrote is in the files.
        if not began:
            reader.open()
            show_old(reader.read())
        return False
    return True


def _print(line: Record, *, timestamps: bool) -> None:
    stream = sys.stderr if line.stream == "stderr" else sys.stdout
    text = f"{line.time} {line.text}" if timestamps else line.text
    stream.buffer.write(text.encode("utf-8", "surrogateescape"))


def _print_console(path: Path, found: "Container") -> None:
    try:
        with path.open("rb") as file:
            while data := file.read(1 << 16):
                sys.stdout.buffer.write(data)
    except FileNotFoundError:
        raise NotFoundError(f"container {found.spec.name} has not been started") from None


def _parse_tail(text: str) -> int | None:
    if text == "all":
        return None
    try:
        count = int(text)
    except ValueError:
        raise click.UsageError(f"--tail takes a number or all, not {text!r}") from None
    return None if count < 0 else count


def parse_time(text: str) -> str:
    """A moment as the log writes it, from an age, a date or seconds since 1970.

    Raises:
        ConfigError: It is none of these.
    """
    return _format(parse_moment(text, time.time()))


def _format(seconds: float) -> str:
    whole, part = divmod(seconds, 1)
    moment = datetime.fromtimestamp(whole, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{round(part * 1e9) % 10**9:09d}Z"
