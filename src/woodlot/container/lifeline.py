"""The socket pair between a launcher and the supervisor it starts.

To the launcher it carries one line, ``ready`` or an error; to the supervisor only its end, which says that the launcher
is gone. Neither side polls or waits for a path to appear.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from woodlot.errors import WoodlotError

_READY = b"ready\n"


class Lifeline:
    """The supervisor's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._told = False

    def ready(self) -> None:
        """Tell the launcher that the supervisor's socket answers."""
        self._tell(_READY)

    def fail(self, error: WoodlotError) -> None:
        """Tell the launcher why there will be no container, unless it was told `ready`."""
        from woodlot.container.wire import encode_error

        self._tell(encode_error(error).encode() + b"\n")

    def _tell(self, line: bytes) -> None:
        if not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                self._socket.sendall(line)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, in the running loop, when the launcher is gone."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            with contextlib.suppress(OSError):
                if self._socket.recv(64):
                    return
            loop.remove_reader(self._socket)
            callback()

        self._socket.settimeout(0)
        loop.add_reader(self._socket, readable)


def wait_ready(sock: socket.socket) -> None:
    """On the launcher's end, wait until the supervisor answers on its socket.

    Raises:
        WoodlotError: Why it never will.
    """
    received = b""
    while not received.endswith(b"\n"):
        chunk = sock.recv(64 << 10)
        if not chunk:
            raise WoodlotError(
                "the container's supervisor ended before it was ready",
                details=received.decode("utf-8", "replace") or None,
            )
        received += chunk
    if received != _READY:
        from woodlot.container.wire import decode_error

        raise decode_error(received.decode("utf-8", "replace"))
