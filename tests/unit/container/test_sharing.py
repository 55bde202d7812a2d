"""Which container fills a new volume, which waits for it, and what becomes of one that was filled by half."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.container.specs import WEB
from woodlot.container.sharing import Sharing
from woodlot.container.spec import Mount
from woodlot.store.locks import hold
from woodlot.store.store import Store
from woodlot.units import GIB
from woodlot.volume import volume
from woodlot.volume.volume import Volume

KINDS = pytest.mark.parametrize("kind", ["directory", "block"])


@pytest.fixture(autouse=True)
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def serve(*arguments: Any, **options: Any) -> AsyncGenerator[list[Any]]:
        yield []

    monkeypatch.setattr("woodlot.files.share.serve", serve)


@pytest.fixture
def make(store: Store) -> Any:
    def make(kind: Any) -> Volume:
        return volume.create(store, "data", kind=kind, size=GIB if kind == "block" else None)

    return make


@contextlib.asynccontextmanager
async def using(store: Store, tmp_path: Path, *, copy: bool = True) -> AsyncGenerator[Sharing]:
    mount = Mount(type="volume", source="data", destination="/d", copy=copy)
    sharing = Sharing(store, replace(WEB, mounts=(mount,), tmpfs=()), tmp_path)
    async with sharing.open(tmp_path):
        yield sharing


async def wait(work: "asyncio.Task[None]") -> bool:
    """Whether it still waits after an instant."""
    _, pending = await asyncio.wait({work}, timeout=0.2)
    return bool(pending)


@KINDS
@pytest.mark.parametrize("copy", [True, False])
async def test_who_comes_second_waits_until_it_is_whole(
    store: Store, tmp_path: Path, make: Any, kind: str, copy: bool
) -> None:
    made = make(kind)
    seen: list[bool] = []

    async def second() -> None:
        async with using(store, tmp_path, copy=copy) as sharing:
            seen.append(sharing.fills)
            await sharing.filled()

    async with using(store, tmp_path) as first:
        assert first.fills
        (request,) = first.requests()
        assert (request.copy_up, request.cut_short) == (True, kind == "block")
        waiting = asyncio.create_task(second())
        assert await wait(waiting)
        if kind == "directory":
            (made.data / "half").touch()
        assert await wait(waiting)
        assert made.filling.exists()
        await first.filled()
        await asyncio.wait_for(waiting, 10)
    assert seen == [False]
    assert not made.filling.exists()


@KINDS
async def test_who_has_it_already_takes_no_mark_of_anothers_away(
    store: Store, tmp_path: Path, make: Any, kind: str
) -> None:
    made = make(kind)
    made.filling.unlink(missing_ok=True)
    async with using(store, tmp_path, copy=False) as first:
        made.filling.touch()
        await first.filled()
        assert made.filling.exists()


@KINDS
async def test_a_half_is_thrown_away_by_who_wants_no_copy(
    store: Store, tmp_path: Path, make: Any, kind: str
) -> None:
    made = make(kind)
    made.filling.touch()
    if kind == "directory":
        (made.data / "half").mkdir()
        made.data.chmod(0o700)
    else:
        made.disk.write_bytes(b"half")
    async with using(store, tmp_path, copy=False) as only:
        assert not only.fills
        assert not made.filling.exists()
        await only.filled()
        # And what it writes is not thrown away by the next.
        if kind == "directory":
            assert (list(made.data.iterdir()), made.data.stat().st_mode & 0o777) == ([], 0o755)
            (made.data / "own").touch()
        else:
            assert made.disk.stat().st_size == GIB
    async with using(store, tmp_path) as third:
        assert not third.fills


async def test_a_half_is_filled_again_by_who_wants_a_copy(
    store: Store, tmp_path: Path, make: Any
) -> None:
    made = make("directory")
    # Killed while it was filling: the lock went with it.
    async with using(store, tmp_path) as first:
        assert first.fills
        (made.data / "half").touch()
    async with hold(made.lock), asyncio.timeout(10):
        pass
    async with using(store, tmp_path) as second:
        (request,) = second.requests()
        assert (request.copy_up, request.cut_short) == (True, True)
        await second.filled()
    assert not made.filling.exists()
