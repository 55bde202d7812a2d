"""An ordinary user: installs from this checkout, pulls, runs and deletes, and owns all that this makes."""

import grp
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.leaks import SETTLE_S, find_processes, find_sockets
from tests.programs import require_root
from tests.registry.server import Registry
from tests.user import User
from tests.vm.world import world

pytestmark = pytest.mark.vm


# Its Unix socket and its UDP port shout back, its web server has the files of /srv, and it says what comes there.
SERVE = """
import ctypes, http.server, os, socketserver, threading
class Shout(socketserver.StreamRequestHandler):
    def handle(self): self.wfile.write(self.rfile.readline().upper())
class ShoutOnce(socketserver.DatagramRequestHandler):
    def handle(self): self.wfile.write(self.rfile.read().upper())
class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
libc = ctypes.CDLL(None)
events = libc.inotify_init1(0)
libc.inotify_add_watch(events, b"/srv", 0x100)
os.chdir("/srv")
for server in (
    socketserver.ThreadingUnixStreamServer("/run/web.sock", Shout),
    socketserver.ThreadingUDPServer(("", 53), ShoutOnce),
    http.server.ThreadingHTTPServer(("", 80), Files),
):
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
while True: print("new:", os.read(events, 4096)[16:].split(b"\\0")[0].decode(), flush=True)
"""
TRY = "try() { nc -w 10 $1 $2 < /dev/null 2> /dev/null || echo refused; }; "


@pytest.fixture(scope="module")
def inside(user: User, pulled: str) -> Iterator[Sequence[str]]:
    """What leads a command into a world of the tests' own; nothing for users who cannot make one."""
    if not user.become:
        yield ()
        return
    # The world has no kernel to offer.
    user("run", "--rm", "--network", "none", pulled, "true")
    with world([]) as lead:
        yield lead


@pytest.fixture
def runtime_directory(directory: Path, user: User) -> Iterator[Path]:
    """What a login manager gives as XDG_RUNTIME_DIR."""
    path = directory / "run"
    path.mkdir(mode=0o700)
    os.chown(path, user.uid, -1)
    yield path
    shutil.rmtree(path)


def expect_private(path: Path, user: User) -> None:
    status = path.lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, user.uid), path


def test_a_user_fetches_a_kernel_and_learns_what_is_used(user: User) -> None:
    status = json.loads(user("system", "status", "--format", "json"))
    assert status["ready"] is True, status
    assert status["kernel"].startswith("debian-")
    assert status["accelerator"] in {"kvm", "tcg"}
    assert Path(status["dataRoot"]) == user.data
    assert Path(status["runtimeRoot"]) == user.runtime
    expect_private(user.data, user)
    expect_private(user.runtime, user)


def test_without_the_right_to_kvm_it_is_said_and_done_without(user: User) -> None:
    require_root()
    group = closed_group(user)
    status = json.loads(user("system", "status", "--format", "json", kvm_group=group))
    assert status["ready"] is True
    assert status["accelerator"] == "tcg"
    reason = status["acceleratorReason"]
    assert "no permission to open /dev/kvm" in reason
    assert f"sudo usermod -aG {group} $USER" in reason


def closed_group(user: User) -> str:
    """A group that the user is not in: the one of /dev/kvm where there is one."""
    groups = {entry.gr_name: entry.gr_gid for entry in grp.getgrall()}
    theirs = os.getgrouplist(user.name, pwd.getpwuid(user.uid).pw_gid)
    return next(name for name in ("kvm", "adm", "daemon") if groups.get(name, -1) not in {-1, *theirs})  # fmt: skip


def test_a_user_runs_containers(user: User, pulled: str, inside: Sequence[str]) -> None:
    # With no way out, and with one.
    script = f"id; {TRY} try 198.51.100.7 7000; nslookup world.example | grep -o NXDOMAIN; ping -c 1 -W 1 198.51.100.7"
    said = user("run", "--rm", "--egress", "none", pulled, "sh", "-c", f"{script}; true", inside=inside)  # fmt: skip
    assert said.startswith("uid=0(root) gid=0(root)")
    assert "\nrefused\nNXDOMAIN\n" in said
    assert " 0 packets received" in said
    script = f"echo say it; read word; stty size; echo got $word; {TRY} try 198.51.100.7 7000; try 198.51.100.8 7000; ping -c 1 -W 10 198.51.100.7"
    with user.terminal(
        "run", "--rm", "-it", "--egress", "allow=198.51.100.7", pulled, "sh", "-c", f"{script}; true", inside=inside
    ) as terminal:  # fmt: skip
        terminal.expect("say it\r\n")
        terminal.send("woodlot\r")
        terminal.expect("24 80\r\ngot woodlot\r\n")
        if inside:
            terminal.expect("world\r\nrefused\r\n.* 1 packets received")
        assert terminal.wait() == 0
    assert user("list", "--all", "--quiet") == ""


def await_line(user: User, line: str, runtime: Path) -> None:
    deadline = time.monotonic() + 60
    while line not in user("logs", "web", runtime=runtime).splitlines():
        assert time.monotonic() < deadline, f"{line!r} does not come"
        time.sleep(0.1)


def test_a_user_has_containers_in_the_background(
    user: User, registry: Registry, runtime_directory: Path
) -> None:
    # Where /dev/kvm can be closed to the user, the container runs all the same.
    group = closed_group(user) if user.become else None
    runtime, image = runtime_directory, registry.reference("python:3.11")
    user("pull", image)
    published, shared = runtime / "published.sock", runtime / "shared"
    shared.mkdir(mode=0o755)
    os.chown(shared, user.uid, -1)
    user(
        "run", "-d", "--name", "web", "--publish-socket", f"{published}:/run/web.sock", "-v", f"{shared}:/srv:watch",
        "-p", "80", "-p", "[::1]::80", "-p", "[::]::53/udp", "--health-cmd", "test -e /srv/page", "--health-interval", "1s",
        "--restart", "on-failure:1", image, "python3", "-c", SERVE,
        runtime=runtime, kvm_group=group,
    )  # fmt: skip
    assert (published.lstat().st_uid, published.lstat().st_mode & 0o777) == (user.uid, 0o600)
    (listed,) = json.loads(user("ls", "--format", "json", runtime=runtime))
    assert (listed["name"], listed["status"]["state"]) == ("web", "running")
    assert group is None or listed["status"]["accelerator"] == "tcg"
    expect_private(runtime / "woodlot", user)
    assert find_sockets(runtime)
    directory = user.data / "containers" / listed["id"]
    expect_private(directory, user)
    assert {path.lstat().st_uid for path in user.data.rglob("*")} == {user.uid}

    # What comes on the host is heard of in the container, and served at every published port.
    await_line(user, "ready", runtime)
    (shared / "page").write_text("from the host")
    await_line(user, "new: page", runtime)
    lines = user("port", "web", runtime=runtime).splitlines()
    shown, addresses = zip(*(line.split(" -> ") for line in lines), strict=True)
    assert shown == ("80/tcp", "80/tcp", "80/tcp", "53/udp")
    assert [address.rpartition(":")[0] for address in addresses] == ["0.0.0.0", "[::]", "[::1]", "[::]"]  # fmt: skip
    for address in addresses[:3]:
        host = address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
        with urllib.request.urlopen(f"http://{host}/page", timeout=10) as response:
            assert response.read() == b"from the host"
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.connect(("::1", int(addresses[3].rpartition(":")[2])))
        client.settimeout(10)
        client.send(b"hello")
        assert client.recv(100) == b"HELLO"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(published))
        client.sendall(b"hello\n")
        assert client.makefile().readline() == "HELLO\n"
    # Copied in and out, and written by the container's root, files are the user's.
    user("cp", str(shared / "page"), "web:/srv/copy", runtime=runtime)
    user("cp", "web:/srv/copy", str(shared / "back"), runtime=runtime)
    assert user("exec", "web", "cat", "/srv/copy", runtime=runtime) == "from the host"
    for name in ("copy", "back"):
        assert (shared / name).read_text() == "from the host"
        assert (shared / name).lstat().st_uid == user.uid

    # It is asked how it is, measured, stopped for a moment, changed, and made an image of.
    events = ["events", "--since", "10m", "--until", "0s"]
    deadline = time.monotonic() + 60
    while "health_status: healthy" not in user(*events, runtime=runtime):
        assert time.monotonic() < deadline, user("inspect", "web", runtime=runtime)
        time.sleep(0.2)
    (measured,) = json.loads(user("stats", "--no-stream", "--format", "json", runtime=runtime))
    assert measured["memoryUsageBytes"] > 1 << 20
    assert "python3" in user("top", "web", runtime=runtime)
    user("pause", "web", runtime=runtime)
    user("unpause", "web", runtime=runtime)
    user("update", "--restart", "no", "web", runtime=runtime)
    script = "import woodlot; print(woodlot.Client().containers.get('web').exec(['cat', '/srv/copy']).stdout)"
    assert user.python(script, runtime=runtime) == "from the host\n"
    user("exec", "web", "touch", "/committed", runtime=runtime)
    committed = user("commit", "web", runtime=runtime).strip()
    assert user("image", "rm", committed, runtime=runtime) == f"<none>@{committed}\n"

    assert user("rm", "-f", "web", runtime=runtime) == "web\n"
    assert not directory.exists()
    assert not published.exists()
    user("image", "rm", image)
    # The switch of the network stays for some seconds, in case another container comes.
    deadline = time.monotonic() + 2 * SETTLE_S
    while find_sockets(runtime):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_users_containers_come_back(user: User, pulled: str, runtime_directory: Path) -> None:
    runtime = runtime_directory
    user("run", "-d", "--name", "again", "--restart", "on-failure:1", pulled, "sh", "-c", "echo up; exit 3", runtime=runtime)  # fmt: skip
    user("run", "-d", "--name", "ever", "--restart", "always", pulled, "sleep", "1000", runtime=runtime)  # fmt: skip

    def states() -> dict[str, str]:
        listed = json.loads(user("ls", "--all", "--format", "json", runtime=runtime))
        return {one["name"]: one["status"]["state"] for one in listed}

    deadline = time.monotonic() + 60
    while states()["again"] != "stopped":
        assert time.monotonic() < deadline, user("inspect", "again", runtime=runtime)
    assert user("logs", "again", runtime=runtime) == "up\nup\n"
    # As after the host was down: nothing runs, and the record says that it did.
    for pid in find_processes(user.data, runtime):
        os.kill(pid, signal.SIGKILL)
    user("system", "resume", runtime=runtime)
    assert states() == {"again": "stopped", "ever": "running"}
    assert user("exec", "ever", "id", "-u", runtime=runtime) == "0\n"
    user("rm", "-f", "again", "ever", runtime=runtime)


def test_nothing_is_left_but_data_and_caches(user: User, pulled: str) -> None:
    assert user("ls", "--all", "--quiet") == ""
    assert list((user.data / "containers").iterdir()) == []
    deadline = time.monotonic() + 2 * SETTLE_S
    while left := list(user.runtime.iterdir()):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert list(user.home.glob(".local/**/.*.tmp")) == []
    if user.become:
        deadline = time.monotonic() + SETTLE_S
        while user.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert user.processes() == []
        assert user.temporary() == {user.runtime}
        given = {path.name for path in Path("/etc/skel").iterdir()}
        assert {path.name for path in user.home.iterdir()} - given == {".local"}
    user("image", "rm", pulled)
    assert user("images", "--quiet") == ""
    assert list((user.data / "rootfs").iterdir()) == []
