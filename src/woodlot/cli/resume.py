"""``container system resume``, ``stop``, ``enable`` and ``disable``: containers over a restart of the host.

There is no daemon that would start containers when the host comes up, so a unit of systemd's, the user's or root's own,
runs `resume` then, and `stop` when the host goes down. Without systemd, whatever starts programs there can run the two.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from woodlot.cli.output import raise_all
from woodlot.errors import WoodlotError

if TYPE_CHECKING:
    from woodlot.aio import Container
    from woodlot.cli.app import App

_STOP_GRACE_S = 10.0


@click.command()
@click.pass_obj
def resume(app: "App") -> None:
    """Start the containers that ran when the host went down and whose restart policy wants them back."""
    from woodlot.cli.lifecycle import start_again

    failures: list[WoodlotError] = []
    for found in app.client.containers.resumable():
        try:
            start_again(found)
        except WoodlotError as error:
            failures.append(error)
        else:
            print(found.name)
    raise_all(failures)


@click.command()
@click.pass_obj
def stop(app: "App") -> None:
    """Stop all containers, and the machines that wait for one; `resume` starts those again whose restart policy says so."""

    async def one(found: "Container") -> WoodlotError | None:
        try:
            await found.stop(grace_s=_STOP_GRACE_S, resumable=True)
        except WoodlotError as error:
            return error
        print(found.name)
        return None

    async def all_of_them() -> list[WoodlotError | None]:
        live = app.client.containers.list(all=False)
        stopped = await asyncio.gather(*(one(found) for found in live))
        await app.client.system.drain()
        return list(stopped)

    raise_all([error for error in asyncio.run(all_of_them()) if error is not None])


@click.command()
@click.pass_obj
def enable(app: "App") -> None:
    """Have systemd resume containers when the host comes up: as root for root's, else for your own."""
    from woodlot.aio import unit

    program = Path(sys.argv[0]).absolute()
    print(unit.enable(program, app.root or os.environ.get("WOODLOT_ROOT")))
    if os.geteuid() and not (Path("/var/lib/systemd/linger") / _user()).exists():
        click.echo(
            "note: your units run only while you are logged in; for after a boot, too: "
            f"loginctl enable-linger {_user()}",
            err=True,
        )


@click.command()
@click.pass_obj
def disable(app: "App") -> None:
    """Have systemd leave containers alone again; what runs goes on."""
    from woodlot.aio import unit

    del app
    unit.disable()


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
