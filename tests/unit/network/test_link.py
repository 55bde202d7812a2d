"""A link whose one end a switch is given."""

import os
import socket
import threading
from pathlib import Path

import pytest

from woodlot.errors import NetworkError
from woodlot.network.link import Link


def test_the_switch_has_what_the_machine_sends(tmp_path: Path) -> None:
    path, link, received = tmp_path / "n0.sock", Link(), list[bytes]()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            giver, _ = listener.accept()
            with giver:
                _, fds, _, _ = socket.recv_fds(giver, 1, 1)
            with socket.socket(fileno=fds[0]) as end:
                received.extend((end.recv(10), end.recv(10)))

        switch = threading.Thread(target=serve)
        switch.start()
        link.give(path)
        monitor = os.dup(link.fd)
        link.handed_over()
        os.write(monitor, b"frame")
        # With the monitor the connection ends: nobody else has that end.
        os.close(monitor)
        switch.join(10)
    assert received == [b"frame", b""]
    link.close()


def test_nobody_is_there_and_nothing_stays_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    link = Link()
    with pytest.raises(NetworkError, match=r"took no connection at .*n0\.sock: .*No such file"):
        link.give(tmp_path / "n0.sock")
    link.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
