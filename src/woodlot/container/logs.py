r"""What a container printed, kept in Docker's ``json-file`` format and bounded in size.

One JSON object a line: ``{"log": "text\n", "stream": "stdout", "time": "2026-01-02T03:04:05.000000006Z"}``. A line
of output longer than 16 KiB becomes several objects, of which only the last ends in a newline.
"""

import contextlib
import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

log = logging.getLogger(__name__)

Stream = Literal["stdout", "stderr"]
_MAX_LINE_BYTES = 16 << 10


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

    def write(self, stream: Stream, data: bytes) -> None:
        """Take output as it came; whole lines are written, the rest waits for its end."""
        pending = self._partial[stream] + data if self._partial[stream] else data
        *lines, rest = pending.split(b"\n")
        records = [line + b"\n" for line in lines]
        *full, self._partial[stream] = _pieces(rest)
        records += full
        if records:
            self._append(stream, records)

    def close(self) -> None:
        """Write what waits for the end of its line, and close."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(stream, [rest])
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, stream: Stream, lines: list[bytes]) -> None:
        if self._file is None:
            return
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
