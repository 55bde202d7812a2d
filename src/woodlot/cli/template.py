"""``container system template`` and ``container system warm``: the saved machines that containers start from."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from woodlot.cli.groups import Group
from woodlot.cli.listing import Form, View, list_options, show
from woodlot.cli.pruning import force_option
from woodlot.units import format_size, format_time

if TYPE_CHECKING:
    from woodlot.aio import Template
    from woodlot.cli.app import App


@click.group(cls=Group)
def template() -> None:
    """Manage the saved machines that containers start from."""


@template.command("list")
@list_options()
@click.pass_obj
def list_command(app: "App", *, form: Form) -> None:
    """List the templates, the last used first."""

    def row(one: "Template") -> tuple[str, ...]:
        return (
            one.id[:12] if form.truncate else one.id,
            str(one.description["vcpus"]),
            format_size(one.description["memory_bytes"]),
            str(len(one.description["disks"])),
            str(one.description["networks"]),
            format_size(one.size_bytes),
            format_time(one.used_at),
        )

    view: View[Template] = View(
        header=("ID", "CPUS", "MEMORY", "DISKS", "NETWORKS", "SIZE", "USED"),
        row=row,
        name=lambda one: one.id,
        describe=_describe,
    )
    show(view, app.client.system.templates.list(), form)


@template.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Remove those in use lately, too.")
@force_option("templates that nobody used for long, or all with --all")
@click.pass_obj
def prune_command(app: "App", *, everything: bool) -> None:
    """Remove templates that nobody used for long; running containers go on."""
    for one in asyncio.run(app.client.system.templates.prune(all=everything)):
        click.echo(one.id)


@template.command("build")
@click.option("-c", "--cpus", type=float, help="CPUs of the containers it is for.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory of the containers it is for.")
@click.option("--networks", type=click.IntRange(0, 8), default=1, show_default=True)
@click.pass_obj
def build_command(app: "App", *, cpus: float | None, memory: str | None, networks: int) -> None:
    """Make the template of containers with these limits, unless it is there."""
    _build(app, cpus=cpus, memory=memory, networks=networks)


@click.command()
@click.pass_obj
def warm(app: "App") -> None:
    """Make the template of containers with the default settings, so that the first start is quick, too."""
    _build(app, cpus=None, memory=None, networks=1)


def _build(app: "App", *, cpus: float | None, memory: str | None, networks: int) -> None:
    templates = app.client.system.templates
    click.echo(asyncio.run(templates.build(cpus=cpus, memory=memory, networks=networks)).id)


def _describe(one: "Template") -> Mapping[str, object]:
    return {
        "id": one.id,
        "sizeBytes": one.size_bytes,
        "usedAt": format_time(one.used_at),
        "arch": one.description["arch"],
        "accelerator": one.description["accelerator"],
        "cpus": one.description["vcpus"],
        "memoryBytes": one.description["memory_bytes"],
        "disks": one.description["disks"],
        "networks": one.description["networks"],
    }
