"""The host's end of the agent: one gRPC connection over the VM's control channel.

Everything that arrives is the guest's word and so hostile: messages are bounded, texts are cut and stripped.
"""

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from woodlot._pb.agent.v1 import agent_pb2 as pb
from woodlot._pb.agent.v1.agent_pb2_grpc import AgentStub
from woodlot.channel import Channel
from woodlot.errors import ConfigError, ErrorCode, ExecutionError, GuestError, GuestTimeoutError
from woodlot.guest.connection import Connection
from woodlot.guest.said import Event, Exited, Hello, Output, Started, clean

log = logging.getLogger(__name__)

T = TypeVar("T")

PROTOCOL_VERSION = 1
FILES_SERVICE = "woodlot.agent.v1.Files"
STDIN_CHUNK_BYTES = 64 << 10
_MAX_MESSAGE_BYTES = 4 << 20

_CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # A guest that boots slowly answers the HTTP/2 preface late; a second connection would find the channel taken.
    ("grpc.min_reconnect_backoff_ms", 300_000),
    # vsock refuses until the agent listens.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.keepalive_time_ms", 2**31 - 1),
    # A machine that waits for its container is asked for nothing, and must not find its channel closed.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
    # What a guest can make us keep for each stream that nobody reads; the probe would make it megabytes.
    ("grpc.http2.lookahead_bytes", 256 << 10),
    ("grpc.http2.bdp_probe", 0),
)


class Process:
    """A process in the guest: what to send it. Its events come from `Agent.run`."""

    def __init__(
        self,
        stub: Any,  # noqa: ANN401 - generated code has no types
        call: "grpc.aio.StreamStreamCall[pb.RunRequest, pb.RunResponse]",
        process_id: str,
    ) -> None:
        self._stub = stub
        self._call = call
        self._id = process_id

    async def write(self, data: bytes) -> None:
        """Bytes for its stdin; returns when the channel has taken them."""
        for start in range(0, len(data), STDIN_CHUNK_BYTES):
            await self._send(pb.RunRequest(stdin=data[start : start + STDIN_CHUNK_BYTES]))

    async def close_stdin(self) -> None:
        """End of file on its stdin."""
        await self._send(pb.RunRequest(close_stdin=pb.RunRequest.CloseStdin()))

    async def resize(self, rows: int, columns: int) -> None:
        """Size of its terminal."""
        window = pb.WindowSize(rows=rows, columns=columns)
        await self._ask(self._stub.Resize(pb.ResizeRequest(id=self._id, window=window)))

    async def signal(self, number: int) -> None:
        """Send it a signal."""
        await self._ask(self._stub.Signal(pb.SignalRequest(id=self._id, number=number)))

    async def _ask(self, call: Awaitable[object]) -> None:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise _translate(error, "reach the process") from error
            log.debug("a request came after the end of the process")

    async def _send(self, request: pb.RunRequest) -> None:
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            # The process has ended; its `Exited` is on the way to whoever reads the events.
            log.debug("a request came after the end of the process")

    async def events(self) -> AsyncGenerator[Event]:
        """What the process does, `Exited` last.

        Raises:
            ExecutionError: It could not be executed.
            GuestError: The agent failed, or the VM is gone.
        """
        try:
            async for response in self._call:
                match response.WhichOneof("response"):
                    case "started":
                        yield Started(pid=response.started.pid)
                    case "stdout":
                        yield Output(data=response.stdout, stderr=False)
                    case "stderr":
                        yield Output(data=response.stderr, stderr=True)
                    case "exited":
                        end = response.exited
                        yield Exited(
                            code=min(end.code, 255), signal=end.signal, oom_killed=end.oom_killed
                        )
                        return
                    case _:
                        raise GuestError("the guest agent sent an event of an unknown kind")
        except grpc.aio.AioRpcError as error:
            raise _translate(error, "run the process") from error
        raise GuestError("the guest agent ended the process's stream without an exit status")


class Agent(Channel):
    """A connected agent; closed by leaving its ``async with`` block."""

    def __init__(self, target: str) -> None:
        super().__init__(target, max_message_bytes=_MAX_MESSAGE_BYTES, options=_CHANNEL_OPTIONS)
        # Any: generated stubs carry no types.
        self._stub: Any = cast("Any", AgentStub)(self._channel)

    async def hello(self, *, timeout_s: float) -> Hello:
        """Wait until the agent answers.

        Raises:
            GuestTimeoutError: It did not within ``timeout_s`` seconds.
            GuestError: It speaks another version of the protocol.
        """
        try:
            reply: pb.HelloResponse = await self._stub.Hello(
                pb.HelloRequest(protocol_version=PROTOCOL_VERSION),
                timeout=timeout_s,
                wait_for_ready=True,
            )
        except grpc.aio.AioRpcError as error:
            raise _translate(error, "answer", timeout_s) from error
        if reply.protocol_version != PROTOCOL_VERSION:
            raise GuestError(
                f"the guest agent speaks protocol {reply.protocol_version}, this host {PROTOCOL_VERSION}",
                hint="install woodlot anew: its agent and its library are of different versions",
            )
        return Hello(
            agent_version=clean(reply.agent_version),
            kernel_release=clean(reply.kernel_release),
            machine=clean(reply.machine),
            features=frozenset(clean(name) for name in reply.features[:64]),
        )

    async def settle(self, *, timeout_s: float) -> None:
        """Let the guest come to rest, so that it can be saved."""
        try:
            await self._stub.Settle(pb.SettleRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error, "come to rest", timeout_s) from error

    async def configure(self, request: pb.ConfigureRequest, *, timeout_s: float) -> None:
        """Give the guest clock, entropy and network."""
        try:
            await self._stub.Configure(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error, "configure the guest", timeout_s) from error

    async def reset(self, *, timeout_s: float) -> None:
        """Undo `configure` and `create_container`, so that both can be asked for again."""
        await self._call(self._stub.Reset(pb.ResetRequest(), timeout=timeout_s), "reset", timeout_s)

    async def create_container(
        self, request: pb.CreateContainerRequest, *, timeout_s: float
    ) -> None:
        """Mount the container's filesystems and make its cgroup."""
        try:
            await self._stub.CreateContainer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error, "set up the container's filesystems", timeout_s) from error

    @asynccontextmanager
    async def run(self, process: pb.Process, *, first: bool) -> AsyncGenerator[Process]:
        """A process for the life of the block; killed if it still runs at the end."""
        process_id = os.urandom(8).hex()
        start = pb.RunRequest.Start(process=process, first=first, id=process_id)
        call: grpc.aio.StreamStreamCall[pb.RunRequest, pb.RunResponse] = self._stub.Run()
        try:
            await call.write(pb.RunRequest(start=start))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            log.debug("the start of the process was refused; its events say why")
        try:
            yield Process(self._stub, call, process_id)
        finally:
            call.cancel()

    def open_raw(self, method: str) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
        """A call of the service `Files` whose messages are handed on as they are; the caller cancels it in the end."""
        # Any: what gRPC takes for a call without types is not typed either.
        channel: Any = self._channel
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
            f"/{FILES_SERVICE}/{method}"
        )()
        return call

    async def abort_mount(self, index: int, *, timeout_s: float) -> None:
        """End the virtio-fs device at that position, whose server is gone: who uses it now gets an I/O error.

        Raises:
            GuestError: A request is under way that will never be answered.
        """
        try:
            await self._stub.AbortMount(pb.AbortMountRequest(index=index), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error, "end a mount", timeout_s) from error

    async def connect(self, path: str) -> Connection:
        """Connect to a Unix socket in the container.

        Raises:
            GuestError: There is none, or nobody listens on it.
        """
        return await self._open(self._stub.Connect(), path, "open a connection")

    async def accept(self, name: str) -> Connection:
        """Wait for the next connection to a mounted socket of that name.

        Raises:
            GuestError: There will be none.
        """
        return await self._open(self._stub.Accept(), name, "accept a connection")

    async def _open(
        self,
        call: "grpc.aio.StreamStreamCall[pb.ConnectionRequest, pb.ConnectionResponse]",
        name: str,
        operation: str,
    ) -> Connection:
        try:
            return await Connection.open(call, name)
        except grpc.aio.AioRpcError as error:
            raise GuestError(
                f"the guest agent could not {operation}: {clean(error.details() or '')}"
            ) from error

    async def play_changes(self, request: pb.PlayChangesRequest, *, timeout_s: float) -> None:
        """Have the guest's kernel raise the events of what changed on the host."""
        try:
            await self._stub.PlayChanges(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error, "tell of changes on the host", timeout_s) from error

    async def stats(self, *, timeout_s: float) -> pb.StatsResponse:
        """What the container uses, as the guest says."""
        reply: pb.StatsResponse = await self._call(
            self._stub.Stats(pb.StatsRequest(), timeout=timeout_s), "tell its usage", timeout_s
        )
        return reply

    async def list_processes(self, *, timeout_s: float) -> pb.ListProcessesResponse:
        """What runs in the container, as the guest says."""
        reply: pb.ListProcessesResponse = await self._call(
            self._stub.ListProcesses(pb.ListProcessesRequest(), timeout=timeout_s),
            "list the processes",
            timeout_s,
        )
        return reply

    async def pause(self, *, timeout_s: float) -> None:
        """Let the container's processes stand still; return once they do."""
        call = self._stub.Pause(pb.PauseRequest(), timeout=timeout_s)
        await self._call(call, "let the processes stand still", timeout_s)

    async def unpause(self, *, timeout_s: float) -> None:
        """Let them go on."""
        call = self._stub.Unpause(pb.UnpauseRequest(), timeout=timeout_s)
        await self._call(call, "let the processes go on", timeout_s)

    async def update(self, resources: pb.Resources, *, timeout_s: float) -> None:
        """Change the container's limits; zeros leave them."""
        call = self._stub.Update(pb.UpdateRequest(resources=resources), timeout=timeout_s)
        await self._call(call, "change the container's limits", timeout_s)

    async def _call(self, call: Awaitable[T], operation: str, timeout_s: float) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise _translate(error, operation, timeout_s) from error

    async def trace(self, *, timeout_s: float) -> pb.TraceResponse:
        """When the guest's last operations began and ended, by its own clock."""
        reply: pb.TraceResponse = await self._call(
            self._stub.Trace(pb.TraceRequest(), timeout=timeout_s), "tell its times", timeout_s
        )
        return reply

    async def shutdown(self, *, timeout_s: float) -> None:
        """Kill what runs, unmount, sync: after this all data is on the disks."""
        try:
            await self._stub.Shutdown(pb.ShutdownRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error, "shut down", timeout_s) from error


def _translate(
    error: grpc.aio.AioRpcError, operation: str, timeout_s: float | None = None
) -> Exception:
    said = clean(error.details() or "")
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return ExecutionError(said, code=ErrorCode.NOT_FOUND)
        case grpc.StatusCode.PERMISSION_DENIED:
            return ExecutionError(said, code=ErrorCode.NOT_EXECUTABLE)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return ConfigError(said)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            limit = "in time" if timeout_s is None else f"within {timeout_s:g} s"
            return GuestTimeoutError(f"the guest agent did not {operation} {limit}")
        case grpc.StatusCode.CANCELLED | grpc.StatusCode.UNAVAILABLE:
            return GuestError(f"the guest agent is gone (while it was to {operation})")
        case code:
            return GuestError(f"the guest agent could not {operation}: {said}", details=str(code))
