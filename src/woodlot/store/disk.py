"""What a full or failing disk means, and making a rename last."""

import contextlib
import errno
import os
from collections.abc import Generator
from pathlib import Path

from woodlot.errors import LimitError
from woodlot.units import format_size

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


@contextlib.contextmanager
def disk_errors(path: Path, what: str) -> Generator[None]:
    """Turn a full disk into an error that names it.

    Raises:
        LimitError: The disk of ``path``, or the user's share of it, is full while ``what`` is written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise full_disk(path, what, error) from error


def full_disk(path: Path, what: str, error: OSError | None = None) -> LimitError:
    """The error for a full disk: names where it is mounted and what is free."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    mount = existing
    while not mount.is_mount() and mount != mount.parent:
        mount = mount.parent
    status = os.statvfs(existing)
    free = format_size(status.f_bavail * status.f_frsize)
    quota = error is not None and error.errno == errno.EDQUOT
    return LimitError(
        f"cannot write {what}: "
        + ("your quota on " if quota else "")
        + f"the disk at {mount} is full ({free} free)",
        details=str(path),
        hint="remove images or containers, or choose another disk with --root or WOODLOT_ROOT",
    )


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` survive a loss of power."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def used_bytes(directory: Path) -> int:
    """Room that the files below a directory take on the disk; what we may not look into is not counted."""
    total = 0
    pending = [directory]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
    return total
