"""``container stats``."""

import asyncio
import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from woodlot.cli import completion
from woodlot.cli.fields import short_id
from woodlot.cli.listing import Custom, Form, View, format_option, show
from woodlot.units import format_size

if TYPE_CHECKING:
    from woodlot.aio import Container, Reading, Stats
    from woodlot.cli.app import App

    Find = Callable[[], list[Container]]
    Sampled = Reading[Container]

_INTERVAL_S = 1.0
# How far apart the two samples are that tell how busy a processor is.
_APART_S = 0.5
_HEADER = (
    "CONTAINER ID",
    "NAME",
    "CPU %",
    "MEM USAGE / LIMIT",
    "MEM %",
    "HOST MEM",
    "NET I/O",
    "BLOCK I/O",
    "PIDS",
)
_UNKNOWN = "--"
# ANSI: to the top left; erase to the end of the line; erase what is below.
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


@click.command()
@click.argument("containers", nargs=-1, shell_complete=completion.containers)
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run, too.")
@click.option("--no-stream", is_flag=True, help="Show it once.")
@click.option("--no-trunc", is_flag=True, help="Show ids whole.")
@format_option()
@click.pass_obj
def stats(
    app: "App",
    containers: Sequence[str],
    *,
    everything: bool,
    no_stream: bool,
    no_trunc: bool,
    style: str | Custom,
) -> None:
    """Show what containers use: all that run, or those named.

    HOST MEM is what the container's virtual machine, file servers and supervisor take of the host's memory; what they
    share with others counts in parts. JSON and YAML are shown once, with counters since the start, as they are for
    programs.
    """
    if everything and containers:
        raise click.UsageError("containers given by name conflict with --all")
    find = _finder(app, containers, everything=everything)
    form = Form(style=style, truncate=not no_trunc)
    if style in {"json", "yaml"}:
        asyncio.run(_show_counters(app, find, form))
    else:
        asyncio.run(_show(app, find, form, once=no_stream))


async def _show_counters(app: "App", find: "Find", form: Form) -> None:
    async with app.client.containers.meter() as meter:
        show(_view(form), await meter.read(find()), form)


async def _show(app: "App", find: "Find", form: Form, *, once: bool) -> None:
    redraw = sys.stdout.isatty() and not once
    view = _view(form)
    async with app.client.containers.meter() as meter:
        if any(one.stats for one in await meter.read(find())):
            await asyncio.sleep(_APART_S)
        while True:
            readings = await meter.read(find())
            if redraw:
                shown = io.StringIO()
                with contextlib.redirect_stdout(shown):
                    show(view, readings, form)
                # In one piece, so that nobody sees a part of it.
                sys.stdout.write(_frame(shown.getvalue().splitlines(), *shutil.get_terminal_size()))
            else:
                show(view, readings, form)
            sys.stdout.flush()
            if once:
                return
            await asyncio.sleep(_INTERVAL_S)


def _view(form: Form) -> "View[Sampled]":
    return View(
        header=_HEADER,
        row=lambda reading: [cell(reading) for cell in _cells(truncate=form.truncate).values()],
        name=lambda reading: reading.container.spec.id,
        describe=_describe,
        # Docker's.
        fields=lambda: {
            **_cells(truncate=form.truncate),
            "Container": lambda reading: reading.container.spec.name,
        },
        headings=dict(zip(_cells(truncate=True), _HEADER, strict=True)),
    )


def _finder(app: "App", containers: Sequence[str], *, everything: bool) -> "Find":
    """What finds the containers to show, at each moment; those that were named are looked for at once.

    Raises:
        NotFoundError: One that was named is not there.
    """
    known = app.client.containers
    named = {known.get(key).id for key in containers}

    def found() -> "list[Container]":
        return [
            one for one in known.list() if (one.id in named if named else everything or one.is_live)
        ]

    return found


def _frame(lines: Sequence[str], columns: int, rows: int) -> str:
    """What puts the lines in the place of the last ones on a terminal, without a blank moment."""
    shown = [f"{line[:columns]}{_END_OF_LINE}\n" for line in lines[: rows - 1]]
    return "".join([_HOME, *shown, _BELOW])


def _cells(*, truncate: bool) -> "Mapping[str, Callable[[Sampled], str]]":
    """The columns of the table, by the names that Docker's templates have for them."""
    return {
        "ID": lambda one: short_id(one.container.spec.id, truncate=truncate),
        "Name": lambda one: one.container.spec.name,
        "CPUPerc": lambda one: _UNKNOWN if one.cpu_percent is None else f"{one.cpu_percent:.2f}%",
        "MemUsage": _known(
            lambda found: (
                f"{format_size(found.memory_bytes)} / {format_size(found.memory_limit_bytes)}"
            )
        ),
        "MemPerc": _known(lambda found: f"{found.memory_percent:.2f}%"),
        "HostMem": _known(
            lambda found: (
                format_size(found.host_memory_bytes) if found.host_memory_bytes else _UNKNOWN
            )
        ),
        "NetIO": _known(
            lambda found: (
                f"{format_size(found.network_rx_bytes)} / {format_size(found.network_tx_bytes)}"
            )
        ),
        "BlockIO": _known(
            lambda found: (
                f"{format_size(found.block_read_bytes)} / {format_size(found.block_write_bytes)}"
            )
        ),
        "PIDs": _known(lambda found: str(found.processes)),
    }


def _known(cell: "Callable[[Stats], str]") -> "Callable[[Sampled], str]":
    return lambda one: _UNKNOWN if one.stats is None else cell(one.stats)


def _describe(reading: "Sampled") -> dict[str, object]:
    """With Apple's names, where there are any."""
    spec, found = reading.container.spec, reading.stats
    return {
        "id": spec.id,
        "name": spec.name,
        "cpuUsageUsec": found and found.cpu_usage_us,
        "memoryUsageBytes": found and found.memory_bytes,
        "memoryLimitBytes": found and found.memory_limit_bytes,
        "hostMemoryBytes": found and (found.host_memory_bytes or None),
        "networkRxBytes": found and found.network_rx_bytes,
        "networkTxBytes": found and found.network_tx_bytes,
        "blockReadBytes": found and found.block_read_bytes,
        "blockWriteBytes": found and found.block_write_bytes,
        "numProcesses": found and found.processes,
    }
