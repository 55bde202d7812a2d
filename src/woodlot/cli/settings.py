"""``container system property``: the settings."""

import click

from woodlot.cli.output import print_json, print_table


@click.group("property")
def properties() -> None:
    """Show and change the settings."""


@properties.command("list")
@click.option("--format", "style", type=click.Choice(("table", "json")), default="table")
def list_command(*, style: str) -> None:
    """List all settings: what each is, where that comes from, and what it means."""
    from woodlot import settings

    rows = [(one, *settings.read_text(one)) for one in settings.SETTINGS]
    if style == "json":
        print_json(
            [
                {
                    "name": one.name,
                    "value": value,
                    "source": source,
                    "default": one.default,
                    "variable": one.variable,
                    "description": one.help,
                }
                for one, value, source in rows
            ]
        )
    else:
        print_table(
            ("NAME", "VALUE", "SOURCE", "MEANING"),
            [(one.name, value, source, one.help) for one, value, source in rows],
        )


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
