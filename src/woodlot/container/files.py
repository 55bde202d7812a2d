"""A client of a container's files: what its processes see, mounts and all, had from its guest by way of its supervisor.

What comes is the guest's word; the tars are for `woodlot.archive.unpack`, or for somebody who knows where they are from.
"""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from woodlot._pb.agent.v1 import agent_pb2 as pb
from woodlot._pb.agent.v1.agent_pb2_grpc import FilesStub
from woodlot.channel import Channel
from woodlot.container import begin
from woodlot.container.lifecycle import Container
from woodlot.container.wire import decode_error
from woodlot.errors import (
    GuestError,
    IntegrityError,
    LimitError,
    NotFoundError,
    StateError,
    WoodlotError,
)
from woodlot.guest.said import clean
from woodlot.store.store import Store
from woodlot.values import dataclass

_MAX_PATH_BYTES = 4096
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class ChangeKind(StrEnum):
    """What happened to a path, in Docker's letters."""

    MODIFIED = "C"
    ADDED = "A"
    DELETED = "D"


_KINDS = {0: ChangeKind.MODIFIED, 1: ChangeKind.ADDED, 2: ChangeKind.DELETED}


@dataclass(frozen=True, slots=True)
class Change:
    """One path at which a container's root filesystem differs from its image."""

    kind: ChangeKind
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is at a path in a container."""

    path: str
    """Without symlinks; of what is not there, where it would be made."""
    exists: bool
    mode: int
    """st_mode, with the type; 0 of what is not there."""
    size: int

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class Files(Channel):
    """The files of one container; closed by leaving its ``async with`` block."""

    def __init__(self, socket_path: Path, name: str) -> None:
        self._name = name
        super().__init__(f"unix:{socket_path}", max_message_bytes=8 << 20)
        # Any: generated stubs carry no types.
        self._stub: Any = cast("Any", FilesStub)(self._channel)

    async def find(self, path: str, *, follow: bool) -> Found:
        """What is at an absolute path.

        Args:
            path: Symlinks on the way are followed inside the container.
            follow: Also one that the path itself is.

        Raises:
            NotFoundError: Its parent is not there.
        """
        request = pb.StatPathRequest(path=os.fsencode(path), follow=follow)
        try:
            answer: pb.StatPathResponse = await self._stub.StatPath(request)
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from error
        resolved = os.fsdecode(answer.path[:_MAX_PATH_BYTES])
        if not resolved.startswith("/") or ".." in resolved.split("/"):
            raise GuestError(f"the guest of container {self._name} resolved a path to {resolved!r}")
        return Found(
            path=resolved, exists=answer.exists, mode=answer.mode, size=max(0, answer.size)
        )

    def read(self, path: str, name: str) -> AsyncGenerator[bytes]:
        """A tar of what is at an absolute path without symlinks, in pieces.

        Args:
            path: A file or directory.
            name: What the tar calls it; ``.`` for nothing but what a directory holds.
        """
        request = pb.ReadArchiveRequest(path=os.fsencode(path), name=os.fsencode(name))
        return self._pieces(self._stub.ReadArchive(request))

    def export(self) -> AsyncGenerator[bytes]:
        """A tar of the root filesystem without what is mounted in it; the processes stand still until it has ended."""
        return self._pieces(self._stub.Export(pb.ExportRequest()))

    def export_layer(self, *, going: bool) -> AsyncGenerator[bytes]:
        """A tar of the layer that an image of the container has above its own.

        Args:
            going: The processes do not stand still meanwhile, whatever they change.
        """
        return self._pieces(self._stub.ExportLayer(pb.ExportLayerRequest(going=going)))

    async def _pieces(self, call: Any) -> AsyncGenerator[bytes]:  # noqa: ANN401 - generated code
        try:
            async for piece in call:
                yield piece.data
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from error
        finally:
            call.cancel()

    async def write(self, directory: str, pieces: AsyncGenerator[bytes]) -> None:
        """Unpack a tar into a directory, an absolute path without symlinks.

        Raises:
            WoodlotError: Why not; what came before stays.
        """
        call = self._stub.WriteArchive()

        async def feed() -> None:
            opened = pb.WriteArchiveRequest.Open(path=os.fsencode(directory))
            await call.write(pb.WriteArchiveRequest(open=opened))
            async with aclosing(pieces):
                async for piece in pieces:
                    await call.write(pb.WriteArchiveRequest(data=piece))
            await call.done_writing()

        async def answer() -> None:
            async for said in call:
                if said.code:
                    raise self._error(said.code, clean(said.message))
                return
            raise GuestError(f"container {self._name}: no answer to the files sent")

        # The answer may come first: then it says what went wrong, and the rest of the tar is not wanted.
        feeding, answering = asyncio.create_task(feed()), asyncio.create_task(answer())
        try:
            await asyncio.wait((feeding, answering), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and not isinstance(
                feeding.exception(), grpc.aio.AioRpcError | asyncio.InvalidStateError | None
            ):
                feeding.result()
            await answering
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from error
        finally:
            feeding.cancel()
            call.cancel()
            await asyncio.gather(feeding, answering, return_exceptions=True)

    async def diff(self) -> AsyncGenerator[Change]:
        """Where the root filesystem differs from the image, sorted, a directory before what is in it."""
        call = self._stub.Diff(pb.DiffRequest())
        try:
            async for batch in call:
                for one in batch.changes:
                    if one.kind not in _KINDS or len(one.path) > _MAX_PATH_BYTES:
                        raise IntegrityError(
                            f"the guest of container {self._name} sent a wrong change"
                        )
                    yield Change(_KINDS[one.kind], os.fsdecode(one.path))
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from error
        finally:
            call.cancel()

    def _translate(self, error: grpc.aio.AioRpcError) -> WoodlotError:
        """The supervisor's own error, or the guest's, whose text the supervisor has made fit to be shown."""
        return self._error(error.code().value[0], error.details() or "")

    def _error(self, code: int, said: str) -> WoodlotError:
        message = f"container {self._name}: {said}"
        match _CODES.get(code):
            case grpc.StatusCode.FAILED_PRECONDITION if said.startswith("{"):
                return decode_error(said)
            case grpc.StatusCode.NOT_FOUND:
                return NotFoundError(message)
            case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.FAILED_PRECONDITION:
                return StateError(message)
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return LimitError(message)
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return StateError(f"container {self._name} has ended", details=said)
            case other:
                return GuestError(message, details=str(other or code))


@asynccontextmanager
async def reach(store: Store, container: Container) -> AsyncGenerator[Files]:
    """The files of a container for the block; one that is stopped gets a VM, without its process, as long.

    Raises:
        StateError: It is being started or removed, or somebody else has its files while it is stopped.
    """

    def connect() -> Files:
        return Files(store.paths.sockets(container.spec.id) / "s.sock", container.spec.name)

    if container.is_live:
        async with connect() as files:
            yield files
        return
    async with begin.visited(store, container), connect() as files:
        yield files
