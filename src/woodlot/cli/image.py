"""``container pull`` and the group ``container image``."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from woodlot.cli import completion
from woodlot.cli.groups import Group
from woodlot.cli.listing import Form, View, inspect_option, list_options, show, show_inspected
from woodlot.cli.output import print_table
from woodlot.cli.progress import KINDS, make_progress
from woodlot.cli.pruning import print_reclaimed, prune_options
from woodlot.errors import ErrorCode, WoodlotError
from woodlot.image.selection import KEYS, PRUNE_KEYS
from woodlot.units import format_size, format_time

if TYPE_CHECKING:
    from woodlot.cli.listing import Custom, Fields
    from woodlot.image.image import LocalImage
    from woodlot.oci.platform import Platform
    from woodlot.paths import Paths
    from woodlot.store.store import Store

F = TypeVar("F", bound=Callable[..., object])


class Context(Protocol):
    """What the app hands to its commands."""

    @property
    def store(self) -> "Store":
        """The store to use."""
        ...

    @property
    def paths(self) -> "Paths":
        """Where it is."""
        ...


def platform_options(command: F) -> F:
    """``--platform``, ``--os`` and ``--arch``."""
    for option in (
        click.option("--os", default=None, help="Operating system of the image (default linux)."),
        click.option("-a", "--arch", default=None, help="Architecture (default: the host's)."),
        click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform; wins over both."),
    ):
        command = option(command)
    return command


def fetch_options(command: F) -> F:
    """How to talk to a registry, and how to draw it."""
    for option in (
        click.option(
            "--max-concurrent-downloads",
            type=click.IntRange(min=1),
            default=None,
            help="Blobs fetched at once (default 3).",
        ),
        click.option(
            "--progress", type=click.Choice(KINDS), default="auto", help="How progress is drawn."
        ),
        click.option(
            "--scheme",
            type=click.Choice(("auto", "http", "https")),
            default="auto",
            help="auto is plain HTTP for this machine, HTTPS for all others.",
        ),
    ):
        command = option(command)
    return command


def choose_platform(
    platform: str | None, *, arch: str | None, system: str | None
) -> "Platform | None":
    """The platform that the flags or ``CONTAINER_DEFAULT_PLATFORM`` ask for; None is the host's."""
    from woodlot.oci.platform import host, make_platform, parse_platform

    if platform:
        return parse_platform(platform)
    if arch or system:
        # The architecture may come with its variant: arm/v7.
        return (
            parse_platform(f"{system or 'linux'}/{arch}")
            if arch
            else make_platform(system or "linux", host().architecture)
        )
    default = os.environ.get("CONTAINER_DEFAULT_PLATFORM")
    return parse_platform(default) if default else None


@click.command()
@click.argument("reference")
@platform_options
@fetch_options
@click.pass_obj
def pull(
    context: Context,
    reference: str,
    *,
    platform: str | None,
    arch: str | None,
    os: str | None,
    scheme: str,
    progress: str,
    max_concurrent_downloads: int | None,
) -> None:
    """Fetch an image and make it ready to run."""
    from woodlot.image.pull import pull as pull_image

    wanted = choose_platform(platform, arch=arch, system=os)
    with make_progress(progress) as drawn:
        image = asyncio.run(
            pull_image(
                context.store,
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
@list_options(*KEYS)
@click.pass_obj
def list_command(context: Context, *, verbose: bool, form: Form) -> None:
    """List the images that are here."""
    from woodlot.image.image import inspect
    from woodlot.image.selection import select

    if form.quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other")
    found = select(context.store, form.conditions)
    if verbose and form.style == "table":
        print_table(_WIDE, [row for image in found for row in _wide_rows(image)])
        return

    def fields() -> "Fields[LocalImage]":
        from woodlot.cli.fields import image

        return image.listed(context.store, truncate=form.truncate)

    view: View[LocalImage] = View(
        header=("NAME", "TAG", "DIGEST"),
        row=lambda one: (
            one.reference.familiar_name,
            one.reference.tag or "<none>",
            _short(one) if form.truncate else one.record.digest,
        ),
        name=lambda one: one.reference.familiar,
        describe=lambda one: inspect(context.store, one),
        fields=fields,
        headings={"ID": "IMAGE ID", "CreatedSince": "CREATED"},
    )
    show(view, found, form)


@click.command("inspect")
@click.argument("references", nargs=-1, required=True, shell_complete=completion.images)
@inspect_option
@click.pass_obj
def inspect_command(
    context: Context, references: Sequence[str], *, style: "str | Custom | None"
) -> None:
    """Show everything about images, as a JSON array unless asked otherwise."""
    from woodlot.image.image import find_image, inspect

    def fields() -> "Fields[LocalImage]":
        from woodlot.cli.fields import image

        return image.inspected(context.store)

    found = [find_image(context.store, name) for name in references]
    show_inspected(found, lambda one: inspect(context.store, one), style, fields)


@click.command("delete")
@click.argument("references", nargs=-1, shell_complete=completion.images)
@click.option("-a", "--all", "every", is_flag=True, help="All images that no container uses.")
@click.option(
    "-f", "--force", is_flag=True, help="Ignore missing ones, and stopped containers that use them."
)
@click.pass_obj
def delete_command(
    context: Context, references: Sequence[str], *, every: bool, force: bool
) -> None:
    """Delete images, and free the space that nothing else needs."""
    from woodlot.image.collect import delete, sweep

    if every == bool(references):
        raise click.UsageError("name images, or give --all, but not both")
    names = [record.reference for record in context.store.images.list()] if every else references
    failures: list[WoodlotError] = []
    for name in dict.fromkeys(names):
        try:
            click.echo(str(delete(context.store, name, force=force)))
        except WoodlotError as error:
            if not (force and error.code is ErrorCode.NOT_FOUND) and not (
                every and error.code is ErrorCode.INVALID_STATE
            ):
                failures.append(error)
    swept = sweep(context.store)
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
@prune_options(*PRUNE_KEYS, what="what no image with a name and no container needs")
@click.pass_obj
def prune_command(
    context: Context, *, every: bool, conditions: Mapping[str, Sequence[str]]
) -> None:
    """Free the space that no image with a name and no container needs."""
    from woodlot.container.prune import prune_images

    pruned = prune_images(context.store, conditions, every=every)
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
    from woodlot.oci.digest import short

    return short(image.record.digest)


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
