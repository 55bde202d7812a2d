"""What is behind the disk of a machine that runs: the place of a file, or a file that was put there later.

    device ── disk0 (raw) ── place0 (null-co)    as the machine was started
                          └─ file0 (file)        from `insert` to `eject`

The guest keeps the size it saw first, as with a template; serials and whether a disk can be written stay, too.
"""

from collections.abc import Awaitable
from typing import Protocol

from woodlot.errors import VmmError
from woodlot.vmm.base import Disk


class Execute(Protocol):
    """Runs a command of QEMU's."""

    def __call__(self, command: str, **arguments: object) -> Awaitable[object]:
        """What it returned."""
        ...


async def insert(execute: Execute, index: int, disk: Disk) -> None:
    """Put the file of a disk where its place is.

    Args:
        execute: Of the machine.
        index: Position among its disks.
        disk: As the machine was started with, now with a path.

    Raises:
        VmmError: The file cannot be opened, or QEMU is gone.
    """
    if disk.path is None:
        raise VmmError(f"disk {index} has no file to be put in its place")
    file = f"file{index}"
    await execute(
        "blockdev-add",
        **{
            "driver": "file",
            "node-name": file,
            "filename": str(disk.path),
            **({"read-only": True} if disk.read_only else {"discard": "unmap"}),
        },
    )
    await _reopen(execute, index, disk, file)


async def eject(execute: Execute, index: int, disk: Disk) -> None:
    """Take the file away again; what the guest reads is zeros from now on."""
    await _reopen(execute, index, disk, f"place{index}")
    await execute("blockdev-del", **{"node-name": f"file{index}"})


async def _reopen(execute: Execute, index: int, disk: Disk, file: str) -> None:
    how = {"read-only": True} if disk.read_only else _WRITABLE
    node = {"driver": "raw", "node-name": f"disk{index}", "file": file, **how}
    await execute("blockdev-reopen", options=[node])


_WRITABLE = {"discard": "unmap", "detect-zeroes": "unmap"}
