"""The test images, made once for each version of the script that makes them."""

import fcntl
import hashlib
import shutil
from pathlib import Path

from tests.images import mkimages

BUILD = Path(__file__).parents[2] / "build"


def ensure_images() -> Path:
    """The OCI image layout with all images; the first call takes a minute or two, needs root and the network."""
    key = hashlib.sha256(Path(mkimages.__file__).read_bytes()).hexdigest()[:12]
    layout = BUILD / "images" / key
    layout.parent.mkdir(parents=True, exist_ok=True)
    with (layout.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layout.exists():
            for old in layout.parent.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            partial = layout.with_suffix(".partial")
            mkimages.make_images(partial)
            partial.rename(layout)
    return layout


if __name__ == "__main__":
    ensure_images()
