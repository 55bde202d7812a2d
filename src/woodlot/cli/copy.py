"""``container copy``, ``export`` and ``diff``."""

import asyncio
import contextlib
import functools
import os
import secrets
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from woodlot.cli import completion
from woodlot.errors import ConfigError
from woodlot.units import format_size

if TYPE_CHECKING:
    from woodlot.cli.app import App
    from woodlot.container.copy import Manner
    from woodlot.container.files import Files
    from woodlot.container.place import Operand

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
    from woodlot.container.copy import Manner
    from woodlot.container.files import reach
    from woodlot.container.lifecycle import find
    from woodlot.container.place import parse_operand
    from woodlot.progress import NoProgress

    origin, goal = parse_operand(source), parse_operand(target)
    if bool(origin.container) == bool(goal.container):
        raise ConfigError(
            "one of source and target is in a container",
            hint="write CONTAINER:PATH for one of them; between containers, copy by way of the host",
        )
    _check_streams(origin, goal)

    async def work(manner: "Manner") -> str:
        found = find(app.store, origin.container or goal.container)
        async with reach(app.store, found) as files:
            if goal.container:
                return await _copy_to(files, origin, goal, manner)
            return await _copy_from(files, origin, goal, manner)

    with contextlib.ExitStack() as bars:
        progress = NoProgress() if quiet else LateProgress(bars)
        said = asyncio.run(work(Manner(archive=archive, follow=follow_link, progress=progress)))
    if not quiet:
        print(said, file=sys.stderr)


def _check_streams(origin: "Operand", goal: "Operand") -> None:
    if origin.is_stream and sys.stdin.isatty():
        raise ConfigError("stdin is a terminal", hint="pipe a tar archive into the command")
    if goal.is_stream:
        _refuse_terminal()


def _refuse_terminal() -> None:
    if sys.stdout.isatty():
        raise ConfigError(
            "a tar archive is nothing for a terminal", hint="redirect stdout to a file or a pipe"
        )


async def _copy_to(files: "Files", origin: "Operand", goal: "Operand", manner: "Manner") -> str:
    from woodlot.container.copy import copy_tar_to, copy_to

    if origin.is_stream:
        sent = await copy_tar_to(files, _stdin(), goal.path, manner)
    else:
        sent = await copy_to(files, origin.path, goal.path, manner)
    return f"copied {format_size(sent)} to {goal.container}:{goal.path}"


async def _copy_from(files: "Files", origin: "Operand", goal: "Operand", manner: "Manner") -> str:
    from woodlot.container.copy import copy_from, read_tar

    if goal.is_stream:
        sent = await _write_out(read_tar(files, origin.path, manner), sys.stdout.fileno())
        return f"copied {format_size(sent)} from {origin.container}:{origin.path}"
    done = await copy_from(files, origin.path, goal.path, manner)
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
    from woodlot.container.files import reach
    from woodlot.container.lifecycle import find

    if output is None:
        _refuse_terminal()

    async def work(fd: int) -> None:
        async with reach(app.store, find(app.store, container)) as files:
            await _write_out(files.export(), fd)

    if output is None:
        asyncio.run(work(sys.stdout.fileno()))
        return
    part = output.with_name(f".{output.name[:200]}.{secrets.token_hex(4)}.part")
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
    from woodlot.container.files import reach
    from woodlot.container.lifecycle import find

    async def work() -> None:
        async with (
            reach(app.store, find(app.store, container)) as files,
            aclosing(files.diff()) as changes,
        ):
            async for change in changes:
                print(change.kind.value, _show(change.path))

    asyncio.run(work())


def _show(path: str) -> str:
    """A path of a container's on one line that no terminal takes for an order."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in path
    )
