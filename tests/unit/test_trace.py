"""The timeline: what processes write, and what is made of it."""

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from woodlot import trace
from woodlot.cli.app import cli
from woodlot.cli.timeline import draw


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events"
    path.touch()
    monkeypatch.setenv(trace.VARIABLE, str(path))
    return path


def test_without_a_file_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trace.VARIABLE, raising=False)
    with trace.process("p"), trace.span("s"):
        trace.add([("a", 1, 2)])


def test_spans_are_there_with_their_process(file: Path) -> None:
    with trace.process("worker"), trace.span("outer"), trace.span("inner"):
        pass
    trace.add([("Configure", 1000, 3000)], guest=True)
    names = {
        event["pid"]: event["args"]["name"] for event in trace.read(file) if event["ph"] == "M"
    }
    assert names == {os.getpid(): "worker", 1: "guest"}
    first, outer, inner = [event for event in trace.read(file) if event["ph"] == "X"]
    assert (first["name"], first["ts"], first["dur"], first["pid"]) == ("Configure", 1.0, 2.0, 1)
    assert (outer["name"], inner["name"]) == ("outer", "inner")
    assert outer["ts"] <= inner["ts"]
    assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]


async def test_tasks_have_lanes_of_their_own(file: Path) -> None:
    import asyncio

    async def work() -> None:
        with trace.span("s"):
            await asyncio.sleep(0)

    await asyncio.gather(work(), work())
    assert len({event["tid"] for event in trace.read(file)}) == 2


def test_a_timeline_that_is_gone_is_not_made_again(file: Path) -> None:
    file.unlink()
    with trace.process("p"), trace.span("s"):
        pass
    assert not file.exists()


def test_the_command_writes_chromes_format_and_gives_the_status(tmp_path: Path) -> None:
    output = tmp_path / "t.json"
    result = CliRunner().invoke(
        cli, ["system", "trace", "-o", str(output), "nonsense"], standalone_mode=False
    )
    assert result.return_value == 64
    events = json.loads(output.read_bytes())["traceEvents"]
    assert {event["name"] for event in events} >= {"nonsense", "Python starts", "command"}
    assert list(tmp_path.iterdir()) == [output]


def test_the_picture_puts_overlaps_on_rows_of_their_own() -> None:
    def span(name: str, begin: float, length: float) -> dict[str, object]:
        return {"ph": "X", "name": name, "ts": begin * 1e3, "dur": length * 1e3, "pid": 7, "tid": 0}

    events = [
        {"ph": "M", "name": "process_name", "pid": 7, "args": {"name": "a<b"}},
        span("outer", 0, 100),
        span("inner", 10, 20),
        span("later", 40, 60),
        span("nothing", 50, 0.01),
    ]
    svg = ET.fromstring(draw(events))
    space = "{http://www.w3.org/2000/svg}"
    bars = {
        str(group.findtext(f"{space}title")): float(group.find(f"{space}rect").get("y", ""))  # type: ignore[union-attr]
        for group in svg.iter(f"{space}g")
    }
    assert list(bars) == ["outer 100 ms", "inner 20 ms", "later 60 ms"]
    assert bars["outer 100 ms"] < bars["inner 20 ms"] == bars["later 60 ms"]
    assert "a<b" in [text.text for text in svg.iter(f"{space}text")]


def test_a_picture_of_nothing_is_one(tmp_path: Path) -> None:
    del tmp_path
    ET.fromstring(draw([]))
