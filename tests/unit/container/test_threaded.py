"""Streams between the loop and threads: order, back-pressure, and nobody left waiting."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator

import pytest

from woodlot.container.threaded import consume, produce
from woodlot.errors import StateError


async def pieces(*items: bytes, closed: list[bool] | None = None) -> AsyncGenerator[bytes]:
    try:
        for item in items:
            await asyncio.sleep(0)
            yield item
    finally:
        if closed is not None:
            closed.append(True)


async def endless(taken: list[int]) -> AsyncGenerator[bytes]:
    while True:
        taken.append(1)
        yield b"x"


async def hanging() -> AsyncGenerator[bytes]:
    yield b"first"
    await asyncio.Event().wait()


async def test_consume_gives_everything_in_order() -> None:
    closed: list[bool] = []
    got = await consume(pieces(b"a", b"", b"b", closed=closed), list)
    assert (got, closed) == ([b"a", b"b"], [True])


async def test_what_consumes_may_fail_or_stop_early() -> None:
    taken: list[int] = []

    def fail(source: Iterator[bytes]) -> None:
        next(source)
        raise StateError("enough")

    with pytest.raises(StateError, match="enough"):
        await consume(endless(taken), fail)
    assert len(taken) == 1
    assert await consume(endless(taken), next) == b"x"


async def test_a_failure_of_the_source_reaches_whoever_consumes() -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"a"
        raise StateError("the source")

    with pytest.raises(StateError, match="the source"):
        await consume(failing(), b"".join)


async def test_cancelled_consumption_leaves_no_thread() -> None:
    first = threading.Event()

    def work(source: Iterator[bytes]) -> None:
        for _ in source:
            first.set()

    task = asyncio.create_task(consume(hanging(), work))
    await asyncio.to_thread(first.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_produce_gathers_small_pieces_and_is_held_back() -> None:
    put_so_far: list[int] = []

    def work(put: Callable[[bytes], None]) -> None:
        for _ in range(64):
            put(bytes(64 << 10))
            put_so_far.append(1)

    stream = produce(work)
    got = [await anext(stream)]
    await asyncio.sleep(0.1)
    assert len(put_so_far) < 40
    got += [piece async for piece in stream]
    assert b"".join(got) == bytes(64 * (64 << 10))
    assert max(map(len, got)) <= 320 << 10


async def test_what_produces_may_fail() -> None:
    def work(put: Callable[[bytes], None]) -> None:
        put(bytes(1 << 20))
        raise StateError("unreadable")

    with pytest.raises(StateError, match="unreadable"):
        _ = [piece async for piece in produce(work)]


async def test_a_reader_that_leaves_ends_the_work() -> None:
    ended = threading.Event()

    def work(put: Callable[[bytes], None]) -> None:
        try:
            while True:
                put(bytes(1 << 20))
        finally:
            ended.set()

    stream = produce(work)
    await anext(stream)
    await stream.aclose()
    assert ended.is_set()
