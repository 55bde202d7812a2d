import asyncio
import socket
from collections.abc import Iterator

import pytest

from woodlot.container.lifeline import Lifeline, wait_ready
from woodlot.errors import ErrorCode, StateError, WoodlotError

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    launcher, supervisor = socket.socketpair()
    launcher.settimeout(5)
    with launcher, supervisor:
        yield launcher, supervisor


def test_ready(pair: Pair) -> None:
    Lifeline(pair[1]).ready()
    wait_ready(pair[0])


def test_an_error_arrives_whole(pair: Pair) -> None:
    details = "console:\n" + "x" * 100_000
    Lifeline(pair[1]).fail(StateError("no VM", details=details, hint="look"))
    with pytest.raises(WoodlotError, match="no VM") as caught:
        wait_ready(pair[0])
    assert caught.value.code is ErrorCode.INVALID_STATE
    assert (caught.value.details, caught.value.hint) == (details, "look")


def test_only_the_first_word_counts(pair: Pair) -> None:
    lifeline = Lifeline(pair[1])
    lifeline.ready()
    lifeline.fail(StateError("too late"))
    assert pair[0].recv(100) == b"ready\n"
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[0].recv(100)


@pytest.mark.parametrize("words", [b"", b"Traceback: killed"])
def test_a_supervisor_that_dies_is_told_with_its_last_words(pair: Pair, words: bytes) -> None:
    pair[1].sendall(words)
    pair[1].close()
    with pytest.raises(WoodlotError, match="ended before it was ready") as caught:
        wait_ready(pair[0])
    assert caught.value.details == (words.decode() or None)


def test_a_launcher_that_is_gone_is_no_error(pair: Pair) -> None:
    pair[0].close()
    Lifeline(pair[1]).ready()


async def test_the_end_of_the_launcher_is_told_once(pair: Pair) -> None:
    lifeline = Lifeline(pair[1])
    lifeline.ready()
    closed = asyncio.Event()
    times: list[None] = []

    def gone() -> None:
        times.append(None)
        closed.set()

    lifeline.on_close(gone)
    pair[0].sendall(b"chatter")
    await asyncio.sleep(0.05)
    assert not closed.is_set()
    pair[0].close()
    async with asyncio.timeout(5):
        await closed.wait()
    await asyncio.sleep(0.05)
    assert len(times) == 1
