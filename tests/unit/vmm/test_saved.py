"""What carries a machine's state and memory."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from woodlot.errors import VmmError
from woodlot.vmm.qemu import saved

MIB = 1 << 20


def read_all(fd: int) -> bytes:
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, b"a" * 4096)],
        [(3 * MIB, b"end" * 1000)],
        [(4096, b"b" * 4096), (2 * MIB, b"c" * MIB), (4 * MIB - 5, b"final")],
    ],
)
def test_memory_is_copied_and_holes_stay_holes(
    tmp_path: Path, pieces: list[tuple[int, bytes]]
) -> None:
    path = tmp_path / "memory"
    with path.open("wb") as file:
        file.truncate(4 * MIB)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    copy = saved.copy_memory(path, 4 * MIB)
    taken = os.fstat(copy).st_blocks * 512
    assert taken <= path.stat().st_blocks * 512 + 64 * 1024
    assert read_all(copy) == path.read_bytes()


def test_memory_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(b"x" * 4096)
    with pytest.raises(VmmError, match="not of 8192 bytes"):
        saved.copy_memory(path, 8192)
    with pytest.raises(VmmError, match="cannot open"):
        saved.copy_memory(tmp_path / "none", 8192)


async def carry(path: Path, state: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        # An abstract address: pytest's directories are too long for a socket.
        listener.bind(f"\0woodlot-test-{os.getpid()}-{id(path)}")
        listener.listen(1)
        listener.setblocking(False)
        receiving = asyncio.create_task(saved.receive_state(listener, path))
        sender = socket.socket(socket.AF_UNIX)
        sender.connect(listener.getsockname())
        await saved.send_state(state, sender)
        await receiving


@pytest.mark.parametrize("size", [0, 1, 700_001, 3 * MIB])
async def test_state_goes_out_and_in(tmp_path: Path, size: int) -> None:
    state = os.urandom(size)
    await carry(tmp_path / "state", state)
    assert saved.read_state(tmp_path / "state") == state


async def test_state_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "MAX_STATE_BYTES", 1000)
    with pytest.raises(VmmError, match="more than"):
        await carry(tmp_path / "state", bytes(2000))


def test_no_state_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VmmError, match="cannot read"):
        saved.read_state(tmp_path / "none")
