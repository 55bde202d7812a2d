"""The group ``container system``: what this installation runs on."""

import asyncio
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from woodlot import __version__
from woodlot.cli.df import df
from woodlot.cli.groups import Group
from woodlot.cli.listing import Form, View, format_option, list_options, show, show_one
from woodlot.cli.output import print_table
from woodlot.cli.progress import KINDS, make_progress
from woodlot.cli.pruning import system_prune
from woodlot.cli.resume import disable, enable, resume, stop
from woodlot.cli.settings import properties
from woodlot.cli.template import template, warm
from woodlot.cli.trace import trace_command
from woodlot.errors import WoodlotError
from woodlot.units import format_size

if TYPE_CHECKING:
    from woodlot.aio import Kernel
    from woodlot.cli.app import App
    from woodlot.cli.listing import Custom


@click.group()
def system() -> None:
    """Show and set what containers run on."""


@system.command()
@format_option()
@click.option("--progress", type=click.Choice(KINDS), default="auto", help="How progress is drawn.")
@click.pass_obj
def status(app: "App", *, style: "str | Custom", progress: str) -> None:
    """Tell which accelerator is used and why, the kernel, and where the data is."""
    client = app.client
    fields: dict[str, object] = {"version": __version__}
    try:
        fields["qemu"] = client.system.qemu_version()
        with make_progress(progress) as drawn:
            found = asyncio.run(client.system.status(progress=drawn))
        fields["kernel"] = found.kernel.name
        fields["kernelOrigin"] = found.kernel.origin
        fields["accelerator"] = found.accelerator
        fields["acceleratorReason"] = found.reason
        fields["acceleratorRemembered"] = found.remembered
        fields["waiting"] = found.waiting
        fields["waitingMemory"] = format_size(found.waiting_bytes)
        fields["ready"] = True
    except WoodlotError as error:
        # What is missing is what somebody asks this for: an answer, not a failure.
        fields["ready"] = False
        fields["problem"] = error.message
        if error.hint:
            fields["hint"] = error.hint
    fields["dataRoot"] = str(client.paths.data)
    fields["runtimeRoot"] = str(client.paths.runtime)
    _show(fields, style)


@system.command()
@format_option()
@click.pass_obj
def version(app: "App", *, style: "str | Custom") -> None:
    """Show the versions of what is at work."""
    fields: dict[str, object] = {"woodlot": __version__, "python": platform.python_version()}
    try:
        fields["qemu"] = app.client.system.qemu_version()
    except WoodlotError as error:
        fields["qemu"] = f"none ({error.message})" if style == "table" else None
    _show(fields, style, header=("COMPONENT", "VERSION"))


system.add_command(df)
system.add_command(properties)
system.add_command(system_prune)
system.add_command(template)
system.add_command(trace_command)
system.add_command(warm)
for _command in (resume, stop, enable, disable):
    system.add_command(_command)


@system.group(cls=Group)
def kernel() -> None:
    """Manage guest kernels."""


@kernel.command("list")
@list_options()
@click.pass_obj
def list_command(app: "App", *, form: Form) -> None:
    """List the kernels that are here."""
    kernels = app.client.system.kernels
    used = {found.name for arch in ("amd64", "arm64") if (found := kernels.default(arch))}
    view: View[Kernel] = View(
        header=("NAME", "ARCH", "RELEASE", "MODULES", "ORIGIN", "DEFAULT"),
        row=lambda one: (
            one.name,
            one.arch,
            one.release,
            str(len(one.modules)),
            one.origin,
            "*" if one.name in used else "",
        ),
        name=lambda one: one.name,
        describe=lambda one: _describe(one, used=one.name in used),
    )
    show(view, kernels.list(), form)


@kernel.command("set")
@click.argument("name", required=False)
@click.option(
    "--binary",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A bzImage or Image with its drivers built in; it is copied.",
)
@click.option("--recommended", is_flag=True, help="Debian's; fetched, or brought up to date.")
@click.option("-a", "--arch", help="Architecture of its guests (default: the host's).")
@click.option("--progress", type=click.Choice(KINDS), default="auto", help="How progress is drawn.")
@click.pass_obj
def set_command(
    app: "App",
    name: str | None,
    *,
    binary: Path | None,
    recommended: bool,
    arch: str | None,
    progress: str,
) -> None:
    """Set the kernel that new containers get: NAME as listed, a file, or the recommended one."""
    if (name is not None) + (binary is not None) + recommended != 1:
        raise click.UsageError("give one of NAME, --binary PATH and --recommended")
    kernels = app.client.system.kernels
    if binary is not None:
        chosen = asyncio.run(kernels.install(binary, arch=arch))
    elif recommended:
        with make_progress(progress) as drawn:
            chosen = asyncio.run(kernels.fetch(arch=arch, progress=drawn))
    else:
        chosen = kernels.set(name or "")
    click.echo(chosen.name)


def _describe(one: "Kernel", *, used: bool) -> Mapping[str, object]:
    return {
        "name": one.name,
        "arch": one.arch,
        "release": one.release,
        "origin": one.origin,
        "sha256": one.sha256,
        "modules": [module.name for module in one.modules],
        "default": used,
    }


def _show(
    fields: Mapping[str, object],
    style: "str | Custom",
    *,
    header: tuple[str, str] = ("FIELD", "VALUE"),
) -> None:
    if style == "table":
        print_table(header, [(_words(name), _text(value)) for name, value in fields.items()])
    else:
        show_one(fields, style)


def _words(name: str) -> str:
    """``dataRoot`` → ``data root``."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)


def _text(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
