"""inotify(7): what the kernel tells of changes in directories. Linux only."""

import ctypes
import os
import struct
from enum import IntFlag
from pathlib import Path
from typing import NamedTuple

# struct inotify_event without its name: wd, mask, cookie, len.
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 << 10


class Mask(IntFlag):
    """linux/inotify.h."""

    MODIFY = 0x2
    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x1000000
    ISDIR = 0x40000000


class Event(NamedTuple):
    """One event; ``name`` is empty when it is about the watched directory itself."""

    watch: int
    mask: int
    cookie: int
    name: bytes


class Inotify:
    """An inotify instance; `close` it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._check(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, directory_fd: int, mask: int) -> int:
        """Watch the directory of a descriptor, wherever a path leads by now; the same again is the same watch.

        Raises:
            OSError: ENOSPC when the user has no watches left.
        """
        path = f"/proc/self/fd/{directory_fd}".encode()
        return self._check(
            self._libc.inotify_add_watch(self.fd, path, ctypes.c_uint32(mask | Mask.ONLYDIR))
        )

    def add_file(self, path: Path, mask: int) -> int:
        """Watch what is at a path now, also when it is renamed; the same again is the same watch.

        Raises:
            OSError: There is nothing, or the user has no watches left (ENOSPC).
        """
        return self._check(
            self._libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask))
        )

    def remove(self, watch: int) -> None:
        """End a watch, if it has not ended by itself."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Event]:
        """What has happened, in order; never waits."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        return parse_events(data)

    def close(self) -> None:
        """End all watches."""
        os.close(self.fd)

    @staticmethod
    def _check(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def parse_events(data: bytes) -> list[Event]:
    """The events in what was read."""
    events: list[Event] = []
    at = 0
    while at < len(data):
        watch, mask, cookie, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        events.append(Event(watch, mask, cookie, data[at : at + length].rstrip(b"\0")))
        at += length
    return events
