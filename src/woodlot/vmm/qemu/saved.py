"""Carrying a machine's state out of one QEMU and into others.

Memory is not part of what is carried: it is in a file already, which the capability x-ignore-shared says (QEMU,
migration/ram.c). What is left, processors and devices, is under a megabyte, on a socket: QEMU 7.2 can be told of a
connected socket for what comes in, and only of a path for what goes out.
"""

import asyncio
import os
import socket
from pathlib import Path

from woodlot.errors import VmmError

# Of processors and devices, with firmware: 0.6 MB was seen.
MAX_STATE_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20

CAPABILITIES = [
    {"capability": "x-ignore-shared", "state": True},
    # The event MIGRATION tells the end, so nobody asks again and again.
    {"capability": "events", "state": True},
]


async def receive_state(listener: socket.socket, path: Path) -> None:
    """Write what the first who connects to ``listener`` sends to ``path``, to the end of the connection.

    Raises:
        VmmError: It is more than a machine's state can be.
    """
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    written = 0
    with connection, path.open("wb") as file:
        connection.setblocking(False)  # noqa: FBT003
        while chunk := await loop.sock_recv(connection, _CHUNK_BYTES):
            written += len(chunk)
            if written > MAX_STATE_BYTES:
                raise VmmError(f"QEMU's state is more than {MAX_STATE_BYTES >> 20} MiB")
            file.write(chunk)


async def send_state(state: bytes, sock: socket.socket) -> None:
    """Send it, then end; ``sock`` is closed."""
    with sock:
        sock.setblocking(False)  # noqa: FBT003
        await asyncio.get_running_loop().sock_sendall(sock, state)


def read_state(path: Path) -> bytes:
    """What `receive_state` wrote.

    Raises:
        VmmError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise VmmError(f"cannot read the saved state {path}: {error.strerror}") from error


def copy_memory(path: Path, size_bytes: int) -> int:
    """A descriptor of anonymous memory that holds what the file ``path`` does, holes left out; the caller closes it.

    Raises:
        VmmError: It cannot be read, or has another size.
    """
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise VmmError(f"cannot open the saved memory {path}: {error.strerror}") from error
    try:
        if os.fstat(source).st_size != size_bytes:
            raise VmmError(f"the saved memory {path} is not of {size_bytes} bytes")
        target = os.memfd_create("woodlot-memory")
        try:
            os.truncate(target, size_bytes)
            _copy_data(source, target, size_bytes)
        except OSError as error:
            os.close(target)
            raise VmmError(f"cannot copy the saved memory {path}: {error.strerror}") from error
    finally:
        os.close(source)
    return target


def _copy_data(source: int, target: int, size_bytes: int) -> None:
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            sent = os.sendfile(target, source, start, end - start)
            if not sent:
                return
            start += sent
