"""A client of one container's supervisor."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from woodlot._pb.supervisor.v1 import supervisor_pb2 as pb
from woodlot._pb.supervisor.v1.supervisor_pb2_grpc import SupervisorStub
from woodlot.channel import Channel
from woodlot.container.logs import LogPosition
from woodlot.container.session import End
from woodlot.container.spec import ExecSpec
from woodlot.container.update import Update, encode_update
from woodlot.container.usage import Processes, Stats, decode_processes, decode_stats
from woodlot.container.wire import decode_end, decode_error, encode_exec
from woodlot.errors import StateError, WoodlotError
from woodlot.guest.said import Output
from woodlot.paths import Paths

T = TypeVar("T")


class SupervisorGoneError(StateError):
    """Nobody answers for the container: it has ended, or its supervisor was killed."""


class Attachment:
    """The stdio of a process in a container; made by `Supervised.attach` and `Supervised.exec`."""

    def __init__(self, call: Any, supervised: "Supervised", exec_id: str) -> None:  # noqa: ANN401 - generated code has no types
        self._call = call
        self._supervised = supervised
        self._exec_id = exec_id

    async def started(self) -> None:
        """Return once the process runs.

        Raises:
            WoodlotError: Why it does not.
        """
        await self._started()

    async def log_position(self) -> LogPosition:
        """Where the log stood when the stream began; in place of `started`."""
        started = await self._started()
        return LogPosition(inode=started.log_inode, size=started.log_size)

    async def _started(self) -> pb.AttachResponse.Started:
        try:
            response = await self._read()
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        if response is None or response.WhichOneof("response") != "started":
            raise WoodlotError("the container's supervisor ended the stream before it began")
        return response.started

    async def records(self) -> AsyncIterator[bytes]:
        """What is appended to the log, in whole lines, until the container ends."""
        try:
            while (response := await self._read()) is not None:
                if response.WhichOneof("response") == "exited":
                    return
                yield response.log
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    async def output(self) -> AsyncGenerator[Output | End]:
        """What the process writes; its end last."""
        try:
            while (response := await self._read()) is not None:
                match response.WhichOneof("response"):
                    case "stdout":
                        yield Output(data=response.stdout, stderr=False)
                    case "stderr":
                        yield Output(data=response.stderr, stderr=True)
                    case "exited":
                        yield decode_end(response.exited)
                        return
                    case _:
                        pass
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        raise WoodlotError("the container's supervisor ended the stream without an exit status")

    async def _read(self) -> pb.AttachResponse | None:
        response = await self._call.read()
        return response if isinstance(response, pb.AttachResponse) else None

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; an ended process takes no more, without an error."""
        await self._send(pb.AttachRequest(stdin=data))

    async def close_stdin(self) -> None:
        """End of file on stdin."""
        await self._send(pb.AttachRequest(close_stdin=pb.AttachRequest.CloseStdin()))

    async def signal(self, number: int) -> None:
        """Send the process a signal."""
        await self._supervised.signal(number, exec_id=self._exec_id)

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        await self._supervised.resize(rows, columns, exec_id=self._exec_id)

    async def _send(self, request: pb.AttachRequest) -> None:
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return


class Supervised(Channel):
    """A connection to a supervisor; closed by leaving its ``async with`` block."""

    def __init__(self, socket_path: Path) -> None:
        super().__init__(f"unix:{socket_path}", max_message_bytes=8 << 20)
        # Any: generated stubs carry no types.
        self._stub: Any = cast("Any", SupervisorStub)(self._channel)

    async def start(self) -> None:
        """Start the process; return when it runs.

        Raises:
            WoodlotError: Why it does not.
        """
        try:
            await self._stub.Start(pb.StartRequest())
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    @asynccontextmanager
    async def attach(
        self, *, start: bool, owner: bool, stdin: bool, window: tuple[int, int] = (0, 0)
    ) -> AsyncGenerator[Attachment]:
        """The process's stdio for the life of the block.

        Args:
            start: Start the process once the stream stands.
            owner: The container ends when this block is left before the process has ended.
            stdin: Input will be sent.
            window: Rows and columns of the terminal; zeros if there is none.
        """
        opened = pb.AttachRequest.Open(
            start=start, owner=owner, stdin=stdin, rows=window[0], columns=window[1]
        )
        request = pb.AttachRequest(open=opened)
        async with self._stream(self._stub.Attach(), request) as attachment:
            yield attachment

    @asynccontextmanager
    async def follow(self) -> AsyncGenerator[tuple[LogPosition, AsyncIterator[bytes]]]:
        """The log, for the life of the block: where its file stands now, and the records that come after that.

        They end with the container. While nobody takes them, its process is held back.
        """
        opened = pb.AttachRequest(open=pb.AttachRequest.Open(log=True))
        async with self._stream(self._stub.Attach(), opened) as attachment:
            yield await attachment.log_position(), attachment.records()

    @asynccontextmanager
    async def exec(
        self, spec: ExecSpec, *, window: tuple[int, int] = (0, 0)
    ) -> AsyncGenerator[Attachment]:
        """Run one more process, whose stdio this is; it is killed if it still runs at the end of the block.

        Args:
            spec: The process.
            window: Rows and columns of the terminal; zeros if there is none.
        """
        opened = encode_exec(spec, detached=False, rows=window[0], columns=window[1])
        async with self._stream(self._stub.Exec(), opened, exec_id=spec.id) as attachment:
            yield attachment

    async def exec_detached(self, spec: ExecSpec) -> None:
        """Run one more process and leave it alone once it runs.

        Raises:
            WoodlotError: Why it does not.
        """
        opened = encode_exec(spec, detached=True, rows=0, columns=0)
        async with self._stream(self._stub.Exec(), opened) as attachment:
            await attachment.started()

    async def signal(self, number: int, *, exec_id: str = "") -> None:
        """Send a signal to the container's process, or to one that `exec` runs."""
        try:
            await self._stub.Signal(pb.SignalRequest(number=number, exec_id=exec_id))
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    async def resize(self, rows: int, columns: int, *, exec_id: str = "") -> None:
        """Set the size of a process's terminal."""
        try:
            await self._stub.Resize(pb.ResizeRequest(rows=rows, columns=columns, exec_id=exec_id))
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    async def stats(self) -> Stats:
        """What the container uses.

        Raises:
            StateError: It does not run.
        """
        return decode_stats(await _answer(self._stub.Stats(pb.StatsRequest())))

    async def top(self) -> Processes:
        """What runs in the container.

        Raises:
            StateError: It does not run.
        """
        return decode_processes(await _answer(self._stub.Top(pb.TopRequest())))

    async def pause(self) -> None:
        """Let the container's processes stand still.

        Raises:
            StateError: They do already, or it does not run.
        """
        await _answer(self._stub.Pause(pb.PauseRequest()))

    async def unpause(self) -> None:
        """Let them go on.

        Raises:
            StateError: They do not stand still.
        """
        await _answer(self._stub.Unpause(pb.UnpauseRequest()))

    async def update(self, update: Update) -> None:
        """Change what was asked for when the container was made.

        Raises:
            LimitError: It is more than the VM has.
        """
        await _answer(self._stub.Update(encode_update(update)))

    async def wait(self) -> End:
        """How the container ended, once its VM is gone."""
        try:
            return decode_end(await self._stub.Wait(pb.WaitRequest()))
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    async def stop(self, *, signal_number: int = 0, grace_s: float, resumable: bool = False) -> End:
        """Signal, wait ``grace_s`` seconds, SIGKILL; return when the VM is gone.

        Args:
            signal_number: 0 for the container's own stop signal.
            grace_s: Seconds between the signal and SIGKILL.
            resumable: By its restart policy it is started again when the host has come up.
        """
        try:
            reply: pb.StopResponse = await self._stub.Stop(
                pb.StopRequest(signal=signal_number, grace_s=grace_s, resumable=resumable)
            )
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        return decode_end(reply.exit)

    @asynccontextmanager
    async def _stream(
        self,
        call: Any,  # noqa: ANN401 - generated code has no types
        opened: pb.AttachRequest,
        *,
        exec_id: str = "",
    ) -> AsyncGenerator[Attachment]:
        try:
            await call.write(opened)
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        try:
            yield Attachment(call, self, exec_id)
        finally:
            call.cancel()


def connect(paths: Paths, container_id: str) -> Supervised:
    """A connection to a container's supervisor, which need not be there."""
    return Supervised(paths.sockets(container_id) / "s.sock")


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise translate(error) from error


def translate(error: grpc.aio.AioRpcError) -> WoodlotError:
    """The supervisor's own error, or that it is gone."""
    if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
        return decode_error(error.details() or "")
    return SupervisorGoneError(
        "the container's supervisor is gone", details=f"{error.code()}: {error.details()}"
    )
