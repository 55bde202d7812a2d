"""Groups of commands for one kind of thing."""

import click


class Group(click.Group):
    """A group whose commands have second names: ``ls`` and ``rm``."""

    aliases = {"ls": "list", "rm": "delete"}  # noqa: RUF012 - never changed

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name or alias."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))
