"""Streams between the event loop and work in a thread: each waits for the other, so neither piles up what it has."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")

_PIECE_BYTES = 256 << 10
_QUEUED = 2


class _Worker:
    """Work in a thread that waits for coroutines of the loop, until the work is not wanted any more."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waited_for: asyncio.Task[Any] | None = None
        self._over = False

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """In the thread: the coroutine's result.

        Raises:
            CancelledError: The work is not wanted any more.
        """

        async def watched() -> T:
            if self._over:
                coroutine.close()
                raise asyncio.CancelledError
            self._waited_for = asyncio.current_task()
            try:
                return await coroutine
            finally:
                self._waited_for = None

        return asyncio.run_coroutine_threadsafe(watched(), self._loop).result()

    async def run(self, work: Callable[[], T]) -> T:
        """Run it; when this is cancelled, so is what the thread waits for, and the thread has ended."""
        thread = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(thread)
        finally:
            self._over = True
            if self._waited_for is not None:
                self._waited_for.cancel()
            await asyncio.wait({thread})
            # Retrieved: what a cancelled thread says is nobody's concern.
            _ = thread.cancelled() or thread.exception()


async def consume(pieces: AsyncGenerator[bytes], work: Callable[[Iterator[bytes]], T]) -> T:
    """The result of ``work``, which takes the pieces in a thread; they are closed at its end."""
    worker = _Worker()

    async def take() -> bytes | None:
        return await anext(pieces, None)

    def taken() -> Iterator[bytes]:
        while (piece := worker.wait(take())) is not None:
            if piece:
                yield piece

    async with aclosing(pieces):
        return await worker.run(lambda: work(taken()))


async def produce(work: Callable[[Callable[[bytes], None]], None]) -> AsyncGenerator[bytes]:
    """What ``work``, in a thread, puts into the function it is given; in larger pieces."""
    worker = _Worker()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
    buffer = bytearray()

    def put(data: bytes) -> None:
        buffer.extend(data)
        if len(buffer) >= _PIECE_BYTES:
            flush()

    def flush() -> None:
        if buffer:
            worker.wait(queue.put(bytes(buffer)))
            buffer.clear()

    def whole() -> None:
        work(put)
        flush()

    async def run() -> None:
        await worker.run(whole)
        await queue.put(None)

    running = asyncio.create_task(run())
    getting: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            getting = asyncio.create_task(queue.get())
            await asyncio.wait((getting, running), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                # Failed: had it ended, there would be a last piece.
                await running
            if (piece := await getting) is None:
                return
            yield piece
    finally:
        for task in filter(None, (getting, running)):
            task.cancel()
        await asyncio.gather(running, return_exceptions=True)
