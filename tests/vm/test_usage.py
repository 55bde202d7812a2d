"""What a container uses, and that it can be held, limited and given back."""

import json
import signal
import time

import pytest

from tests.cli import Cli
from tests.registry.server import Registry
from woodlot.units import MIB

pytestmark = pytest.mark.vm


def stats(container: Cli, name: str) -> dict[str, int]:
    [one] = json.loads(container.ok("stats", "--format", "json", name))
    counters: dict[str, int] = one
    return counters


def state(container: Cli, name: str) -> object:
    return json.loads(container.ok("inspect", name))[0]["status"]["state"]


def test_usage(container: Cli, registry: Registry) -> None:
    image = registry.reference("busybox:1.35")
    script = "while :; do :; done & sleep 1000"
    container.ok("run", "-d", "--name", "box", "-m", "700m", image, "sh", "-c", script)
    _, row = container.ok("stats", "--no-stream").splitlines()
    name, percent = row.split()[1:3]
    assert (name, float(percent.rstrip("%")) > 20) == ("box", True)
    with container.terminal("stats", columns=200) as terminal:
        # Each time in the place of the last.
        for _ in range(2):
            terminal.expect(
                r"\x1b\[HCONTAINER ID[^\n]*PIDS\x1b\[K\r\n[^\n]* box [^\n]*%[^\n]*\x1b\[K\r\n\x1b\[J"
            )
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
    rows = [line.split(maxsplit=7) for line in container.ok("top", "box").splitlines()]
    assert rows[0] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [(row[0], row[2], row[7]) for row in rows[1:]] == [
        ("root", "0", "sleep 1000"),
        ("root", "1", f"sh -c {script}"),
    ]

    # One that is paused does nothing, and nothing can be done in it.
    container.ok("pause", "box")
    assert state(container, "box") == "paused"
    refused = container("exec", "box", "true")
    assert (refused.returncode, "container box is paused" in refused.stderr) == (1, True)
    before = stats(container, "box")
    assert stats(container, "box")["cpuUsageUsec"] == before["cpuUsageUsec"]
    container.ok("unpause", "--all")
    assert state(container, "box") == "running"
    assert stats(container, "box")["cpuUsageUsec"] > before["cpuUsageUsec"]
    container.ok("exec", "box", "kill", container.ok("top", "box", "pid").split()[2])

    # What a process frees goes back to the host.
    host = stats(container, "box")["hostMemoryBytes"]
    container.ok("exec", "box", "dd", "if=/dev/zero", "of=/dev/null", "bs=500M", "count=1")
    grown = stats(container, "box")["hostMemoryBytes"]
    assert grown - host > 450 * MIB
    deadline = time.monotonic() + 10
    while grown - stats(container, "box")["hostMemoryBytes"] < 450 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.5)

    container.ok("update", "-m", "100m", "-c", "0.5", "box")
    limits = container.ok(
        "exec", "box", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max"
    )
    assert limits.split() == [str(100 * MIB), "50000", "100000"]
    refused = container("update", "-m", "1g", "box")
    assert "is more than the 768m its virtual machine was started with" in refused.stderr
    container.ok("pause", "box")
    container.ok("kill", "box")
    assert container.ok("wait", "box") == "137\n"
    container.ok("update", "--memory", "1g", "box")
    [inspected] = json.loads(container.ok("inspect", "box"))
    assert inspected["configuration"]["resources"] == {"cpus": 0.5, "memoryInBytes": 1024 * MIB}
