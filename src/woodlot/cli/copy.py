"""``container copy``, ``export`` and ``diff``."""

import asyncio
import contextlib
import functools
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import click

from woodlot.cli import completion
from woodlot.errors import ConfigError
from woodlot.units import format_size
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot.aio import Container
    from woodlot.cli.app import App
    from woodlot.progress import Progress

T = TypeVar("T")

_PIECE_BYTES = 256 << 10


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("-a", "--archive", is_flag=True, help="Keep owners (and set-user-id bits).")
@click.option("-L", "--follow-link", is_flag=True, help="Follow SOURCE if it is a symlink.")
@click.option("-q", "--quiet", is_flag=True, help="Show neither progress nor what was copied.")
@click.pass_obj
def copy(
    app: "App", source: str, target: str, *, archive: bool, follow_link: bool, quiet: bool
) -> None:
    """Copy files between a container, running or stopped, and the host.

    One of SOURCE and TARGET is CONTAINER:PATH, the other a path of the host, or - for a tar archive on stdin or stdout.
    SOURCE/. is what is in the directory. A TARGET that is a directory takes SOURCE under its own name; one that is not
    there becomes the copy.
    """
    from woodlot.cli.progress import LateProgress
    from woodlot.progress import NoProgress

    origin, goal = parse_operand(source), parse_operand(target)
    if bool(origin.container) == bool(goal.container):
        raise ConfigError(
            "one of source and target is in a container",
            hint="write CONTAINER:PATH for one of them; between containers, copy by way of the host",
        )
    _check_streams(origin, goal)

    async def work(manner: Manner) -> str:
        found = app.client.containers.get(origin.container or goal.container)
        if goal.container:
            return await _copy_to(found, origin, goal, manner)
        return await _copy_from(found, origin, goal, manner)

    with contextlib.ExitStack() as bars:
        progress = NoProgress() if quiet else LateProgress(bars)
        said = asyncio.run(work(Manner(archive, follow_link, progress)))
    if not quiet:
        print(said, file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a copy."""

    container: str
    """Its name; empty for the host."""
    path: str

    @property
    def is_stream(self) -> bool:
        """A tar on stdin or stdout."""
        return not self.container and self.path == "-"


class Manner(NamedTuple):
    """How to copy, as the SDK has it."""

    archive: bool
    follow: bool
    progress: "Progress"


def parse_operand(text: str) -> Operand:
    """``CONTAINER:PATH``, or a path of the host: one that begins with ``/`` or ``.``, or has no colon."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        return Operand("", text)
    if not container:
        raise ConfigError(f"{text!r} names no container", hint="write CONTAINER:PATH, or ./:PATH")
    return Operand(container, path)


def _check_streams(origin: Operand, goal: Operand) -> None:
    if origin.is_stream and sys.stdin.isatty():
        raise ConfigError("stdin is a terminal", hint="pipe a tar archive into the command")
    if goal.is_stream:
        _refuse_terminal()


def _refuse_terminal() -> None:
    if sys.stdout.isatty():
        raise ConfigError(
            "a tar archive is nothing for a terminal", hint="redirect stdout to a file or a pipe"
        )


async def _copy_to(found: "Container", origin: Operand, goal: Operand, manner: Manner) -> str:
    if origin.is_stream:
        sent = await found.put_tar(_stdin(), goal.path, progress=manner.progress)
    else:
        sent = await found.put_from(origin.path, goal.path, **manner._asdict())
    return f"copied {format_size(sent)} to {goal.container}:{goal.path}"


async def _copy_from(found: "Container", origin: Operand, goal: Operand, manner: Manner) -> str:
    if goal.is_stream:
        tar = found.get_tar(origin.path, follow=manner.follow, progress=manner.progress)
        sent = await _write_out(tar, sys.stdout.fileno())
        return f"copied {format_size(sent)} from {origin.container}:{origin.path}"
    done = await found.get_to(origin.path, goal.path, **manner._asdict())
    for name in done.left_out:
        print(f"left out: {name}, a device or a pipe", file=sys.stderr)
    return f"copied {format_size(done.bytes)} to {goal.path}"


async def _stdin() -> AsyncGenerator[bytes]:
    while data := await _apart(lambda: os.read(0, _PIECE_BYTES)):
        yield data


async def _write_out(pieces: AsyncGenerator[bytes], fd: int) -> int:
    """Write all to a descriptor; a slow reader holds the container's side back."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    sent = 0
    async with aclosing(pieces):
        async for piece in pieces:
            await _apart(functools.partial(write, piece))
            sent += len(piece)
    return sent


async def _apart(work: Callable[[], T]) -> T:
    """The result of work in a thread that nobody waits for in the end: who is at the other end of a pipe may sleep."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: OSError | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", result))

    def run() -> None:
        result, problem = None, None
        try:
            result = work()
        except OSError as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True, name="pipe").start()
    return await done


@click.command()
@click.argument("container", shell_complete=completion.containers)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write to a file, which is there once it is whole.",
)
@click.pass_obj
def export(app: "App", container: str, *, output: Path | None) -> None:
    """Write a container's root filesystem, without what is mounted in it, as a tar archive.

    The processes of a container that runs stand still meanwhile.
    """
    if output is None:
        _refuse_terminal()

    async def work(fd: int) -> None:
        await _write_out(app.client.containers.get(container).export(), fd)

    if output is None:
        asyncio.run(work(sys.stdout.fileno()))
        return
    part = output.with_name(f".{output.name[:200]}.{os.urandom(4).hex()}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        asyncio.run(work(fd))
        part.rename(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


@click.command()
@click.argument("container", shell_complete=completion.containers)
@click.pass_obj
def diff(app: "App", container: str) -> None:
    """Show where a container's root filesystem differs from its image: A added, C changed, D deleted."""

    async def work() -> None:
        async with aclosing(app.client.containers.get(container).diff()) as changes:
            async for change in changes:
                print(change.kind.value, _show(change.path))

    asyncio.run(work())


def _show(path: str) -> str:
    """A path of a container's on one line that no terminal takes for an order."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in path
    )
