"""Completion of what is typed in a shell: names of containers, images, volumes and networks, and the script that asks."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from woodlot.aio import Client

PROGRAM = "container"
VARIABLE = "_CONTAINER_COMPLETE"

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete `container`.

    bash: add `eval "$(container completion bash)"` to ~/.bashrc; zsh: the same with zsh in ~/.zshrc; fish: write it to
    ~/.config/fish/completions/container.fish.
    """
    from click.shell_completion import get_completion_class

    from woodlot.cli.app import cli

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - one of the choices
    click.echo(kind(cli, {}, PROGRAM, VARIABLE).source())


def _completes(names: "Callable[[Client], Iterable[str]]") -> Complete:
    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        from woodlot.aio.client import Client
        from woodlot.errors import WoodlotError

        try:
            client = Client(context.find_root().params.get("root"))
            return [name for name in names(client) if name.startswith(incomplete)]
        except (WoodlotError, OSError):
            # A key that is pressed is no place for an error.
            return []

    return complete


containers = _completes(lambda client: client.containers.names())
images = _completes(lambda client: client.images.names())
volumes = _completes(lambda client: client.volumes.names())
networks = _completes(lambda client: client.networks.names())
