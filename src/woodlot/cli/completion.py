"""Completion of what is typed in a shell: names of containers, images, volumes and networks, and the script that asks."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from woodlot.store.store import Store

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


def _completes(names: "Callable[[Store], Iterable[str]]") -> Complete:
    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        from woodlot.errors import WoodlotError
        from woodlot.paths import find_paths
        from woodlot.store.store import Store

        try:
            store = Store(find_paths(context.find_root().params.get("root")))
            return [name for name in names(store) if name.startswith(incomplete)]
        except (WoodlotError, OSError):
            # A key that is pressed is no place for an error.
            return []

    return complete


def _image_names(store: "Store") -> Iterable[str]:
    from woodlot.oci.reference import parse_reference

    return [parse_reference(record.reference).familiar for record in store.images.list()]


containers = _completes(lambda store: [record.name for record in store.containers.list()])
images = _completes(_image_names)
volumes = _completes(lambda store: [record.name for record in store.volumes.list()])
networks = _completes(lambda store: [record.name for record in store.networks.list()])
