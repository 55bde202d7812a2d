"""What a shell is told to complete."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tests.unit.container.images import add_image
from tests.unit.container.specs import WEB
from woodlot.cli import completion
from woodlot.cli.app import cli
from woodlot.container import state
from woodlot.paths import find_paths
from woodlot.store.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    # Paths of sockets are short, pytest's directories are not.
    with tempfile.TemporaryDirectory(prefix="wl-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("WOODLOT_ROOT", str(tmp_path / "data"))
        made = Store(find_paths())
        made.containers.insert(WEB.id, "web", WEB.to_json(), state.to_json(state.Created()))
        add_image(made, "busybox", {})
        yield made
        made.close()


def complete(*words: str) -> list[str]:
    """What may stand in the place of the last word."""
    shell = ShellComplete(cli, {}, completion.PROGRAM, completion.VARIABLE)
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    "command", ["exec", "logs", "start", "stop", "kill", "rm", "delete", "inspect", "rename", "port", "diff", "export", "pause", "stats", "top", "unpause", "update"]
)  # fmt: skip
def test_containers(store: Store, command: str) -> None:
    assert complete(command, "w") == ["web"]
    assert complete(command, "x") == []


@pytest.mark.parametrize("command", [["run"], ["create"], ["rmi"], ["image", "inspect"]])
def test_images(store: Store, command: list[str]) -> None:
    assert complete(*command, "busy") == ["busybox:latest"]


def test_commands_and_options(store: Store) -> None:
    assert complete("star") == ["start"]
    assert "--network" in complete("run", "--net")
    assert complete("system", "te") == ["template"]


def test_another_root_has_other_names(store: Store, tmp_path: Path) -> None:
    assert complete("--root", str(tmp_path / "other"), "exec", "w") == []


def test_a_broken_store_is_no_error_of_a_key_pressed(store: Store, tmp_path: Path) -> None:
    assert complete("--root", "/dev/null/x", "exec", "w") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str) -> None:
    printed = CliRunner().invoke(cli, ["completion", shell]).output
    assert f"{completion.VARIABLE}={shell}_complete" in printed
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=printed, text=True, check=True)
