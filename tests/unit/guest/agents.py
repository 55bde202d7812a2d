"""A guest's agent that carries connections as a test says: a true gRPC server on a Unix socket."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio

from woodlot._pb.agent.v1 import agent_pb2 as pb
from woodlot._pb.agent.v1 import agent_pb2_grpc
from woodlot.guest.client import Agent

Requests: TypeAlias = AsyncIterator[pb.ConnectionRequest]
Responses: TypeAlias = AsyncGenerator[pb.ConnectionResponse]
Script: TypeAlias = Callable[[Requests], Responses]
"""What the guest's end of one connection does."""

OPENED = pb.ConnectionResponse(opened=pb.ConnectionResponse.Opened())
END = pb.ConnectionResponse(end=pb.ConnectionResponse.End())


def data(text: bytes) -> pb.ConnectionResponse:
    return pb.ConnectionResponse(data=text)


async def echo(requests: Requests) -> Responses:
    """Gives back what comes, and its length once it has ended."""
    yield OPENED
    length = 0
    async for request in requests:
        length += len(request.data)
        yield data(request.data)
    yield data(b"%d" % length)
    yield END


async def silent(requests: Requests) -> Responses:
    """Neither reads nor writes."""
    yield OPENED
    await asyncio.Event().wait()


class FakeAgent:
    """The guest's side: sockets by path for Connect, connections by name for Accept."""

    def __init__(self) -> None:
        self.sockets: dict[str, Script] = {}
        self.knocks: dict[str, asyncio.Queue[Script]] = {}
        self.open = 0
        """Connections that have not ended."""

    async def _connect(self, requests: Requests, context: Any) -> Responses:
        name = (await anext(requests)).socket
        if name not in self.sockets:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"connect to {name}: \x07no such file")
        async with contextlib.aclosing(self._play(self.sockets[name], requests)) as responses:
            async for response in responses:
                yield response

    async def _accept(self, requests: Requests, context: Any) -> Responses:
        name = (await anext(requests)).socket
        if name not in self.knocks:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no socket {name} is mounted")
        script = await self.knocks[name].get()
        async with contextlib.aclosing(self._play(script, requests)) as responses:
            async for response in responses:
                yield response

    async def _play(self, script: Script, requests: Requests) -> Responses:
        self.open += 1
        try:
            async for response in script(requests):
                yield response
        finally:
            self.open -= 1


@contextlib.asynccontextmanager
async def connected(directory: Path) -> AsyncGenerator[tuple[FakeAgent, Agent]]:
    """A fake agent, and the host's end of the connection to it."""
    fake = FakeAgent()
    servicer: Any = cast("Any", agent_pb2_grpc).AgentServicer()
    servicer.Connect, servicer.Accept = fake._connect, fake._accept
    server: Any = cast("Any", grpc.aio).server()
    cast("Any", agent_pb2_grpc).add_AgentServicer_to_server(servicer, server)
    target = f"unix:{directory}/agent.sock"
    server.add_insecure_port(target)
    await server.start()
    try:
        async with Agent(target) as agent:
            yield fake, agent
    finally:
        await server.stop(None)
