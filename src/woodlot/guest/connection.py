"""One connection between a Unix socket of the host and one of a container, carried by a stream of the agent's."""

import asyncio
import logging
import socket
from typing import Self

import grpc
import grpc.aio

from woodlot._pb.agent.v1 import agent_pb2 as pb
from woodlot.errors import GuestError

log = logging.getLogger(__name__)

_CHUNK_BYTES = 64 << 10

# What ends a connection like any other: one of the two ends, the channel or the VM is gone.
_BROKEN = (OSError, grpc.aio.AioRpcError, asyncio.InvalidStateError, GuestError)


class Connection:
    """The guest's end; made by `Agent.connect` and `Agent.accept`, and open until `close`."""

    def __init__(
        self, call: "grpc.aio.StreamStreamCall[pb.ConnectionRequest, pb.ConnectionResponse]"
    ) -> None:
        self._call = call

    @classmethod
    async def open(
        cls,
        call: "grpc.aio.StreamStreamCall[pb.ConnectionRequest, pb.ConnectionResponse]",
        name: str,
    ) -> Self:
        """Wait until the agent has the connection.

        Args:
            call: A stream on which nothing was sent yet.
            name: The socket's.

        Raises:
            grpc.aio.AioRpcError: There will be none.
            GuestError: The agent speaks nonsense.
        """
        try:
            await call.write(pb.ConnectionRequest(socket=name))
            response = await call.read()
        except BaseException:
            call.cancel()
            raise
        if isinstance(response, pb.ConnectionResponse) and response.HasField("opened"):
            return cls(call)
        call.cancel()
        raise GuestError("the guest agent did not say that a connection is open")

    def close(self) -> None:
        """End it, whatever is under way."""
        self._call.cancel()

    async def carry(self, host: socket.socket) -> None:
        """Pass data both ways until both directions are at their end, or either side is gone.

        Nothing is stored: whoever does not read holds the other back.

        Args:
            host: The host's end, not blocking; it stays the caller's to close.
        """
        outward = asyncio.create_task(self._send(host))
        inward = asyncio.create_task(self._receive(host))
        try:
            done, _ = await asyncio.wait((outward, inward), return_when=asyncio.FIRST_COMPLETED)
            # The agent ends the stream once both directions have ended.
            if inward not in done and not outward.cancelled() and outward.exception() is None:
                await asyncio.wait((inward,))
        finally:
            for task in (outward, inward):
                task.cancel()
            results = await asyncio.gather(outward, inward, return_exceptions=True)
        for error in results:
            if isinstance(error, _BROKEN):
                log.debug("a connection ended early: %s", error)
            elif isinstance(error, Exception):
                raise error

    async def _send(self, host: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(host, _CHUNK_BYTES):
            await self._call.write(pb.ConnectionRequest(data=data))
        await self._call.done_writing()

    async def _receive(self, host: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while isinstance(response := await self._call.read(), pb.ConnectionResponse):
            match response.WhichOneof("response"):
                case "data":
                    await loop.sock_sendall(host, response.data)
                case "end":
                    host.shutdown(socket.SHUT_WR)
                case _:
                    raise GuestError("the guest agent sent something else than a connection's data")
