"""What shared files cost: `python -m benchmarks.files IMAGE` on an installation that has the image (python:3.11)."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 3
PROGRAM = Path(sys.executable).parent / "container"
SCRIPT = """
import os, time
os.chdir("{where}")
def lap(name, work):
    start = time.monotonic(); work(); print(name, round(time.monotonic() - start, 3))
def create():
    for i in range(500):
        with open(f"f{i}", "wb") as f: f.write(b"x" * 1000)
def stat():
    for i in range(500): os.stat(f"f{i}")
def read():
    for i in range(500): open(f"f{i}", "rb").read()
def remove():
    for i in range(500): os.unlink(f"f{i}")
def write_big():
    with open("big", "wb") as f:
        for _ in range(64): f.write(bytes(1 << 20))
        os.fsync(f.fileno())
def read_big():
    with open("big", "rb") as f:
        while f.read(1 << 20): pass
for name, work in (("create 500 files", create), ("stat them", stat), ("read them", read), ("remove them", remove),
                   ("write 64 MiB, fsync", write_big), ("read 64 MiB", read_big)):
    lap(name, work)
"""


def measure(image: str, *flags: str, where: str) -> dict[str, float]:
    """Seconds of each step, and of the whole run."""
    start = time.monotonic()
    argv = [
        str(PROGRAM),
        "run",
        "--rm",
        *flags,
        image,
        "python3",
        "-c",
        SCRIPT.replace("{where}", where),
    ]
    out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    rows = [line.rsplit(" ", 1) for line in out.splitlines()]
    steps = {name: float(value) for name, value in rows}
    return {**steps, "start and end": time.monotonic() - start - sum(steps.values())}


def main() -> None:
    """Print a table in Markdown: the root filesystem, a directory with and without events, a block volume."""
    image = sys.argv[1]
    kinds = {
        "root filesystem": ([], "/tmp"),
        "directory": (["-v", "DIRECTORY:/s"], "/s"),
        "directory, watch": (["-v", "DIRECTORY:/s:watch"], "/s"),
        "block volume": (["-v", "/s"], "/s"),
    }
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(RUNS):
        for kind, (flags, where) in kinds.items():
            with tempfile.TemporaryDirectory() as directory:
                given = [flag.replace("DIRECTORY", directory) for flag in flags]
                results[kind].append(measure(image, *given, where=where))
    print("|  |", " | ".join(kinds), "|")
    print("| --- |", " | ".join("---" for _ in kinds), "|")
    for step in results["root filesystem"][0]:
        medians = (statistics.median(run[step] for run in runs) for runs in results.values())
        print("|", step, "|", " | ".join(f"{value:.2f}" for value in medians), "|")


if __name__ == "__main__":
    main()
