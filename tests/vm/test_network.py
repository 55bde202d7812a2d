"""Containers on networks, end to end: what they reach, what they do not, and what is left afterwards."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.programs import require_root
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

HTTPD = "mkdir -p /www && echo 'hello from '$(hostname) > /www/index.html && exec httpd -f -p 80 -h /www"
# Longer than the switch stays when nobody is attached.
LEAVE_S = 15.0


@pytest.fixture
def busybox(registry: Registry) -> str:
    return registry.reference("busybox:1.35")


def start_httpd(container: Cli, image: str, name: str, *options: str) -> None:
    container.ok("run", "-d", "--name", name, *options, image, "sh", "-c", HTTPD)


def inspect(container: Cli, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(container.ok("inspect", name))[0]
    return found


def wait_until(what: Callable[[], bool], message: str, *, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, message
        time.sleep(0.1)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())


def switches(container: Cli) -> list[int]:
    """Switches of the networks of this installation."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"/woodlot-switch") and os.fsencode(container.root) in b" ".join(
                words
            ):
                found.append(int(process.name))
    return found


@contextlib.contextmanager
def loopback_server() -> Iterator[tuple[int, list[str]]]:
    """A server on the host's loopback, and who came."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, peer = server.accept()
                    came.append(str(peer))
                    with connection:
                        connection.sendall(b"secret\n")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)


def test_containers_find_each_other_by_name_and_the_host_by_its_port(
    container: Cli, busybox: str
) -> None:
    start_httpd(
        container, busybox, "web", "--network", "default,alias=www", "-p", "127.0.0.1::80", "-p", "80", "-p", "[::1]::80",
        "-p", "[::]::53/udp",
    )  # fmt: skip
    script = """
        for name in web www host.docker.internal; do echo "$name: $(nslookup -type=a $name | tail -n 2 | tr '\\n' ' ')"; done
        wget -q -O - http://web/ && wget -q -O - http://www/ && ping -c 1 -W 5 web > /dev/null && echo pinged
        nslookup -type=aaaa host.docker.internal
        nslookup nobody > /dev/null || echo nobody
        cat /etc/resolv.conf /etc/hosts
    """
    done = container.ok("run", "--rm", busybox, "sh", "-c", script)
    assert done.count("hello from ") == 2, done
    for word in (
        "pinged",
        "Address: fd01:4579:e05::fe",
        "nobody",
        "nameserver 10.86.0.1",
        "options ndots:0",
    ):
        assert word in done, done
    # The host comes in through the published ports, of both families.
    lines = container.ok("port", "web").splitlines()
    shown, addresses = zip(*(line.split(" -> ") for line in lines), strict=True)
    assert shown == ("80/tcp", "80/tcp", "80/tcp", "80/tcp", "53/udp")
    places, ports = zip(*(address.rsplit(":", 1) for address in addresses), strict=True)
    assert places == ("127.0.0.1", "0.0.0.0", "[::]", "[::1]", "[::]")
    assert ports[1] == ports[2]
    for host in (addresses[0], f"127.0.0.1:{ports[1]}", f"[::1]:{ports[2]}", addresses[3]):
        assert "hello from " in fetch(f"http://{host}/")
    status = inspect(container, "web")["status"]
    assert isinstance(status, dict)
    assert [port["host_ip"] for port in status["publishedPorts"]] == [
        "127.0.0.1", "0.0.0.0", "::", "::1", "::",
    ]  # fmt: skip
    # And with the last container the switch goes, and its socket and ports with it.
    assert len(switches(container)) == 1
    container.ok("rm", "-f", "web")
    wait_until(lambda: not switches(container), "the switch stays", timeout_s=LEAVE_S)
    assert not list(container.runtime.rglob("*.sock"))
    for address in (addresses[0], addresses[3]):
        with pytest.raises(urllib.error.URLError):
            fetch(f"http://{address}/")


def test_the_hosts_loopback_is_reached_only_where_the_user_says_so(
    container: Cli, busybox: str
) -> None:
    with loopback_server() as (port, came):
        script = f"""
            for host in 127.0.0.1 10.86.0.1 10.86.0.254 fd01:4579:e05::fe 10.0.2.2 0.0.0.0 host.docker.internal; do
                echo "$host: $(nc -w 3 $host {port} < /dev/null 2>&1)"
            done
            ip route add 127.9.9.9 via 10.86.0.1 2> /dev/null
            nc -w 3 127.9.9.9 {port} < /dev/null
            true
        """
        done = container.ok("run", "--rm", "--cap-add", "NET_ADMIN", busybox, "sh", "-c", script)
        assert "secret" not in done, done
        assert not came
        # A port that the user gives.
        asked = f"nc -w 5 host.docker.internal {port} < /dev/null; nc -w 5 fd01:4579:e05::fe {port} < /dev/null"
        given = {"WOODLOT_NETWORK_HOST_PORTS": str(port)}
        done = container.ok("run", "--rm", busybox, "sh", "-c", asked, env=given)
        assert done == "secret\n" * 2


def test_a_busy_port_is_told_before_the_machine_starts(container: Cli, busybox: str) -> None:
    container.ok("pull", busybox)
    for family, address, wanted, said in (
        (socket.AF_INET, "127.0.0.1", "127.0.0.1:", "127.0.0.1"),
        (socket.AF_INET6, "::1", "", "*"),
    ):
        with socket.create_server((address, 0), family=family) as server:
            port = server.getsockname()[1]
            refused = container(
                "run", "--name", "late", "-p", f"{wanted}{port}:80", busybox, "true"
            )
        assert refused.returncode == 125
        assert f"port {said}:{port}/tcp of the host is in use" in refused.stderr
        assert "hint: publish another port" in refused.stderr
    # No machine, no record, and the name is free.
    assert json.loads(container.ok("list", "--all", "--format", "json")) == []
    wait_until(lambda: not switches(container), "the switch stays", timeout_s=LEAVE_S)


def test_a_switch_that_dies_is_told_and_nothing_hangs(container: Cli, busybox: str) -> None:
    container.ok("run", "-d", "--name", "cut", busybox, "sleep", "300")
    [switch] = switches(container)
    os.kill(switch, signal.SIGKILL)

    def lost() -> object:
        status = inspect(container, "cut")["status"]
        assert isinstance(status, dict)
        assert status["state"] == "running"
        return status.get("networkLost")

    wait_until(lambda: bool(lost()), "nobody says that the network is lost")
    assert "network default is lost: its switch ended" in str(lost())
    log = next((container.root / "containers").iterdir()) / "supervisor.log"
    assert "network default is lost" in log.read_text()
    # The next container has a network again, with a switch of its own.
    assert "10.86.0." in container.ok("run", "--rm", busybox, "ip", "-4", "addr", "show", "eth0")
    container.ok("rm", "-f", "cut")


def test_networks_are_apart_and_an_internal_one_has_no_way_out(
    container: Cli, busybox: str
) -> None:
    container.ok("network", "create", "back", "--internal")
    container.ok("network", "create", "front")
    try:
        start_httpd(container, busybox, "db", "--network", "back")
        start_httpd(
            container, busybox, "app", "--network", "front", "--network", "back,alias=app-back"
        )
        # In both: names of both, a route out by the first one.
        script = """
            ip -4 route
            for name in db app app-back host.container.internal; do
                nslookup -type=a $name > /dev/null && echo "$name is known"
            done
            wget -q -O - http://db/
        """
        both = container.ok(
            "run", "--rm", "--network", "back", "--network", "front", busybox, "sh", "-c", script
        )
        assert "default via 10.86.2.1 dev eth1" in both
        for said in ("db is known", "app is known", "app-back is known", "hello from "):
            assert said in both, both
        # In one: nothing of the other, neither by name nor by address, and no way out.
        script = """
            ip -4 route
            nslookup -type=a app-back && echo "a name of the other network"
            nslookup -type=a example.com && echo "a name of the world"
            ip route add default via 10.86.1.1
            for address in 10.86.2.2 10.86.0.1 192.0.2.2; do
                ping -c 1 -W 2 $address > /dev/null && echo "$address answers a ping"
                nc -w 2 $address 80 < /dev/null && echo "$address answers"
            done
            true
        """
        front = container.ok(
            "run", "--rm", "--network", "back", "--cap-add", "NET_ADMIN", busybox, "sh", "-c",
            script.replace("app-back", "front-only"),
        )  # fmt: skip
        assert "default via" not in front
        for said in ("a name of", "answers"):
            assert said not in front, front
        refused = container("network", "delete", "back")
        assert refused.returncode == 1
        assert "network back is in use by app, db" in refused.stderr
    finally:
        container("rm", "-f", "db", "app")
        container.ok("network", "prune")
    wait_until(lambda: not switches(container), "a switch stays", timeout_s=LEAVE_S)
    assert container.ok("network", "list", "--quiet") == "default\n"


def test_nginx_is_published_and_listed(container: Cli, registry: Registry) -> None:
    image = registry.reference("nginx:1.22")
    container.ok("run", "-d", "--name", "nginx", "-p", "127.0.0.1::80", image)
    [line] = container.ok("port", "nginx").splitlines()
    assert line.startswith("80/tcp -> 127.0.0.1:")
    address = container.ok("port", "nginx", "80").strip()

    def answers() -> bool:
        try:
            return "nginx" in fetch(f"http://{address}/")
        except OSError:
            return False

    wait_until(answers, "nginx does not answer")
    assert container("port", "nginx", "81").returncode == 1


def namespaces(pid: int) -> set[str]:
    """Network namespaces that a process's threads are in."""
    return {str((thread / "ns/net").readlink()) for thread in Path(f"/proc/{pid}/task").iterdir()}


def test_the_kernel_carries_frames_with_the_same_promises(container: Cli, busybox: str) -> None:
    """Two networks of the driver bridge, the second one internal."""
    require_root()
    own = str(Path("/proc/self/ns/net").readlink())
    container.ok("network", "create", "fast", "--driver", "bridge")
    container.ok("network", "create", "shut", "--driver", "bridge", "--internal")
    try:
        start_httpd(
            container, busybox, "web", "--network", "fast", "--network", "shut,alias=www", "-p", "80", "-p", "[::1]::80",
        )  # fmt: skip
        container.ok("exec", "web", "sh", "-c", "head -c 2000000 /dev/urandom > /www/large")
        digest = container.ok("exec", "web", "sha256sum", "/www/large").split()[0]
        with loopback_server() as (port, came):
            script = f"""
                wget -q -O - http://web/ && wget -q -O - http://www/large | sha256sum
                nslookup -type=a example.com || echo no name of the world
                for host in $(nslookup -type=aaaa host.docker.internal | sed -n 's/^Address: //p') host.docker.internal; do
                    nc -w 5 $host {port} < /dev/null && ping -c 1 -W 5 $host > /dev/null && echo "$host is there"
                done
                ip route add default via $(sed -n 's/nameserver //p' /etc/resolv.conf)
                for address in 127.9.9.9 169.254.169.254 192.0.2.2; do
                    nc -w 2 $address {port} < /dev/null && echo "$address answers"
                done
                address=$(nslookup -type=a web | sed -n 's/^Address: //p')
                ping -c 1 -W 5 $address > /dev/null && echo pinged as itself
                ip addr add ${{address%.*}}.99/24 dev eth0
                ping -c 1 -W 2 -I ${{address%.*}}.99 $address > /dev/null && echo pinged as another
                ip link set eth0 down && ip link set eth0 address 02:00:00:00:00:99 && ip link set eth0 up
                ping -c 1 -W 2 $address > /dev/null && echo pinged with another card
                true
            """
            done = container.ok(
                "run", "--rm", "--network", "shut", "--cap-add", "NET_ADMIN", busybox, "sh", "-c", script,
                env={"WOODLOT_NETWORK_HOST_PORTS": str(port)},
            )  # fmt: skip
        for said in ("hello from ", digest, "no name of the world", "::fe is there", "itself"):
            assert said in done, done
        for said in ("answers", "as another", "another card"):
            assert said not in done, done
        assert len(came) == done.count("secret") == 2
        # The host comes in through the published port; what is large is whole.
        status = inspect(container, "web")["status"]
        assert isinstance(status, dict)
        ports = [port["host_port"] for port in status["publishedPorts"]]
        for host in (f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}", f"[::1]:{ports[2]}"):
            with urllib.request.urlopen(f"http://{host}/large") as response:
                assert hashlib.sha256(response.read()).hexdigest() == digest
        # Nothing of it is the host's, and nothing is left.
        assert not {path.name for path in Path("/sys/class/net").iterdir()} & {"gateway", "vm0"}
        running = switches(container)
        assert len(running) == 2
        assert all(len(namespaces(pid) - {own}) == 1 for pid in running)
        os.kill(running[0], signal.SIGKILL)
    finally:
        container("rm", "-f", "web")
        wait_until(lambda: not switches(container), "a switch stays", timeout_s=LEAVE_S)
        container.ok("network", "prune")


def test_what_the_guest_is_told(container: Cli, busybox: str) -> None:
    done = container.ok(
        "run", "--rm", "--hostname", "box.example", "--network", "default,ip=10.86.0.77,mac=02:00:00:00:00:07",
        "--add-host", "db:192.0.2.7", "--add-host", "me=host-gateway", "--dns", "192.0.2.53",
        "--dns-search", "corp.example", "--dns-option", "ndots:2", busybox,
        "sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf; ip addr show eth0",
    )  # fmt: skip
    for line in (
        "box.example",
        "192.0.2.7\tdb",
        "10.86.0.254\tme",
        "10.86.0.77\tbox.example",
        "nameserver 10.86.0.1\nsearch corp.example\noptions ndots:2\n",
        "link/ether 02:00:00:00:00:07",
        "inet 10.86.0.77/24",
    ):
        assert line in done, done
