"""Measures `container` beside Docker: the same images, the same machine, turn by turn in one run.

    python -m benchmarks.run [--runs N]

Prints a table and writes build/bench.json. Needs root: the Docker engine is one of its own, with its data beside ours.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cli import Cli
from tests.images.cache import BUILD, ensure_images
from tests.peer import Docker, run_docker
from tests.registry.push import push_layout
from tests.registry.server import Registry, serve_registry
from woodlot.paths import find_paths

OUTPUT = BUILD / "bench.json"
AT_ONCE = 20
POOL = {"WOODLOT_VM_POOL": "1"}
POOL_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something both sides can do; only ``woodlot`` and ``docker`` are timed."""

    name: str
    woodlot: Callable[[], object]
    docker: Callable[[], object]
    before: Callable[[], object] = lambda: None
    """Done before each turn, untimed."""
    after: Callable[[], object] = lambda: None
    """Done once, after the last turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Times of one task, in seconds, in the order they were taken."""

    task: str
    woodlot_s: Sequence[float]
    docker_s: Sequence[float]

    @property
    def medians_s(self) -> tuple[float, float]:
        """Ours and Docker's."""
        return statistics.median(self.woodlot_s), statistics.median(self.docker_s)

    @property
    def ratio(self) -> float:
        """Ours over Docker's: below 1, we are quicker."""
        ours, theirs = self.medians_s
        return ours / theirs


def main() -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(description="Measure woodlot against Docker, side by side.")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="runs of each side")
    runs: int = parser.parse_args().runs
    if not check_machine():
        return 1
    with open_sides() as (container, docker, registry):
        results = [measure(task, runs) for task in make_tasks(container, docker, registry)]
        machine = describe_machine(container, docker, registry)
    OUTPUT.write_text(json.dumps(build_report(machine, results), indent=2) + "\n")
    print("\n".join(render(machine, results)))
    return 0


def check_machine() -> bool:
    """Whether everything is here; what is not is said."""
    programs = ("docker-registry", "dockerd", "iptables")
    missing = [name for name in programs if not shutil.which(name)]
    if os.geteuid() != 0:
        missing.insert(0, "root's rights")
    if missing:
        print(f"error: measuring needs {', '.join(missing)}", file=sys.stderr)
    return not missing


@contextmanager
def open_sides() -> Iterator[tuple[Cli, Docker, Registry]]:
    """Both sides with empty stores on one filesystem, and the registry they pull from.

    Ours has the kernels of whoever measures; `make kernel` adds our own, which then is used.
    """
    base = BUILD / "bench"
    shutil.rmtree(base / "run", ignore_errors=True)
    kernels = find_paths().kernels
    kernels.mkdir(parents=True, exist_ok=True)
    root = base / "run/woodlot"
    root.mkdir(parents=True)
    (root / "kernels").symlink_to(kernels)
    with ExitStack() as stack:
        runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wl-")))
        registry = stack.enter_context(serve_registry(base / "run/registry"))
        push_layout(ensure_images(), registry.endpoint, names=["busybox:1.35", "python:3.11"])
        docker = stack.enter_context(run_docker(base / "run/docker", network=True))
        container = Cli(root=root, home=base / "run", runtime=runtime)
        stack.callback(container, "delete", "--all", "--force")
        yield container, docker, registry
    shutil.rmtree(base / "run", ignore_errors=True)


def make_tasks(container: Cli, docker: Docker, registry: Registry) -> list[Task]:
    """What is measured, in order."""
    busybox = registry.reference("busybox:1.35")
    python = registry.reference("python:3.11")
    container.ok("pull", busybox)
    docker("pull", "-q", busybox)

    base = BUILD / "bench/run/share"
    base.mkdir()
    # Ended with everything else on their sides.
    for side in (container, docker):
        side("run", "-d", "--name", "idle", busybox, "sleep", "100000")

    share = f"{base}:/s"

    def forget_python() -> None:
        container("image", "delete", python)
        docker("image", "rm", "-f", python, check=False)

    return [
        Task(
            name="run --rm busybox:1.35 true",
            woodlot=lambda: container.ok("run", "--rm", busybox, "true"),
            docker=lambda: docker("run", "--rm", busybox, "true"),
        ),
        Task(
            name="the same, from the pool",
            woodlot=lambda: container.ok("run", "--rm", busybox, "true", env=POOL),
            docker=lambda: docker("run", "--rm", busybox, "true"),
            before=lambda: fill_pool(container),
            after=lambda: container.ok("system", "template", "prune", "--force"),
        ),
        Task(
            name="the same with -v DIRECTORY:/s",
            woodlot=lambda: container.ok("run", "--rm", "-v", share, busybox, "true"),
            docker=lambda: docker("run", "--rm", "-v", share, busybox, "true"),
        ),
        Task(
            name="the same with -p 127.0.0.1::80",
            woodlot=lambda: container.ok("run", "--rm", "-p", "127.0.0.1::80", busybox, "true"),
            docker=lambda: docker("run", "--rm", "-p", "127.0.0.1::80", busybox, "true"),
        ),
        Task(
            name=f"{AT_ONCE} at once, until all answer",
            woodlot=lambda: start_many(container.ok, busybox),
            docker=lambda: start_many(docker, busybox),
            before=lambda: end_many(container, docker),
        ),
        Task(
            name="exec IDLE true",
            woodlot=lambda: container.ok("exec", "idle", "true"),
            docker=lambda: docker("exec", "idle", "true"),
        ),
        Task(
            name="list, one runs",
            woodlot=lambda: container.ok("list"),
            docker=lambda: docker("ps"),
        ),
        Task(
            name="pull and unpack python:3.11",
            woodlot=lambda: container.ok("pull", python),
            docker=lambda: docker("pull", "-q", python),
            before=forget_python,
        ),
        Task(
            name="run --rm python:3.11 python3 -c pass",
            woodlot=lambda: container.ok("run", "--rm", python, "python3", "-c", "pass"),
            docker=lambda: docker("run", "--rm", python, "python3", "-c", "pass"),
        ),
    ]


def fill_pool(container: Cli) -> None:
    """Return when a machine waits, and nothing else is on its way."""
    container.ok("system", "warm", env=POOL)
    deadline = time.monotonic() + POOL_TIMEOUT_S
    while json.loads(container.ok("system", "status", "--format", "json"))["waiting"] == 0:
        if time.monotonic() > deadline:
            raise TimeoutError((container.root / "pool/log").read_text())
        time.sleep(0.1)


def start_many(side: Callable[..., object], image: str) -> None:
    """Start containers in the background, all at once, and return when a process has run in each."""

    def start(number: int) -> None:
        side("run", "-d", "--name", f"many{number}", image, "sleep", "100000")
        side("exec", f"many{number}", "true")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(start, range(AT_ONCE)))


def end_many(container: Cli, docker: Docker) -> None:
    """Delete what `start_many` made, on both sides."""
    names = [f"many{number}" for number in range(AT_ONCE)]
    container("delete", "--force", *names)
    docker("rm", "-f", *names, check=False)


def measure(task: Task, runs: int) -> Result:
    """Take turns, ours first, after a turn of each that does not count."""
    sides = (task.woodlot, task.docker)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        task.before()
        for side, taken in zip(sides, times, strict=True):
            started = time.perf_counter()
            side()
            if turn:
                taken.append(time.perf_counter() - started)
    task.after()
    return Result(task=task.name, woodlot_s=times[0], docker_s=times[1])


def describe_machine(container: Cli, docker: Docker, registry: Registry) -> dict[str, str]:
    """What the figures depend on."""
    busybox = registry.reference("busybox:1.35")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "cpus": str(os.cpu_count()),
        "host kernel": platform.release(),
        "guest kernel": container.ok("run", "--rm", busybox, "uname", "-r").strip(),
        "/dev/kvm": "opens" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "does not open",
        "docker": docker("version", "--format", "{{.Server.Version}}").stdout.strip(),
        "commit": commit.stdout.strip(),
    }


def build_report(machine: dict[str, str], results: Sequence[Result]) -> dict[str, object]:
    """The content of build/bench.json."""
    tasks = [
        {**asdict(result), "medians_s": result.medians_s, "ratio": result.ratio}
        for result in results
    ]
    return {"machine": machine, "tasks": tasks}


def render(machine: dict[str, str], results: Sequence[Result]) -> Iterator[str]:
    """The table: medians, and ours over Docker's."""
    yield ", ".join(f"{name} {value}" for name, value in machine.items())
    yield ""
    yield f"{'median of ' + str(len(results[0].woodlot_s)):30}{'woodlot':>10}{'docker':>10}{'ratio':>8}"
    for result in results:
        ours, theirs = result.medians_s
        yield f"{result.task:30}{ours:8.2f} s{theirs:8.2f} s{result.ratio:8.2f}"


if __name__ == "__main__":
    sys.exit(main())
