"""What files cost: root filesystem, shared directory, volumes, beside Docker's in one run.

    python -m benchmarks.files [--runs N]

Prints a table and writes build/bench-files.json. Needs root, as Docker does.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.run import check_machine, describe_machine, open_sides
from tests.images.cache import BUILD

OUTPUT = BUILD / "bench-files.json"
FILES = 500
BIG_MIB = 64
# Each step prints its name and seconds, by the container's own clock.
SCRIPT = f"""
import os, sys, time
os.chdir(sys.argv[1])
def lap(name, work):
    start = time.monotonic(); work(); print(f"{{name}}={{time.monotonic() - start:.4f}}")
def create():
    for i in range({FILES}):
        with open(f"f{{i}}", "wb") as f: f.write(b"x" * 1000)
def stat():
    for i in range({FILES}): os.stat(f"f{{i}}")
def read():
    for i in range({FILES}): open(f"f{{i}}", "rb").read()
def remove():
    for i in range({FILES}): os.unlink(f"f{{i}}")
def write_big():
    with open("big", "wb") as f:
        for _ in range({BIG_MIB}): f.write(bytes(1 << 20))
        os.fsync(f.fileno())
def read_big():
    with open("big", "rb") as f:
        while f.read(1 << 20): pass
lap("create {FILES} files", create)
lap("stat them", stat)
lap("read them", read)
lap("remove them", remove)
lap("write {BIG_MIB} MiB, fsync", write_big)
lap("read {BIG_MIB} MiB", read_big)
os.unlink("big")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the files are: flags of ``run`` on either side; DIRECTORY is one of the host's."""

    name: str
    ours: Sequence[str]
    dockers: Sequence[str]


PLACES = (
    Place(name="root", ours=(), dockers=()),
    Place(name="bind", ours=("-v", "DIRECTORY:/d"), dockers=("-v", "DIRECTORY:/d")),
    Place(name="bind:watch", ours=("-v", "DIRECTORY:/d:watch"), dockers=("-v", "DIRECTORY:/d")),
    Place(name="volume", ours=("-v", "files:/d"), dockers=("-v", "files:/d")),
    Place(name="block", ours=("-v", "blocks:/d"), dockers=("-v", "files:/d")),
)


def main() -> int:
    """Measure, print, write; the exit status."""
    parser = argparse.ArgumentParser(description="Measure what files cost, side by side.")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each side")
    runs: int = parser.parse_args().runs
    if not check_machine():
        return 1
    taken: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with open_sides() as (container, docker, registry):
        image = registry.reference("python:3.11")
        container.ok("pull", image)
        docker("pull", "-q", image)
        container.ok("volume", "create", "--opt", "type=block", "blocks")
        for _ in range(runs):
            for place in PLACES:
                ours = measure(lambda *args: container.ok(*args, timeout_s=600), image, place.ours)
                theirs = measure(
                    lambda *args: docker(*args, timeout_s=600).stdout, image, place.dockers
                )
                steps = taken.setdefault(place.name, {})
                for step, seconds in ours.items():
                    steps.setdefault(step, []).append((seconds, theirs[step]))
        machine = describe_machine(container, docker, registry)
    OUTPUT.write_text(json.dumps({"machine": machine, "seconds": taken}, indent=2) + "\n")
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print("\n".join(render(taken)))
    return 0


def measure(run: Callable[..., str], image: str, flags: Sequence[str]) -> dict[str, float]:
    """Seconds of each step in one container."""
    with tempfile.TemporaryDirectory() as directory:
        given = [flag.replace("DIRECTORY", directory) for flag in flags]
        where = "/d" if flags else "/srv"
        said = run("run", "--rm", *given, image, "python3", "-c", SCRIPT, where)
    pairs = (line.rsplit("=", 1) for line in said.splitlines())
    return {name: float(seconds) for name, seconds in pairs}


def render(taken: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> Iterator[str]:
    """A table in Markdown: for each place our seconds, Docker's, and ours over theirs; medians."""
    yield "| seconds, ours / Docker's = ratio | " + " | ".join(taken) + " |"
    yield "| --- |" + " --- |" * len(taken)
    for step in next(iter(taken.values())):
        cells: list[str] = []
        for steps in taken.values():
            ours, theirs = (statistics.median(side) for side in zip(*steps[step], strict=True))
            cells.append(f"{ours:.2f} / {theirs:.3f} = {ours / theirs:.0f}")
        yield f"| {step} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
