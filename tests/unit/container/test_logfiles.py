"""Logs that a guest has a say in stay small."""

import asyncio
from pathlib import Path

import pytest

from woodlot.container import logfiles
from woodlot.container.logfiles import KEPT_BYTES, MAX_BYTES, kept_small


async def until_smaller(path: Path, size: int) -> None:
    async with asyncio.timeout(10):
        while path.stat().st_size > size:
            await asyncio.sleep(0.01)


async def test_a_log_that_grows_is_cut_to_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfiles, "_PAUSE_S", 0.01)
    console, output, disk = (tmp_path / name for name in ("console.log", "stdio.log", "upper.ext4"))
    for path in (console, output, disk):
        path.write_bytes(b"first\n")
    with kept_small(tmp_path), console.open("ab", buffering=0) as writer:
        for path in (output, disk):
            path.write_bytes(b"x" * (2 * MAX_BYTES))
        for _ in range(3):
            writer.write(b"y" * (2 * MAX_BYTES))
            await until_smaller(console, KEPT_BYTES)
        # What comes next follows where it was cut.
        writer.write(b"last\n")
        assert console.read_bytes() == b"first\n" + b"y" * (KEPT_BYTES - 6) + b"last\n"
    assert output.stat().st_size == disk.stat().st_size == 2 * MAX_BYTES
    console.write_bytes(b"x" * (2 * MAX_BYTES))
    await asyncio.sleep(0.05)
    assert console.stat().st_size == 2 * MAX_BYTES


async def test_nothing_to_watch(tmp_path: Path) -> None:
    with kept_small(tmp_path):
        await asyncio.sleep(0)
