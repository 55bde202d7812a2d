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
from typing import TYPE_CHECKING

from woodlot import trace
from woodlot.aio.state import KILLED_EXIT_CODE
from woodlot.errors import WoodlotError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from woodlot.aio import Attachment, Container, End

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


def run_foreground(
    opened: "AbstractAsyncContextManager[Attachment]", container: "Container", *, stdin: bool
) -> int:
    """Be the terminal of a container's own process until it ends; returns its exit status.

    Args:
        opened: Its stdio.
        container: Its container.
        stdin: Hand over our stdin.

    Raises:
        WoodlotError: Why it does not run.
    """
    try:
        end = asyncio.run(_carry(opened, tty=container.spec.process.tty, stdin=stdin))
    except BrokenPipeError:
        # As a program that SIGPIPE ends: `container run … | head` is no error of anybody's.
        return 128 + signal.SIGPIPE
    if end.reason:
        print(f"error: container {container.name}: {end.reason}", file=sys.stderr)
        if end.code == KILLED_EXIT_CODE:
            keep = "run it without --rm to keep"
            where = keep if container.spec.remove else f"see {container.boot_log} for"
            print(f"hint: {where} what its kernel said", file=sys.stderr)
    elif end.oom_killed:
        print(f"container {container.name}: a process ran out of memory", file=sys.stderr)
    return end.code


def exec_foreground(
    opened: "AbstractAsyncContextManager[Attachment]", *, tty: bool, stdin: bool
) -> int:
    """Be the terminal of one more process until it ends; returns its exit status.

    Raises:
        WoodlotError: Why it does not run.
    """
    try:
        return asyncio.run(_carry(opened, tty=tty, stdin=stdin)).code
    except BrokenPipeError:
        return 128 + signal.SIGPIPE


def window_of(*, tty: bool) -> tuple[int, int]:
    """Rows and columns of our terminal, for a process that is to have one; zeros if there is none."""
    return _window() if tty and os.isatty(1) else (0, 0)


async def _carry(
    opened: "AbstractAsyncContextManager[Attachment]", *, tty: bool, stdin: bool
) -> "End":
    """Carry stdio, signals and the window's size until the process ends."""
    is_terminal = tty and os.isatty(1)
    async with opened as attachment:
        # From the first moment on: a Ctrl-C while the VM boots must not be lost.
        with _signals(attachment, resize=is_terminal):
            with trace.span("process starts"):
                await attachment.started()
            if is_terminal:
                # Again: it may have changed while the VM booted.
                await attachment.resize(*_window())
            raw = tty and stdin and os.isatty(0)
            with _raw_terminal(0) if raw else contextlib.nullcontext():
                if stdin:
                    _StdinReader(attachment).start()
                return await _copy_output(attachment)


async def _copy_output(attachment: "Attachment") -> "End":
    """Write what comes until the end; a reader of ours that has gone ends the container."""
    from woodlot.aio import End

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

    def __init__(self, attachment: "Attachment") -> None:
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
def _signals(attachment: "Attachment", *, resize: bool) -> Generator[None]:
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
        _keep(tasks, attachment.signal(number))

    handlers: dict[int, Callable[[], None]] = {
        number: functools.partial(send, number) for number in _FORWARDED
    }
    if resize:
        handlers[signal.SIGWINCH] = lambda: _keep(tasks, attachment.resize(*_window()))
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
