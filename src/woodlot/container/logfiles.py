"""What a machine's programs write beside the container, kept small: a guest has a say in how much that is."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from woodlot.inotify import Inotify, Mask

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20
# What is said first, at boot, explains most.
KEPT_BYTES = 128 << 10
# Between one look and the next, however often somebody writes.
_PAUSE_S = 0.5
# The container's own output, which is rotated.
_NOT_OURS = "stdio.log"


@contextmanager
def kept_small(directory: Path) -> Generator[None]:
    """During the block, cut the logs in a directory to their beginning whenever they have grown beyond `MAX_BYTES`.

    Their writers append, so what comes next follows where the log was cut.
    """
    loop = asyncio.get_running_loop()
    watching = Inotify()
    pending: asyncio.TimerHandle | None = None
    logs = [path for path in directory.glob("*.log") if path.name != _NOT_OURS]

    def look() -> None:
        nonlocal pending
        watching.read()
        for path in logs:
            _cut(path)
        loop.remove_reader(watching.fd)
        pending = loop.call_later(_PAUSE_S, listen)

    def listen() -> None:
        loop.add_reader(watching.fd, look)

    try:
        for path in logs:
            # No watches left: the logs are cut when the container starts again.
            with contextlib.suppress(OSError):
                watching.add_file(path, Mask.MODIFY)
        listen()
        yield
    finally:
        loop.remove_reader(watching.fd)
        if pending is not None:
            pending.cancel()
        watching.close()


def _cut(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size > MAX_BYTES:
            os.truncate(path, KEPT_BYTES)
            log.warning("%s was cut: it had more than %d bytes", path.name, MAX_BYTES)
