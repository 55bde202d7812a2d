"""Files carried between the host and a container: whole trees as tars, made and unpacked while they travel."""

import os
import posixpath
import stat
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import field
from pathlib import Path

from woodlot.archive.pack import pack, pack_bytes
from woodlot.archive.unpack import Unpacked, unpack
from woodlot.container.files import Files, Found
from woodlot.container.place import Source, Target, Typed, place
from woodlot.container.threaded import consume, produce
from woodlot.errors import IntegrityError, LimitError, NotFoundError, StateError
from woodlot.progress import NoProgress, Progress
from woodlot.rootfs.tar import Kind, TarReader
from woodlot.values import dataclass

FILE_MODE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to copy.

    Attributes:
        archive: Keep owners, and set-user-id bits on the host.
        follow: If the source is a symlink, copy what it leads to.
        progress: Told of bytes.
    """

    archive: bool = False
    follow: bool = False
    progress: Progress = field(default_factory=NoProgress)


_PLAIN = Manner()


async def copy_to(files: Files, source: str, path: str, manner: Manner = _PLAIN) -> int:
    """Copy a file or directory of the host's into a container, where it is root's unless owners are kept.

    Args:
        files: The container's.
        source: On the host; ``DIR/.`` is what is in the directory.
        path: In the container; what it means depends on what is there, as with Docker.
        manner: How.

    Returns:
        Bytes of the tar that travelled.

    Raises:
        WoodlotError: Why not.
    """
    typed = Typed(source)
    local, origin = _find_source(typed, follow=manner.follow)
    directory, name = place(origin, await _find_target(files, path))
    sent = _Counted(manner.progress, f"copying {local}")
    tar = produce(lambda put: pack(local, name, put, keep_owner=manner.archive))
    await files.write(directory, sent.pieces(tar))
    return sent.bytes


async def copy_tar_to(
    files: Files, tar: AsyncGenerator[bytes], path: str, manner: Manner = _PLAIN
) -> int:
    """Unpack a tar, with the owners it tells, into a directory of a container.

    Returns:
        Its bytes.

    Raises:
        StateError: There is no directory.
    """
    target = await _find_target(files, path)
    if not target.is_directory:
        raise StateError(f"{target.path} in the container is no directory")
    sent = _Counted(manner.progress, "copying a tar")
    await files.write(target.path, sent.pieces(tar))
    return sent.bytes


async def put(files: Files, content: bytes | str, path: str, *, mode: int = FILE_MODE) -> None:
    """Make a file of root's in a container, or replace one.

    Raises:
        StateError: A directory is there.
    """
    target = await _find_target(files, path)
    if target.is_directory:
        raise StateError(f"{target.path} in the container is a directory")
    directory, name = place(Source(name="", is_directory=False), target)
    data = content.encode() if isinstance(content, str) else content
    tar = produce(lambda sink: pack_bytes(data, name, sink, mode=mode, mtime=time.time()))
    await files.write(directory, tar)


async def copy_from(files: Files, path: str, target: str, manner: Manner = _PLAIN) -> Unpacked:
    """Copy a file or directory of a container's to the host, where it is the user's unless owners are kept.

    Args:
        files: The container's.
        path: In the container; ``DIR/.`` is what is in the directory.
        target: On the host; what it means depends on what is there, as with Docker.
        manner: How.

    Raises:
        WoodlotError: Why not.
    """
    found, source = await _find_origin(files, path, follow=manner.follow)
    directory, name = place(source, _find_local_target(target))
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    received = _Counted(
        manner.progress, f"copying {found.path}", found.size if found.is_file else None
    )
    tar = files.read(found.path, name)

    def work(pieces: Iterator[bytes]) -> Unpacked:
        return unpack(pieces, fd, name, keep_owner=manner.archive)

    try:
        return await consume(received.pieces(tar), work)
    finally:
        os.close(fd)


async def read_tar(files: Files, path: str, manner: Manner = _PLAIN) -> AsyncGenerator[bytes]:
    """A tar of what is at a path in a container, in pieces: the guest's word, every byte of it."""
    found, source = await _find_origin(files, path, follow=manner.follow)
    name = "." if source.contents or not source.name else source.name
    received = _Counted(manner.progress, f"copying {found.path}")
    async with aclosing(received.pieces(files.read(found.path, name))) as pieces:
        async for piece in pieces:
            yield piece


async def get(files: Files, path: str, *, max_bytes: int) -> bytes:
    """The content of a file in a container.

    Raises:
        StateError: It is no regular file.
        LimitError: It has more than ``max_bytes``.
    """
    found, _ = await _find_origin(files, path, follow=True)
    if not found.is_file:
        raise StateError(f"{found.path} in the container is not a regular file")

    def work(pieces: Iterator[bytes]) -> bytes:
        tar = TarReader(pieces, "the container")
        entry = next(iter(tar), None)
        if entry is None or entry.kind is not Kind.FILE or entry.segments is not None:
            raise IntegrityError(f"the container sent no file for {found.path}")
        if entry.size > max_bytes:
            raise LimitError(f"{found.path} in the container has more than {max_bytes} bytes")
        return b"".join(bytes(piece) for piece in tar.pieces(entry.size))

    return await consume(files.read(found.path, "file"), work)


class _Counted:
    """Pieces on their way, and how many bytes have passed."""

    def __init__(self, progress: Progress, label: str, total: int | None = None) -> None:
        self._progress = progress
        self._label = label
        self._total = total
        self.bytes = 0

    async def pieces(self, source: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        self._progress.start("copy", self._label, total=self._total)
        async with aclosing(source):
            async for piece in source:
                self.bytes += len(piece)
                self._progress.advance("copy", len(piece))
                yield piece
        self._progress.finish("copy")


def _find_source(typed: Typed, *, follow: bool) -> tuple[Path, Source]:
    """What of the host is copied: where, without symlinks on the way, and what it is."""
    whole = Path(posixpath.normpath(Path.cwd() / typed.path))
    # The name is the one that was typed, wherever it leads.
    through = follow or typed.asserts_directory
    local = whole.resolve() if through else whole.parent.resolve() / whole.name
    try:
        found = local.lstat()
    except FileNotFoundError:
        raise NotFoundError(f"no such file or directory: {typed.path}") from None
    except OSError as error:
        raise StateError(f"{typed.path}: {error.strerror}") from error
    if typed.asserts_directory and not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{typed.path} is not a directory")
    is_directory = stat.S_ISDIR(found.st_mode)
    return local, Source(name=whole.name, is_directory=is_directory, contents=typed.contents)


async def _find_target(files: Files, path: str) -> Target:
    typed = Typed(path)
    found = await files.find(_absolute(path), follow=True)
    return Target(
        path=found.path,
        exists=found.exists,
        is_directory=found.is_directory,
        is_file=found.is_file,
        asserts_directory=typed.asserts_directory,
        contents=typed.contents,
    )


def _find_local_target(path: str) -> Target:
    typed = Typed(path)
    resolved = Path(path).resolve()
    try:
        found = resolved.stat()
    except FileNotFoundError:
        if not resolved.parent.is_dir():
            raise NotFoundError(f"no such directory: {resolved.parent}") from None
        mode = 0
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error
    else:
        mode = found.st_mode
    return Target(
        path=str(resolved),
        exists=mode != 0,
        is_directory=stat.S_ISDIR(mode),
        is_file=stat.S_ISREG(mode),
        asserts_directory=typed.asserts_directory,
        contents=typed.contents,
    )


async def _find_origin(files: Files, path: str, *, follow: bool) -> tuple[Found, Source]:
    """What of a container is copied, and what it is."""
    typed = Typed(path)
    found = await files.find(_absolute(path), follow=follow or typed.asserts_directory)
    if not found.exists:
        raise NotFoundError(f"no such file or directory in the container: {path}")
    if typed.asserts_directory and not found.is_directory:
        raise StateError(f"{path} in the container is not a directory")
    name = posixpath.basename(posixpath.normpath("/" + path))
    return found, Source(name=name, is_directory=found.is_directory, contents=typed.contents)


def _absolute(path: str) -> str:
    """In the container a path begins at its root; ``..`` is left to the guest, for it depends on symlinks."""
    return "/" + path
