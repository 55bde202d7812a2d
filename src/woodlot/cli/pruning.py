"""What the commands that prune have in common, and ``container system prune``."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

import click

from woodlot.cli.listing import filter_option
from woodlot.errors import StateError
from woodlot.units import format_size

if TYPE_CHECKING:
    from woodlot.aio import Pruned
    from woodlot.cli.app import App

F = TypeVar("F", bound=Callable[..., object])


def prune_options(*keys: str, what: str) -> Callable[[F], F]:
    """``--force`` and ``--filter``, given to the command as ``conditions``, once its user has agreed.

    Args:
        keys: Of conditions.
        what: As for `force_option`.
    """

    def decorate(command: F) -> F:
        return force_option(what)(filter_option(*keys, short=False)(command))

    return decorate


def force_option(what: str) -> Callable[[F], F]:
    """``--force``; without it, the command runs once its user has agreed.

    Args:
        what: What the command removes, for the question; nobody is asked where there is no terminal.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(*args: object, force: bool, **options: object) -> object:
            if not force and sys.stdin.isatty():
                _ask(what)
            return command(*args, **options)

        option = click.option(
            "-f", "--force", is_flag=True, help="Do not ask, as on a terminal it does."
        )
        return cast("F", option(run))

    return decorate


def print_reclaimed(pruned: "Pruned") -> None:
    """Say on stderr what room was freed."""
    if not pruned.swept:
        click.echo("Space is reclaimed later: an image is being pulled or used now", err=True)
    click.echo(f"Reclaimed {format_size(pruned.freed_bytes)}", err=True)


@click.command("prune")
@click.option("-a", "--all", "every_image", is_flag=True, help="All images no container uses, too.")
@click.option("--volumes", is_flag=True, help="Anonymous volumes that no container uses, too.")
@prune_options(
    "label", "label!", "until",
    what="all containers that do not run, networks and images that nothing needs, and what else the flags say",
)  # fmt: skip
@click.pass_obj
def system_prune(
    app: "App", *, every_image: bool, volumes: bool, conditions: Mapping[str, Sequence[str]]
) -> None:
    """Delete what nothing uses: stopped containers, networks, what is left of images, and old templates."""
    import asyncio

    pruned = asyncio.run(
        app.client.system.prune(filters=conditions, images=every_image, volumes=volumes)
    )
    for kind in ("containers", "networks", "volumes", "images", "templates"):
        names: Sequence[str] = getattr(pruned, kind)
        if names:
            print("\n".join((f"Deleted {kind}:", *names, "")))
    print_reclaimed(pruned)


def _ask(what: str) -> None:
    click.echo(f"This deletes {what}.", err=True)
    if not click.confirm("Go on?", err=True):
        raise StateError("nothing was deleted")
