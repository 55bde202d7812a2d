"""The files of a container, which need not run."""

import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from woodlot.aio.handle import Handle
from woodlot.aio.processes import MAX_OUTPUT_BYTES

if TYPE_CHECKING:
    from woodlot.archive.unpack import Unpacked
    from woodlot.container.copy import Manner
    from woodlot.container.files import Change, Files
    from woodlot.image.image import Image
    from woodlot.progress import Progress


class Sizes(NamedTuple):
    """Room on the disk, in bytes."""

    written: int
    """By the container."""
    image: int
    """Of its image's root filesystem, which others share."""


class FileAccess(Handle):
    """A container that files are copied to and from."""

    async def put(self, source: bytes | str | Path, path: str, *, archive: bool = False) -> None:
        """Make a file or copy a tree into the container, running or not; there it is root's.

        Args:
            source: A file's content, or a `Path` of the host: a file, or a directory with all below it.
            path: As for ``container cp``: with a `Path`, a directory that is there takes it under its own name.
            archive: Keep the owners that files of the host have.

        Raises:
            StateError: A directory is where a file is to be, or the other way round.
            NotFoundError: The directory that it is to be in is not there.
        """
        if isinstance(source, Path):
            await self.put_from(source, path, archive=archive)
            return
        async with self._files() as files:
            from woodlot.container.copy import put

            await put(files, source, path)

    async def put_from(
        self,
        source: str | os.PathLike[str],
        path: str,
        *,
        archive: bool = False,
        follow: bool = False,
        progress: "Progress | None" = None,
    ) -> int:
        """Copy a file or tree of the host into the container, running or not; there it is root's.

        Args:
            source: On the host; ``DIR/.`` is what is in the directory.
            path: As for ``container cp``: a directory that is there takes it under its own name.
            archive: Keep the owners that it has on the host.
            follow: If it is a symlink, copy what it leads to.
            progress: Told of bytes.

        Returns:
            Bytes of the tar that travelled.
        """
        async with self._files() as files:
            from woodlot.container.copy import copy_to

            manner = _manner(archive=archive, follow=follow, progress=progress)
            return await copy_to(files, os.fspath(source), path, manner)

    async def put_tar(
        self,
        tar: Iterable[bytes] | AsyncIterable[bytes],
        path: str,
        *,
        progress: "Progress | None" = None,
    ) -> int:
        """Unpack a tar, with the owners it tells, into a directory of the container, running or not; its bytes.

        Raises:
            StateError: There is no directory.
        """
        async with self._files() as files:
            from woodlot.container.copy import copy_tar_to

            return await copy_tar_to(files, _pieces(tar), path, _manner(progress=progress))

    async def get(self, path: str, *, max_bytes: int = MAX_OUTPUT_BYTES) -> bytes:
        """The content of a file in the container, running or not.

        Raises:
            NotFoundError: It is not there.
            LimitError: It has more than ``max_bytes``.
        """
        async with self._files() as files:
            from woodlot.container.copy import get

            return await get(files, path, max_bytes=max_bytes)

    async def get_to(
        self,
        path: str,
        target: str | os.PathLike[str],
        *,
        archive: bool = False,
        follow: bool = False,
        progress: "Progress | None" = None,
    ) -> "Unpacked":
        """Copy a file or tree of the container, running or not, to the host, where it is yours.

        Nothing is written but below ``target``, whatever the container holds: no symlink is followed, and devices and
        pipes are left out.

        Args:
            path: In the container; ``DIR/.`` is what is in the directory.
            target: As for ``container cp``: a directory that is there takes it under its own name.
            archive: Keep the owners it has in the container, which takes root.
            follow: If it is a symlink, copy what it leads to.
            progress: Told of bytes.
        """
        async with self._files() as files:
            from woodlot.container.copy import copy_from

            manner = _manner(archive=archive, follow=follow, progress=progress)
            return await copy_from(files, path, os.fspath(target), manner)

    async def get_tar(
        self, path: str, *, follow: bool = False, progress: "Progress | None" = None
    ) -> AsyncGenerator[bytes]:
        """A tar of what is at a path in the container, running or not, in pieces: the guest's word, every byte of it."""
        async with self._files() as files:
            from woodlot.container.copy import read_tar

            manner = _manner(follow=follow, progress=progress)
            async with contextlib.aclosing(read_tar(files, path, manner)) as pieces:
                async for piece in pieces:
                    yield piece

    async def export(self) -> AsyncGenerator[bytes]:
        """A tar of its root filesystem without what is mounted in it, in pieces; its processes stand still meanwhile."""
        async with self._files() as files, contextlib.aclosing(files.export()) as pieces:
            async for piece in pieces:
                yield piece

    async def diff(self) -> "AsyncGenerator[Change]":
        """Where its root filesystem differs from the image, sorted, a directory before what is in it."""
        async with self._files() as files, contextlib.aclosing(files.diff()) as changes:
            async for change in changes:
                yield change

    async def commit(
        self,
        reference: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        progress: "Progress | None" = None,
    ) -> "Image":
        """Make an image of it, running or stopped: its files, without what is mounted, and its configuration.

        Args:
            reference: The image's name, taken from another that has it; None for one that is known by its id.
            author: Of the image.
            message: For its history.
            changes: Instructions of a Dockerfile: ``['CMD ["true"]', "ENV A=1"]``.
            pause: Its processes stand still while its files are read.
            progress: Told of the reading and of the unpacking.

        Raises:
            ConfigError: The name or a change is not valid.
            LimitError: The image would be larger than allowed.
        """
        from woodlot.container.commit import CommitRequest, commit

        request = CommitRequest(
            reference=reference,
            author=author,
            message=message,
            changes=tuple(changes),
            pause=pause,
        )
        self.refresh()
        return await commit(self._store, self._found, request, progress)

    def sizes(self) -> Sizes:
        """What it has written, and its image; walks its files."""
        from woodlot.store.disk import used_bytes

        try:
            image = Path(self.spec.rootfs).stat().st_blocks * 512
        except OSError:
            image = 0
        return Sizes(written=used_bytes(self._store.paths.container(self.id)), image=image)

    @contextlib.asynccontextmanager
    async def _files(self) -> "AsyncGenerator[Files]":
        from woodlot.container.files import reach

        self.refresh()
        async with reach(self._store, self._found) as files:
            yield files


def _manner(
    *, archive: bool = False, follow: bool = False, progress: "Progress | None" = None
) -> "Manner":
    from woodlot.container.copy import Manner
    from woodlot.progress import NoProgress

    return Manner(archive=archive, follow=follow, progress=progress or NoProgress())


async def _pieces(tar: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    import asyncio

    if isinstance(tar, AsyncIterable):
        async for piece in tar:
            yield piece
        return
    pieces = iter(tar)
    # In threads, for it may be read from a pipe.
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
