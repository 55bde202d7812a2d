"""The supervisor's gRPC service: a thin skin over `Supervisor`."""

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, TypeAlias

import grpc
import grpc.aio

from woodlot._pb.agent.v1 import agent_pb2
from woodlot._pb.supervisor.v1 import supervisor_pb2 as pb
from woodlot._pb.supervisor.v1.supervisor_pb2_grpc import SupervisorServicer
from woodlot.container.session import end_of
from woodlot.container.update import decode_update
from woodlot.container.usage import host_memory_bytes
from woodlot.container.wire import decode_exec, encode_end, encode_error
from woodlot.errors import WoodlotError
from woodlot.guest.said import Exited, Output, Started

if TYPE_CHECKING:
    from woodlot.container.life import Life
    from woodlot.container.session import Subscriber
    from woodlot.container.supervisor import Supervisor

_LOG_PIECE_BYTES = 1 << 20
_USAGE_TIMEOUT_S = 10.0

Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class Service(SupervisorServicer):
    """Answers clients; what it answers is decided by the supervisor it is given."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor

    async def Start(self, request: pb.StartRequest, context: Context) -> pb.StartResponse:  # noqa: N802
        """Start the process unless it runs."""
        del request
        async with _errors(context):
            await self._supervisor.start_process(owned=False)
        return pb.StartResponse()

    async def Attach(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncGenerator[pb.AttachResponse]:
        """The stdio of the process."""
        supervisor, life = self._supervisor, self._supervisor.life
        first = await anext(aiter(request_iterator))
        opened = first.open
        started = pb.AttachResponse.Started()
        if opened.log:
            subscriber, position = await life.session.follow()
            started = pb.AttachResponse.Started(log_inode=position.inode, log_size=position.size)
        else:
            subscriber = await life.session.subscribe()
        feeding: asyncio.Task[None] | None = None
        orderly = False
        try:
            async with _errors(context):
                if opened.start:
                    await supervisor.start_process(
                        owned=opened.owner, rows=opened.rows, columns=opened.columns
                    )
            yield pb.AttachResponse(started=started)
            if opened.stdin:
                feeding = asyncio.create_task(_feed(life, "", request_iterator))
            async for response in _records(subscriber) if opened.log else _output(subscriber):
                yield response
            async with _errors(context):
                end = await asyncio.shield(life.ended)
            yield pb.AttachResponse(exited=encode_end(end))
            orderly = True
        finally:
            life.session.unsubscribe(subscriber)
            if feeding is not None:
                feeding.cancel()
            if opened.owner and not orderly:
                supervisor.owner_left()

    async def Exec(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncGenerator[pb.AttachResponse]:
        """One more process and its stdio."""
        life = self._supervisor.life
        opened = (await anext(aiter(request_iterator))).open
        spec = decode_exec(opened)
        started = pb.AttachResponse(started=pb.AttachResponse.Started())
        async with _errors(context):
            if opened.exec.detached:
                await life.processes.exec_detached(spec)
                yield started
                return
            feeding: asyncio.Task[None] | None = None
            async with life.processes.exec(
                spec, rows=opened.rows, columns=opened.columns
            ) as process:
                try:
                    async for event in process.events():
                        match event:
                            case Started():
                                yield started
                                if spec.stdin:
                                    feeding = asyncio.create_task(
                                        _feed(life, spec.id, request_iterator)
                                    )
                            case Output():
                                yield _encode_output(event)
                            case Exited():
                                yield pb.AttachResponse(exited=encode_end(end_of(event)))
                finally:
                    if feeding is not None:
                        feeding.cancel()

    async def Signal(self, request: pb.SignalRequest, context: Context) -> pb.SignalResponse:  # noqa: N802
        """Send a signal to a process."""
        async with _errors(context):
            await self._supervisor.signal(request.number, exec_id=request.exec_id)
        return pb.SignalResponse()

    async def Resize(self, request: pb.ResizeRequest, context: Context) -> pb.ResizeResponse:  # noqa: N802
        """Set the size of a process's terminal."""
        async with _errors(context):
            process = self._supervisor.life.processes.find(request.exec_id)
            await process.resize(request.rows, request.columns)
        return pb.ResizeResponse()

    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopResponse:  # noqa: N802
        """Signal, wait, SIGKILL."""
        async with _errors(context):
            end = await self._supervisor.stop(
                signal_number=request.signal,
                grace_s=request.grace_s,
                by_user=not request.resumable,
            )
        return pb.StopResponse(exit=encode_end(end))

    async def Stats(self, request: pb.StatsRequest, context: Context) -> pb.StatsResponse:  # noqa: N802
        """What the container uses, of its guest and of the host."""
        del request
        life = self._supervisor.life
        async with _errors(context):
            guest = await life.processes.agent.stats(timeout_s=_USAGE_TIMEOUT_S)
        host = await asyncio.to_thread(host_memory_bytes, os.getpid(), life.helpers)
        return pb.StatsResponse(guest=guest, host_memory_bytes=host)

    async def Top(  # noqa: N802
        self, request: pb.TopRequest, context: Context
    ) -> agent_pb2.ListProcessesResponse:
        """What runs in the container."""
        del request
        async with _errors(context):
            return await self._supervisor.life.processes.agent.list_processes(
                timeout_s=_USAGE_TIMEOUT_S
            )

    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseResponse:  # noqa: N802
        """Let the container's processes stand still."""
        del request
        async with _errors(context):
            await self._supervisor.life.processes.pause()
        return pb.PauseResponse()

    async def Unpause(self, request: pb.UnpauseRequest, context: Context) -> pb.UnpauseResponse:  # noqa: N802
        """Let them go on."""
        del request
        async with _errors(context):
            await self._supervisor.life.processes.unpause()
        return pb.UnpauseResponse()

    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.UpdateResponse:  # noqa: N802
        """Change what was asked for when the container was made."""
        async with _errors(context):
            await self._supervisor.update(decode_update(request))
        return pb.UpdateResponse()

    async def Wait(self, request: pb.WaitRequest, context: Context) -> pb.Exit:  # noqa: N802
        """Answer at the end."""
        del request
        async with _errors(context):
            end = await asyncio.shield(self._supervisor.life.ended)
        return encode_end(end)


async def _output(subscriber: "Subscriber") -> AsyncGenerator[pb.AttachResponse]:
    while (chunk := await subscriber.get()) is not None:
        yield _encode_output(chunk)


async def _records(subscriber: "Subscriber") -> AsyncGenerator[pb.AttachResponse]:
    while (chunk := await subscriber.get()) is not None:
        records = io.BytesIO(chunk.data)
        # The last line of a piece is made whole; none is longer than some 100 KiB.
        while piece := records.read(_LOG_PIECE_BYTES):
            yield pb.AttachResponse(log=piece + records.readline())


def _encode_output(output: Output) -> pb.AttachResponse:
    if output.stderr:
        return pb.AttachResponse(stderr=output.data)
    return pb.AttachResponse(stdout=output.data)


async def _feed(life: "Life", exec_id: str, requests: AsyncIterator[pb.AttachRequest]) -> None:
    with contextlib.suppress(WoodlotError):
        process = life.processes.find(exec_id)
        async for request in requests:
            match request.WhichOneof("request"):
                case "stdin":
                    await process.write(request.stdin)
                case "close_stdin":
                    await process.close_stdin()
                    return
                case _:
                    pass


@contextlib.asynccontextmanager
async def _errors(context: Context) -> AsyncGenerator[None]:
    try:
        yield
    except WoodlotError as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, encode_error(error))
