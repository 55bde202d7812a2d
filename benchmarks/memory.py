"""What one more idle container costs the host's memory, with each guest kernel that is here.

    python -m benchmarks.memory [--containers N]

Prints a table and writes build/bench-memory.json. The proportional set size (PSS) of a process counts what it shares
with others in equal parts, so sums over processes count nothing twice; a switch and a template's memory are in them.
"""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cli import Cli
from tests.images.cache import BUILD, ensure_images
from tests.leaks import find_processes
from tests.registry.push import push_layout
from tests.registry.server import serve_registry
from woodlot.paths import find_paths
from woodlot.units import MIB

OUTPUT = BUILD / "bench-memory.json"
MEMORY = "128m"
# Until a guest has given back what it needed to start.
SETTLE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Bytes, by what the processes are, with one container and with more."""

    kernel: str
    containers: int
    first: Mapping[str, int]
    all: Mapping[str, int]

    def further(self, kind: str) -> float:
        """MiB that a container beyond the first adds."""
        added = self.all.get(kind, 0) - self.first.get(kind, 0)
        return added / (self.containers - 1) / MIB


def main() -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(description="Measure what an idle container costs.")
    parser.add_argument("--containers", type=int, default=5, metavar="N", help="two or more")
    containers: int = parser.parse_args().containers
    kernels = find_paths().kernels
    names = sorted(path.parent.name for path in kernels.glob("*/manifest.json"))
    if not names:
        print("error: no kernel is here yet: container system kernel set --recommended", file=sys.stderr)  # fmt: skip
        return 1
    results = [measure(kernels / name, containers) for name in names]
    machine = {"host kernel": platform.release(), "memory of a container": MEMORY}
    report = {"machine": machine, "kernels": [asdict(result) for result in results]}
    OUTPUT.write_text(json.dumps(report, indent=2) + "\n")
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print("\n".join(render(results)))
    return 0


def measure(kernel: Path, containers: int) -> Result:
    """Start them one after the other, and sum up twice."""
    with open_side(kernel) as (container, image):
        sums: list[dict[str, int]] = []
        for number in range(containers):
            name = f"idle{number}"
            container.ok("run", "-d", "-m", MEMORY, "--name", name, image, "sleep", "100000")
            container.ok("exec", name, "true")
            if number in {0, containers - 1}:
                time.sleep(SETTLE_S)
                sums.append(sum_up(container))
    return Result(kernel=kernel.name, containers=containers, first=sums[0], all=sums[1])


@contextmanager
def open_side(kernel: Path) -> Iterator[tuple[Cli, str]]:
    """A root of its own that knows one kernel, and an image in it."""
    base = BUILD / "bench/memory"
    shutil.rmtree(base, ignore_errors=True)
    (base / "root/kernels").mkdir(parents=True)
    (base / "root/kernels" / kernel.name).symlink_to(kernel)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wl-")))
        registry = stack.enter_context(serve_registry(base / "registry"))
        push_layout(ensure_images(), registry.endpoint, names=["busybox:1.35"])
        container = Cli(root=base / "root", home=base, runtime=runtime)
        stack.callback(container, "delete", "--all", "--force")
        image = registry.reference("busybox:1.35")
        container.ok("pull", image)
        yield container, image


def sum_up(container: Cli) -> dict[str, int]:
    """PSS of all processes of the root, by what they are."""
    sums: dict[str, int] = {}
    for pid, command in find_processes(container.root, container.runtime).items():
        if "docker-registry" in command:
            continue
        kind = next((name for name in ("qemu", "switch") if name in command), "supervisor")
        sums[kind] = sums.get(kind, 0) + pss(pid)
    return sums


def pss(pid: int) -> int:
    """Bytes (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * 1024
    raise ValueError(f"process {pid} has no Pss")


def render(results: Sequence[Result]) -> Iterator[str]:
    """A table in Markdown: MiB for each further container."""
    kinds = ("qemu", "supervisor", "switch")
    yield "| MiB for each further container | " + " | ".join(kinds) + " | together |"
    yield "| --- |" + " --- |" * (len(kinds) + 1)
    for result in results:
        cells = [result.further(kind) for kind in kinds]
        shown = " | ".join(f"{cell:.0f}" for cell in [*cells, sum(cells)])
        yield f"| {result.kernel} | {shown} |"


if __name__ == "__main__":
    sys.exit(main())
