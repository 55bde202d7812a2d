"""``container commit``."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from woodlot.cli import completion

if TYPE_CHECKING:
    from woodlot.cli.app import App

_PAUSE = re.compile(r"(?:-p|--pause)(?:=(.*))?")


class _Command(click.Command):
    """A command whose ``--pause`` takes its value behind ``=`` alone, as Docker's: what follows is the container."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        found = [_PAUSE.fullmatch(arg) for arg in args]
        written = [
            arg if match is None else f"--pause={match[1] or 'true'}"
            for arg, match in zip(args, found, strict=True)
        ]
        return super().parse_args(ctx, written)


@click.command(cls=_Command)
@click.argument("container", shell_complete=completion.containers)
@click.argument("reference", required=False, shell_complete=completion.images)
@click.option("-a", "--author", default="", help="Who made it, as 'Ann <ann@example.org>'.")
@click.option(
    "-c",
    "--change",
    "changes",
    metavar="INSTRUCTION",
    multiple=True,
    help="CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR, as in a"
    " Dockerfile.",
)
@click.option("-m", "--message", default="", help="What to say of it in its history.")
@click.option(
    "-p",
    "--pause",
    type=click.BOOL,
    default=True,
    metavar="[=true|false]",
    help="Let its processes stand still while its files are read (default true).",
)
@click.pass_obj
def commit(
    app: "App",
    container: str,
    reference: str | None,
    *,
    author: str,
    changes: Sequence[str],
    message: str,
    pause: bool,
) -> None:
    """Make an image of a container, running or stopped.

    It has what the container has changed in its root filesystem, but nothing that is mounted there, and is started as
    the container was. Without REFERENCE it is known by its id, which is printed.
    """
    from woodlot.cli.progress import LateProgress

    found = app.client.containers.get(container)
    with contextlib.ExitStack() as bars:
        making = found.commit(
            reference,
            author=author,
            message=message,
            changes=changes,
            pause=pause,
            progress=LateProgress(bars),
        )
        image = asyncio.run(making)
    click.echo(image.digest)
