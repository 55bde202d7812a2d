"""``container exec``."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from woodlot.cli import completion
from woodlot.container import options
from woodlot.container.spec import ExecSpec
from woodlot.errors import ConfigError, StateError

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
    from woodlot.container.lifecycle import find
    from woodlot.container.state import Running

    if tty and interactive and not detach and not os.isatty(0):
        raise ConfigError(
            "the input device is not a terminal", hint="leave out -t, or run it in a terminal"
        )
    if workdir is not None and not workdir.startswith("/"):
        raise ConfigError(f"--workdir must be an absolute path, not {workdir!r}")
    variables: dict[str, str | None] = {}
    for path in env_files:
        variables |= options.read_env_file(path, environ=os.environ)
    variables |= options.parse_env(env, environ=os.environ)
    spec = ExecSpec(
        id=secrets.token_hex(8),
        args=tuple(command),
        env=tuple(
            name if value is None else f"{name}={value}" for name, value in variables.items()
        ),
        cwd=workdir or "",
        user=user or "",
        tty=tty,
        stdin=interactive and not detach,
    )
    found = find(app.store, container)
    if not isinstance(found.state, Running):
        raise StateError(
            f"container {found.spec.name} is not running",
            hint=f"container start {found.spec.name}",
        )
    from woodlot.cli.attach import exec_detached, exec_foreground

    socket_path = app.paths.sockets(found.spec.id) / "s.sock"
    if detach:
        exec_detached(socket_path, spec)
        return 0
    return exec_foreground(socket_path, spec)
