import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.container.specs import held_files
from woodlot.container.logs import LogWriter, Stream

KIB = 1 << 10
PIECE = 16 * KIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stdio.log"


def read(path: Path) -> list[dict[str, str]]:
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    return [json.loads(line) for line in lines]


def logged(path: Path, *chunks: bytes, stream: Stream = "stdout") -> list[str]:
    """What a log holds of a process that wrote these chunks and ended."""
    writer = LogWriter(path, max_bytes=1 << 30)
    for chunk in chunks:
        writer.write(stream, chunk)
    writer.close()
    return [line["log"] for line in read(path)]


def test_a_line_is_dockers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1767323045000000006)
    logged(path, b'say "hi"\\\t\x1b[1m\xc3\xa9\n', stream="stderr")
    assert path.read_text() == (
        '{"log":"say \\"hi\\"\\\\\\t\\u001b[1mé\\n","stream":"stderr","time":"2026-01-02T03:04:05.000000006Z"}\n'
    )


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"one\ntwo\n"], ["one\n", "two\n"]),
        ([b"o", b"n", b"e\nt", b"wo\n"], ["one\n", "two\n"]),
        ([b"one\n", b"two"], ["one\n", "two"]),
        ([b"\n\n"], ["\n", "\n"]),
        ([b"50%\r100%\r\n"], ["50%\r100%\r\n"]),
        ([b""], []),
        # Cut anywhere, a character stays whole.
        ([b"\xe2", b"\x82", b"\xac\n"], ["€\n"]),
        ([b"a\xffb\xc3\n"], ["a\ufffdb\ufffd\n"]),
        ([b"\xe2\x82"], ["\ufffd"]),
        (["\u2028\x85\0\n".encode()], ["\u2028\x85\0\n"]),
    ],
)
def test_lines(path: Path, chunks: list[bytes], expected: list[str]) -> None:
    assert logged(path, *chunks) == expected


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (PIECE - 1, [PIECE]),
        (PIECE, [PIECE, 1]),
        (2 * PIECE + 5, [PIECE, PIECE, 6]),
    ],
)
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_a_long_line_is_several_objects(
    path: Path, size: int, pieces: list[int], step: int
) -> None:
    data = b"x" * size + b"\n"
    chunks = [data[start : start + step] for start in range(0, len(data), step)]
    got = logged(path, *chunks)
    assert [len(piece) for piece in got] == pieces
    assert [piece.endswith("\n") for piece in got] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("step", [1009, 1 << 20])
def test_a_long_line_is_not_cut_within_a_character(
    path: Path, character: str, shift: int, end: str, step: int
) -> None:
    text = "." * shift + character * (40 * KIB // len(character.encode())) + end
    data = text.encode()
    chunks = [data[start : start + step] for start in range(0, len(data), step)]
    got = logged(path, *chunks)
    assert "".join(got) == text
    assert max(len(piece.encode()) for piece in got) <= PIECE


def test_a_long_line_of_bytes_that_are_no_text(path: Path) -> None:
    got = logged(path, b"\x80" * (40 * KIB) + b"\n")
    assert "".join(got) == "\ufffd" * (40 * KIB) + "\n"


def test_streams_do_not_mix(path: Path) -> None:
    writer = LogWriter(path, max_bytes=1 << 20)
    writer.write("stdout", b"out ")
    writer.write("stderr", b"err ")
    writer.write("stdout", b"out\n")
    writer.write("stderr", b"err\n")
    writer.write("stdout", b"last out")
    writer.write("stderr", b"last err")
    writer.close()
    assert [(line["stream"], line["log"]) for line in read(path)] == [
        ("stdout", "out out\n"),
        ("stderr", "err err\n"),
        ("stdout", "last out"),
        ("stderr", "last err"),
    ]


def test_times_are_of_the_writing(path: Path) -> None:
    before = time.time_ns()
    logged(path, b"a\n", b"b\n", b"c")
    after = time.time_ns()
    times = [line["time"] for line in read(path)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", text) for text in times)
    nanos = [
        int(datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp()) * 10**9
        + int(text[20:29])
        for text in times
    ]
    assert sorted([before, *nanos, after]) == [before, *nanos, after]


def test_a_line_is_there_as_soon_as_it_is_whole(path: Path) -> None:
    writer = LogWriter(path, max_bytes=1 << 20)
    writer.write("stdout", b"whole\nhalf")
    assert [line["log"] for line in read(path)] == ["whole\n"]
    writer.close()


def test_rotation_keeps_the_last_two_files(path: Path) -> None:
    writer = LogWriter(path, max_bytes=2000)
    for number in range(200):
        writer.write("stdout", b"line %d\n" % number)
    writer.close()
    rotated = path.with_name("stdio.log.1")
    assert sorted(path.parent.iterdir()) == [path, rotated]
    # One line more than the limit, as with Docker.
    assert max(path.stat().st_size, rotated.stat().st_size) < 2100
    kept = [line["log"] for line in read(rotated) + read(path)]
    assert kept == [f"line {number}\n" for number in range(200 - len(kept), 200)]
    assert len(kept) > 2000 // 100


def test_a_log_that_is_there_is_continued_within_the_limit(path: Path) -> None:
    for number in range(2):
        writer = LogWriter(path, max_bytes=150)
        writer.write("stdout", b"run %d\n" % number)
        assert path.with_name("stdio.log.1").exists() == bool(number)
        writer.close()
    assert [line["log"] for line in read(path.with_name("stdio.log.1"))] == ["run 0\n", "run 1\n"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_costs_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    writer = LogWriter(Path("/dev/full"), max_bytes=1 << 20)
    writer.write("stdout", b"lost\n")
    writer.write("stdout", b"lost too\n")
    writer.close()
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_a_rotation_that_fails_costs_the_log_only(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.with_name("stdio.log.1").mkdir()
    writer = LogWriter(path, max_bytes=10)
    for _ in range(3):
        writer.write("stdout", b"more than ten bytes\n")
    writer.close()
    assert "lost from here on" in caplog.text
    assert len(read(path)) == 1


def test_closing_leaves_no_descriptor(path: Path) -> None:
    writer = LogWriter(path, max_bytes=100)
    assert held_files(path.parent) == [str(path)]
    writer.write("stdout", b"x" * 1000)
    writer.close()
    writer.close()
    writer.write("stdout", b"too late\n")
    assert held_files(path.parent) == []
