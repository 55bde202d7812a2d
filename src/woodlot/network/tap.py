"""Taps: a container's end of a network whose frames the host's kernel carries."""

import os
import socket
from pathlib import Path

from woodlot.errors import NetworkError

_TIMEOUT_S = 10.0


def receive(path: Path) -> int:
    """Take the tap that the network's switch has made and hands over at a socket; the caller closes it.

    Raises:
        NetworkError: There is none.
    """
    fds: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(os.fspath(path))
            _, fds, _, _ = socket.recv_fds(connection, 1, 1)
        except OSError as error:
            raise NetworkError(f"the network's switch gave no tap at {path}: {error}") from error
    if not fds:
        raise NetworkError(f"the network's switch gave no tap at {path}")
    # QEMU alone inherits it, by name.
    os.set_inheritable(fds[0], False)  # noqa: FBT003
    return fds[0]
