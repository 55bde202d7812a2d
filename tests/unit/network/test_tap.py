"""A tap handed over at a socket."""

import os
import socket
import threading
from pathlib import Path

import pytest

from woodlot.errors import NetworkError
from woodlot.network import tap


@pytest.mark.parametrize("sent", [True, False])
def test_a_tap_comes_over_the_socket(tmp_path: Path, *, sent: bool) -> None:
    path, given = tmp_path / "n0.sock", os.open("/dev/null", os.O_RDWR)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if sent:
                    socket.send_fds(connection, [b"\0"], [given])

        server = threading.Thread(target=serve)
        server.start()
        try:
            if sent:
                fd = tap.receive(path)
                assert os.path.sameopenfile(fd, given)
                assert not os.get_inheritable(fd)
                os.close(fd)
            else:
                with pytest.raises(NetworkError, match="gave no tap at"):
                    tap.receive(path)
        finally:
            server.join()
            os.close(given)


def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="No such file"):
        tap.receive(tmp_path / "n0.sock")
