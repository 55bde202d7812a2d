"""Unix sockets between host and container, both ways: what is carried, who may use it, what is left."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.leaks import find_processes
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

# Runs in the guest and on the host: gives back all it reads and, once that has ended, its digest.
SERVE = """
import hashlib, socket, sys, threading
def serve(connection):
    with connection:
        digest = hashlib.sha256()
        while data := connection.recv(65536):
            digest.update(data)
            connection.sendall(data)
        connection.sendall(digest.digest())
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(2)
print("serves", flush=True)
while True:
    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
"""
# Runs in the guest and on the host, too: COUNT connections at once, each with SIZE bytes there and back.
ASK = """
import hashlib, random, socket, sys, threading
path, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
good = []
def ask(number):
    data = random.Random(number).randbytes(size)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        def send():
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        sender.join()
    if answer == data + hashlib.sha256(data).digest():
        good.append(number)
asking = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
for thread in asking: thread.start()
for thread in asking: thread.join()
print(len(good))
"""
# What `ssh-add -l` says: SSH2_AGENTC_REQUEST_IDENTITIES; one key comes back.
LIST_KEYS = """
import os, socket, struct
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(os.environ["SSH_AUTH_SOCK"])
    for _ in range(2):
        agent.sendall(b"\\0\\0\\0\\1\\x0b")
        answer = agent.recv(4, socket.MSG_WAITALL)
        answer = agent.recv(struct.unpack(">I", answer)[0], socket.MSG_WAITALL)
        key, comment = (int.from_bytes(answer[1:5], "big"), answer[-8:].decode())
        print(answer[0], key, comment)
"""
MIB = 1 << 20


class FakeAgent:
    """An SSH agent with one key, on a socket that only its user may use."""

    def __init__(self, path: Path, comment: bytes) -> None:
        key = b"\0\0\0\x04" + b"blob" + len(comment).to_bytes(4, "big") + comment
        answer = b"\x0c" + (1).to_bytes(4, "big") + key
        self._answer = len(answer).to_bytes(4, "big") + answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1]).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(5, socket.MSG_WAITALL) == b"\0\0\0\1\x0b":
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path short enough for sockets, with a server of the host's at host.sock."""
    with tempfile.TemporaryDirectory(prefix="wl-sock-") as made:
        path = Path(made) / "host.sock"
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "serves\n"
            path.chmod(0o640)
            yield Path(made)
        finally:
            server.kill()
            server.communicate()


def ask(path: Path, count: int, size: int) -> str:
    argv = [sys.executable, "-c", ASK, str(path), str(count), str(size)]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sockets_both_ways(container: Cli, registry: Registry, directory: Path) -> None:
    python = registry.reference("python:3.11")
    published, agent_path = directory / "published.sock", directory / "agent.sock"
    agent = FakeAgent(agent_path, b"key@host")
    # As a killed supervisor leaves it.
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(published))
    container.ok(
        "run", "-d", "--name", "s", "--network", "none", "--user", "1000:1001", "--ssh",
        "--publish-socket", "published.sock:/tmp/link/echo.sock",
        "-v", f"{directory}/host.sock:/run/host.sock:ro",
        "--mount", f"type=bind,source={directory}/host.sock,target=/srv/new/second.sock",
        python, "sh", "-c", "ln -s /../tmp /tmp/link; exec python3 -c \"$0\" /tmp/echo.sock", SERVE,
        cwd=directory, env={"SSH_AUTH_SOCK": str(agent_path)},
    )  # fmt: skip

    # Who may use them, and how they look.
    assert stat.S_IMODE(published.lstat().st_mode) == 0o600
    shown = "stat -c '%F %a %u:%g' /run/host.sock $SSH_AUTH_SOCK; echo $SSH_AUTH_SOCK; chmod 666 /run/host.sock"
    looked = container("exec", "--user", "0", "s", "sh", "-c", shown)
    assert looked.stdout.splitlines() == [
        "socket 640 1000:1001", "socket 600 1000:1001", "/run/host-services/ssh-auth.sock",
    ]  # fmt: skip
    assert "Read-only file system" in looked.stderr
    (found,) = json.loads(container.ok("inspect", "s"))
    configuration = found["configuration"]
    assert configuration["publishedSockets"] == [
        {"hostPath": str(published), "containerPath": "/tmp/link/echo.sock"}
    ]
    assert configuration["ssh"] is True
    assert [mount["type"] for mount in configuration["mounts"]] == ["socket", "socket"]

    # From the host, then from the container: much at once, then many at once.
    wait_for(lambda: "serves" in container.ok("logs", "s"))
    assert ask(published, 1, 10 * MIB) == "1\n"
    assert ask(published, 20, 100_000) == "20\n"
    for path, count, size in (
        ("/run/host.sock", 1, 10 * MIB),
        ("/srv/new/second.sock", 20, 100_000),
    ):
        out = container.ok("exec", "s", "python3", "-c", ASK, path, str(count), str(size))
        assert out == f"{count}\n"

    # One that is served by somebody else now is found by its path.
    assert container.ok("exec", "s", "python3", "-c", LIST_KEYS) == "12 1 key@host\n" * 2
    agent.close()
    refused = container("exec", "s", "python3", "-c", LIST_KEYS)
    assert refused.returncode != 0
    agent_path.unlink()
    agent = FakeAgent(agent_path, b"new@host")
    assert container.ok("exec", "s", "python3", "-c", LIST_KEYS) == "12 1 new@host\n" * 2
    agent.close()

    # A second container cannot have the path; what a killed supervisor leaves there goes with the next command.
    taken = container(
        "run", "--rm", "--network", "none", "--publish-socket", f"{published}:/x", python, "true"
    )
    assert (taken.returncode, "another process listens on" in taken.stderr) == (125, True)
    holders = find_processes(container.root / "containers" / str(found["id"]))
    for pid in (pid for pid, line in holders.items() if "qemu" not in line):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "killed" in container.ok("inspect", "s"))
    assert not published.exists()
    # Whatever it had connected to is as it was.
    assert ask(directory / "host.sock", 1, 1000) == "1\n"
