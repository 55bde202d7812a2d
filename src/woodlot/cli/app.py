"""The command ``container``: finds the command's module, runs it, and turns errors into messages and statuses."""

import contextlib
import importlib
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING

import click

from woodlot import __version__, trace
from woodlot.cli.output import print_error
from woodlot.errors import ErrorCode, ExecutionError, WoodlotError
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot.aio import Client

USAGE_EXIT_CODE = 64
"""EX_USAGE of sysexits.h, as Apple's container."""

# Name → module below woodlot.cli and attribute; a command's module is loaded when it is used.
COMMANDS = {
    "attach": ("lifecycle", "attach"),
    "commit": ("commit", "commit"),
    "completion": ("completion", "completion"),
    "copy": ("copy", "copy"),
    "create": ("run", "create"),
    "delete": ("containers", "delete"),
    "diff": ("copy", "diff"),
    "events": ("events", "events"),
    "exec": ("exec", "exec_command"),
    "export": ("copy", "export"),
    "image": ("image", "image"),
    "inspect": ("containers", "inspect"),
    "kill": ("lifecycle", "kill"),
    "list": ("containers", "list_command"),
    "network": ("network", "network"),
    "pause": ("lifecycle", "pause"),
    "port": ("network", "port"),
    "logs": ("logs", "logs"),
    "prune": ("containers", "prune"),
    "pull": ("image", "pull"),
    "rename": ("lifecycle", "rename"),
    "restart": ("lifecycle", "restart"),
    "run": ("run", "run"),
    "start": ("lifecycle", "start"),
    "stats": ("stats", "stats"),
    "stop": ("lifecycle", "stop"),
    "system": ("system", "system"),
    "top": ("top", "top"),
    "unpause": ("lifecycle", "unpause"),
    "update": ("lifecycle", "update"),
    "volume": ("volume", "volume"),
    "wait": ("lifecycle", "wait"),
}
ALIASES = {
    "cp": "copy",
    "i": "image",
    "ls": "list",
    "n": "network",
    "ps": "list",
    "rm": "delete",
    "s": "system",
    "v": "volume",
}
MORE_ALIASES = {"images": ("image", "list_command"), "rmi": ("image", "delete_command")}
SUMMARIES = {
    "attach": "Be the terminal of a running container.",
    "commit": "Make an image of a container.",
    "completion": "Print the script that makes a shell complete commands.",
    "copy": "Copy files between a container and the host (cp).",
    "create": "Make a container without starting it.",
    "delete": "Delete containers (rm).",
    "diff": "Show where a container's files differ from its image.",
    "events": "Show what happens to containers, images, networks and volumes.",
    "exec": "Run one more process in a running container.",
    "export": "Write a container's root filesystem as a tar archive.",
    "image": "Manage images (i).",
    "inspect": "Show all of containers as JSON.",
    "kill": "Send a signal to containers.",
    "list": "List containers (ls, ps).",
    "logs": "Show what a container has printed.",
    "network": "Manage networks (n).",
    "pause": "Let the processes of containers stand still.",
    "port": "Show where ports of a container are published.",
    "prune": "Delete all containers that do not run.",
    "pull": "Fetch an image and make it ready to run.",
    "rename": "Give a container another name.",
    "restart": "Stop containers and start them again.",
    "run": "Run a container in a virtual machine of its own.",
    "start": "Start stopped containers.",
    "stats": "Show what containers use.",
    "stop": "Stop running containers.",
    "system": "Show and set what containers run on (s).",
    "top": "Show the processes of a container.",
    "unpause": "Let the processes of paused containers go on.",
    "update": "Change limits and restart policies of containers.",
    "volume": "Manage volumes (v).",
    "wait": "Wait for containers to end and print their statuses.",
}


@dataclass(frozen=True)
class App:
    """What commands get."""

    root: str | None

    @cached_property
    def client(self) -> "Client":
        """The installation."""
        from woodlot.aio.client import Client

        return Client(self.root)


class LazyGroup(click.Group):
    """A group that loads a command's module when the command is used, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, without aliases."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name or alias."""
        del ctx
        name = ALIASES.get(cmd_name, cmd_name)
        found = COMMANDS.get(name) or MORE_ALIASES.get(name)
        if found is None:
            return None
        module, attribute = found
        command: click.Command = getattr(
            importlib.import_module(f"woodlot.cli.{module}"), attribute
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table here."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(SUMMARIES.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--root", envvar="WOODLOT_ROOT", metavar="DIR", help="Keep all data there.")
@click.option("--debug", is_flag=True, envvar="CONTAINER_DEBUG", help="Tell what is done.")
@click.version_option(__version__, prog_name="container")
@click.pass_context
def cli(context: click.Context, *, root: str | None, debug: bool) -> None:
    """Run every Linux container in a virtual machine of its own."""
    if debug:
        import logging

        logging.basicConfig(level=logging.DEBUG)
    context.obj = App(root=root)


def main() -> None:
    """Run the command; exits with its status."""
    status = run_command()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # The system takes apart what was loaded quicker than Python does, which needs a fifth of the time of an `exec` for it.
    os._exit(status)


def run_command() -> int:  # noqa: PLR0911 - a status for each kind of end
    """Run the command line in ``sys.argv``; returns the exit status."""
    try:
        with trace.process("command"), trace.span("command"):
            status: object = cli.main(prog_name="container", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE_EXIT_CODE if isinstance(error, click.UsageError) else 125
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except WoodlotError as error:
        print_error(error)
        return exit_status(error)
    except OSError as error:
        print_error(WoodlotError(f"{error.filename or 'the system'}: {error.strerror}"))
        return 125
    return status if isinstance(status, int) else 0


def exit_status(error: WoodlotError) -> int:
    """The status for an error of a command: `run` has Docker's, every other one Apple's 1."""
    if isinstance(error, ExecutionError):
        return 126 if error.code is ErrorCode.NOT_EXECUTABLE else 127
    status: object = getattr(error, "exit_status", None)
    if isinstance(status, int):
        return status
    return USAGE_EXIT_CODE if error.code is ErrorCode.INVALID_ARGUMENT else 1
