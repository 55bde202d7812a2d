"""Links: a virtual machine's end of a network whose frames a switch carries, made before the network is joined."""

import contextlib
import os
import socket
from pathlib import Path

from woodlot.errors import NetworkError

_TIMEOUT_S = 10.0
_CHUNK_BYTES = 64 << 10


class Link:
    """Both ends of a connection between a virtual machine's card and the switch."""

    def __init__(self) -> None:
        self._machines, self._switchs = socket.socketpair()

    @property
    def fd(self) -> int:
        """The machine's end, for its monitor to inherit."""
        return self._machines.fileno()

    def handed_over(self) -> None:
        """The monitor has its end: when it ends, so does the connection."""
        self._machines.close()

    def drain(self) -> None:
        """Throw away what the machine has sent so far; it must be at rest, so that it is in the middle of nothing."""
        self._switchs.setblocking(False)  # noqa: FBT003
        with contextlib.suppress(BlockingIOError):
            while self._switchs.recv(_CHUNK_BYTES):
                pass
        self._switchs.setblocking(True)  # noqa: FBT003

    def give(self, path: Path) -> None:
        """Give the switch its end, at a socket of the switch's.

        Raises:
            NetworkError: It does not take it.
        """
        with self._switchs, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            try:
                connection.connect(os.fspath(path))
                socket.send_fds(connection, [b"\0"], [self._switchs.fileno()])
            except OSError as error:
                raise NetworkError(
                    f"the network's switch took no connection at {path}: {error}"
                ) from error

    def close(self) -> None:
        """Close what is still ours."""
        self._machines.close()
        self._switchs.close()
