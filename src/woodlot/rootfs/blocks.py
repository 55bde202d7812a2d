"""File data on its way into the image and, for the ends of files, into the spool."""

import ctypes
import errno
import os
import sys
from collections.abc import Sequence

from woodlot.errors import LimitError
from woodlot.rootfs.erofs import BLOCK_BYTES, INODE_BYTES, MAX_BLOCKS
from woodlot.rootfs.node import File

# The end of a file longer than a block shares a block with its inode up to this size. A longer one is better off
# in a block of its own: right behind the rest of its data, and in the guest's page cache once instead of twice.
TAIL_BYTES = 2048

_BUFFER_BYTES = 1 << 20
# Pieces from this size are written from where they are instead of being copied together.
_DIRECT_BYTES = 64 << 10
# The kernel is asked to begin writing to the disk after this much, so that fsync() finds little left to do.
_WRITEBACK_BYTES = 8 << 20
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_FALLOC_KEEP_SIZE = 1  # linux/falloc.h
_FALLOC_PUNCH_HOLE = 2


class Appender:
    """Writes to the end of a file in large pieces.

    Args:
        fd: The file.
        offset: Where to begin.
        durable: Whether the file is there to stay: then its data goes to the disk as it comes.

    Attributes:
        offset: Where the next byte goes.
    """

    def __init__(self, fd: int, offset: int = 0, *, durable: bool = False) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self._durable = durable
        self._begun = offset
        self.offset = offset
        os.lseek(fd, offset, os.SEEK_SET)

    def put(self, data: bytes | memoryview) -> None:
        """Append ``data``, which may be changed once this returns."""
        size = len(data)
        self.offset += size
        if size < _DIRECT_BYTES:
            self._buffer += data
            if len(self._buffer) >= _BUFFER_BYTES:
                self.flush()
        else:
            self._write([self._buffer, data])
            self._buffer = bytearray()

    def skip(self, size: int) -> None:
        """Append zeros that take no room on the disk."""
        if size < _DIRECT_BYTES:
            self.put(bytes(size))
            return
        self.flush()
        self.offset += size
        os.lseek(self._fd, size, os.SEEK_CUR)

    def flush(self) -> None:
        """Hand everything to the kernel."""
        if self._buffer:
            self._write([self._buffer])
            self._buffer = bytearray()

    def _write(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        left = sum(map(len, parts))
        done = os.writev(self._fd, parts)
        if done == left:
            if self._durable and self.offset - self._begun >= _WRITEBACK_BYTES:
                begin_writeback(self._fd, self._begun, self.offset - self._begun)
                self._begun = self.offset
            return
        # A write is cut short by a full disk, and then the next one says why, or by its size.
        rest = memoryview(b"".join(parts))[done:]
        while rest:
            rest = rest[os.write(self._fd, rest) :]


class FileWriter:
    """Stores the data of one file after the other.

    Whole blocks go to the image in the order they come. What is left of a file behind its last whole block goes to
    the spool if it will find room next to the inode, and to a block of its own if not.

    Args:
        image: Appends to the image, on a block boundary.
        spool: Appends to the spool.
    """

    def __init__(self, image: Appender, spool: Appender) -> None:
        self._image = image
        self._spool = spool
        self._plain_left = 0
        self._padding = 0

    def begin(self, file: File) -> None:
        """The data that follows is ``file``'s.

        Raises:
            LimitError: The image would be larger than the format allows (16 TiB).
        """
        size = file.size
        tail = size % BLOCK_BYTES
        fits = INODE_BYTES + len(file.xattrs) + tail <= BLOCK_BYTES
        if tail and fits and (size == tail or tail <= TAIL_BYTES):
            file.tail = self._spool.offset
            plain = size - tail
        else:
            plain = size
        self._plain_left = plain
        self._padding = -plain % BLOCK_BYTES
        if plain:
            file.block = self._image.offset // BLOCK_BYTES
            if file.block + plain // BLOCK_BYTES + 1 > MAX_BLOCKS:
                raise LimitError("the image is larger than 16 TiB")

    def write(self, data: memoryview) -> None:
        """The next piece of the file."""
        plain = self._plain_left
        if plain:
            if len(data) <= plain:
                self._plain_left = plain - len(data)
                self._image.put(data)
                return
            self._image.put(data[:plain])
            self._plain_left = 0
            data = data[plain:]
        self._spool.put(data)

    def hole(self, size: int) -> None:
        """The next ``size`` bytes of the file are zeros."""
        plain = min(size, self._plain_left)
        if plain:
            self._plain_left -= plain
            self._image.skip(plain)
        if size > plain:
            self._spool.put(bytes(size - plain))

    def end(self) -> None:
        """The file is complete."""
        if self._padding:
            self._image.put(bytes(self._padding))
            self._padding = 0


def erase(fd: int, offset: int, size: int) -> None:
    """Make a range of a file read as zeros, giving its room back where the file system can."""
    if _punch(fd, offset, size):
        return
    end = offset + size
    zeros = bytes(min(size, _BUFFER_BYTES))
    while offset < end:
        offset += os.pwrite(fd, zeros[: end - offset], offset)


if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    _libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

    def begin_writeback(fd: int, offset: int, size: int) -> None:
        """Start writing a range of a file to the disk, without waiting for it."""
        # No more than a hint: fsync() reports what goes wrong.
        _libc.sync_file_range(fd, offset, size, _SYNC_FILE_RANGE_WRITE)

    def _punch(fd: int, offset: int, size: int) -> bool:
        mode = _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE
        if _libc.fallocate(fd, mode, offset, size) == 0:
            return True
        code = ctypes.get_errno()
        if code in {errno.EOPNOTSUPP, errno.ENOSYS}:
            return False
        raise OSError(code, os.strerror(code))
else:

    def begin_writeback(fd: int, offset: int, size: int) -> None:
        """Nothing."""
        del fd, offset, size

    def _punch(fd: int, offset: int, size: int) -> bool:
        del fd, offset, size
        return False
