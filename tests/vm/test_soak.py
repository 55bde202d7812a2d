"""Many containers, one after the other and together, leave nothing behind.

``WOODLOT_TEST_SOAK=50`` runs that many of each, ``WOODLOT_TEST_CYCLES=1000`` so many run, stop, rm; the defaults are a sample.
"""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli import Cli
from tests.leaks import find_processes
from tests.registry.server import Registry

pytestmark = pytest.mark.vm

TIMES = int(os.environ.get("WOODLOT_TEST_SOAK", "6"))
AT_ONCE = 4
CYCLES = int(os.environ.get("WOODLOT_TEST_CYCLES", "8"))
CYCLES_AT_ONCE = 8


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if not path.name.startswith("woodlot.db-")}


def test_many_runs_leave_nothing(container: Cli, registry: Registry) -> None:
    reference = registry.reference("busybox:1.35")
    container.ok("run", "--rm", reference, "true")  # fetches and unpacks
    settle(container)
    before = files(container.root), files(container.runtime)

    def run(index: int) -> str:
        return container.ok("run", "--rm", reference, "echo", f"{index}", timeout_s=300).strip()

    for index in range(TIMES):
        assert run(index) == f"{index}"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert list(pool.map(run, range(TIMES))) == [f"{index}" for index in range(TIMES)]
    assert container.ok("list", "--all", "--quiet") == ""
    settle(container)
    assert (files(container.root), files(container.runtime)) == before


def test_many_lives_leave_nothing(container: Cli, registry: Registry) -> None:
    reference = registry.reference("busybox:1.35")
    container.ok("run", "-d", "--name", "first", reference, "sleep", "1000")
    container.ok("rm", "-f", "first")
    settle(container)
    before = files(container.root), files(container.runtime)

    def live(index: int) -> float:
        began = time.monotonic()
        name = f"c{index}"
        container.ok("run", "-d", "--name", name, reference, "sleep", "1000", timeout_s=300)
        container.ok("stop", "-t", "0", name)
        container.ok("rm", name)
        return time.monotonic() - began

    with ThreadPoolExecutor(CYCLES_AT_ONCE) as pool:
        times = list(pool.map(live, range(CYCLES)))
    assert max(times) < 10 * statistics.median(times)
    assert container.ok("list", "--all", "--quiet") == ""
    settle(container)
    assert (files(container.root), files(container.runtime)) == before


def settle(container: Cli) -> None:
    """No process is left, after the seconds for which the switch of a network waits for another container."""
    deadline = time.monotonic() + 10
    while left := find_processes(container.root, container.runtime):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
