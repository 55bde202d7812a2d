"""A world of the tests' own: run in a network namespace, it serves some addresses, ports and names.

198.51.100.0/24 and 2001:db8:7::/64 are all over the world, but 198.51.100.1 is the address of the host's card. To all
other IPv6 there is no way. Everybody may ping. Every line that it prints after the first is a name that somebody asked its
resolver for.
"""

import contextlib
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.programs import require_root

ROOT = Path(__file__).parents[2]

RESOLVER = "198.51.100.53"
SERVERS = {
    ("198.51.100.7", 7000): b"world\n",
    ("198.51.100.8", 7000): b"elsewhere\n",
    ("::", 7000): b"world by IPv6\n",
    ("198.51.100.1", 7001): b"card\n",
    ("127.0.0.1", 7001): b"own\n",
}
NAMES = {
    "world.example": "198.51.100.7",
    "a.sub.example": "198.51.100.8",
    "card.example": "198.51.100.1",
    "own.example": "127.0.0.1",
}
A, AAAA = 1, 28


@contextlib.contextmanager
def world(asked: list[str]) -> Iterator[Sequence[str]]:
    """The world, for the life of the block; what leads a command that is to be run in it."""
    require_root()
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, "-m", "tests.vm.world"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield ["nsenter", f"--net=/proc/{process.pid}/ns/net"]
        finally:
            process.terminate()
            asked += process.stdout.read().splitlines()


# What runs there.


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def serve(address: tuple[str, int], data: bytes) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.create_server(address, family=family) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(data)


def resolve(server: socket.socket) -> None:
    while True:
        query, peer = server.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        (kind,) = struct.unpack_from("!H", query, at + 1)
        name = ".".join(labels)
        say(name)
        address = NAMES.get(name)
        answer = b""
        if address and kind == A:
            answer = b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 60, 4) + socket.inet_aton(address)
        # A response, recursion available; no error, or no such name.
        head = struct.pack("!HHHHH", 0x8180 if address else 0x8183, 1, bool(answer), 0, 0)
        server.sendto(query[:2] + head + query[12 : at + 5] + answer, peer)


def main() -> None:
    for command in (
        "ip link set lo up",
        "ip addr add 198.51.100.1/32 dev lo",
        "ip route add local 198.51.100.0/24 dev lo",
        "ip -6 route add local 2001:db8:7::/64 dev lo",
    ):
        subprocess.run(command.split(), check=True)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
    for address, data in SERVERS.items():
        threading.Thread(target=serve, args=(address, data), daemon=True).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((RESOLVER, 53))
        say("ready")
        resolve(server)


if __name__ == "__main__":
    main()
