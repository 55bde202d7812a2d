"""Memory that a guest frees goes back to the host, although the file it was mapped from stays as it is.

QEMU drops a page of memory that has a file by a hole in the file first, then by letting the mapping go (QEMU,
softmmu/physmem.c, ram_block_discard_range). For a private mapping the second is all that is wanted: the hole would be
torn into a saved machine's memory, which others map, too. There is no option for that. So a seccomp filter hands QEMU's
calls of fallocate to us (seccomp_unotify(2)): one for that file is answered as done, every other goes on.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import platform
import socket
import struct
import sys
from pathlib import Path

log = logging.getLogger(__name__)

# Machine → seccomp and fallocate (asm/unistd.h), architecture (linux/audit.h).
_NUMBERS = {"x86_64": (317, 285, 0xC000003E), "aarch64": (277, 47, 0xC00000B7)}
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
# linux/seccomp.h
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_FLAG_NEW_LISTENER = 1 << 3
_RET_USER_NOTIF, _RET_ALLOW = 0x7FC00000, 0x7FFF0000
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_FLAG_CONTINUE = 1
_NOTIF = struct.Struct("QIIiIQ6Q")
_ANSWER = struct.Struct("QqiI")
# linux/filter.h: load a word, jump if equal, return.
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_INSTRUCTION = struct.Struct("HBBI")
# Of struct seccomp_data.
_NR_AT, _ARCH_AT = 0, 4


def is_usable() -> bool:
    """Whether the host can do it."""
    if not sys.platform.startswith("linux") or platform.machine() not in _NUMBERS:
        return False
    action = ctypes.c_uint32(_RET_USER_NOTIF)
    number, _, _ = _NUMBERS[platform.machine()]
    return bool(_libc().syscall(number, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0)


class KeptFile:
    """A file that a QEMU which maps it privately tears no holes into.

    Args:
        path: The file.

    Raises:
        OSError: It is not there.
    """

    def __init__(self, path: Path) -> None:
        status = path.stat()
        self._identity = status.st_dev, status.st_ino
        self._ours, self._theirs = socket.socketpair()
        self._filter = _build_filter()
        self._libc = _libc()
        self._listener = -1

    def close(self) -> None:
        """Answer no more; QEMU must have ended."""
        self._ours.close()
        self._theirs.close()
        if self._listener >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
            os.close(self._listener)
            self._listener = -1

    def install(self) -> None:
        """In QEMU's process, before it executes QEMU: have its calls handed over."""
        number, _, _ = _NUMBERS[platform.machine()]
        code = ctypes.create_string_buffer(self._filter, len(self._filter))
        count = len(self._filter) // _INSTRUCTION.size
        # struct sock_fprog
        program = struct.pack("HxxxxxxP", count, ctypes.addressof(code))
        self._libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        listener = self._libc.syscall(number, _SET_MODE_FILTER, _FLAG_NEW_LISTENER, program)
        if listener < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        socket.send_fds(self._theirs, [b"x"], [listener])

    def serve(self) -> None:
        """After `install`, in the process that QEMU is a child of: answer until QEMU has ended."""
        _, (self._listener,), _, _ = socket.recv_fds(self._ours, 1, 1)
        os.set_blocking(self._listener, False)
        asyncio.get_running_loop().add_reader(self._listener, self._answer)

    def _answer(self) -> None:
        asked = bytearray(_NOTIF.size)
        try:
            fcntl.ioctl(self._listener, _NOTIF_RECV, asked)
        except OSError:
            # It is over with QEMU, or with the thread that called.
            return
        call, thread, _, _, _, _, fd, *_ = _NOTIF.unpack(asked)
        flags = 0 if self._is_kept(thread, fd) else _FLAG_CONTINUE
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._listener, _NOTIF_SEND, _ANSWER.pack(call, 0, 0, flags))

    def _is_kept(self, thread: int, fd: int) -> bool:
        try:
            status = os.stat(f"/proc/{thread}/fd/{fd}")  # noqa: PTH116
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity


def _build_filter() -> bytes:
    _, fallocate, arch = _NUMBERS[platform.machine()]
    # QEMU runs by one set of numbers only: its own filter refuses others.
    return b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (_LOAD, 0, 0, _ARCH_AT),
            (_JUMP_EQUAL, 0, 3, arch),
            (_LOAD, 0, 0, _NR_AT),
            (_JUMP_EQUAL, 0, 1, fallocate),
            (_RETURN, 0, 0, _RET_USER_NOTIF),
            (_RETURN, 0, 0, _RET_ALLOW),
        )
    )


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
