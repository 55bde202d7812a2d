"""How long a root filesystem takes: ``python -m tests.integration.rootfs.measure LAYOUT NAME [RUNS]``.

LAYOUT is an OCI image layout (a directory), NAME the ``org.opencontainers.image.ref.name`` of one of its images.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from woodlot.progress import NoProgress
from woodlot.rootfs.build import BuildLimits, LayerSource, build_rootfs
from woodlot.units import GIB, MIB

LIMITS = BuildLimits(max_bytes=64 * GIB, max_ratio=1000, max_entries=4_000_000)


def find_layers(layout: Path, name: str) -> list[LayerSource]:
    """The layers of an image, base first."""

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    def load(path: Path) -> Any:
        return json.loads(path.read_text())

    index = load(layout / "index.json")
    key = "org.opencontainers.image.ref.name"
    found = next(m for m in index["manifests"] if m["annotations"][key] == name)
    manifest = load(blob(found["digest"]))
    if "manifests" in manifest:
        manifest = load(blob(manifest["manifests"][0]["digest"]))
    diff_ids = load(blob(manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    return [
        LayerSource(
            path=blob(layer["digest"]),
            media_type=layer["mediaType"],
            digest=layer["digest"],
            diff_id=diff_id,
        )
        for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True)
    ]


def main(layout: str, name: str, runs: str = "5") -> None:
    """Build the image a few times and tell the best."""
    layers = find_layers(Path(layout), name)
    with tempfile.TemporaryDirectory() as scratch:
        walls: list[float] = []
        cpus: list[float] = []
        for _ in range(int(runs)):
            wall, cpu = time.monotonic(), time.process_time()
            work = build_rootfs(
                layers, Path(scratch) / "image", limits=LIMITS, progress=NoProgress()
            )
            info = asyncio.run(work)
            walls.append(time.monotonic() - wall)
            cpus.append(time.process_time() - cpu)
    compressed = sum(layer.path.stat().st_size for layer in layers)
    size = info.size_bytes
    sys.stdout.write(
        f"{name}: {compressed / MIB:.0f} MiB compressed -> {size / MIB:.0f} MiB, {info.entries} inodes\n"
        f"best of {runs}: {min(walls):.2f} s, {min(cpus):.2f} s of CPU on {os.cpu_count()} cores, "
        f"{size / 1e6 / min(walls):.0f} MB/s; load {os.getloadavg()[0]:.1f}\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
