"""``container exec``."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from woodlot.cli import completion
from woodlot.errors import ConfigError

if TYPE_CHECKING:
    from woodlot.cli.app import App

MANY: dict[str, Any] = {"multiple": True, "default": ()}


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("container", shell_complete=completion.containers)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give the process a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Leave it alone once it runs.")
@click.option("-e", "--env", **MANY, metavar="NAME[=VALUE]", help="Set a variable.")
@click.option(
    "--env-file",
    "env_files",
    **MANY,
    type=click.Path(path_type=Path),
    help="Set variables from a file.",
)
@click.option("-u", "--user", metavar="NAME|UID[:GROUP|GID]", help="User of the process.")
@click.option("-w", "--workdir", "--cwd", "workdir", metavar="DIR", help="Working directory.")
@click.pass_obj
def exec_command(
    app: "App",
    container: str,
    *,
    command: Sequence[str],
    interactive: bool,
    tty: bool,
    detach: bool,
    env: Sequence[str],
    env_files: Sequence[Path],
    user: str | None,
    workdir: str | None,
) -> int:
    """Run one more process in a running container."""
    if tty and interactive and not detach and not os.isatty(0):
        raise ConfigError(
            "the input device is not a terminal", hint="leave out -t, or run it in a terminal"
        )
    found = app.client.containers.get(container)
    options: Any = {"tty": tty, "env": env, "env_files": env_files, "cwd": workdir, "user": user}
    if detach:
        asyncio.run(found.exec_detached(command, **options))
        return 0
    from woodlot.cli.attach import exec_foreground, window_of

    opened = found.stream(
        command, stdin=interactive, window=window_of(tty=tty), started=False, **options
    )
    return exec_foreground(opened, tty=tty, stdin=interactive)
