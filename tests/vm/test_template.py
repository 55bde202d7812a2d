"""Containers that go on where a saved machine stood."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

CLONES = int(os.environ.get("WOODLOT_TEST_CLONES", "8"))

# What two machines that stood at the same place would say alike. The sequence number is that of a connection to
# itself, seen on the wire.
TELL = """
import json, os, socket, struct, threading
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("lo", 0))
server = socket.socket(); server.bind(("127.0.0.1", 8000)); server.listen()
client = socket.socket(); client.connect(("127.0.0.1", 8000))
while True:
    frame = wire.recv(2048)
    ip = frame[14:]
    if ip[9] == 6 and ip[33] == 2:
        break
def read(path):
    return open("/proc/sys/kernel/random/" + path).read().strip()
print(json.dumps({
    "random": os.getrandom(32).hex(),
    "urandom": open("/dev/urandom", "rb").read(32).hex(),
    "uuid": read("uuid"), "boot_id": read("boot_id"),
    "port": client.getsockname()[1], "sequence": struct.unpack("!I", ip[24:28])[0],
    "stack": id(object()), "hostname": socket.gethostname(),
    "mac": open("/sys/class/net/eth0/address").read().strip(),
    "time": __import__("time").time(),
}))
"""


def test_clones_are_no_twins(container: Cli, registry: Registry) -> None:
    image = registry.reference("python:3.11")
    container.ok("pull", image)

    def start(number: int) -> dict[str, object]:
        said = container.ok("run", "--rm", "--name", f"clone{number}", image, "python3", "-c", TELL)
        told: dict[str, object] = json.loads(said)
        return told

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(start, range(CLONES)))
    for what in ("random", "urandom", "uuid", "boot_id", "sequence", "stack", "hostname", "mac"):
        assert len({one[what] for one in told}) == CLONES, what
    # Two may meet among 28,000 ports; all do not, nor do they follow each other.
    ports = sorted(int(str(one["port"])) for one in told)
    assert len(set(ports)) >= CLONES - CLONES // 8
    assert ports[-1] - ports[0] > 4 * CLONES


def spoil_state(directory: Path) -> None:
    """Damage that the manifest does not know of: QEMU itself has to notice."""
    state = directory / "state"
    state.write_bytes(b"\0" * 4096 + state.read_bytes()[4096:])
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["state"] = hashlib.sha256(state.read_bytes()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))


def spoil_memory(directory: Path) -> None:
    """A guest that cannot go on: its memory is gone."""
    memory = directory / "memory"
    size = memory.stat().st_size
    os.truncate(memory, 0)
    os.truncate(memory, size)
    status = memory.stat()
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["memory"] = [status.st_size, status.st_ino, status.st_mtime_ns]
    (directory / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("spoil", [spoil_state, spoil_memory])
def test_a_template_that_does_not_work_is_no_failure(
    container: Cli, registry: Registry, woodlot_root: Path, spoil: object
) -> None:
    image = registry.reference("busybox:1.35")
    container.ok("pull", image)
    container.ok("system", "warm")
    templates = woodlot_root / "templates"
    for one in container.ok("system", "template", "list", "-q").split():
        spoil(templates / one)  # type: ignore[operator]
    assert container.ok("run", "--name", "spoiled", image, "echo", "runs") == "runs\n"
    log = (woodlot_root / "containers").glob("*/supervisor.log")
    assert any("booting, since a template does not work" in path.read_text() for path in log)
    # And the next one has a good one again.
    assert container.ok("run", "--rm", image, "echo", "runs") == "runs\n"


def test_cold_boot_stays_available(container: Cli, registry: Registry, woodlot_root: Path) -> None:
    image = registry.reference("busybox:1.35")
    container.ok("pull", image)
    container.ok("system", "template", "prune", "--all")
    said = container.ok(
        "run", "--rm", image, "cat", "/proc/uptime", env={"WOODLOT_VM_BOOT": "cold"}
    )
    assert float(said.split()[0]) < 60
    assert container.ok("system", "template", "list", "-q") == ""
