import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from woodlot.container.logs import LogWriter
from woodlot.container.session import Session, Subscriber
from woodlot.errors import ExecutionError
from woodlot.guest.said import Event, Exited, Output, Started

if TYPE_CHECKING:
    from woodlot.guest.client import Process

EXITED = Exited(code=3, signal=0, oom_killed=False)


class Script:
    """A process of the guest that does what is written down."""

    def __init__(self, events: Sequence[Event | Exception]) -> None:
        self.events_left = list(events)

    async def events(self) -> AsyncIterator[Event]:
        while self.events_left:
            event = self.events_left.pop(0)
            if isinstance(event, Exception):
                raise event
            yield event


def out(data: bytes, *, stderr: bool = False) -> Output:
    return Output(data=data, stderr=stderr)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "stdio.log"


@pytest.fixture
async def session(log: Path) -> AsyncGenerator[Session]:
    session = Session(LogWriter(log, max_bytes=1 << 20))
    yield session
    await session.finish()


def pump(session: Session, *events: Event | Exception) -> "tuple[Script, asyncio.Task[Exited]]":
    script = Script([Started(pid=7), *events])
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    return script, asyncio.create_task(session.pump(cast("Process", script), started))


async def drain(subscriber: Subscriber) -> list[Output]:
    """What comes until the end, which must come."""
    got: list[Output] = []
    async with asyncio.timeout(5):
        while (chunk := await subscriber.get()) is not None:
            got.append(chunk)
    return got


async def test_output_goes_to_the_log_and_to_every_subscriber_in_order(
    session: Session, log: Path
) -> None:
    chunks = [out(b"one\n"), out(b"two\n", stderr=True), out(b"three")]
    subscribers = [await session.subscribe() for _ in range(2)]
    _, pumping = pump(session, *chunks, EXITED)
    assert await pumping == EXITED
    await session.finish()
    assert [await drain(subscriber) for subscriber in subscribers] == [chunks, chunks]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["stream"], line["log"]) for line in lines] == [
        ("stdout", "one\n"),
        ("stderr", "two\n"),
        ("stdout", "three"),
    ]


async def test_a_subscriber_sees_what_comes_from_then_on(session: Session) -> None:
    await pump(session, out(b"before"), EXITED)[1]
    late = await session.subscribe()
    await pump(session, out(b"after"), EXITED)[1]
    await session.finish()
    assert await drain(late) == [out(b"after")]
    assert await drain(await session.subscribe()) == []


async def test_a_slow_subscriber_holds_the_process_back(session: Session) -> None:
    chunks = [out(b"%d" % number) for number in range(50)]
    slow, quick = await session.subscribe(), await session.subscribe()
    script, pumping = pump(session, *chunks, EXITED)
    draining = asyncio.create_task(drain(quick))
    await asyncio.sleep(0.05)
    assert not pumping.done()
    assert len(script.events_left) > 30
    for chunk in chunks:
        assert await slow.get() == chunk
    assert await pumping == EXITED
    await session.finish()
    assert await draining == chunks


async def test_a_subscriber_that_leaves_holds_nothing_back(session: Session) -> None:
    leaving = await session.subscribe()
    _, pumping = pump(session, *[out(b"x")] * 50, EXITED)
    await asyncio.sleep(0.05)
    assert not pumping.done()
    session.unsubscribe(leaving)
    async with asyncio.timeout(5):
        assert await pumping == EXITED
        await session.finish()
    session.unsubscribe(leaving)


async def test_started_is_told_once_the_process_runs(session: Session) -> None:
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    refused = ExecutionError("no such file")
    with pytest.raises(ExecutionError, match="no such file"):
        await session.pump(cast("Process", Script([refused])), started)
    assert not started.done()
    await session.pump(cast("Process", Script([Started(pid=7), EXITED])), started)
    assert started.done()


async def test_the_end_may_be_told_twice(session: Session, log: Path) -> None:
    subscriber = await session.subscribe()
    await pump(session, out(b"no newline"), EXITED)[1]
    await session.finish()
    await session.finish()
    assert await drain(subscriber) == [out(b"no newline")]
    assert len(log.read_text().splitlines()) == 1
