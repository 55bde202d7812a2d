"""Advisory locks on files: flock, released by the kernel when their holder dies.

A lock belongs to an open file, so a forked child shares it; it is released for both when the one that took it
leaves the block. Lock files are never removed while anybody may wait for them.

Source: flock(2).
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncGenerator, Generator
from pathlib import Path


def open_lock(path: Path) -> int:
    """A descriptor for the lock file ``path``, made if missing; the caller closes it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_flock(fd: int, *, shared: bool = False) -> bool:
    """Lock ``fd`` if nobody is in the way."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def flock(fd: int, *, shared: bool = False) -> None:
    """Lock ``fd``, waiting as long as it takes; cancelled, it is not locked.

    The waiting is done by the kernel, in a thread of its own: no polling, and no worker of the event loop's
    pool that would hold up the end of the program.
    """
    import asyncio

    if try_flock(fd, shared=shared):
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    # The thread cannot be interrupted, so it waits on a descriptor that nobody else closes.
    own = os.dup(fd)
    guard, abandoned, locked = threading.Lock(), False, False

    def resolve(error: OSError | None) -> None:
        if not done.done():
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def wait() -> None:
        nonlocal locked
        problem: OSError | None = None
        try:
            fcntl.flock(own, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            problem = error
        with guard:
            locked = problem is None
            if locked and abandoned:
                fcntl.flock(own, fcntl.LOCK_UN)
            os.close(own)
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(resolve, problem)

    threading.Thread(target=wait, name="flock", daemon=True).start()
    try:
        await done
    except asyncio.CancelledError:
        with guard:
            abandoned = True
            if locked:
                fcntl.flock(fd, fcntl.LOCK_UN)
        raise


def unlock_and_close(fd: int) -> None:
    """Give up the lock, also for a child that was forked meanwhile, and close ``fd``."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def hold(path: Path, *, shared: bool = False) -> AsyncGenerator[None]:
    """Hold the lock of the file ``path`` for the life of the block, waiting for it.

    Args:
        path: The lock file, made if missing.
        shared: With other shared holders, but with no exclusive one.
    """
    fd = open_lock(path)
    try:
        await flock(fd, shared=shared)
        yield
    finally:
        unlock_and_close(fd)


@contextlib.contextmanager
def hold_sync(path: Path, *, shared: bool = False) -> Generator[None]:
    """As `hold`, blocking the thread while it waits."""
    fd = open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        unlock_and_close(fd)


@contextlib.contextmanager
def try_hold(path: Path, *, shared: bool = False) -> Generator[bool]:
    """Hold the lock if nobody is in the way; the block is told whether it does."""
    fd = open_lock(path)
    try:
        yield try_flock(fd, shared=shared)
    finally:
        unlock_and_close(fd)
