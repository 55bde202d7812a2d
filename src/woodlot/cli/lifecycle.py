"""``container start``, ``stop``, ``restart``, ``kill``, ``pause``, ``unpause``, ``update``, ``wait``, ``attach``, ``rename``."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from woodlot.cli import completion
from woodlot.cli.output import raise_all
from woodlot.container import options
from woodlot.errors import StateError, WoodlotError

if TYPE_CHECKING:
    from woodlot.cli.app import App
    from woodlot.container.lifecycle import Container

# Seconds, as Apple's container; Docker's is 10.
STOP_GRACE_S = 5.0

containers_argument = click.argument("containers", nargs=-1, shell_complete=completion.containers)
signal_option = click.option("-s", "--signal", "signal_name", help="Signal, by name or number.")
grace_option = click.option(
    "-t",
    "--time",
    "--timeout",
    "grace_s",
    type=click.FloatRange(min=0),
    default=STOP_GRACE_S,
    show_default=True,
    help="Seconds until SIGKILL.",
)


@click.command()
@containers_argument
@click.option("-a", "--attach", is_flag=True, help="Show its output until it ends.")
@click.option("-i", "--interactive", is_flag=True, help="Hand over stdin, too.")
@click.pass_obj
def start(app: "App", containers: Sequence[str], *, attach: bool, interactive: bool) -> int:
    """Start stopped containers; those that run are left alone."""
    from woodlot.container.lifecycle import find

    names = _targets(containers)
    if attach or interactive:
        if len(names) > 1:
            raise click.UsageError("one container can be attached to, not several")
        found = find(app.store, names[0])
        stdin = interactive and found.spec.process.stdin
        with contextlib.nullcontext() if found.is_live else _begun_again(app, found):
            return _be_terminal(app, found, stdin=stdin)
    failures: list[WoodlotError] = []
    for name in names:
        try:
            found = find(app.store, name)
            if not found.is_live:
                start_again(app, found)
        except WoodlotError as error:
            failures.append(error)
        else:
            print(name)
    raise_all(failures)
    return 0


@click.command()
@containers_argument
@click.option("-a", "--all", "everything", is_flag=True, help="All that run.")
@signal_option
@grace_option
@click.pass_obj
def stop(
    app: "App",
    containers: Sequence[str],
    *,
    everything: bool,
    signal_name: str | None,
    grace_s: float,
) -> None:
    """Stop containers: the stop signal, then SIGKILL; those that do not run are left alone."""
    number = options.parse_signal(signal_name) if signal_name else 0

    async def one(found: "Container") -> None:
        await stop_one(app, found, number=number, grace_s=grace_s)

    _each(app, containers, one, everything=everything)


@click.command()
@containers_argument
@signal_option
@grace_option
@click.pass_obj
def restart(
    app: "App", containers: Sequence[str], *, signal_name: str | None, grace_s: float
) -> None:
    """Stop containers and start them again."""
    from woodlot.container.lifecycle import find

    number = options.parse_signal(signal_name) if signal_name else 0
    failures: list[WoodlotError] = []
    for name in _targets(containers):
        try:
            asyncio.run(stop_one(app, find(app.store, name), number=number, grace_s=grace_s))
            start_again(app, find(app.store, name))
        except WoodlotError as error:
            failures.append(error)
        else:
            print(name)
    raise_all(failures)


@click.command()
@containers_argument
@click.option("-a", "--all", "everything", is_flag=True, help="All that run.")
@signal_option
@click.pass_obj
def kill(
    app: "App", containers: Sequence[str], *, everything: bool, signal_name: str | None
) -> None:
    """Send a signal to the processes of containers, SIGKILL if none is named."""
    number = options.parse_signal(signal_name or "SIGKILL")

    async def one(found: "Container") -> None:
        from woodlot.container.client import Supervised

        _check_live(found)
        async with Supervised(_socket(app, found)) as supervised:
            await supervised.signal(number)

    _each(app, containers, one, everything=everything)


@click.command()
@containers_argument
@click.option("-a", "--all", "everything", is_flag=True, help="All that run.")
@click.pass_obj
def pause(app: "App", containers: Sequence[str], *, everything: bool) -> None:
    """Let the processes of containers stand still."""
    from woodlot.container import state

    async def one(found: "Container") -> None:
        from woodlot.container.client import Supervised

        _check_live(found)
        async with Supervised(_socket(app, found)) as supervised:
            await supervised.pause()

    def runs(found: "Container") -> bool:
        return state.label(found.state) == "running"

    _each(app, containers, one, everything=everything, among=runs)


@click.command()
@containers_argument
@click.option("-a", "--all", "everything", is_flag=True, help="All that are paused.")
@click.pass_obj
def unpause(app: "App", containers: Sequence[str], *, everything: bool) -> None:
    """Let the processes of paused containers go on."""
    from woodlot.container import state

    async def one(found: "Container") -> None:
        from woodlot.container.client import Supervised

        _check_live(found)
        async with Supervised(_socket(app, found)) as supervised:
            await supervised.unpause()

    def is_paused(found: "Container") -> bool:
        return isinstance(found.state, state.Paused)

    _each(app, containers, one, everything=everything, among=is_paused)


@click.command()
@containers_argument
@click.option("-c", "--cpus", type=float, help="CPUs; may be a fraction.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory, as 512m or 2g.")
@click.option("--restart", "policy", metavar="POLICY", help="When to start it again, as for run.")
@click.pass_obj
def update(
    app: "App",
    containers: Sequence[str],
    *,
    cpus: float | None,
    memory: str | None,
    policy: str | None,
) -> None:
    """Change limits and restart policies: of running containers at once, within what their virtual machines have."""
    from woodlot.container.update import build_update
    from woodlot.container.update import update as update_one

    wanted = build_update(cpus=cpus, memory=memory, restart_policy=policy)

    async def one(found: "Container") -> None:
        await update_one(app.store, found, wanted)

    _each(app, containers, one, everything=False)


@click.command()
@containers_argument
@click.pass_obj
def wait(app: "App", containers: Sequence[str]) -> None:
    """Wait until containers have ended and print the exit status of each."""
    from woodlot.container import state
    from woodlot.container.lifecycle import find

    async def status(found: "Container") -> int:
        from woodlot.container.client import Supervised

        match found.state:
            case state.Stopped() as ended:
                return ended.exit_code
            case state.Created():
                return 0
            case _:
                pass
        try:
            async with Supervised(_socket(app, found)) as supervised:
                return (await supervised.wait()).code
        except StateError:
            # It was killed; the record is mended when it is read.
            now = find(app.store, found.spec.id).state
            if isinstance(now, state.Stopped):
                return now.exit_code
            raise

    async def all_of_them() -> list[int]:
        found = [find(app.store, name) for name in _targets(containers)]
        return list(await asyncio.gather(*(status(one) for one in found)))

    for code in asyncio.run(all_of_them()):
        print(code)


@click.command()
@click.argument("container", shell_complete=completion.containers)
@click.option("--no-stdin", is_flag=True, help="Do not hand over stdin.")
@click.pass_obj
def attach(app: "App", container: str, *, no_stdin: bool) -> int:
    """Be the terminal of a running container until it ends; returns its exit status."""
    from woodlot.container.lifecycle import find

    found = find(app.store, container)
    _check_live(found)
    return _be_terminal(app, found, stdin=found.spec.process.stdin and not no_stdin)


@click.command()
@click.argument("container", shell_complete=completion.containers)
@click.argument("name")
@click.pass_obj
def rename(app: "App", container: str, name: str) -> None:
    """Give a container another name; in its networks it has it from its next start on."""
    from woodlot.container import lifecycle

    lifecycle.rename(app.store, lifecycle.find(app.store, container), name)


def _targets(containers: Sequence[str]) -> list[str]:
    if not containers:
        raise click.UsageError("name a container")
    return list(dict.fromkeys(containers))


def _each(
    app: "App",
    containers: Sequence[str],
    work: "Callable[[Container], Awaitable[None]]",
    *,
    everything: bool,
    among: "Callable[[Container], bool]" = lambda found: found.is_live,
) -> None:
    """Do the work for all at once; print the name of each that it was done for, then raise what failed."""
    from woodlot.container.lifecycle import find, find_all

    if everything and containers:
        raise click.UsageError("containers given by name conflict with --all")

    async def one(name: str) -> WoodlotError | None:
        try:
            await work(find(app.store, name))
        except WoodlotError as error:
            return error
        print(name)
        return None

    async def all_of_them(names: Sequence[str]) -> list[WoodlotError | None]:
        return list(await asyncio.gather(*(one(name) for name in names)))

    names = (
        [found.spec.name for found in find_all(app.store) if among(found)]
        if everything
        else _targets(containers)
    )
    raise_all([error for error in asyncio.run(all_of_them(names)) if error is not None])


async def stop_one(
    app: "App", found: "Container", *, number: int = 0, grace_s: float, resumable: bool = False
) -> None:
    """Stop a container if it runs, and return when its supervisor is gone."""
    from woodlot.container.client import Supervised
    from woodlot.container.lifecycle import until_ended

    if not found.is_live:
        return
    async with Supervised(_socket(app, found)) as supervised:
        await supervised.stop(signal_number=number, grace_s=grace_s, resumable=resumable)
    await until_ended(app.paths, found.spec.id)


def start_again(app: "App", found: "Container") -> None:
    """Start a stopped container, and return when its process runs."""
    from woodlot.cli.attach import start_detached

    with _begun_again(app, found):
        start_detached(_socket(app, found))


def _begun_again(app: "App", found: "Container") -> contextlib.AbstractContextManager[None]:
    from woodlot.container.begin import begun_again, plan_again

    return begun_again(app.store, found, asyncio.run(plan_again(app.paths, found.spec)))


def _be_terminal(app: "App", found: "Container", *, stdin: bool) -> int:
    from woodlot.cli.attach import run_foreground

    return run_foreground(
        _socket(app, found),
        found.spec,
        console_log=app.paths.container(found.spec.id) / "console.log",
        owner=False,
        stdin=stdin,
    )


def _check_live(found: "Container") -> None:
    if not found.is_live:
        raise StateError(
            f"container {found.spec.name} is not running",
            hint=f"container start {found.spec.name}",
        )


def _socket(app: "App", found: "Container") -> Path:
    return app.paths.sockets(found.spec.id) / "s.sock"
