"""The terminal's side of a running container: stdio, signals and window size carried both ways."""

import asyncio
import contextlib
import functools
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from woodlot import trace
from woodlot.container.client import Attachment, Supervised
from woodlot.container.session import End
from woodlot.container.spec import ContainerSpec, ExecSpec, ProcessSpec
from woodlot.container.state import KILLED_EXIT_CODE
from woodlot.errors import WoodlotError

_CHUNK_BYTES = 64 << 10
_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)
# So many SIGINT or SIGTERM say that waiting for the process is not wanted any more.
_PATIENCE = 3


def start_detached(socket_path: Path) -> None:
    """Start the process and leave it to its supervisor.

    Raises:
        WoodlotError: Why it does not run.
    """

    async def start() -> None:
        async with Supervised(socket_path) as supervised:
            await supervised.start()

    asyncio.run(start())


def run_foreground(
    socket_path: Path, spec: ContainerSpec, *, console_log: Path, owner: bool, stdin: bool
) -> int:
    """Start the process unless it runs, and be its terminal until it ends; returns its exit status.

    Args:
        socket_path: Of the supervisor.
        spec: The container.
        console_log: What its guest's kernel says, named to the user if the virtual machine fails.
        owner: The container ends with this command.
        stdin: Hand over our stdin.

    Raises:
        WoodlotError: Why it does not run.
    """
    try:
        end = asyncio.run(_foreground(socket_path, replace(spec.process, stdin=stdin), owner=owner))
    except BrokenPipeError:
        # As a program that SIGPIPE ends: `container run … | head` is no error of anybody's.
        return 128 + signal.SIGPIPE
    if end.reason:
        print(f"error: container {spec.name}: {end.reason}", file=sys.stderr)
        if end.code == KILLED_EXIT_CODE:
            where = "run it without --rm to keep" if spec.remove else f"see {console_log} for"
            print(f"hint: {where} what its kernel said", file=sys.stderr)
    elif end.oom_killed:
        print(f"container {spec.name}: a process ran out of memory", file=sys.stderr)
    return end.code


def exec_foreground(socket_path: Path, spec: ExecSpec) -> int:
    """Run one more process and be its terminal until it ends; returns its exit status.

    Raises:
        WoodlotError: Why it does not run.
    """

    async def run() -> End:
        async with Supervised(socket_path) as supervised:
            opened = supervised.exec(spec, window=_window_of(spec))
            return await _carry(supervised, opened, spec, exec_id=spec.id)

    try:
        return asyncio.run(run()).code
    except BrokenPipeError:
        return 128 + signal.SIGPIPE


def exec_detached(socket_path: Path, spec: ExecSpec) -> None:
    """Run one more process and leave it alone once it runs.

    Raises:
        WoodlotError: Why it does not.
    """

    async def run() -> None:
        async with Supervised(socket_path) as supervised:
            await supervised.exec_detached(spec)

    asyncio.run(run())


async def _foreground(socket_path: Path, process: ProcessSpec, *, owner: bool) -> End:
    async with Supervised(socket_path) as supervised:
        opened = supervised.attach(
            start=True, owner=owner, stdin=process.stdin, window=_window_of(process)
        )
        return await _carry(supervised, opened, process)


async def _carry(
    supervised: Supervised,
    opened: AbstractAsyncContextManager[Attachment],
    process: ProcessSpec | ExecSpec,
    *,
    exec_id: str = "",
) -> End:
    """Carry stdio, signals and the window's size until the process ends."""
    is_terminal = process.tty and os.isatty(1)
    async with opened as attachment:
        # From the first moment on: a Ctrl-C while the VM boots must not be lost.
        with _signals(supervised, exec_id, resize=is_terminal):
            with trace.span("process starts"):
                await attachment.started()
            if is_terminal:
                # Again: it may have changed while the VM booted.
                await supervised.resize(*_window(), exec_id=exec_id)
            raw = process.tty and process.stdin and os.isatty(0)
            with _raw_terminal(0) if raw else contextlib.nullcontext():
                if process.stdin:
                    _StdinReader(attachment).start()
                return await _copy_output(attachment)


async def _copy_output(attachment: Attachment) -> End:
    """Write what comes until the end; a reader of ours that has gone ends the container."""
    async for item in attachment.output():
        if isinstance(item, End):
            return item
        # In a thread: a reader that is slow must not keep signals from being forwarded.
        await asyncio.to_thread(_write_all, 2 if item.stderr else 1, item.data)
    raise WoodlotError("the container's output ended without an exit status")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _StdinReader:
    """Reads stdin in a thread, for it may be a file, which no event loop can wait for."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        # A daemon: a read that never returns must not keep the command from ending.
        threading.Thread(target=self._read, daemon=True, name="stdin").start()

    def _read(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            while data := os.read(0, _CHUNK_BYTES):
                asyncio.run_coroutine_threadsafe(self._attachment.write(data), self._loop).result()
            asyncio.run_coroutine_threadsafe(self._attachment.close_stdin(), self._loop).result()


@contextlib.contextmanager
def _signals(supervised: Supervised, exec_id: str, *, resize: bool) -> Generator[None]:
    """Forward signals to the process, and the window's size when it changes."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    insisted = 0

    def send(number: int) -> None:
        nonlocal insisted
        insisted += number in (signal.SIGINT, signal.SIGTERM)
        if insisted >= _PATIENCE:
            # The supervisor sees its owner go and stops the container.
            os._exit(128 + number)
        _keep(tasks, supervised.signal(number, exec_id=exec_id))

    handlers: dict[int, Callable[[], None]] = {
        number: functools.partial(send, number) for number in _FORWARDED
    }
    if resize:
        handlers[signal.SIGWINCH] = lambda: _keep(
            tasks, supervised.resize(*_window(), exec_id=exec_id)
        )
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
        for task in tasks:
            task.cancel()


def _keep(tasks: "set[asyncio.Task[None]]", work: Awaitable[None]) -> None:
    async def quietly() -> None:
        # Not running yet, or not any more: there is nothing to send it to.
        with contextlib.suppress(WoodlotError):
            await work

    task = asyncio.get_running_loop().create_task(quietly())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _window_of(process: ProcessSpec | ExecSpec) -> tuple[int, int]:
    return _window() if process.tty and os.isatty(1) else (0, 0)


def _window() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return (0, 0)
    return (size.lines, size.columns)


@contextlib.contextmanager
def _raw_terminal(fd: int) -> Generator[None]:
    """Hand every key to the process; the terminal is as before after the block."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
