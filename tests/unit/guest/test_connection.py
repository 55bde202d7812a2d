"""Connections that the agent carries: ends, breaks and lies of either side."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.guest.agents import (
    END,
    OPENED,
    FakeAgent,
    Requests,
    Responses,
    connected,
    data,
    echo,
    silent,
)
from woodlot._pb.agent.v1 import agent_pb2 as pb
from woodlot.errors import GuestError
from woodlot.guest.client import Agent

Pair = tuple[FakeAgent, Agent]


@pytest.fixture
async def pair() -> AsyncGenerator[Pair]:
    with tempfile.TemporaryDirectory(prefix="wl-") as directory:
        async with asyncio.timeout(20), connected(Path(directory)) as both:
            yield both


@contextmanager
def ends() -> Generator[tuple[socket.socket, socket.socket]]:
    """The host's program, and what is carried for it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


async def read_all(sock: socket.socket) -> bytes:
    loop, got = asyncio.get_running_loop(), b""
    while chunk := await loop.sock_recv(sock, 1 << 16):
        got += chunk
    return got


async def test_each_direction_ends_by_itself(pair: Pair) -> None:
    fake, agent = pair
    fake.sockets["/s"] = echo
    connection = await agent.connect("/s")
    with ends() as (ours, theirs):
        carried = asyncio.create_task(connection.carry(theirs))
        sent = bytes(range(256)) * 2000

        async def send() -> None:
            await asyncio.get_running_loop().sock_sendall(ours, sent)
            ours.shutdown(socket.SHUT_WR)

        sending = asyncio.create_task(send())
        # What comes after our end is carried, too.
        assert await read_all(ours) == sent + b"512000"
        await sending
        await carried
    connection.close()


async def test_the_guest_ends_first(pair: Pair) -> None:
    fake, agent = pair
    got = b""

    async def script(requests: Requests) -> Responses:
        nonlocal got
        yield OPENED
        yield data(b"bye")
        yield END
        async for request in requests:
            got += request.data

    fake.knocks["s0"] = asyncio.Queue()
    fake.knocks["s0"].put_nowait(script)
    connection = await agent.accept("s0")
    with ends() as (ours, theirs):
        carried = asyncio.create_task(connection.carry(theirs))
        assert await read_all(ours) == b"bye"
        ours.send(b"late")
        ours.close()
        await carried
    assert got == b"late"


async def test_a_guest_that_nobody_reads_is_held_back(pair: Pair) -> None:
    fake, agent = pair
    sent = 0

    async def flood(requests: Requests) -> Responses:
        nonlocal sent
        yield OPENED
        while True:
            sent += 1 << 16
            yield data(bytes(1 << 16))

    fake.sockets["/flood"] = flood
    connection = await agent.connect("/flood")
    with ends() as (ours, theirs):
        carried = asyncio.create_task(connection.carry(theirs))
        await asyncio.wait((carried,), timeout=0.5)
        # A window of 256 KiB on either side of the server, and the kernel's buffers.
        assert 0 < sent < 2 << 20
        # What the guest sends finds nobody.
        ours.close()
        await carried
    connection.close()


async def test_a_host_is_held_back_by_a_guest_that_does_not_read(pair: Pair) -> None:
    fake, agent = pair
    fake.sockets["/silent"] = silent
    connection = await agent.connect("/silent")
    taken = 0

    async def flood(sock: socket.socket) -> None:
        nonlocal taken
        while True:
            await asyncio.get_running_loop().sock_sendall(sock, bytes(1 << 16))
            taken += 1 << 16

    with ends() as (ours, theirs):
        carried = asyncio.create_task(connection.carry(theirs))
        flooding = asyncio.create_task(flood(ours))
        await asyncio.wait((carried, flooding), timeout=0.5)
        assert 0 < taken < 6 << 20
        connection.close()
        await carried
        flooding.cancel()


async def test_a_guest_that_lies_ends_the_connection(pair: Pair) -> None:
    fake, agent = pair

    async def nothing(requests: Requests) -> Responses:
        return
        yield

    async def data_first(requests: Requests) -> Responses:
        yield data(b"x")

    async def opened_twice(requests: Requests) -> Responses:
        yield OPENED
        yield OPENED

    async def empty(requests: Requests) -> Responses:
        yield OPENED
        yield pb.ConnectionResponse()

    async def data_after_end(requests: Requests) -> Responses:
        yield OPENED
        yield END
        yield data(b"x")

    for script in (nothing, data_first):
        fake.sockets["/s"] = script
        with pytest.raises(GuestError, match="did not say that a connection is open"):
            await agent.connect("/s")
    for script in (opened_twice, empty, data_after_end):
        fake.sockets["/s"] = script
        connection = await agent.connect("/s")
        with ends() as (ours, theirs):
            await connection.carry(theirs)
            theirs.close()
            assert await read_all(ours) == b""
        connection.close()


async def test_a_socket_that_is_not_there_is_told_in_clean_words(pair: Pair) -> None:
    _, agent = pair
    with pytest.raises(
        GuestError, match=r"could not open a connection: connect to /none:  no such file$"
    ):
        await agent.connect("/none")
    with pytest.raises(GuestError, match="could not accept a connection: no socket s9"):
        await agent.accept("s9")


async def test_close_ends_the_guests_side(pair: Pair) -> None:
    fake, agent = pair
    ended = asyncio.Event()

    async def script(requests: Requests) -> Responses:
        yield OPENED
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    fake.sockets["/s"] = script
    connection = await agent.connect("/s")
    with ends() as (_, theirs):
        carried = asyncio.create_task(connection.carry(theirs))
        await asyncio.sleep(0)
        carried.cancel()
        connection.close()
        await ended.wait()
