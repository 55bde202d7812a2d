"""Disks that come to a machine that runs."""

from pathlib import Path

import pytest

from woodlot.errors import VmmError
from woodlot.vmm.base import Disk
from woodlot.vmm.qemu import drives

IMAGE = Disk(path=Path("/d/a,b.erofs"), serial="image", read_only=True)
UPPER = Disk(path=Path("/d/upper.ext4"), serial="upper")


class Qemu:
    """Keeps the commands."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []

    async def __call__(self, command: str, **arguments: object) -> object:
        self.asked.append((command, arguments))
        return {}


async def test_a_file_comes_to_its_place_and_goes_again() -> None:
    qemu = Qemu()
    await drives.insert(qemu, 0, IMAGE)
    await drives.eject(qemu, 0, IMAGE)
    raw = {"driver": "raw", "node-name": "disk0", "read-only": True}
    assert qemu.asked == [
        (
            "blockdev-add",
            {
                "driver": "file",
                "node-name": "file0",
                # Its own text, not QEMU's options: nothing is escaped.
                "filename": "/d/a,b.erofs",
                "read-only": True,
            },
        ),
        ("blockdev-reopen", {"options": [{**raw, "file": "file0"}]}),
        ("blockdev-reopen", {"options": [{**raw, "file": "place0"}]}),
        ("blockdev-del", {"node-name": "file0"}),
    ]


async def test_what_is_freed_in_a_writable_one_becomes_a_hole() -> None:
    qemu = Qemu()
    await drives.insert(qemu, 1, UPPER)
    (_, file), (_, reopened) = qemu.asked
    assert file["discard"] == "unmap"
    assert reopened["options"] == [
        {
            "driver": "raw",
            "node-name": "disk1",
            "file": "file1",
            "discard": "unmap",
            "detect-zeroes": "unmap",
        }
    ]


async def test_no_file_is_no_disk() -> None:
    with pytest.raises(VmmError, match="disk 0 has no file"):
        await drives.insert(Qemu(), 0, Disk(path=None, serial="image"))
