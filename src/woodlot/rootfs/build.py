"""The root filesystem of an image: one EROFS file, written straight from its layers.

    layer blobs ──▶ thread 1: read, decompress, digest ──▶ thread 2: tar entries ──▶ tree (memory)
                                                                     └─ data ──▶ image and spool (files)
    at the end: tree + spool ──▶ metadata behind the data, superblock ──▶ fsync ──▶ rename

Nothing is unpacked on the host, so a hostile archive finds no directory to escape to.
"""

import asyncio
import contextlib
import errno
import hashlib
import mmap
import os
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from woodlot.errors import LimitError, NotFoundError
from woodlot.progress import Progress
from woodlot.rootfs import FORMAT_VERSION
from woodlot.rootfs.ahead import ReadAhead
from woodlot.rootfs.blocks import Appender, FileWriter, erase
from woodlot.rootfs.erofs import BLOCK_BYTES
from woodlot.rootfs.image import write_metadata
from woodlot.rootfs.layer import Budget, BuildLimits, LayerSource, read_layer
from woodlot.rootfs.node import File
from woodlot.rootfs.tar import TarEntry, TarReader, show_name
from woodlot.rootfs.tree import Tree
from woodlot.values import dataclass

__all__ = ["BuildLimits", "LayerSource", "RootfsInfo", "build_rootfs"]

_AHEAD_CHUNKS = 8
_TASK = "unpack"


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsInfo:
    """A root filesystem that was built.

    Attributes:
        path: The EROFS image.
        size_bytes: Its size; what it takes on disk may be less.
        entries: Number of inodes.
    """

    path: Path
    size_bytes: int
    entries: int


class _Cancelled(BaseException):
    """The build's caller does not want it any more."""


async def build_rootfs(
    layers: Sequence[LayerSource], out: Path, *, limits: BuildLimits, progress: Progress
) -> RootfsInfo:
    """Write the EROFS image of ``layers`` to ``out``.

    ``out`` appears whole and on disk, replacing what was there; after a failure or cancellation nothing is left
    behind. The same layers give the same bytes, wherever and whenever they are built.

    Args:
        layers: Base layer first.
        out: The image to be; its directory is made if missing.
        limits: What the image may grow to.
        progress: Told of one task, in compressed bytes.

    Raises:
        IntegrityError: A layer is damaged, is not what the configuration says, or holds an impossible entry.
        LimitError: The image is larger than ``limits``, or the disk is full.
        NotFoundError: A layer's blob is missing.
        UnsupportedError: A layer of an unknown kind.
    """
    cancelled = threading.Event()
    build = _Build(layers, out, limits, progress, cancelled)
    work = asyncio.ensure_future(asyncio.to_thread(build.run))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()
        # The thread owns the temporary files: it must have ended before the caller goes on.
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError, Exception, _Cancelled):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()
        raise


class _Build:
    """One build, run in a thread."""

    def __init__(
        self,
        layers: Sequence[LayerSource],
        out: Path,
        limits: BuildLimits,
        progress: Progress,
        cancelled: threading.Event,
    ) -> None:
        self._layers = tuple(layers)
        self._out = out
        self._limits = limits
        self._progress = progress
        self._cancelled = cancelled
        self._budget = Budget(limits.max_bytes)
        self._tree = Tree(limits)

    def run(self) -> RootfsInfo:
        """Build and publish the image; blocking."""
        total = sum(_blob_size(layer) for layer in self._layers)
        self._progress.start(_TASK, "Unpacking", total=total)
        try:
            with _translate_full_disk(self._out.parent), _new_file(self._out) as fd:
                with tempfile.TemporaryFile(dir=self._out.parent, buffering=0) as spool:
                    size, entries = self._write(fd, spool.fileno())
                self._check()
                os.fsync(fd)
                self._check()
        finally:
            self._progress.finish(_TASK)
        return RootfsInfo(path=self._out, size_bytes=size, entries=entries)

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise _Cancelled

    def _write(self, fd: int, spool_fd: int) -> tuple[int, int]:
        image, spool = Appender(fd, BLOCK_BYTES, durable=True), Appender(spool_fd)
        writer = FileWriter(image, spool)
        with ReadAhead(self._chunks(), depth=_AHEAD_CHUNKS, name="unpack") as chunks:
            for layer in self._layers:
                self._apply(f"layer {layer.digest}", self._of_layer(chunks), writer)
        image.flush()
        spool.flush()
        with _mapped(spool_fd, spool.offset) as tails:
            size, entries = write_metadata(
                fd,
                self._tree.root,
                first_block=image.offset // BLOCK_BYTES,
                spool=tails,
                uuid=self._uuid(),
                check=self._check,
            )
        for file in self._tree.files:
            if not file.nlink and file.block:
                whole = file.size - (file.size % BLOCK_BYTES if file.tail >= 0 else 0)
                erase(fd, file.block * BLOCK_BYTES, whole + -whole % BLOCK_BYTES)
        return size, entries

    def _chunks(self) -> Generator[bytes | None]:
        """The tars of all layers in pieces, a None behind each; runs in a thread of its own."""
        for layer in self._layers:
            yield from read_layer(
                layer,
                limits=self._limits,
                budget=self._budget,
                advance=lambda amount: self._progress.advance(_TASK, amount),
            )
            yield None

    def _of_layer(self, chunks: Iterator[bytes | None]) -> Iterator[bytes]:
        for chunk in chunks:
            self._check()
            if chunk is None:
                return
            yield chunk

    def _apply(self, what: str, chunks: Iterator[bytes], writer: FileWriter) -> None:
        """Lay one layer over the tree."""
        self._tree.begin_layer(what)
        reader = TarReader(chunks, what)
        add = self._tree.add
        for entry in reader:
            file = add(entry)
            if file is not None and entry.size:
                self._store(file, entry, reader, writer)
        reader.drain()

    def _store(self, file: File, entry: TarEntry, reader: TarReader, writer: FileWriter) -> None:
        writer.begin(file)
        if entry.segments is None:
            for piece in reader.pieces(entry.size):
                writer.write(piece)
        else:
            stored = sum(length for _, length in entry.segments)
            self._budget.spend(entry.size - stored, f"the sparse file {show_name(entry.name)}")
            position = 0
            for offset, length in entry.segments:
                writer.hole(offset - position)
                for piece in reader.pieces(length):
                    writer.write(piece)
                position = offset + length
            writer.hole(entry.size - position)
        writer.end()

    def _uuid(self) -> bytes:
        """A UUID of version 8 that follows from the layers."""
        text = "\n".join((f"woodlot {FORMAT_VERSION}", *(layer.diff_id for layer in self._layers)))
        uuid = bytearray(hashlib.sha256(text.encode()).digest()[:16])
        uuid[6] = uuid[6] & 0x0F | 0x80
        uuid[8] = uuid[8] & 0x3F | 0x80
        return bytes(uuid)


def _blob_size(layer: LayerSource) -> int:
    try:
        return layer.path.stat().st_size
    except FileNotFoundError as error:
        raise NotFoundError(
            f"layer {layer.digest}: its blob is not at {layer.path}", hint="pull the image again"
        ) from error


@contextlib.contextmanager
def _new_file(out: Path) -> Generator[int]:
    """A temporary file beside ``out`` that takes its name when the block ends well, and else is gone."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{out.name[:64]}.", suffix=".tmp", dir=out.parent)
    try:
        try:
            yield fd
            os.fchmod(fd, 0o444)
        finally:
            os.close(fd)
        Path(name).replace(out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _mapped(fd: int, size: int) -> Generator[mmap.mmap | bytes]:
    """The file's contents; an empty one cannot be mapped."""
    if not size:
        yield b""
        return
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapped:
        yield mapped


@contextlib.contextmanager
def _translate_full_disk(directory: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise LimitError(
                f"no room to unpack the image in {directory}: {os.strerror(error.errno)}",
                hint=f"free some space on the file system of {directory}, or choose another with --root",
            ) from error
        raise
