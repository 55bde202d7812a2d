"""``container system trace``: where the time of a command went."""

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import click

from woodlot import trace
from woodlot.errors import ConfigError
from woodlot.process import run_in_our_place

# What is torn down after the command has ended belongs to the timeline; what goes on for longer does not.
_AFTERMATH_S = 3.0


@click.command(
    "trace", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    default="trace.json",
    show_default=True,
    help="Chrome's trace format, for chrome://tracing and ui.perfetto.dev; NAME.svg is a picture.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def trace_command(context: click.Context, *, output: Path, command: tuple[str, ...]) -> int:
    """Run a command of container's, and write when the host and the guest did what.

    For example: container system trace -o start.svg run --rm alpine true
    """
    if not output.parent.is_dir():
        raise ConfigError(f"there is no directory {output.parent}", hint="make it first")
    events = output.with_name(f".{output.name}.{os.getpid()}")
    with _removed(events):
        events.touch(mode=0o600)
        root = context.find_root().params.get("root")
        status = _run(command, ["--root", root] if root else [], events)
        _await_all(events)
        _write(output, trace.read(events))
    click.echo(f"timeline: {output}", err=True)
    return status


@contextlib.contextmanager
def _removed(path: Path) -> Generator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _run(args: Sequence[str], options: Sequence[str], events: Path) -> int:
    code = "from woodlot.cli.app import main; main()"
    command = [sys.executable, "-c", code, *options, *args]
    start = time.monotonic_ns()
    status = run_in_our_place(command, {trace.VARIABLE: os.fspath(events.absolute())})
    end = time.monotonic_ns()
    first = min(
        (int(event["ts"] * 1000) for event in trace.read(events) if "ts" in event), default=end
    )
    trace.add([(" ".join(args), start, end), ("Python starts", start, first)], file=events)
    return status


def _await_all(events: Path) -> None:
    """Return when no process adds to it any more, or after a while."""
    with events.open("rb") as file:
        waiting = threading.Thread(target=fcntl.flock, args=(file, fcntl.LOCK_EX), daemon=True)
        waiting.start()
        waiting.join(_AFTERMATH_S)


def _write(output: Path, events: list[dict[str, Any]]) -> None:
    if output.suffix == ".svg":
        from woodlot.cli.timeline import draw

        output.write_text(draw(events))
    else:
        output.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n")
