"""What happened is told in order, kept within bounds, and heard while it happens."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from woodlot.store import events as events_module
from woodlot.store.events import Event, EventLog


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events")


def actions(events: Iterator[Event]) -> list[str]:
    return [event.action for event in events]


def test_an_event_is_dockers_json(log: EventLog, tmp_path: Path) -> None:
    log.add("container", "die", "abc", {"name": "web", "exitCode": "3"})
    [event] = log.read()
    fields = json.loads((tmp_path / "events/events.jsonl").read_text())
    assert event.to_json() == fields
    assert fields == {
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": "abc", "Attributes": {"name": "web", "exitCode": "3"}},
        "scope": "local",
        "time": event.time_ns // 10**9,
        "timeNano": event.time_ns,
    }


def test_nothing_has_happened_yet(log: EventLog) -> None:
    assert actions(log.read()) == []


def test_between_two_times(log: EventLog) -> None:
    for number in range(5):
        log.add("image", f"{number}", "i", {})
    times = [event.time_ns for event in log.read()]
    assert times == sorted(times)
    assert actions(log.read(since_ns=times[1], until_ns=times[3])) == ["1", "2", "3"]
    assert actions(log.read(since_ns=times[4] + 1)) == []


def test_the_oldest_are_forgotten(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(events_module, "MAX_BYTES", 4096)
    for number in range(200):
        log.add("volume", f"{number}", "v", {})
    told = [int(action) for action in actions(log.read())]
    assert told == list(range(told[0], 200))
    assert 20 < len(told) < 100
    assert sum(path.stat().st_size for path in (tmp_path / "events").iterdir()) < 3 * 4096


def test_long_and_many_texts_are_cut(log: EventLog) -> None:
    log.add("container", "x", "id", {f"{i}{'k' * 2000}": "é" * 5000 for i in range(500)})
    [event] = log.read()
    assert len(event.attributes) == 64
    assert {len(value) for value in event.attributes.values()} == {1024}


def test_damaged_lines_are_left_out(log: EventLog, tmp_path: Path) -> None:
    log.add("container", "a", "id", {})
    with (tmp_path / "events/events.jsonl").open("ab") as file:
        file.write(b'not JSON\n{"Type": 3}\n[]\n{"Actor": [], "timeNano": 1}\n')
    log.add("container", "b", "id", {})
    assert actions(log.read()) == ["a", "b"]


def test_what_cannot_be_written_is_no_error(log: EventLog, tmp_path: Path) -> None:
    (tmp_path / "events").write_text("in the way")
    log.add("container", "a", "id", {})


def test_many_writers_lose_nothing(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_BYTES", 1 << 20)

    def write(who: int) -> None:
        for number in range(50):
            log.add("container", f"{number}", f"{who}", {})

    threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = list(log.read())
    for who in range(8):
        assert [e.action for e in told if e.id == f"{who}"] == [f"{n}" for n in range(50)]


async def test_a_follower_hears_all_over_rotation(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MAX_BYTES", 2048)
    log.add("container", "before", "id", {})
    heard: list[str] = []

    async def follow() -> None:
        async for event in log.follow():
            heard.append(event.action)
            if event.action == "last":
                return

    async with asyncio.timeout(20):
        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        for number in range(100):
            log.add("container", f"{number}", "id", {})
            # It keeps up: what is forgotten before it is read is lost.
            await asyncio.sleep(0.001)
        log.add("container", "last", "id", {})
        await following
    assert heard == [*(f"{number}" for number in range(100)), "last"]


async def test_a_follower_hears_what_was_before_it_came(log: EventLog) -> None:
    log.add("container", "old", "id", {})
    log.add("container", "new", "id", {})
    _, new = log.read()
    following = log.follow(since_ns=new.time_ns)
    async with asyncio.timeout(10):
        assert (await anext(following)).action == "new"
        log.add("container", "next", "id", {})
        assert (await anext(following)).action == "next"
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    await following.aclose()
    assert len(list(Path("/proc/self/fd").iterdir())) < open_files


async def test_a_follower_leaves_at_the_time_it_gave(log: EventLog) -> None:
    log.add("container", "old", "id", {})
    following = log.follow(until_ns=time.time_ns() + 300_000_000)
    async with asyncio.timeout(10):
        heard = asyncio.create_task(anext(following))
        await asyncio.sleep(0.05)
        log.add("container", "new", "id", {})
        assert (await heard).action == "new"
        assert [event async for event in following] == []
        assert [e.action async for e in log.follow(0, time.time_ns())] == ["old", "new"]
