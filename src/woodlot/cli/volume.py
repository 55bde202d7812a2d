"""The group ``container volume``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from woodlot.cli import completion
from woodlot.cli.groups import Group
from woodlot.cli.listing import Form, View, inspect_option, list_options, show, show_inspected
from woodlot.cli.output import raise_all
from woodlot.cli.pruning import print_reclaimed, prune_options
from woodlot.errors import WoodlotError
from woodlot.units import format_size, format_time
from woodlot.volume.selection import KEYS, PRUNE_KEYS

if TYPE_CHECKING:
    from woodlot.cli.app import App
    from woodlot.cli.listing import Custom, Fields
    from woodlot.volume.volume import Volume


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
@list_options(*KEYS)
@click.pass_obj
def list_command(app: "App", *, form: Form) -> None:
    """List volumes."""
    from woodlot.store.disk import used_bytes
    from woodlot.volume.selection import select
    from woodlot.volume.volume import inspect

    def row(one: "Volume") -> tuple[str, ...]:
        size = one.record.size
        return (
            one.name,
            one.record.kind,
            format_size(size) if size else "",
            format_size(used_bytes(one.directory)),
            format_time(one.record.created_at.timestamp()),
        )

    def fields() -> "Fields[Volume]":
        from woodlot.cli.fields import volume

        return volume.listed(app.store)

    view: View[Volume] = View(
        header=("NAME", "TYPE", "SIZE", "USED", "CREATED"),
        row=row,
        name=lambda one: one.name,
        describe=lambda one: inspect(app.store, one),
        fields=fields,
        headings={"Name": "VOLUME NAME"},
    )
    show(view, select(app.store, form.conditions), form)


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, shell_complete=completion.volumes)
@inspect_option
@click.pass_obj
def inspect_command(app: "App", names: Sequence[str], *, style: "str | Custom | None") -> None:
    """Show all of volumes, as a JSON array unless asked otherwise."""
    from woodlot.volume.volume import find, inspect

    def fields() -> "Fields[Volume]":
        from woodlot.cli.fields import volume

        return volume.inspected()

    found = [find(app.store, name) for name in names]
    show_inspected(found, lambda one: inspect(app.store, one), style, fields)


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
@prune_options(*PRUNE_KEYS, what="all volumes that no container uses, and the files in them")
@click.pass_obj
def prune_command(app: "App", *, every: bool, conditions: Mapping[str, Sequence[str]]) -> None:
    """Delete the volumes that were made for one container and that no container uses."""
    from woodlot.container.prune import prune_volumes

    pruned = prune_volumes(app.store, conditions, every=every)
    for name in pruned.volumes:
        print(name)
    print_reclaimed(pruned)


@click.group(cls=Group)
def volume() -> None:
    """Manage volumes (v)."""


for _command in (create_command, list_command, inspect_command, delete_command, prune_command):
    volume.add_command(_command)
