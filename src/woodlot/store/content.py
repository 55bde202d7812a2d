"""Blobs by digest: whole and checked, or not there.

    content/sha256/HEX             a blob; never changed, only replaced by the same bytes or removed
    content/ingest/sha256-HEX      one on the way: its bytes from the start; locked (flock) by who fetches it,
                                   kept for resuming when that ends early
    content/ingest/new-HEX         one that is being made; locked (flock) by who makes it, of no use to anybody else

A blob becomes visible by rename, after its digest was compared and its bytes were synced.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path

from woodlot.errors import IntegrityError, LimitError, NotFoundError
from woodlot.oci.digest import (
    Digest,
    algorithm_of,
    check_bytes,
    hex_of,
    new_hash,
    parse_digest,
    short,
)
from woodlot.store.disk import disk_errors, sync_directory
from woodlot.store.locks import flock, try_flock, unlock_and_close

STALE_INGEST_S = 7 * 24 * 3600.0
_READ_BYTES = 1 << 20
_NEW = "new-"


class Ingest:
    """A blob on the way, open and locked; made by `ContentStore.ingest`.

    It is a `woodlot.oci.registry.BlobSink`.
    """

    def __init__(self, fd: int, path: Path, target: Path, digest: Digest, size: int) -> None:
        self._fd, self._path, self._target = fd, path, target
        self._digest, self._size = digest, size
        self._hash = new_hash(digest)
        self._offset = 0
        self.resumed = False
        """Whether bytes of an earlier attempt are part of it."""
        self.committed = False

    @property
    def offset(self) -> int:
        """Bytes there already."""
        return self._offset

    def load(self) -> None:
        """Read what an earlier attempt left behind."""
        if os.fstat(self._fd).st_size > self._size:
            os.ftruncate(self._fd, 0)
        while data := os.read(self._fd, _READ_BYTES):
            self._hash.update(data)
            self._offset += len(data)
        self.resumed = self._offset > 0

    async def write(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            LimitError: The disk is full; what was there is removed to give its space back.
        """
        await _to_its_end(self.write_sync, data)

    def write_sync(self, data: bytes) -> None:
        """As `write`."""
        if self._offset + len(data) > self._size:
            raise IntegrityError(f"blob {short(self._digest)} is longer than {self._size} bytes")
        try:
            with disk_errors(self._path, f"blob {short(self._digest)}"):
                view = memoryview(data)
                while view:
                    written = os.pwrite(self._fd, view, self._offset)
                    self._hash.update(view[:written])
                    self._offset += written
                    view = view[written:]
        except LimitError:
            os.ftruncate(self._fd, 0)
            raise

    async def restart(self) -> None:
        """Forget everything."""
        os.ftruncate(self._fd, 0)
        self._hash, self._offset, self.resumed = new_hash(self._digest), 0, False

    async def commit(self) -> None:
        """Check size and digest, and make the blob visible.

        Raises:
            IntegrityError: It is not the blob; its bytes are thrown away.
            LimitError: The disk is full.
        """
        await _to_its_end(self.commit_sync)

    def commit_sync(self) -> None:
        """As `commit`."""
        actual = f"{algorithm_of(self._digest)}:{self._hash.hexdigest()}"
        if self._offset != self._size or actual != self._digest:
            os.ftruncate(self._fd, 0)
            raise IntegrityError(
                f"blob {short(self._digest)} does not match its digest",
                details=f"expected {self._digest}, got {actual}",
            )
        with disk_errors(self._path, f"blob {short(self._digest)}"):
            os.fsync(self._fd)
            self._target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.rename(self._target)
            sync_directory(self._target.parent)
        self.committed = True


class Draft:
    """A blob that is being made, open and locked; made by `ContentStore.draft`."""

    def __init__(self, fd: int, path: Path, root: Path) -> None:
        self._fd, self._path, self._root = fd, path, root
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            LimitError: The disk is full.
        """
        view = memoryview(data)
        with disk_errors(self._path, "a new blob"):
            while view:
                written = os.write(self._fd, view)
                self._hash.update(view[:written])
                self.size += written
                view = view[written:]

    def commit(self) -> Digest:
        """Make the blob visible, by the digest that it has now.

        Raises:
            LimitError: The disk is full.
        """
        digest = Digest(f"sha256:{self._hash.hexdigest()}")
        target = self._root / "sha256" / hex_of(digest)
        with disk_errors(self._path, "a new blob"):
            os.fsync(self._fd)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.rename(target)
            sync_directory(target.parent)
        return digest


class ContentStore:
    """The blobs below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def ingest_directory(self) -> Path:
        """Where blobs on the way are."""
        return self.root / "ingest"

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self.root / algorithm_of(digest) / hex_of(digest)

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there, with ``size`` bytes if given; its bytes are not read."""
        try:
            status = self.path(digest).stat()
        except FileNotFoundError:
            return False
        return size is None or status.st_size == size

    def read(self, digest: Digest, *, max_bytes: int) -> bytes:
        """A small blob, compared with its digest again.

        Raises:
            NotFoundError: It is not there.
            IntegrityError: It is damaged.
            LimitError: It is larger than ``max_bytes``.
        """
        try:
            with self.path(digest).open("rb") as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError as error:
            raise NotFoundError(f"no such blob: {digest}") from error
        if len(data) > max_bytes:
            raise LimitError(f"blob {short(digest)} is larger than {max_bytes} bytes")
        check_bytes(data, digest, what=f"blob {short(digest)} on disk")
        return data

    def verify(self, digest: Digest) -> bool:
        """Whether the bytes on disk still match; reads all of them."""
        check = new_hash(digest)
        try:
            with self.path(digest).open("rb") as file:
                while data := file.read(_READ_BYTES):
                    check.update(data)
        except FileNotFoundError:
            return False
        return check.hexdigest() == hex_of(digest)

    def put(self, data: bytes, digest: Digest) -> None:
        """Store a small blob that is in memory.

        Raises:
            IntegrityError: ``data`` does not match ``digest``.
            LimitError: The disk is full.
        """
        check_bytes(data, digest, what=f"blob {short(digest)}")
        # The bytes are read, not only counted: putting a blob again repairs it.
        if self.has(digest, len(data)) and self.verify(digest):
            return
        target = self.path(digest)
        with disk_errors(self.root, f"blob {short(digest)}"):
            for directory in (target.parent, self.ingest_directory):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # No two writers share such a file, so it needs no lock.
            name = f"put-{hashlib.sha256(os.urandom(16)).hexdigest()[:16]}"
            temporary = self.ingest_directory / name
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            sync_directory(target.parent)

    @contextlib.contextmanager
    def draft(self) -> Generator[Draft]:
        """Make a blob whose digest will follow from what is written; nothing is left of one that is not committed.

        Only while the store is in use: a sweep takes drafts that nobody has locked.
        """
        path = self.ingest_directory / f"{_NEW}{os.urandom(16).hex()}"
        with disk_errors(self.root, "a new blob"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try_flock(fd)
            yield Draft(fd, path, self.root)
        finally:
            path.unlink(missing_ok=True)
            unlock_and_close(fd)

    @contextlib.asynccontextmanager
    async def ingest(self, digest: Digest, size: int) -> AsyncGenerator[Ingest | None]:
        """Open a blob for writing; one at a time, in this and all other processes.

        Yields:
            Where to write it, at the offset that an earlier attempt reached; None if the blob is there,
            possibly because whoever was waited for has fetched it.
        """
        path = self.ingest_directory / f"{algorithm_of(digest)}-{hex_of(digest)}"
        fd = await self._open_locked(digest, size, path)
        if fd is None:
            yield None
            return
        try:
            ingest = Ingest(fd, path, self.path(digest), digest, size)
            await _to_its_end(ingest.load)
            try:
                yield ingest
            finally:
                # An empty leftover helps nobody.
                if not ingest.committed and os.fstat(fd).st_size == 0:
                    path.unlink(missing_ok=True)
        finally:
            unlock_and_close(fd)

    async def _open_locked(self, digest: Digest, size: int, path: Path) -> int | None:
        while True:
            if self.has(digest, size):
                return None
            with disk_errors(self.root, f"blob {short(digest)}"):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                await flock(fd)
                # While we waited the file may have been renamed to its place, or cleaned away.
                if _is_at(fd, path) and not self.has(digest, size):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            unlock_and_close(fd)

    def delete(self, digest: Digest) -> int:
        """Remove a blob; the bytes that this frees, 0 if it was not there."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def list(self) -> Iterator[Digest]:
        """All blobs, in no order."""
        for algorithm in ("sha256", "sha512"):
            directory = self.root / algorithm
            if not directory.is_dir():
                continue
            for path in directory.iterdir():
                try:
                    yield parse_digest(f"{algorithm}:{path.name}")
                except IntegrityError:
                    continue

    def clean_ingest(self, *, older_than_s: float = STALE_INGEST_S) -> int:
        """Remove what unfinished downloads left behind; the bytes that this frees.

        Args:
            older_than_s: Of what could be resumed, only files not written to for so long; those in use stay in any case.
        """
        freed, horizon = 0, time.time() - older_than_s
        if not self.ingest_directory.is_dir():
            return 0
        for path in self.ingest_directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if status.st_mtime > horizon and not path.name.startswith(_NEW):
                    continue
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    if try_flock(fd) and _is_at(fd, path):
                        path.unlink()
                        freed += status.st_size
                finally:
                    unlock_and_close(fd)
        return freed


async def _to_its_end(work: Callable[..., None], *arguments: bytes) -> None:
    """Run ``work`` in a thread; cancelled, still wait for its end.

    It writes to a descriptor that is closed next, and whose number may then be that of another file.
    """
    import asyncio

    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
