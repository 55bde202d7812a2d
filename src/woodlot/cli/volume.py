"""The group ``container volume``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from woodlot.cli import completion
from woodlot.cli.output import print_json, print_table, raise_all
from woodlot.errors import WoodlotError
from woodlot.units import format_size

if TYPE_CHECKING:
    from woodlot.cli.app import App


@click.command("create")
@click.argument("name", required=False)
@click.option(
    "--opt", "-o", "options", multiple=True, metavar="NAME=VALUE", help="type=block, size=10g."
)
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Set a label.")
@click.pass_obj
def create_command(
    app: "App", name: str | None, *, options: Sequence[str], labels: Sequence[str]
) -> None:
    """Make a volume, and print its name.

    A volume is a directory that several containers may use at once, or, with --opt type=block, a disk of its own that
    one container may write or several may read.
    """
    from woodlot.container.lifecycle import new_id
    from woodlot.container.options import parse_labels
    from woodlot.volume.volume import create, parse_options

    kind, size = parse_options(options)
    volume = create(
        app.store,
        name or new_id(),
        kind=kind,
        size=size,
        labels=parse_labels(labels),
        anonymous=name is None,
    )
    print(volume.name)


@click.command("list")
@click.option("--format", "style", type=click.Choice(("table", "json")), default="table")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.pass_obj
def list_command(app: "App", *, style: str, quiet: bool) -> None:
    """List volumes."""
    from woodlot.volume.volume import inspect, list_volumes

    volumes = list_volumes(app.store)
    if quiet:
        for volume in volumes:
            print(volume.name)
        return
    rows = [inspect(app.store, volume) for volume in volumes]
    if style == "json":
        print_json(rows)
        return
    print_table(
        ("NAME", "TYPE", "SIZE", "USED", "CREATED"),
        [
            (
                str(row["name"]),
                str(row["type"]),
                format_size(int(str(row["sizeInBytes"]))) if row["sizeInBytes"] else "",
                format_size(int(str(row["usedInBytes"]))),
                str(row["creationDate"]),
            )
            for row in rows
        ],
    )


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, shell_complete=completion.volumes)
@click.pass_obj
def inspect_command(app: "App", names: Sequence[str]) -> None:
    """Show all of volumes as a JSON array."""
    from woodlot.volume.volume import find, inspect

    print_json([inspect(app.store, find(app.store, name)) for name in names], pretty=True)


@click.command("delete")
@click.argument("names", nargs=-1, required=True, shell_complete=completion.volumes)
@click.pass_obj
def delete_command(app: "App", names: Sequence[str]) -> None:
    """Delete volumes and the files in them."""
    from woodlot.volume.volume import delete

    failures: list[WoodlotError] = []
    for name in dict.fromkeys(names):
        try:
            delete(app.store, name)
            print(name)
        except WoodlotError as error:
            failures.append(error)
    raise_all(failures)


@click.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Those with a name, too.")
@click.pass_obj
def prune_command(app: "App", *, every: bool) -> None:
    """Delete the volumes that were made for one container and that no container uses."""
    from woodlot.volume.volume import prune

    names, freed = prune(app.store, every=every)
    for name in names:
        print(name)
    click.echo(f"Reclaimed {format_size(freed)}", err=True)


class _Aliased(click.Group):
    """A group whose commands have second names."""

    aliases = {"ls": "list", "rm": "delete"}  # noqa: RUF012 - never changed

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name or alias."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))


@click.group(cls=_Aliased)
def volume() -> None:
    """Manage volumes (v)."""


for _command in (create_command, list_command, inspect_command, delete_command, prune_command):
    volume.add_command(_command)
