r"""What a container printed, kept in Docker's ``json-file`` format and bounded in size.

One JSON object a line: ``{"log": "text\n", "stream": "stdout", "time": "2026-01-02T03:04:05.000000006Z"}``. A line
of output longer than 16 KiB becomes several objects, of which only the last ends in a newline.
"""

import contextlib
import dataclasses
import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from woodlot.values import dataclass

log = logging.getLogger(__name__)

Stream = Literal["stdout", "stderr"]
_MAX_LINE_BYTES = 16 << 10
_CHUNK_BYTES = 1 << 20


class LogWriter:
    """Appends to a container's log; the file of the last rotation is kept beside it as ``.1``.

    Never raises once open: a full disk costs log lines, not the container.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = path.open("ab")
        self._size = self._file.tell()
        self._partial: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}

    @property
    def position(self) -> "LogPosition":
        """The end of what has been written."""
        if self._file is None:
            return LogPosition(inode=0, size=0)
        return LogPosition(inode=os.fstat(self._file.fileno()).st_ino, size=self._size)

    def write(self, stream: Stream, data: bytes) -> bytes:
        """Take output as it came; whole lines are written, the rest waits for its end.

        Returns:
            What was appended to the file.
        """
        pending = self._partial[stream] + data if self._partial[stream] else data
        *lines, rest = pending.split(b"\n")
        records = [line + b"\n" for line in lines]
        *full, self._partial[stream] = _pieces(rest)
        records += full
        return self._append(stream, records) if records else b""

    def close(self) -> bytes:
        """Write what waits for the end of its line, and close.

        Returns:
            What was appended to the file.
        """
        written = b"".join(
            self._append(stream, [rest]) for stream, rest in self._partial.items() if rest
        )
        self._partial = {"stdout": b"", "stderr": b""}
        if self._file is not None:
            self._file.close()
            self._file = None
        return written

    def _append(self, stream: Stream, lines: list[bytes]) -> bytes:
        if self._file is None:
            return b""
        seconds, nanos = divmod(time.time_ns(), 10**9)
        moment = datetime.fromtimestamp(seconds, UTC)
        tail = f'","stream":"{stream}","time":"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"}}\n'
        encoded = b"".join(
            ('{"log":' + _encode(piece)[:-1] + tail).encode()
            for line in lines
            for piece in _pieces(line)
        )
        try:
            self._file.write(encoded)
            self._file.flush()
            self._size += len(encoded)
            if self._size > self._max_bytes:
                self._rotate()
        except OSError as error:
            log.warning("the container's log is lost from here on: %s", error)
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
            return b""
        return encoded

    def _rotate(self) -> None:
        assert self._file is not None  # noqa: S101
        self._file.close()
        self._path.replace(self._path.with_suffix(self._path.suffix + ".1"))
        self._file = self._path.open("ab")
        self._size = 0


def _pieces(line: bytes) -> list[bytes]:
    """The line in pieces of at most 16 KiB, cut between characters; the last may be empty."""
    pieces: list[bytes] = []
    start = 0
    while len(line) - start > _MAX_LINE_BYTES:
        end = start + _MAX_LINE_BYTES
        # A character of UTF-8 begins with a byte that is no continuation, at most three before the cut.
        end = next((end - back for back in range(4) if line[end - back] & 0xC0 != 0x80), end)
        pieces.append(line[start:end])
        start = end
    return [*pieces, line[start:]]


def _encode(piece: bytes) -> str:
    return json.dumps(piece.decode("utf-8", "replace"), ensure_ascii=False)


@dataclasses.dataclass(frozen=True, slots=True)  # noqa: TID251 - one is made for each line of a log
class Record:
    """A line of a container's log, or a piece of a very long one."""

    text: str
    stream: Stream
    time: str
    """RFC 3339, UTC, nanoseconds: such times sort as text does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """A place in a log: so many bytes into the file of that inode."""

    inode: int
    size: int


class Selection:
    """The records of a log between two moments, in seconds since 1970."""

    def __init__(self, since: float | None = None, until: float | None = None) -> None:
        # Sorted before and after every time.
        self._earliest = "" if since is None else format_moment(since)
        self._latest = "~" if until is None else format_moment(until)

    def __contains__(self, record: Record) -> bool:
        return self._earliest <= record.time <= self._latest

    def last(self, records: Iterable[Record], count: int | None) -> Iterable[Record]:
        """Of the records those that are meant, and of these the last ones."""
        meant = (record for record in records if record in self)
        return meant if count is None else deque(meant, maxlen=count)


def format_moment(seconds: float) -> str:
    """A moment as the log writes it."""
    whole, part = divmod(seconds, 1)
    moment = datetime.fromtimestamp(whole, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{round(part * 1e9) % 10**9:09d}Z"


class LogReader:
    """Reads the files of a container's log, oldest first."""

    def __init__(self, path: Path) -> None:
        self._paths = (path.with_suffix(path.suffix + ".1"), path)
        self._files: dict[int, BinaryIO] = {}

    def open(self) -> None:
        """Hold on to the files that are there now, whatever is rotated away; called again, to those that are new."""
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                file = path.open("rb")
                if self._files.setdefault(os.fstat(file.fileno()).st_ino, file) is not file:
                    file.close()

    def read(self, until: LogPosition | None = None) -> Iterator[Record]:
        """The lines of all files held, up to a position if one is given; damaged ones are left out."""
        for inode, file in self._files.items():
            is_last = until is not None and inode == until.inode
            limit = until.size if until is not None and is_last else None
            yield from _read_records(file, limit)
            if is_last:
                return

    def close(self) -> None:
        """Give the files back."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _read_records(file: BinaryIO, limit: int | None) -> Iterator[Record]:
    rest, left = b"", limit
    while data := file.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES)):
        if left is not None:
            left -= len(data)
        whole, newline, rest = (rest + data).rpartition(b"\n")
        yield from parse_records(whole + newline)


def parse_records(data: bytes) -> Iterator[Record]:
    """The records in whole lines of a log's file; damaged ones are left out."""
    for line in data.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            fields = json.loads(line)
            yield Record(fields["log"], fields["stream"], fields["time"])
