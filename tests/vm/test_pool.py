"""Containers that get a machine which waited for them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Cli
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

POOL = {"WOODLOT_VM_POOL": "2"}
TAKEN = "goes on with a machine that waited"
TELL = """
cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id
hostname
head -c 16 /dev/urandom | od -An -tx1
ip -o address show eth0
cat /proc/mounts
ps
date +%s
ping -q -c 1 -W 5 "$(ip route | awk '/default/ {print $3}')" >/dev/null && echo answered
exit 7
"""
WAIT_S = 60.0


def members(root: Path) -> list[dict[str, Any]]:
    """Those that are ready."""
    found = [json.loads(path.read_text()) for path in (root / "pool").glob("*/member.json")]
    return [one for one in found if one["pid"]]


def wait_for(container: Cli, number: int) -> None:
    """Until as many wait; the command tells of no event."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if len(members(container.root)) == number:
            break
        time.sleep(0.1)
    log = container.root / "pool/log"
    assert len(members(container.root)) == number, log.read_text()


@pytest.fixture
def drained(container: Cli) -> Iterator[None]:
    """Nobody waits when the test is over, however it ends."""
    yield
    container.ok("system", "template", "prune", "--force")


@pytest.mark.usefixtures("drained")
def test_containers_from_the_pool(container: Cli, registry: Registry, woodlot_root: Path) -> None:
    image = registry.reference("busybox:1.35")
    container.ok("pull", image)
    container.ok("system", "warm", env=POOL)
    wait_for(container, 2)
    status = json.loads(container.ok("system", "status", "--format", "json"))
    assert status["waiting"] == 2

    # Two at once: each has one of its own, and shares nothing with the other.
    def run(name: str) -> list[str]:
        done = container("run", "--name", name, image, "sh", "-c", TELL, env=POOL)
        assert done.returncode == 7, done.stderr
        return done.stdout.splitlines()

    with ThreadPoolExecutor(2) as threads:
        told = list(threads.map(run, ("one", "two")))
    for name, lines in zip(("one", "two"), told, strict=True):
        id_ = container.ok("inspect", name, "--format", "{{.Id}}").strip()
        assert lines[2] == id_[:12]
        assert lines[-1] == "answered"
        assert abs(int(lines[-2]) - time.time()) < WAIT_S
        # Nothing is left of what the machine did before.
        text = "\n".join(lines)
        assert "192.0.2." not in text
        assert "rehearsal" not in text
        directory = woodlot_root / "containers" / id_
        assert TAKEN in (directory / "supervisor.log").read_text()
        assert (directory / "console.log").exists()
    for number, what in enumerate(("uuid", "boot id", "hostname", "random bytes")):
        assert told[0][number] != told[1][number], what

    # Others have come in their places. One that is killed is nobody's.
    wait_for(container, 2)
    for one in members(woodlot_root):
        os.kill(one["pid"], signal.SIGKILL)
    off = {"WOODLOT_VM_POOL": "1", "WOODLOT_VM_POOL_IDLE": "0.01"}
    assert container.ok("run", "--name", "three", image, "echo", "runs", env=off) == "runs\n"
    id_ = container.ok("inspect", "three", "--format", "{{.Id}}").strip()
    assert TAKEN not in (woodlot_root / "containers" / id_ / "supervisor.log").read_text()

    # What came after it finds nobody to wait for, and leaves. What the killed ones had is gone.
    deadline = time.monotonic() + WAIT_S
    while any((woodlot_root / "pool").glob("*/lock")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any((woodlot_root / "pool").glob("*/lock"))
    assert json.loads(container.ok("system", "status", "--format", "json"))["waiting"] == 0
