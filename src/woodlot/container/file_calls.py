"""The guest's files for the supervisor's clients: calls of the agent's service `Files`, handed on byte by byte.

What a message says is between client and guest; the guest's texts are made fit to be shown.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio

from woodlot._pb.agent.v1 import agent_pb2
from woodlot.container.wire import encode_error
from woodlot.errors import WoodlotError
from woodlot.guest.client import FILES_SERVICE, Agent, clean

Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"

_METHODS = tuple(m.name for m in agent_pb2.DESCRIPTOR.services_by_name["Files"].methods)
_STILL = ("Export", "ExportLayer")


class FileCalls:
    """Calls wait until the guest is set up, and end when it is shut down."""

    def __init__(self) -> None:
        self._agent: asyncio.Future[Agent] = asyncio.get_running_loop().create_future()
        self._calls: dict[Call, str] = {}
        self._cut: dict[Call, WoodlotError] = {}

    def open(self, agent: Agent) -> None:
        """The guest's files can be had: at first, or once more after `close`."""
        if self._agent.done():
            self._agent = asyncio.get_running_loop().create_future()
        self._agent.set_result(agent)

    def close(self, error: WoodlotError) -> None:
        """No more calls: those under way end with the error, and so do those that come."""
        if self._agent.done():
            if self._agent.exception():
                return
            self._cancel(error, _METHODS)
            self._agent = asyncio.get_running_loop().create_future()
        self._agent.set_exception(error)
        self._agent.exception()  # retrieved: nobody may be waiting

    def release(self, error: WoodlotError) -> None:
        """End the calls that the container's processes stand still for, with an error."""
        self._cancel(error, _STILL)

    def _cancel(self, error: WoodlotError, methods: Collection[str]) -> None:
        for call, name in self._calls.items():
            if name in methods:
                self._cut[call] = error
                call.cancel()

    def handler(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        """For the supervisor's gRPC server."""
        # Any: gRPC's types know no handlers of asyncio.
        untyped = cast("Any", grpc)
        handlers = {
            name: untyped.stream_stream_rpc_method_handler(self._method(name)) for name in _METHODS
        }
        handler: grpc.GenericRpcHandler[bytes, bytes] = untyped.method_handlers_generic_handler(
            FILES_SERVICE, handlers
        )
        return handler

    def _method(self, name: str) -> Any:  # noqa: ANN401 - gRPC's types know no asyncio handlers
        async def handle(requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes]:
            try:
                agent = await asyncio.shield(self._agent)
            except WoodlotError as error:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, encode_error(error))
            call = agent.open_raw(name)
            self._calls[call] = name
            feeding = asyncio.create_task(_feed(call, requests))
            try:
                async for message in call:
                    yield message
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), clean(error.details() or ""))
            except asyncio.CancelledError:
                # Either the client has gone, or the call was cut from this side.
                if call not in self._cut:
                    raise
                why = encode_error(self._cut[call])
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, why)
            finally:
                self._calls.pop(call)
                self._cut.pop(call, None)
                call.cancel()
                feeding.cancel()

        return handle


async def _feed(call: Call, requests: AsyncIterator[bytes]) -> None:
    # A call that has ended takes no more; its status says why.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        async for request in requests:
            await call.write(request)
        await call.done_writing()
