"""The guest's files for the supervisor's clients: calls of the agent's service `Files`, handed on byte by byte.

What a message says is between client and guest; the guest's texts are made fit to be shown.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio

from woodlot._pb.agent.v1 import agent_pb2
from woodlot.container.file_calls import Call, FileCalls
from woodlot.container.wire import encode_error
from woodlot.errors import WoodlotError
from woodlot.guest.client import FILES_SERVICE
from woodlot.guest.said import clean

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


def build_handler(calls: FileCalls) -> "grpc.GenericRpcHandler[bytes, bytes]":
    """For the supervisor's gRPC server."""
    names = [m.name for m in agent_pb2.DESCRIPTOR.services_by_name["Files"].methods]
    # Any: gRPC's types know no handlers of asyncio.
    untyped = cast("Any", grpc)
    handlers = {
        name: untyped.stream_stream_rpc_method_handler(_method(calls, name)) for name in names
    }
    handler: grpc.GenericRpcHandler[bytes, bytes] = untyped.method_handlers_generic_handler(
        FILES_SERVICE, handlers
    )
    return handler


def _method(calls: FileCalls, name: str) -> Any:  # noqa: ANN401 - gRPC's types know no asyncio handlers
    async def handle(requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes]:
        try:
            agent = await calls.agent()
        except WoodlotError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, encode_error(error))
        call = agent.open_raw(name)
        feeding = asyncio.create_task(_feed(call, requests))
        with calls.under_way(call, name):
            try:
                async for message in call:
                    yield message
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), clean(error.details() or ""))
            except asyncio.CancelledError:
                # Either the client has gone, or the call was cut from this side.
                if (why := calls.why_cut(call)) is None:
                    raise
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, encode_error(why))
            finally:
                call.cancel()
                feeding.cancel()

    return handle


async def _feed(call: Call, requests: AsyncIterator[bytes]) -> None:
    # A call that has ended takes no more; its status says why.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        async for request in requests:
            await call.write(request)
        await call.done_writing()
