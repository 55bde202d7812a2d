"""``container pull`` and the group ``container image``."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from woodlot.aio.images import FILTERS, PRUNE_FILTERS
from woodlot.cli import completion
from woodlot.cli.fetching import choose_platform, fetch_options, platform_options
from woodlot.cli.groups import Group
from woodlot.cli.listing import Form, View, inspect_option, list_options, show, show_inspected
from woodlot.cli.output import print_table
from woodlot.cli.progress import make_progress
from woodlot.cli.pruning import print_reclaimed, prune_options
from woodlot.errors import ErrorCode, WoodlotError
from woodlot.units import format_size, format_time

if TYPE_CHECKING:
    from woodlot.aio import LocalImage
    from woodlot.aio.images import Scheme
    from woodlot.cli.app import App
    from woodlot.cli.listing import Custom, Fields


@click.command()
@click.argument("reference")
@platform_options
@fetch_options
@click.pass_obj
def pull(
    app: "App",
    reference: str,
    *,
    platform: str | None,
    arch: str | None,
    os: str | None,
    scheme: "Scheme",
    progress: str,
    max_concurrent_downloads: int | None,
) -> None:
    """Fetch an image and make it ready to run."""
    wanted = choose_platform(platform, arch=arch, system=os)
    with make_progress(progress) as drawn:
        image = asyncio.run(
            app.client.images.pull(
                reference,
                platform=wanted,
                scheme=scheme,
                progress=drawn,
                max_concurrent=max_concurrent_downloads,
            )
        )
    click.echo(str(image.reference))


@click.command("list")
@click.option("-v", "--verbose", is_flag=True, help="All columns, a row for each platform.")
@list_options(*FILTERS)
@click.pass_obj
def list_command(app: "App", *, verbose: bool, form: Form) -> None:
    """List the images that are here."""
    if form.quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other")
    found = app.client.images.list(filters=form.conditions)
    if verbose and form.style == "table":
        print_table(_WIDE, [row for image in found for row in _wide_rows(image)])
        return

    def fields() -> "Fields[LocalImage]":
        from woodlot.cli.fields import image

        return image.listed(app.client, truncate=form.truncate)

    view: View[LocalImage] = View(
        header=("NAME", "TAG", "DIGEST"),
        row=lambda one: (
            one.reference.familiar_name,
            one.reference.tag or "<none>",
            _short(one) if form.truncate else one.record.digest,
        ),
        name=lambda one: one.reference.familiar,
        describe=app.client.images.inspect,
        fields=fields,
        headings={"ID": "IMAGE ID", "CreatedSince": "CREATED"},
    )
    show(view, found, form)


@click.command("inspect")
@click.argument("references", nargs=-1, required=True, shell_complete=completion.images)
@inspect_option
@click.pass_obj
def inspect_command(app: "App", references: Sequence[str], *, style: "str | Custom | None") -> None:
    """Show everything about images, as a JSON array unless asked otherwise."""
    images = app.client.images

    def fields() -> "Fields[LocalImage]":
        from woodlot.cli.fields import image

        return image.inspected(app.client)

    show_inspected([images.get(name) for name in references], images.inspect, style, fields)


@click.command("delete")
@click.argument("references", nargs=-1, shell_complete=completion.images)
@click.option("-a", "--all", "every", is_flag=True, help="All images that no container uses.")
@click.option(
    "-f", "--force", is_flag=True, help="Ignore missing ones, and stopped containers that use them."
)
@click.pass_obj
def delete_command(app: "App", references: Sequence[str], *, every: bool, force: bool) -> None:
    """Delete images, and free the space that nothing else needs."""
    if every == bool(references):
        raise click.UsageError("name images, or give --all, but not both")
    images = app.client.images
    names = images.names() if every else references
    failures: list[WoodlotError] = []
    for name in dict.fromkeys(names):
        try:
            click.echo(asyncio.run(images.delete(name, force=force, sweep=False)))
        except WoodlotError as error:
            if not (force and error.code is ErrorCode.NOT_FOUND) and not (
                every and error.code is ErrorCode.INVALID_STATE
            ):
                failures.append(error)
    swept = asyncio.run(images.sweep())
    if swept is None:
        click.echo("Space is reclaimed later: an image is being pulled or used now", err=True)
    elif swept.bytes_freed:
        click.echo(f"Reclaimed {format_size(swept.bytes_freed)}", err=True)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise WoodlotError(
            f"{len(failures)} images were not deleted:\n"
            + "\n".join(f"  {error.message}" for error in failures)
        )


@click.command("prune")
@click.option("-a", "--all", "every", is_flag=True, help="All images that no container uses.")
@prune_options(*PRUNE_FILTERS, what="what no image with a name and no container needs")
@click.pass_obj
def prune_command(app: "App", *, every: bool, conditions: Mapping[str, Sequence[str]]) -> None:
    """Free the space that no image with a name and no container needs."""
    pruned = asyncio.run(app.client.images.prune(filters=conditions, all=every))
    for name in pruned.images:
        click.echo(name)
    print_reclaimed(pruned)


@click.group(cls=Group)
def image() -> None:
    """Manage images."""


for _command in (pull, list_command, inspect_command, delete_command, prune_command):
    image.add_command(_command)

# Registered by the app: `image` also as `i`, and these at the top level.
TOP_LEVEL = {"pull": pull, "images": list_command, "rmi": delete_command}

_WIDE = (
    "NAME",
    "TAG",
    "INDEX DIGEST",
    "OS",
    "ARCH",
    "VARIANT",
    "FULL SIZE",
    "CREATED",
    "MANIFEST DIGEST",
)


def _short(image: "LocalImage") -> str:
    return image.record.digest.rpartition(":")[2][:12]


def _wide_rows(image: "LocalImage") -> list[tuple[str, ...]]:
    return [
        (
            image.reference.familiar_name,
            image.reference.tag or "<none>",
            image.record.digest,
            variant.platform.os,
            variant.platform.architecture,
            variant.platform.variant or "",
            format_size(variant.size),
            _time(variant.config.created),
            variant.digest,
        )
        for variant in image.variants
    ]


def _time(created: datetime | None) -> str:
    return format_time(created.timestamp()) if created else ""
