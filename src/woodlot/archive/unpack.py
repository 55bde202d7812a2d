"""Unpacks a tar that comes from a guest, and so from whoever means harm.

All of it stays below one open directory: names are taken apart and walked with ``openat`` from directory to directory,
and no symlink is followed, also none that was there before. Nothing but the one name that was asked for is made.
Files of devices and pipes are left out, and so are set-user-id bits unless owners are wanted.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator

from woodlot.errors import ConfigError, IntegrityError, LimitError, StateError
from woodlot.rootfs.tar import Kind, TarEntry, TarReader, show_name
from woodlot.values import dataclass

MAX_FILES = 5_000_000
_MAX_DEPTH = 512
_MAX_ID = 2**32 - 2
# What filesystems have room for: ext4 from 1901 to 2446.
_TIMES = (-(2**31), 2**34 - 2**31 - 1)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What became of a tar."""

    bytes: int
    """Content of all files."""
    left_out: tuple[str, ...]
    """Devices and pipes, the first of them by name."""


def unpack(
    pieces: Iterator[bytes],
    directory: int,
    name: str,
    *,
    keep_owner: bool = False,
    what: str = "the container",
    written: Callable[[int], None] = lambda _: None,
) -> Unpacked:
    """Make what a tar holds in an open directory; blocking.

    A file takes the place of another once it is whole, but not of a directory; a directory joins one that is there,
    which keeps its attributes.

    Args:
        pieces: The tar, in pieces of any size but 0.
        directory: A descriptor; the caller's.
        name: The only thing that may be made in it; ``.`` for anything.
        keep_owner: Give all to its owner in the tar, which takes root, and keep set-user-id bits.
        what: Sent the tar, for errors.
        written: Told of bytes of content, as they are written.

    Raises:
        IntegrityError: It is no whole tar, or holds what was not asked for. What came before stays.
        StateError: A file is where a directory is to be, or the other way round.
        LimitError: More files than `MAX_FILES`, or more than 512 directories in each other; the disk is full.
    """
    unpacker = _Unpacker(
        directory, os.fsencode(name), keep_owner=keep_owner, what=what, written=written
    )
    return unpacker.run(TarReader(pieces, what))


@dataclass(slots=True)
class _Open:
    """A directory on the way to where entries are made."""

    name: bytes
    fd: int
    made: TarEntry | None
    """Its entry, if it was made here: its attributes are set when nothing more comes into it."""


class _Unpacker:
    def __init__(
        self,
        directory: int,
        name: bytes,
        *,
        keep_owner: bool,
        what: str,
        written: Callable[[int], None],
    ) -> None:
        self._root = directory
        self._name = name
        self._keep_owner = keep_owner
        self._what = what
        self._written = written
        self._path: list[_Open] = []
        # Hard links may lead to nothing but these.
        self._files: set[tuple[int, int]] = set()
        self._bytes = 0
        self._left_out: list[str] = []

    def run(self, tar: TarReader) -> Unpacked:
        try:
            for entry in tar:
                try:
                    self._entry(entry, tar)
                except OSError as error:
                    raise self._explain(entry.name, error) from error
            self._leave(0)
        finally:
            for left in self._path:
                os.close(left.fd)
        return Unpacked(bytes=self._bytes, left_out=tuple(self._left_out))

    def _explain(self, name: bytes, error: OSError) -> Exception:
        problem = f"cannot write {show_name(name)}: {error.strerror}"
        if self._keep_owner and error.errno == errno.EPERM:
            hint = "only root can give files to others; leave out --archive"
            return ConfigError(problem, hint=hint)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return LimitError(problem)
        return StateError(problem)

    def _parts(self, name: bytes) -> list[bytes]:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts or name.startswith(b"/"):
            raise IntegrityError(
                f"{self._what} sent the name {show_name(name)}, which leads elsewhere"
            )
        if self._name != b"." and parts[:1] != [self._name]:
            raise IntegrityError(f"{self._what} sent {show_name(name)}, which was not asked for")
        if len(parts) > _MAX_DEPTH:
            raise LimitError(f"{self._what} sent more than {_MAX_DEPTH} directories in each other")
        return parts

    def _entry(self, entry: TarEntry, tar: TarReader) -> None:
        parts = self._parts(entry.name)
        if not parts:
            if entry.kind is not Kind.DIRECTORY:
                raise IntegrityError(f"{self._what} sent a file without a name")
            return
        *above, base = parts
        parent = self._enter(above)
        there = _kind_at(parent, base)
        if entry.kind is Kind.DIRECTORY:
            self._directory(entry, parent, base, there)
            return
        if there == stat.S_IFDIR:
            raise StateError(
                f"{show_name(entry.name)}: cannot overwrite a directory with something else"
            )
        match entry.kind:
            case Kind.FILE:
                self._file(entry, parent, base, tar)
            case Kind.SYMLINK:
                with self._placed(parent, base) as new:
                    os.symlink(entry.link, new, dir_fd=parent)
                    if self._keep_owner:
                        os.chown(new, *_owner(entry), dir_fd=parent, follow_symlinks=False)
                    os.utime(new, ns=_times(entry), dir_fd=parent, follow_symlinks=False)
            case Kind.HARD_LINK:
                self._link(entry, parent, base)
            case _:
                if len(self._left_out) < 100:
                    self._left_out.append(show_name(entry.name))

    def _enter(self, parts: list[bytes]) -> int:
        """The open directory of that path, each part of which must be a directory."""
        same = 0
        while same < min(len(parts), len(self._path)) and self._path[same].name == parts[same]:
            same += 1
        self._leave(same)
        for part in parts[same:]:
            fd = os.open(part, _DIRECTORY, dir_fd=self._parent())
            self._path.append(_Open(part, fd, None))
        return self._parent()

    def _parent(self) -> int:
        return self._path[-1].fd if self._path else self._root

    def _leave(self, depth: int) -> None:
        """Go back to the first ``depth`` directories."""
        while len(self._path) > depth:
            left = self._path.pop()
            try:
                if left.made is not None:
                    self._attributes(left.made, left.fd)
            finally:
                os.close(left.fd)

    def _directory(self, entry: TarEntry, parent: int, base: bytes, there: int | None) -> None:
        if there == stat.S_IFDIR:
            return
        if there is not None:
            raise StateError(
                f"{show_name(entry.name)}: cannot overwrite with a directory what is none"
            )
        os.mkdir(base, 0o700, dir_fd=parent)
        self._path.append(_Open(base, os.open(base, _DIRECTORY, dir_fd=parent), entry))

    def _file(self, entry: TarEntry, parent: int, base: bytes, tar: TarReader) -> None:
        with self._placed(parent, base) as new:
            fd = os.open(new, _NEW, 0o600, dir_fd=parent)
            try:
                self._content(entry, fd, tar)
                self._attributes(entry, fd)
                found = os.fstat(fd)
            finally:
                os.close(fd)
        self._files.add((found.st_dev, found.st_ino))
        if len(self._files) > MAX_FILES:
            raise LimitError(f"{self._what} sent more than {MAX_FILES} files")

    def _content(self, entry: TarEntry, fd: int, tar: TarReader) -> None:
        # A hole is written as one: its size is the guest's word.
        end = 0
        for offset, length in [(0, entry.size)] if entry.segments is None else entry.segments:
            os.lseek(fd, offset, os.SEEK_SET)
            for piece in tar.pieces(length):
                view = piece
                while view:
                    view = view[os.write(fd, view) :]
                self._bytes += len(piece)
                self._written(len(piece))
            end = offset + length
        if end < entry.size:
            os.ftruncate(fd, entry.size)

    def _link(self, entry: TarEntry, parent: int, base: bytes) -> None:
        *above, first = self._parts(entry.link) or [b""]
        fd = os.dup(self._root)
        try:
            for part in above:
                fd, left = os.open(part, _DIRECTORY, dir_fd=fd), fd
                os.close(left)
            found = os.stat(first, dir_fd=fd, follow_symlinks=False)
            if (found.st_dev, found.st_ino) not in self._files:
                raise IntegrityError(
                    f"{self._what} sent {show_name(entry.name)} as a link to {show_name(entry.link)}, which it did not send"
                )
            with self._placed(parent, base) as new:
                os.link(first, new, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _placed(self, parent: int, base: bytes) -> Generator[bytes]:
        """A new name to make something under; it then takes the place of what is there, in one step."""
        new = b".woodlot-" + os.urandom(8).hex().encode()
        try:
            yield new
            os.rename(new, base, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=parent)
            raise

    def _attributes(self, entry: TarEntry, fd: int) -> None:
        mode = entry.mode
        if self._keep_owner:
            os.fchown(fd, *_owner(entry))
        else:
            mode &= 0o777
        os.fchmod(fd, mode)
        os.utime(fd, ns=_times(entry))


def _kind_at(parent: int, base: bytes) -> int | None:
    try:
        return stat.S_IFMT(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def _owner(entry: TarEntry) -> tuple[int, int]:
    if max(entry.uid, entry.gid) > _MAX_ID:
        raise IntegrityError(f"{show_name(entry.name)} belongs to {entry.uid}:{entry.gid}")
    return entry.uid, entry.gid


def _times(entry: TarEntry) -> tuple[int, int]:
    seconds = min(max(entry.mtime_s, _TIMES[0]), _TIMES[1])
    moment = seconds * 10**9 + entry.mtime_ns
    return moment, moment
