"""``container events``."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from woodlot.aio.client import EVENT_FILTERS
from woodlot.cli.listing import Custom, FormatType, filter_option, show_one
from woodlot.units import parse_moment

if TYPE_CHECKING:
    from woodlot.aio import Event
    from woodlot.cli.app import App


@click.command()
@filter_option(*EVENT_FILTERS)
@click.option("--since", metavar="TIME", help="Also what happened from then on.")
@click.option("--until", metavar="TIME", help="Up to then; in place of going on for ever.")
@click.option(
    "--format", "style", type=FormatType(table=False), default=None, metavar="json|yaml|TEMPLATE",
    help="How to show one; a template is as '{{.Type}} {{.Action}} {{.Actor.ID}}'.",
)  # fmt: skip
@click.pass_obj
def events(
    app: "App",
    *,
    conditions: Mapping[str, Sequence[str]],
    since: str | None,
    until: str | None,
    style: str | Custom | None,
) -> None:
    """Show what happens to containers, images, networks and volumes, as it happens."""
    now = time.time()
    happening = app.client.events(
        since=parse_moment(since, now) if since else None,
        until=parse_moment(until, now) if until else None,
        filters=conditions,
    )

    async def follow() -> None:
        async with aclosing(happening):
            async for event in happening:
                _show(event, style)

    asyncio.run(follow())


def _show(event: "Event", style: str | Custom | None) -> None:
    fields = event.to_json()
    if isinstance(style, Custom):
        # As Docker's templates name them.
        fields |= {"ID": event.id, "Status": event.action}
        fields |= {"Scope": fields["scope"], "Time": fields["time"], "TimeNano": fields["timeNano"]}
    if style is None:
        print(_line(event), flush=True)
    else:
        show_one(fields, style)
        sys.stdout.flush()


def _line(event: "Event") -> str:
    seconds, nanos = divmod(event.time_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC)
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(event.attributes.items()))
    text = (
        f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z {event.type} {event.action} {event.id}"
        f" ({attributes})"
    )
    # An image's labels are anybody's: no line breaks, nothing that moves the terminal's cursor.
    return "".join(char if char.isprintable() else "�" for char in text)
