"""The watcher, on a real directory with the real inotify."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from woodlot.files.changes import Change, Kind, Watcher
from woodlot.inotify import Event, Mask, parse_events


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/f").write_text("f")
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    return tmp_path / "root"


@pytest.fixture
def watcher(root: Path) -> Iterator[Watcher]:
    watcher = Watcher(root)
    watcher.scan()
    yield watcher
    watcher.close()


async def told(watcher: Watcher) -> list[Change]:
    """What is told of all that has happened until now."""
    changes: list[Change] = []
    try:
        async with asyncio.timeout(0.2):
            async for batch in watcher.changes():
                changes += batch
    except TimeoutError:
        pass
    return changes


def test_events_are_parsed() -> None:
    data = b"\1\0\0\0\0\1\0\0\0\0\0\0\4\0\0\0f\0\0\0" + b"\2\0\0\0\x80\0\0\x40\7\0\0\0\0\0\0\0"
    assert parse_events(data) == [
        Event(1, Mask.CREATE, 0, b"f"),
        Event(2, Mask.MOVED_TO | Mask.ISDIR, 7, b""),
    ]


def write(path: Path) -> None:
    with path.open("w") as file:
        for _ in range(3):
            file.write("x")
            file.flush()


DIR = True


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (
            lambda r: write(r / "a/new"),
            [
                Change(Kind.CREATED, b"a", b"new"),
                Change(Kind.MODIFIED, b"a", b"new"),
                Change(Kind.CLOSED, b"a", b"new"),
            ],
        ),
        (lambda r: (r / "f").unlink(), [Change(Kind.DELETED, b"", b"f")]),
        (lambda r: (r / "f").chmod(0o600), [Change(Kind.ATTRIBUTES, b"", b"f")]),
        (
            lambda r: (r / "f").rename(r / "a/b/g"),
            [Change(Kind.MOVED, b"", b"f", False, b"a/b", b"g")],
        ),
        (lambda r: (r / "f").rename(r.parent / "f"), [Change(Kind.MOVED_OUT, b"", b"f")]),
        (
            lambda r: (r.parent / "outside").rename(r / "in"),
            [Change(Kind.MOVED_IN, b"", b"in", DIR)],
        ),
        (lambda r: write(r / "link/x"), []),
        (
            lambda r: os.mkfifo(os.fsencode(r) + b"/\xff"),
            [Change(Kind.CREATED, b"", b"\xff")],
        ),
    ],
)
async def test_what_happens_is_told(
    root: Path, watcher: Watcher, act: Callable[[Path], object], expected: list[Change]
) -> None:
    act(root)
    assert await told(watcher) == expected


async def test_a_directory_that_comes_is_told_with_what_is_in_it(
    root: Path, watcher: Watcher
) -> None:
    (root / "new/below").mkdir(parents=True)
    (root / "new/file").touch()
    assert sorted(await told(watcher)) == [
        Change(Kind.CREATED, b"", b"new", DIR),
        Change(Kind.CREATED, b"new", b"below", DIR),
        Change(Kind.CREATED, b"new", b"file"),
    ]
    (root / "new/below/x").touch()
    (root / "new/file").unlink()
    (root / "new/file").touch()
    assert await told(watcher) == [
        Change(Kind.CREATED, b"new/below", b"x"),
        Change(Kind.CLOSED, b"new/below", b"x"),
        Change(Kind.DELETED, b"new", b"file"),
        Change(Kind.CREATED, b"new", b"file"),
        Change(Kind.CLOSED, b"new", b"file"),
    ]


async def test_a_directory_is_watched_wherever_it_goes(root: Path, watcher: Watcher) -> None:
    (root / "a").rename(root / "z")
    (root / "z/b/x").touch()
    assert await told(watcher) == [
        Change(Kind.MOVED, b"", b"a", DIR, b"", b"z"),
        Change(Kind.CREATED, b"z/b", b"x"),
        Change(Kind.CLOSED, b"z/b", b"x"),
    ]
    (root / "z").rename(root.parent / "z")
    assert await told(watcher) == [Change(Kind.MOVED_OUT, b"", b"z", DIR)]
    (root.parent / "z/b/y").touch()
    assert await told(watcher) == []
    (root.parent / "z").rename(root / "a")
    assert await told(watcher) == [Change(Kind.MOVED_IN, b"", b"a", DIR)]
    (root / "a/b/x").unlink()
    assert await told(watcher) == [Change(Kind.DELETED, b"a/b", b"x")]


async def test_a_link_in_the_place_of_a_directory_is_not_followed(
    root: Path, watcher: Watcher
) -> None:
    (root / "new").mkdir()
    (root / "new").rmdir()
    (root / "new").symlink_to(root.parent / "outside")
    await told(watcher)
    (root.parent / "outside/secret").touch()
    assert await told(watcher) == []


async def test_the_number_of_watches_is_bounded(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher(root, max_watches=2)
    try:
        watcher.scan()
        assert caplog.text.count("not all changes below") == 1
        (root / "a/x").mkdir()
        (root / "a/b/y").mkdir()
        assert await told(watcher) == [Change(Kind.CREATED, b"a", b"x", DIR)]
        assert caplog.text.count("not all changes below") == 1
    finally:
        watcher.close()


async def test_after_an_overflow_new_directories_are_watched(
    root: Path, watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    assert watcher.translate([Event(-1, Mask.Q_OVERFLOW, 0, b"")]) == []
    assert "changes too fast" in caplog.text
    (root / "lost").mkdir()
    watcher.scan()
    (root / "lost/x").mkdir()
    assert Change(Kind.CREATED, b"lost", b"x", DIR) in await told(watcher)
