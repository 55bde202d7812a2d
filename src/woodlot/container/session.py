"""One run of a container's process, as its clients see it: output fanned out, input taken, one end for all."""

import asyncio
from typing import TYPE_CHECKING

from woodlot.container.logs import LogPosition, LogWriter
from woodlot.guest.said import Exited, Output, Started
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot.guest.client import Process

_QUEUE_CHUNKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a container ended."""

    code: int
    signal: int = 0
    oom_killed: bool = False
    reason: str = ""
    """Why, where its process did not end by itself."""


def end_of(exited: Exited) -> End:
    """How a process ended by itself."""
    return End(code=exited.code, signal=exited.signal, oom_killed=exited.oom_killed)


class Subscriber:
    """One client's view of the output; a slow one holds the process back, as a slow terminal does."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Output | None] = asyncio.Queue(_QUEUE_CHUNKS)
        self._closed = asyncio.Event()

    async def put(self, item: Output | None) -> None:
        """Hand over a chunk, or None after the last; returns at once when the client is gone."""
        if self._closed.is_set():
            return
        if not self._queue.full():
            self._queue.put_nowait(item)
            return
        put = asyncio.ensure_future(self._queue.put(item))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((put, closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
            closed.cancel()

    async def get(self) -> Output | None:
        """The next chunk; None after the last."""
        return await self._queue.get()

    def close(self) -> None:
        """The client is gone."""
        self._closed.set()


class Session:
    """The process's output on its way from the guest to the log and to every attached client."""

    def __init__(self, log: LogWriter) -> None:
        self._log = log
        self._subscribers: list[Subscriber] = []
        self._followers: list[Subscriber] = []
        self._over = False

    async def subscribe(self) -> Subscriber:
        """A new view, from now on."""
        subscriber = Subscriber()
        if self._over:
            await subscriber.put(None)
        else:
            self._subscribers.append(subscriber)
        return subscriber

    async def follow(self) -> tuple[Subscriber, LogPosition]:
        """A new view of the log, whose chunks are records of its file, and the place in it from which they come."""
        follower = Subscriber()
        if self._over:
            await follower.put(None)
        else:
            self._followers.append(follower)
        return follower, self._log.position

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a view."""
        subscriber.close()
        for views in (self._subscribers, self._followers):
            if subscriber in views:
                views.remove(subscriber)

    async def pump(self, process: "Process", started: "asyncio.Future[None]") -> Exited:
        """Carry output until the process ends; ``started`` is resolved when it runs.

        Raises:
            WoodlotError: The process could not be started, or the guest failed.
        """
        async for event in process.events():
            match event:
                case Started():
                    started.set_result(None)
                case Output():
                    logged = self._log.write("stderr" if event.stderr else "stdout", event.data)
                    for subscriber in tuple(self._subscribers):
                        await subscriber.put(event)
                    await self._put_logged(logged)
                case Exited():
                    return event
        raise AssertionError("events() ends with Exited or raises")

    async def finish(self) -> None:
        """No more output will come."""
        if self._over:
            return
        self._over = True
        await self._put_logged(self._log.close())
        for subscriber in (*self._subscribers, *self._followers):
            await subscriber.put(None)
        self._subscribers.clear()
        self._followers.clear()

    async def _put_logged(self, records: bytes) -> None:
        if records:
            for follower in tuple(self._followers):
                await follower.put(Output(data=records, stderr=False))
