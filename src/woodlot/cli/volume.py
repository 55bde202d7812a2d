"""The group ``container volume``."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from woodlot.aio.volumes import FILTERS, PRUNE_FILTERS
from woodlot.cli import completion
from woodlot.cli.groups import Group
from woodlot.cli.listing import Form, View, inspect_option, list_options, show, show_inspected
from woodlot.cli.output import raise_all
from woodlot.cli.pruning import print_reclaimed, prune_options
from woodlot.errors import ConfigError, WoodlotError
from woodlot.units import format_size, format_time

if TYPE_CHECKING:
    from woodlot.aio import Volume
    from woodlot.aio.volumes import Kind
    from woodlot.cli.app import App
    from woodlot.cli.listing import Custom, Fields


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
    kind, size = parse_options(options)
    volumes = app.client.volumes
    print(asyncio.run(volumes.create(name, kind=kind, size=size, labels=labels)).name)


def parse_options(texts: Iterable[str]) -> "tuple[Kind, str | None]":
    """Kind and size from ``type=directory|block`` and ``size=SIZE``, in one text or several.

    Raises:
        ConfigError: There is no such option.
    """
    found: dict[str, str] = {}
    for text in (part for whole in texts for part in whole.split(",")):
        name, equals, value = text.partition("=")
        if name not in {"type", "size"} or not equals:
            raise ConfigError(
                f"--opt cannot be {text!r}", hint="type=directory, or type=block,size=10g"
            )
        if name in found:
            raise ConfigError(f"--opt {name} is given twice")
        found[name] = value
    match found.get("type", "directory"):
        case "directory" | "block" as kind:
            return kind, found.get("size")
        case kind:
            raise ConfigError(f"--opt type cannot be {kind!r}", hint="directory or block")


@click.command("list")
@list_options(*FILTERS)
@click.pass_obj
def list_command(app: "App", *, form: Form) -> None:
    """List volumes."""
    volumes = app.client.volumes

    def row(one: "Volume") -> tuple[str, ...]:
        size = one.record.size
        return (
            one.name,
            one.record.kind,
            format_size(size) if size else "",
            format_size(one.used_bytes),
            format_time(one.record.created_at.timestamp()),
        )

    def fields() -> "Fields[Volume]":
        from woodlot.cli.fields import volume

        return volume.listed(volumes)

    view: View[Volume] = View(
        header=("NAME", "TYPE", "SIZE", "USED", "CREATED"),
        row=row,
        name=lambda one: one.name,
        describe=volumes.inspect,
        fields=fields,
        headings={"Name": "VOLUME NAME"},
    )
    show(view, volumes.list(filters=form.conditions), form)


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, shell_complete=completion.volumes)
@inspect_option
@click.pass_obj
def inspect_command(app: "App", names: Sequence[str], *, style: "str | Custom | None") -> None:
    """Show all of volumes, as a JSON array unless asked otherwise."""
    volumes = app.client.volumes

    def fields() -> "Fields[Volume]":
        from woodlot.cli.fields import volume

        return volume.inspected()

    show_inspected([volumes.get(name) for name in names], volumes.inspect, style, fields)


@click.command("delete")
@click.argument("names", nargs=-1, required=True, shell_complete=completion.volumes)
@click.pass_obj
def delete_command(app: "App", names: Sequence[str]) -> None:
    """Delete volumes and the files in them."""
    failures: list[WoodlotError] = []
    for name in dict.fromkeys(names):
        try:
            asyncio.run(app.client.volumes.delete(name))
            print(name)
        except WoodlotError as error:
            failures.append(error)
    raise_all(failures)


@click.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="Those with a name, too.")
@prune_options(*PRUNE_FILTERS, what="all volumes that no container uses, and the files in them")
@click.pass_obj
def prune_command(app: "App", *, every: bool, conditions: Mapping[str, Sequence[str]]) -> None:
    """Delete the volumes that were made for one container and that no container uses."""
    pruned = asyncio.run(app.client.volumes.prune(filters=conditions, all=every))
    for name in pruned.volumes:
        print(name)
    print_reclaimed(pruned)


@click.group(cls=Group)
def volume() -> None:
    """Manage volumes (v)."""


for _command in (create_command, list_command, inspect_command, delete_command, prune_command):
    volume.add_command(_command)
