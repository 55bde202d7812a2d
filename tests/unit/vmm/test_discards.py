"""Holes that a program means to tear into a file that others map."""

import asyncio
import sys
from pathlib import Path

import pytest

from woodlot import process
from woodlot.vmm.qemu.discards import KeptFile, is_usable

pytestmark = pytest.mark.skipif(not is_usable(), reason="this kernel cannot hand calls over")

# What QEMU does to a page of a private mapping, for each file it is given.
PROGRAM = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDWR)
    memory = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE)
    memory[0:1] = b"w"
    status = libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096))
    assert status == 0, ctypes.get_errno()
    memory.madvise(mmap.MADV_DONTNEED, 0, 4096)
    print(memory[0:1].decode() or "zero", flush=True)
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    kept, other = tmp_path / "kept", tmp_path / "other"
    for path in (kept, other):
        path.write_bytes(b"x" * 8192)
    return kept, other


async def test_the_kept_file_has_no_hole_and_any_other_does(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    kept, other = files
    guard = KeptFile(kept)
    argv = [sys.executable, "-c", PROGRAM, str(kept), str(other), str(kept)]
    child = process.spawn(argv, log_path=tmp_path / "log", in_child=guard.install)
    guard.serve()
    async with asyncio.timeout(30):
        assert await child.wait() == 0, (tmp_path / "log").read_text()
    guard.close()
    # What the process had written is gone from its memory, and the file's own is there again.
    assert (tmp_path / "log").read_bytes() == b"x\n\0\nx\n"
    assert kept.read_bytes() == b"x" * 8192
    assert other.read_bytes() == bytes(4096) + b"x" * 4096


async def test_a_program_of_many_calls_is_answered_each_time(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    kept, _ = files
    guard = KeptFile(kept)
    argv = [sys.executable, "-c", PROGRAM, *[str(kept)] * 300]
    child = process.spawn(argv, log_path=tmp_path / "log", in_child=guard.install)
    guard.serve()
    async with asyncio.timeout(30):
        assert await child.wait() == 0
    guard.close()
    assert (tmp_path / "log").read_bytes() == b"x\n" * 300


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_closing_leaves_no_descriptor(files: tuple[Path, Path], tmp_path: Path) -> None:
    before = descriptors()
    guard = KeptFile(files[0])
    child = process.spawn(["/bin/true"], log_path=tmp_path / "log", in_child=guard.install)
    guard.serve()
    await child.wait()
    guard.close()
    assert descriptors() == before


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeptFile(tmp_path / "none")
