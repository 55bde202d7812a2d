"""What a guest says of its times, in the host's timeline."""

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest

from woodlot import trace
from woodlot._pb.agent.v1 import agent_pb2 as pb
from woodlot.container.guest_trace import traced
from woodlot.errors import GuestError
from woodlot.guest.client import Agent

Span = pb.TraceResponse.Span


class Guest:
    """An agent whose clock is an hour behind; its spans are given by how long ago they were, in ms."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, int, int]] = []

    async def trace(self, *, timeout_s: float) -> pb.TraceResponse:
        del timeout_s
        now = time.monotonic_ns() - 3600 * 10**9
        spans = [
            Span(name=name, start_nanos=now - start * 10**6, end_nanos=now - end * 10**6)
            for name, start, end in self.spans
        ]
        return pb.TraceResponse(now_nanos=now, spans=spans)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events"
    path.touch()
    monkeypatch.setenv(trace.VARIABLE, str(path))
    return path


def as_agent(guest: object) -> Agent:
    return cast("Agent", guest)


def spans_in(file: Path) -> list[dict[str, Any]]:
    return [event for event in trace.read(file) if event["ph"] == "X"]


async def test_what_is_older_than_the_start_belongs_to_a_saved_machine(file: Path) -> None:
    guest = Guest()
    guest.spans = [("Settle", 900_000, 800_000), ("Configure\n", 1, 0)]
    began = time.monotonic_ns()
    async with traced(as_agent(guest), asyncio.get_running_loop().create_future()):
        await asyncio.sleep(0.01)
    (span,) = spans_in(file)
    assert span["name"] == "Configure"
    assert abs(span["dur"] - 1000) < 1
    assert began / 1000 < span["ts"] < time.monotonic_ns() / 1000


async def test_each_is_taken_once_and_the_first_when_the_process_has_started(file: Path) -> None:
    guest, started = Guest(), asyncio.get_running_loop().create_future()
    async with traced(as_agent(guest), started):
        await asyncio.sleep(0.01)
        guest.spans = [("Run", 5, 1)]
        started.set_result(None)
        await asyncio.sleep(0.05)
        assert [span["name"] for span in spans_in(file)] == ["Run"]
        guest.spans = [("Run", 60, 55), ("Shutdown", 2, 0)]
    assert [span["name"] for span in spans_in(file)] == ["Run", "Shutdown"]


async def test_a_guest_that_is_gone_is_no_failure(file: Path) -> None:
    class Gone:
        async def trace(self, *, timeout_s: float) -> pb.TraceResponse:
            raise GuestError(f"gone, after {timeout_s}")

    async with traced(as_agent(Gone()), asyncio.get_running_loop().create_future()):
        pass
    assert spans_in(file) == []


async def test_without_a_timeline_the_guest_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trace.VARIABLE, raising=False)
    async with traced(as_agent(object()), asyncio.get_running_loop().create_future()):
        pass
