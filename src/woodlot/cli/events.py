"""``container events``."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from woodlot.errors import ConfigError
from woodlot.units import parse_moment

if TYPE_CHECKING:
    from woodlot.cli.app import App
    from woodlot.store.events import Event

_KEYS = ("container", "event", "image", "label", "network", "type", "volume")


@click.command()
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those.")
@click.option("--since", metavar="TIME", help="Also what happened from then on.")
@click.option("--until", metavar="TIME", help="Up to then; in place of going on for ever.")
@click.option("--format", "style", type=click.Choice(("text", "json")), default="text")
@click.pass_obj
def events(
    app: "App", *, filters: Sequence[str], since: str | None, until: str | None, style: str
) -> None:
    """Show what happens to containers, images, networks and volumes, as it happens."""
    wanted = parse_filters(filters)
    earliest = parse_moment(since, time.time()) if since else time.time()
    latest = parse_moment(until, time.time()) if until else None

    def show(event: "Event") -> None:
        if matches(event, wanted):
            text = json.dumps(event.to_json(), sort_keys=True) if style == "json" else _line(event)
            print(text, flush=True)

    async def follow() -> None:
        async with aclosing(app.store.events.follow(round(earliest * 1e9))) as happening:
            async for event in happening:
                show(event)

    async def follow_until(end: float) -> None:
        try:
            async with asyncio.timeout(end - time.time()):
                await follow()
        except TimeoutError:
            return

    if latest is None:
        asyncio.run(follow())
    elif latest > time.time():
        asyncio.run(follow_until(latest))
    else:
        for event in app.store.events.read(round(earliest * 1e9), round(latest * 1e9)):
            show(event)


def parse_filters(filters: Sequence[str]) -> dict[str, set[str]]:
    """The values of each key.

    Raises:
        ConfigError: A filter is no ``KEY=VALUE``, or its key is not known.
    """
    wanted: dict[str, set[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in _KEYS:
            raise ConfigError(
                f"--filter cannot be {text!r}",
                hint=f"use KEY=VALUE with a key of {', '.join(_KEYS)}",
            )
        wanted.setdefault(key, set()).add(value)
    return wanted


def matches(event: "Event", wanted: dict[str, set[str]]) -> bool:
    """Whether the event has one of the values of each key, as Docker matches them."""
    return all(_has(event, key, values) for key, values in wanted.items())


def _has(event: "Event", key: str, values: set[str]) -> bool:
    attributes = event.attributes
    match key:
        case "type":
            return event.type in values
        case "event":
            # `health_status` stands for all of them.
            return event.action in values or event.action.partition(":")[0] in values
        case "label":
            return any(
                attributes.get(name) == value if equals else name in attributes
                for name, equals, value in (text.partition("=") for text in values)
            )
        case "image":
            name = event.id if event.type == "image" else attributes.get("image", "")
            names = {name, attributes.get("name", "")} if event.type == "image" else {name}
            return any(_is_image(name, value) for name in names for value in values)
        case _:
            return event.type == key and any(
                event.id.startswith(value) or attributes.get("name") == value
                for value in values
                if value
            )


def _is_image(name: str, wanted: str) -> bool:
    from woodlot.errors import WoodlotError
    from woodlot.oci.reference import parse_reference

    try:
        return name in {wanted, str(parse_reference(wanted))}
    except WoodlotError:
        return name == wanted


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
