"""``container start``, ``stop``, ``restart``, ``kill``, ``pause``, ``unpause``, ``update``, ``wait``, ``attach``, ``rename``."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click

from woodlot.aio.life import STOP_GRACE_S, parse_signal
from woodlot.cli import completion
from woodlot.cli.output import raise_all
from woodlot.errors import WoodlotError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from woodlot.aio import Attachment, Container
    from woodlot.cli.app import App

    Attach = Callable[..., AbstractAsyncContextManager[Attachment]]

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
    names = _targets(containers)
    if attach or interactive:
        if len(names) > 1:
            raise click.UsageError("one container can be attached to, not several")
        found = app.client.containers.get(names[0])
        stdin = interactive and found.spec.process.stdin
        if found.is_live:
            return _be_terminal(found, found.attach, stdin=stdin)
        with found.begin(asyncio.run(found.plan())) as starting:
            starting.wait()
            return _be_terminal(found, starting.attach, stdin=stdin)
    failures: list[WoodlotError] = []
    for name in names:
        try:
            start_again(app.client.containers.get(name))
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
    number = parse_signal(signal_name) if signal_name else None

    async def one(found: "Container") -> None:
        await found.stop(signal=number, grace_s=grace_s)

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
    number = parse_signal(signal_name) if signal_name else None
    failures: list[WoodlotError] = []
    for name in _targets(containers):
        try:
            found = app.client.containers.get(name)
            asyncio.run(found.stop(signal=number, grace_s=grace_s))
            start_again(found)
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
    number = parse_signal(signal_name or "SIGKILL")

    async def one(found: "Container") -> None:
        await found.kill(number)

    _each(app, containers, one, everything=everything)


@click.command()
@containers_argument
@click.option("-a", "--all", "everything", is_flag=True, help="All that run.")
@click.pass_obj
def pause(app: "App", containers: Sequence[str], *, everything: bool) -> None:
    """Let the processes of containers stand still."""
    from woodlot.aio import state

    async def one(found: "Container") -> None:
        await found.pause()

    def runs(found: "Container") -> bool:
        return state.label(found.state) == "running"

    _each(app, containers, one, everything=everything, among=runs)


@click.command()
@containers_argument
@click.option("-a", "--all", "everything", is_flag=True, help="All that are paused.")
@click.pass_obj
def unpause(app: "App", containers: Sequence[str], *, everything: bool) -> None:
    """Let the processes of paused containers go on."""
    from woodlot.aio import state

    async def one(found: "Container") -> None:
        await found.unpause()

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

    async def one(found: "Container") -> None:
        await found.update(cpus=cpus, memory=memory, restart=policy)

    _each(app, containers, one, everything=False)


@click.command()
@containers_argument
@click.pass_obj
def wait(app: "App", containers: Sequence[str]) -> None:
    """Wait until containers have ended and print the exit status of each."""

    async def all_of_them() -> list[int]:
        found = [app.client.containers.get(name) for name in _targets(containers)]
        return list(await asyncio.gather(*(one.wait() for one in found)))

    for code in asyncio.run(all_of_them()):
        print(code)


@click.command()
@click.argument("container", shell_complete=completion.containers)
@click.option("--no-stdin", is_flag=True, help="Do not hand over stdin.")
@click.pass_obj
def attach(app: "App", container: str, *, no_stdin: bool) -> int:
    """Be the terminal of a running container until it ends; returns its exit status."""
    found = app.client.containers.get(container)
    return _be_terminal(found, found.attach, stdin=found.spec.process.stdin and not no_stdin)


@click.command()
@click.argument("container", shell_complete=completion.containers)
@click.argument("name")
@click.pass_obj
def rename(app: "App", container: str, name: str) -> None:
    """Give a container another name; in its networks it has it from its next start on."""
    app.client.containers.get(container).rename(name)


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
    if everything and containers:
        raise click.UsageError("containers given by name conflict with --all")

    async def one(name: str) -> WoodlotError | None:
        try:
            await work(app.client.containers.get(name))
        except WoodlotError as error:
            return error
        print(name)
        return None

    async def all_of_them(names: Sequence[str]) -> list[WoodlotError | None]:
        return list(await asyncio.gather(*(one(name) for name in names)))

    names = (
        [found.name for found in app.client.containers.list() if among(found)]
        if everything
        else _targets(containers)
    )
    raise_all([error for error in asyncio.run(all_of_them(names)) if error is not None])


def start_again(found: "Container") -> None:
    """Start a container that does not run, and return when its process does."""
    if found.is_live:
        return
    with found.begin(asyncio.run(found.plan())) as starting:
        starting.wait()
        asyncio.run(starting.start())


def _be_terminal(found: "Container", attach: "Attach", *, stdin: bool) -> int:
    from woodlot.cli.attach import run_foreground, window_of

    opened = attach(stdin=stdin, window=window_of(tty=found.spec.process.tty))
    return run_foreground(opened, found, stdin=stdin)
