"""``container system property``: the settings."""

from typing import TYPE_CHECKING

import click

from woodlot.cli.groups import Group
from woodlot.cli.listing import Form, View, list_options, show

if TYPE_CHECKING:
    from woodlot.settings import Setting


@click.group("property", cls=Group)
def properties() -> None:
    """Show and change the settings."""


@properties.command("list")
@list_options()
def list_command(*, form: Form) -> None:
    """List all settings: what each is, where that comes from, and what it means."""
    from woodlot import settings

    def describe(one: "Setting") -> dict[str, object]:
        value, source = settings.read_text(one)
        return {
            "name": one.name,
            "value": value,
            "source": source,
            "default": one.default,
            "variable": one.variable,
            "description": one.help,
        }

    view: View[Setting] = View(
        header=("NAME", "VALUE", "SOURCE", "MEANING"),
        row=lambda one: (one.name, *settings.read_text(one), one.help),
        name=lambda one: one.name,
        describe=describe,
    )
    show(view, settings.SETTINGS, form)


@properties.command("get")
@click.argument("name")
def get_command(name: str) -> None:
    """Print the value of a setting."""
    from woodlot import settings

    click.echo(settings.read_text(settings.find(name))[0])


@properties.command("set")
@click.argument("name")
@click.argument("value")
def set_command(name: str, value: str) -> None:
    """Set a setting in the file; a variable of the environment still comes first."""
    from woodlot import settings

    settings.write(name, value)


@properties.command("clear")
@click.argument("name")
def clear_command(name: str) -> None:
    """Take a setting out of the file, so that it is the default again."""
    from woodlot import settings

    settings.write(name, None)
