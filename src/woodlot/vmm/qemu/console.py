"""What a guest's console tells about its end. A guest writes what it likes there: bounded, and never printed raw."""

import re
from pathlib import Path

_TAIL_BYTES = 64 << 10
_MAX_LINE = 200
_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]{0,400})")


def panic_line(console_log: Path) -> str | None:
    """The last kernel panic near the end of the log, printable and short; None if there is none."""
    found = _PANIC.findall(tail(console_log, _TAIL_BYTES))
    return printable(found[-1]) if found else None


def tail(path: Path, size: int, *, start: int = 0) -> bytes:
    """Up to ``size`` last bytes of the file, none of them before ``start``; empty if it cannot be read."""
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, 2)
            stream.seek(max(start, end - size))
            return stream.read(size)
    except OSError:
        return b""


def printable(line: bytes) -> str:
    """One line of text without control or escape characters, cut to a length a terminal shows."""
    text = line.decode("utf-8", "replace")
    clean = "".join(c if c.isprintable() else " " for c in text)
    clean = " ".join(clean.split())
    return clean if len(clean) <= _MAX_LINE else clean[: _MAX_LINE - 1] + "…"
