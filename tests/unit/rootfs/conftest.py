"""Building an image from tars, and reading it back."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.rootfs.erofs_reader import Image, Seen
from tests.unit.rootfs.tars import LIMITS, write_layer
from woodlot.progress import NoProgress
from woodlot.rootfs.build import BuildLimits, build_rootfs

Merge = Callable[..., "dict[bytes, Seen]"]


@pytest.fixture
async def merge(tmp_path: Path) -> Merge:
    """Layers' tars, base first, to the tree read back from their image, every path but the root's."""

    async def run(
        *tars: bytes, limits: BuildLimits = LIMITS, fsck: bool = True
    ) -> dict[bytes, Seen]:
        blobs = tmp_path / "blobs"
        blobs.mkdir(exist_ok=True)
        out = tmp_path / "out" / "image.erofs"
        layers = [write_layer(blobs, tar) for tar in tars]
        info = await build_rootfs(layers, out, limits=limits, progress=NoProgress())
        image = Image(info.path)
        tree = image.tree()
        assert info.size_bytes == out.stat().st_size
        assert info.entries == image.inodes
        if fsck:
            check_image(out)
        return tree

    return run  # type: ignore[return-value]


def check_image(path: Path) -> None:
    """Let fsck.erofs, if it is there, read the whole image."""
    fsck = shutil.which("fsck.erofs")
    if fsck:
        done = subprocess.run(
            [fsck, "--extract", path], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
