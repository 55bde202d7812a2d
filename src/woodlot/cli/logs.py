"""``container logs``."""

import asyncio
import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from woodlot.cli import completion
from woodlot.errors import NotFoundError
from woodlot.units import parse_moment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from woodlot.aio import Container, Record
    from woodlot.cli.app import App


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
    count = _parse_tail(tail)
    now = time.time()
    earliest = parse_moment(since, now) if since else None
    latest = parse_moment(until, now) if until else None
    found = app.client.containers.get(container)
    if boot:
        _print_console(found)
    elif follow:
        asyncio.run(
            _follow(
                found.follow_log(tail=count, since=earliest, until=latest), timestamps=timestamps
            )
        )
    else:
        _show(found.log_records(tail=count, since=earliest, until=latest), timestamps=timestamps)


async def _follow(pieces: "AsyncGenerator[Sequence[Record]]", *, timestamps: bool) -> None:
    async with aclosing(pieces):
        async for piece in pieces:
            # In threads: a slow reader of ours must not keep Ctrl-C from being seen.
            await asyncio.to_thread(_show, piece, timestamps=timestamps)


def _show(records: "Iterable[Record]", *, timestamps: bool) -> None:
    for one in records:
        _print(one, timestamps=timestamps)
    sys.stdout.flush()


def _print(line: "Record", *, timestamps: bool) -> None:
    stream = sys.stderr if line.stream == "stderr" else sys.stdout
    text = f"{line.time} {line.text}" if timestamps else line.text
    stream.buffer.write(text.encode("utf-8", "surrogateescape"))


def _print_console(found: "Container") -> None:
    try:
        with found.boot_log.open("rb") as file:
            while data := file.read(1 << 16):
                sys.stdout.buffer.write(data)
    except FileNotFoundError:
        raise NotFoundError(f"container {found.name} has not been started") from None


def _parse_tail(text: str) -> int | None:
    if text == "all":
        return None
    try:
        count = int(text)
    except ValueError:
        raise click.UsageError(f"--tail takes a number or all, not {text!r}") from None
    return None if count < 0 else count
