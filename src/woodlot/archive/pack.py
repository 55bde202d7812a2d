"""Tars of the host's files.

What is read may be shared with a guest that changes it meanwhile: every step goes from an open directory to a name in
it, and no symlink is followed.
"""

import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

from woodlot.errors import LimitError, NotFoundError, StateError

_PIECE_BYTES = 256 << 10
_MAX_DEPTH = 512
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def pack(source: Path, name: str, put: Callable[[bytes], None], *, keep_owner: bool) -> None:
    """Make a tar of a file or directory with all below it; blocking.

    Args:
        source: A symlink is not followed.
        name: What the tar calls it; ``.`` for nothing but what a directory holds.
        put: Takes the tar in pieces.
        keep_owner: Owners as they are; all is root's otherwise.

    Raises:
        NotFoundError: It is not there.
        WoodlotError: It cannot be read, or is a socket.
    """
    packer = _Packer(put, keep_owner=keep_owner)
    parent = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        packer.entry(parent, source.name or ".", name, source, 0)
    finally:
        os.close(parent)
    packer.close()


def pack_bytes(
    content: bytes, name: str, put: Callable[[bytes], None], *, mode: int, mtime: float
) -> None:
    """Make a tar of one file of root's with that content."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, int(mtime)
    put(info.tobuf(tarfile.PAX_FORMAT))
    for start in range(0, len(content), _PIECE_BYTES):
        put(content[start : start + _PIECE_BYTES])
    put(bytes(-len(content) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))


class _Packer:
    def __init__(self, put: Callable[[bytes], None], *, keep_owner: bool) -> None:
        self._keep_owner = keep_owner
        self._put = put
        self._links: dict[tuple[int, int], str] = {}

    def close(self) -> None:
        self._put(bytes(2 * tarfile.BLOCKSIZE))

    def entry(self, parent: int, base: str, name: str, shown: Path, depth: int) -> None:
        try:
            self._entry(parent, base, name, shown, depth)
        except FileNotFoundError:
            # Deleted meanwhile; but what was asked for has to be there.
            if depth == 0:
                raise NotFoundError(f"no such file or directory: {shown}") from None
        except OSError as error:
            raise StateError(f"cannot read {shown}: {error.strerror}") from error

    def _entry(self, parent: int, base: str, name: str, shown: Path, depth: int) -> None:
        found = os.stat(base, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            if kind not in _TYPES:  # a socket: without the process that bound it, nothing
                if depth == 0:
                    raise StateError(f"{shown} is a socket, which cannot be copied")
                return
            info = self._info(name, found)
            if info.issym():
                info.linkname = os.readlink(base, dir_fd=parent)
            self._header(info)
            return
        fd = os.open(base, _OPEN, dir_fd=parent)
        try:
            opened = os.fstat(fd)
            if stat.S_IFMT(opened.st_mode) != kind:
                raise StateError(f"{shown} was replaced while it was read")
            info = self._info(name, opened)
            self._header(info)
            if info.isreg():
                self._content(fd, info.size, shown)
            elif info.isdir():
                self._children(fd, name, shown, depth)
        finally:
            os.close(fd)

    def _info(self, name: str, found: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type = _TYPES[stat.S_IFMT(found.st_mode)]
        info.mode = stat.S_IMODE(found.st_mode)
        if self._keep_owner:
            info.uid, info.gid = found.st_uid, found.st_gid
        seconds, nanos = divmod(abs(found.st_mtime_ns), 10**9)
        sign = "-" if found.st_mtime_ns < 0 else ""
        info.pax_headers = {"mtime": f"{sign}{seconds}.{nanos:09d}"}
        if info.isreg():
            info.size = found.st_size
        if info.ischr() or info.isblk():
            info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        if not info.isdir() and found.st_nlink > 1:
            first = self._links.setdefault((found.st_dev, found.st_ino), name)
            if first != name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        return info

    def _header(self, info: tarfile.TarInfo) -> None:
        self._put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _content(self, fd: int, size: int, shown: Path) -> None:
        left = size
        while left:
            data = os.read(fd, min(left, _PIECE_BYTES))
            if not data:
                raise StateError(f"{shown} became shorter while it was read")
            self._put(data)
            left -= len(data)
        self._put(bytes(-size % tarfile.BLOCKSIZE))

    def _children(self, fd: int, name: str, shown: Path, depth: int) -> None:
        if depth == _MAX_DEPTH:
            raise LimitError(f"{shown}: more than {_MAX_DEPTH} directories in each other")
        for child in sorted(os.listdir(fd)):
            self.entry(fd, child, f"{name}/{child}", shown / child, depth + 1)
