"""The build as a whole: what it leaves, whatever happens on the way."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.rootfs.erofs_reader import Image
from tests.unit.rootfs.tars import (
    LIMITS,
    archive,
    directory,
    hard_link,
    member,
    pax_header,
    write_layer,
)
from woodlot.errors import IntegrityError, LimitError, NotFoundError
from woodlot.progress import NoProgress
from woodlot.rootfs import blocks, image
from woodlot.rootfs import build as module
from woodlot.rootfs.build import BuildLimits, LayerSource, RootfsInfo, build_rootfs
from woodlot.units import GIB, MIB

BIG = os.urandom(300_000)
FIRST = archive(
    member(b"a", b"small"), member(b"big", BIG), directory(b"d"), member(b"d/f", BIG[:5000])
)
SECOND = archive(member(b".wh.big"), hard_link(b"l", b"a"), member(b"d/g", BIG[:9000]))


class Told:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.done = 0

    def start(self, key: str, label: str, *, total: int | None = None) -> None:
        self.calls.append(("start", key, label, total))

    def advance(self, key: str, amount: int) -> None:
        self.done += amount

    def finish(self, key: str, note: str = "") -> None:
        self.calls.append(("finish", key, note))


@pytest.fixture
def layers(tmp_path: Path) -> list[LayerSource]:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    return [write_layer(blobs, FIRST), write_layer(blobs, SECOND, "zstd")]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "rootfs" / "image.erofs"


async def build(layers: list[LayerSource], out: Path, limits: BuildLimits = LIMITS) -> RootfsInfo:
    return await build_rootfs(layers, out, limits=limits, progress=NoProgress())


def left(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir()) if out.parent.exists() else []


async def test_it_works_and_tells(layers: list[LayerSource], out: Path) -> None:
    told = Told()
    info = await build_rootfs(layers, out, limits=LIMITS, progress=told)
    assert left(out) == ["image.erofs"]
    assert out.stat().st_mode & 0o777 == 0o444
    tree = Image(out).tree()
    assert (info.path, info.size_bytes, info.entries) == (out, out.stat().st_size, 5)
    assert tree[b"d/g"].data == BIG[:9000]
    total = sum(layer.path.stat().st_size for layer in layers)
    assert told.calls == [("start", "unpack", "Unpacking", total), ("finish", "unpack", "")]
    assert told.done == total


async def test_the_same_layers_give_the_same_bytes(
    tmp_path: Path, layers: list[LayerSource]
) -> None:
    one, two, other = (tmp_path / name / "image" for name in ("one", "two", "other"))
    await build(layers, one)
    await build([write_layer(tmp_path, FIRST, "zstd"), write_layer(tmp_path, SECOND, "")], two)
    assert one.read_bytes() == two.read_bytes()
    await build(layers[:1], other)
    assert Image(one).uuid != Image(other).uuid
    assert Image(one).uuid[6] >> 4 == 8


async def test_removed_data_is_gone(layers: list[LayerSource], out: Path) -> None:
    await build(layers, out)
    assert BIG[4096:8192] * 1 in out.read_bytes()  # in d/f
    assert BIG[100_000:100_100] not in out.read_bytes()
    assert BIG[-100:] not in out.read_bytes()


async def test_an_image_in_the_way_is_replaced(layers: list[LayerSource], out: Path) -> None:
    out.parent.mkdir()
    out.write_bytes(b"old")
    await build(layers, out)
    assert len(Image(out).tree()) == 6


async def test_sparse_files_take_no_room(tmp_path: Path, out: Path) -> None:
    size = 64 * MIB
    head = {b"GNU.sparse.size": b"%d" % size, b"GNU.sparse.map": b"1000,3,40000000,5"}
    tar = archive(pax_header(head) + member(b"f", b"abcdefgh"), member(b"g", BIG))
    layer = write_layer(tmp_path, tar)
    await build([layer], out)
    tree = Image(out).tree()
    data = tree[b"f"].data
    assert len(data) == size
    assert data[1000:1003] + data[40_000_000:40_000_005] == b"abcdefgh"
    assert data.count(0) == size - 8
    assert tree[b"g"].data == BIG
    assert out.stat().st_blocks * 512 < 2 * MIB
    limits = BuildLimits(max_bytes=60 * MIB, max_ratio=1000, max_entries=10)
    with pytest.raises(LimitError, match="sparse"):
        await build([layer], out.with_name("no"), limits)
    assert left(out) == ["image.erofs"]


async def test_a_small_sparse_file(tmp_path: Path, out: Path) -> None:
    head = {b"GNU.sparse.size": b"5000", b"GNU.sparse.map": b"10,2,4990,1"}
    await build([write_layer(tmp_path, archive(pax_header(head) + member(b"f", b"abc")))], out)
    expected = bytes(10) + b"ab" + bytes(4978) + b"c" + bytes(9)
    assert Image(out).tree()[b"f"].data == expected


# Failures


async def fails(
    layers: list[LayerSource], out: Path, error: type[BaseException], match: str
) -> None:
    threads = threading.active_count()
    with pytest.raises(error, match=match):
        await build(layers, out)
    assert left(out) == []
    assert threading.active_count() <= threads + 1, "only the loop's own worker may stay"


async def test_a_second_layer_that_is_not_what_it_says(
    tmp_path: Path, layers: list[LayerSource], out: Path
) -> None:
    wrong = write_layer(tmp_path, SECOND, diff_id=f"sha256:{'0' * 64}")
    await fails([layers[0], wrong], out, IntegrityError, wrong.digest)


async def test_garbage_behind_the_archive_is_checked_too(tmp_path: Path, out: Path) -> None:
    good = write_layer(tmp_path, FIRST + b"x" * 3_000_000)
    wrong = LayerSource(
        path=write_layer(tmp_path, FIRST + b"y" * 3_000_000).path,
        media_type=good.media_type,
        digest=good.digest,
        diff_id=good.diff_id,
    )
    await fails([wrong], out, IntegrityError, "do not match")


async def test_a_missing_blob(layers: list[LayerSource], out: Path) -> None:
    layers[1].path.unlink()
    await fails(layers, out, NotFoundError, layers[1].digest)


async def test_a_broken_tar_with_a_lot_behind_it(tmp_path: Path, out: Path) -> None:
    """The thread that reads ahead stops, although nobody takes what it has."""
    layer = write_layer(tmp_path, b"garbage!" * 64 + os.urandom(30 * MIB), "")
    await fails([layer], out, IntegrityError, "checksum")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["writev", "truncate", "pwrite", "fsync"])
async def test_a_full_disk_at_each_step(
    layers: list[LayerSource], out: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    def full(*_args: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(LimitError, match="no room") as caught:
        await build(layers, out)
    assert str(out.parent) in caught.value.message
    assert left(out) == []


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (module, "write_metadata"),
        (module, "erase"),
        (image, "build_superblock"),
        (os, "fchmod"),
        (Path, "replace"),
        (module, "TarReader"),
        (blocks.FileWriter, "end"),
    ],
)
async def test_a_failure_at_each_step(
    layers: list[LayerSource], out: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(owner, name, fail)
    await fails(layers, out, OSError, "broken")


async def test_a_write_cut_short_goes_on(
    layers: list[LayerSource], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await build(layers, out)
    monkeypatch.setattr(os, "writev", lambda fd, parts: os.write(fd, b"".join(parts)[:1000]))
    await build(layers, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == out.read_bytes()


def pausing(function: Callable[..., Any], reached: threading.Event, go: threading.Event) -> Any:
    def paused(*args: Any, **kwargs: Any) -> Any:
        reached.set()
        assert go.wait(20)
        return function(*args, **kwargs)

    return paused


@pytest.mark.parametrize(
    ("owner", "name"),
    [(module, "TarReader"), (module, "write_metadata"), (os, "fsync")],
)
async def test_cancelled_at_each_step(
    layers: list[LayerSource], out: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    reached, go = threading.Event(), threading.Event()
    monkeypatch.setattr(owner, name, pausing(getattr(owner, name), reached, go))
    work = asyncio.create_task(build(layers, out))
    assert await asyncio.to_thread(reached.wait, 20)
    work.cancel()
    await asyncio.sleep(0.01)
    assert not work.done(), "it waits for its thread"
    work.cancel()  # impatience changes nothing
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert left(out) == []


async def test_limits_of_all_layers_together(layers: list[LayerSource], out: Path) -> None:
    limits = BuildLimits(max_bytes=len(FIRST) + len(SECOND) - 1, max_ratio=1000, max_entries=100)
    with pytest.raises(LimitError, match="unpacks to more than"):
        await build(layers, out, limits)
    limits = BuildLimits(max_bytes=len(FIRST) + len(SECOND), max_ratio=1000, max_entries=100)
    await build(layers, out, limits)


async def test_an_image_beyond_the_format(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 50)
    await fails([write_layer(tmp_path, FIRST)], out, LimitError, "16 TiB")
    monkeypatch.undo()
    monkeypatch.setattr(image, "MAX_BLOCKS", 50)
    await fails([write_layer(tmp_path, FIRST)], out, LimitError, "16 TiB")


async def test_two_builds_of_one_image_at_once(layers: list[LayerSource], out: Path) -> None:
    limits = BuildLimits(max_bytes=GIB, max_ratio=1000, max_entries=100)
    await asyncio.gather(*(build(layers, out, limits) for _ in range(4)))
    assert left(out) == ["image.erofs"]
    assert len(Image(out).tree()) == 6
