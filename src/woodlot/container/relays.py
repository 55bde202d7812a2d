"""The Unix sockets of one running container: connections to those it publishes, and to those of the host it uses."""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from woodlot.container import sockets
from woodlot.container.spec import ContainerSpec, SocketSpec
from woodlot.errors import WoodlotError
from woodlot.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Generator

    from woodlot._pb.agent.v1 import agent_pb2
    from woodlot.guest.client import Agent
    from woodlot.guest.connection import Connection

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Of one socket at once; further ones wait in the kernel's queue, of the guest's or the host's."""
_CONNECT_TIMEOUT_S = 10
# What a guest can make us write as often as it likes.
_MAX_COMPLAINTS = 20


class Relays:
    """The sockets of one start of a container; `open` comes first."""

    def __init__(self, paths: Paths, spec: ContainerSpec, environ: Mapping[str, str]) -> None:
        self._paths = paths
        self._spec = spec
        self._environ = environ
        self._used: tuple[sockets.Used, ...] = ()
        self._published: list[tuple[SocketSpec, socket.socket]] = []
        self._listening = ExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._complaints = 0

    @contextmanager
    def open(self) -> "Generator[None]":
        """Listen on the host for the life of the block; connections wait until `carry`.

        Raises:
            WoodlotError: A socket cannot be made, or one that the container uses is not there.
        """
        spec = self._spec
        self._used = sockets.find_used(spec.mounts, ssh=spec.ssh, environ=self._environ)
        with self._listening:
            for one in spec.sockets:
                listening = sockets.listening(self._paths, Path(one.host_path))
                self._published.append((one, self._listening.enter_context(listening)))
            yield

    def close(self) -> None:
        """Take the sockets off the host before the block ends, so that whoever hears of the end can use the paths."""
        self._listening.close()

    def requests(self) -> "list[agent_pb2.Mount]":
        """The sockets that the agent is to listen on, for the container's user and with the host's permissions."""
        from woodlot._pb.agent.v1 import agent_pb2

        return [
            agent_pb2.Mount(
                type="socket",
                source=_name(index),
                destination=used.mount.destination,
                options=["ro"] if used.mount.read_only else [],
                mode=used.mode & 0o777 | 0o600,
                owner=self._spec.process.user,
            )
            for index, used in enumerate(self._used)
        ]

    @asynccontextmanager
    async def carry(self, agent: "Agent", started: Awaitable[None]) -> AsyncGenerator[None]:
        """During the block, from when the container's process has started, carry connections both ways."""
        for one, listener in self._published:
            self._spawn(self._serve_published(agent, one, listener, started))
        for index, used in enumerate(self._used):
            self._spawn(self._serve_used(agent, _name(index), Path(used.mount.source), started))
        try:
            yield
        finally:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve_published(
        self, agent: "Agent", one: SocketSpec, listener: socket.socket, started: Awaitable[None]
    ) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.wait((asyncio.ensure_future(started),))
        slots = asyncio.Semaphore(MAX_CONNECTIONS)
        while True:
            await slots.acquire()
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.error("%s is not served any more: %s", one.host_path, error)  # noqa: TRY400 - no bug
                return
            task = self._spawn(self._to_guest(agent, one, client))
            task.add_done_callback(lambda _: slots.release())

    async def _to_guest(self, agent: "Agent", one: SocketSpec, client: socket.socket) -> None:
        with client:
            try:
                connection = await agent.connect(one.container_path)
            except WoodlotError as error:
                self._complain(f"a connection to {one.host_path} is closed: {error.message}")
                return
            try:
                await connection.carry(client)
            finally:
                connection.close()

    async def _serve_used(
        self, agent: "Agent", name: str, source: Path, started: Awaitable[None]
    ) -> None:
        await asyncio.wait((asyncio.ensure_future(started),))
        slots = asyncio.Semaphore(MAX_CONNECTIONS)
        while True:
            await slots.acquire()
            try:
                connection = await agent.accept(name)
            except WoodlotError as error:
                log.info("%s is not carried any more: %s", source, error.message)
                return
            task = self._spawn(self._to_host(connection, source))
            task.add_done_callback(lambda _: slots.release())

    async def _to_host(self, connection: "Connection", source: Path) -> None:
        try:
            with await _connect(source) as server:
                await connection.carry(server)
        except OSError as error:
            self._complain(f"a connection of the container to {source} is closed: {error.strerror}")
        finally:
            connection.close()

    def _complain(self, text: str) -> None:
        self._complaints += 1
        if self._complaints <= _MAX_COMPLAINTS:
            log.warning("%s", text)


def _name(index: int) -> str:
    return f"s{index}"


async def _connect(path: Path) -> socket.socket:
    """A connection to a socket of the host, whoever serves it at this moment.

    Raises:
        OSError: Nobody does, or not within 10 s.
    """
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.setblocking(False)  # noqa: FBT003
        try:
            server.connect(os.fspath(path))
        except BlockingIOError:
            # Its queue is full. Only a connect that blocks waits for room there: no event tells of it.
            await asyncio.to_thread(_connect_blocking, server, path)
    except BaseException:
        server.close()
        raise
    return server


def _connect_blocking(server: socket.socket, path: Path) -> None:
    server.setblocking(True)  # noqa: FBT003
    # SO_SNDTIMEO also limits a connect, by unix(7)'s kernel code; it takes a struct timeval.
    server.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _CONNECT_TIMEOUT_S, 0)
    )
    server.connect(os.fspath(path))
    server.setblocking(False)  # noqa: FBT003
