"""A container's files by way of its supervisor: the client, what the supervisor hands on, and a guest that is scripted or lies."""

# ruff: noqa: N802 - the names of gRPC methods

import asyncio
import contextlib
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from tests.unit.rootfs.tars import END, Header
from woodlot._pb.agent.v1 import agent_pb2 as pb
from woodlot._pb.agent.v1 import agent_pb2_grpc
from woodlot.container import copy
from woodlot.container.file_calls import FileCalls
from woodlot.container.file_service import build_handler
from woodlot.container.files import Change, ChangeKind, Files
from woodlot.errors import (
    GuestError,
    IntegrityError,
    LimitError,
    NotFoundError,
    StateError,
    WoodlotError,
)
from woodlot.guest.client import Agent

Code = grpc.StatusCode


class Guest(agent_pb2_grpc.FilesServicer):
    """Answers what a test has set."""

    def __init__(self) -> None:
        self.found = pb.StatPathResponse(path=b"/f", exists=True, mode=stat.S_IFREG | 0o644, size=5)
        self.pieces: list[bytes] = []
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self.received = b""
        self.opened = b""
        self.changes = [pb.DiffResponse.Change(kind=pb.DiffResponse.Change.ADDED, path=b"/\xff")]
        self.exporting = asyncio.Event()
        self.broken = asyncio.Event()

    async def _refuse(self, context: Any) -> None:
        if self.refuse is not None:
            await context.abort(*self.refuse)

    async def StatPath(self, request: pb.StatPathRequest, context: Any) -> pb.StatPathResponse:
        await self._refuse(context)
        self.opened = request.path
        return self.found

    async def ReadArchive(
        self, request: pb.ReadArchiveRequest, context: Any
    ) -> AsyncGenerator[pb.ArchivePiece]:
        self.opened = request.path
        for piece in self.pieces:
            yield pb.ArchivePiece(data=piece)
        await self._refuse(context)

    async def WriteArchive(
        self, requests: AsyncIterator[pb.WriteArchiveRequest], context: Any
    ) -> AsyncGenerator[pb.WriteArchiveResponse]:
        async for request in requests:
            if request.HasField("open"):
                self.opened = request.open.path
                if self.refuse is not None:
                    code, message = self.refuse
                    yield pb.WriteArchiveResponse(code=code.value[0], message=message)
            self.received += request.data
        if self.refuse is None:
            yield pb.WriteArchiveResponse()

    async def Export(
        self, request: pb.ExportRequest, context: Any
    ) -> AsyncGenerator[pb.ArchivePiece]:
        del request, context
        try:
            yield pb.ArchivePiece(data=b"x")
            self.exporting.set()
            await asyncio.Event().wait()
        finally:
            self.broken.set()

    async def Diff(self, request: pb.DiffRequest, context: Any) -> AsyncGenerator[pb.DiffResponse]:
        del request, context
        yield pb.DiffResponse(changes=self.changes)
        yield pb.DiffResponse()


@contextlib.asynccontextmanager
async def serve(path: Path, register: Callable[[Any], None]) -> AsyncGenerator[None]:
    server = cast("Any", grpc.aio).server()
    register(server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


@pytest.fixture
async def guest() -> Guest:
    return Guest()


@pytest.fixture
async def file_calls() -> FileCalls:
    return FileCalls()


@pytest.fixture
async def files(paths: Any, guest: Guest, file_calls: FileCalls) -> AsyncGenerator[Files]:
    below, above = paths.runtime / "g", paths.runtime / "s"
    async with contextlib.AsyncExitStack() as stack:
        add = cast("Any", agent_pb2_grpc).add_FilesServicer_to_server
        await stack.enter_async_context(serve(below, lambda server: add(guest, server)))
        await stack.enter_async_context(
            serve(
                above, lambda server: server.add_generic_rpc_handlers((build_handler(file_calls),))
            )
        )
        file_calls.open(await stack.enter_async_context(Agent(f"unix:{below}")))
        yield await stack.enter_async_context(Files(above, "web"))


def tar_of_f(content: bytes) -> bytes:
    header = Header(name=b"file", size=len(content)).build()
    return header + content + bytes(-len(content) % 512) + END


async def test_find(files: Files, guest: Guest) -> None:
    found = await files.find("/a/\udcff", follow=True)
    assert guest.opened == b"/a/\xff"
    assert (found.path, found.exists, found.is_file, found.size) == ("/f", True, True, 5)


@pytest.mark.parametrize("path", [b"", b"f", b"/a/../b"])
async def test_a_guest_that_resolves_a_path_to_nonsense(
    files: Files, guest: Guest, path: bytes
) -> None:
    guest.found.path = path
    with pytest.raises(GuestError, match="web"):
        await files.find("/f", follow=True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.NOT_FOUND, NotFoundError),
        (Code.INVALID_ARGUMENT, StateError),
        (Code.FAILED_PRECONDITION, StateError),
        (Code.RESOURCE_EXHAUSTED, LimitError),
        (Code.UNAVAILABLE, StateError),
        (Code.INTERNAL, GuestError),
    ],
)
async def test_errors(
    files: Files, guest: Guest, code: grpc.StatusCode, kind: type[WoodlotError]
) -> None:
    guest.refuse = (code, "no\nsuch \x1b[1mthing")
    with pytest.raises(kind, match="web") as caught:
        await files.find("/f", follow=False)
    shown = caught.value.message + (caught.value.details or "")
    assert "no such  [1mthing" in shown
    with pytest.raises(kind):
        _ = [piece async for piece in files.read("/f", "f")]
    with pytest.raises(kind):
        await copy.put(files, b"x" * 10_000_000, "/f")


async def test_get_and_put(files: Files, guest: Guest) -> None:
    guest.pieces = [tar_of_f(b"hello")[:600], b"", tar_of_f(b"hello")[600:]]
    assert await copy.get(files, "/f", max_bytes=5) == b"hello"
    with pytest.raises(LimitError, match="more than 4"):
        await copy.get(files, "/f", max_bytes=4)
    await copy.put(files, "text", "/f")
    assert guest.opened == b"/"
    assert guest.received.startswith(b"f\0")
    assert b"text" in guest.received


async def test_a_guest_that_sends_no_file(files: Files, guest: Guest) -> None:
    for tar in (
        END,
        Header(name=b"file", type=b"2", link=b"/etc/passwd").build() + END,
        b"x" * 600,
    ):
        guest.pieces = [tar]
        with pytest.raises(IntegrityError):
            await copy.get(files, "/f", max_bytes=100)


async def test_a_source_that_fails_fails_the_copy(files: Files, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="missing"):
        await copy.copy_to(files, str(tmp_path / "missing"), "/f")

    async def broken() -> AsyncGenerator[bytes]:
        yield b"x"
        raise StateError("stdin broke")

    with pytest.raises(StateError, match="stdin broke"):
        await files.write("/", broken())


async def test_an_early_answer_ends_a_source_that_waits(files: Files, guest: Guest) -> None:
    guest.refuse = (Code.INVALID_ARGUMENT, "not a directory")
    closed = asyncio.Event()

    async def waiting() -> AsyncGenerator[bytes]:
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            closed.set()

    with pytest.raises(StateError, match="not a directory"):
        await asyncio.wait_for(files.write("/", waiting()), 10)
    assert closed.is_set()


async def test_diff(files: Files, guest: Guest) -> None:
    assert [change async for change in files.diff()] == [Change(ChangeKind.ADDED, "/\udcff")]
    guest.changes = [pb.DiffResponse.Change(path=b"/" * 5000)]
    with pytest.raises(IntegrityError):
        _ = [change async for change in files.diff()]


async def test_a_client_that_leaves_ends_the_guests_call(files: Files, guest: Guest) -> None:
    export = files.export()
    assert await anext(export) == b"x"
    await guest.exporting.wait()
    await export.aclose()
    await asyncio.wait_for(guest.broken.wait(), 10)


async def test_calls_are_ended_with_a_reason(
    files: Files, guest: Guest, file_calls: FileCalls
) -> None:
    ends: list[Callable[[], None]] = [
        lambda: file_calls.release(StateError("being stopped")),
        lambda: file_calls.close(StateError("being stopped")),
    ]
    for end in ends:
        export = files.export()
        await anext(export)
        end()
        with pytest.raises(WoodlotError, match="being stopped"):
            await asyncio.wait_for(anext(export), 10)
        await asyncio.wait_for(guest.broken.wait(), 10)
    file_calls.close(StateError("a later reason"))
    with pytest.raises(WoodlotError, match="being stopped"):
        await files.find("/", follow=False)


async def test_calls_wait_for_the_guest(paths: Any, file_calls: FileCalls) -> None:
    path = paths.runtime / "s"
    async with (
        serve(path, lambda server: server.add_generic_rpc_handlers((build_handler(file_calls),))),
        Files(path, "web") as files,
    ):
        finding = asyncio.create_task(files.find("/", follow=False))
        done, _ = await asyncio.wait({finding}, timeout=0.2)
        assert not done
        file_calls.close(StateError("its kernel panicked"))
        with pytest.raises(WoodlotError, match="panicked"):
            await asyncio.wait_for(finding, 10)


async def test_without_a_supervisor(paths: Any) -> None:
    async with Files(paths.runtime / "none", "web") as files:
        with pytest.raises(StateError, match="has ended"):
            await files.find("/", follow=False)
