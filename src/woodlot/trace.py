"""When what was done, as a timeline in Chrome's trace format; `container system trace` makes one.

The variable WOODLOT_TRACE names a file, to which every process of a container adds a line for each span once it is over:
an event of the format (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU), with
microseconds of the host's monotonic clock. Without the variable a span costs a function call.
"""

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

VARIABLE = "WOODLOT_TRACE"
# The guest is no process of the host, and has no id there.
_GUEST_ID = 1
_NOTHING = contextlib.nullcontext()
# Spans of tasks that overlap cannot be drawn on one line: each task has its own.
_lanes: dict[str, int] = {}


def span(name: str) -> AbstractContextManager[None]:
    """Something that begins now and is over at the end of the block."""
    return _timed(name) if is_on() else _NOTHING


def is_on() -> bool:
    """Whether there is a file to write to."""
    return VARIABLE in os.environ


@contextlib.contextmanager
def _timed(name: str) -> Generator[None]:
    start = time.monotonic_ns()
    try:
        yield
    finally:
        add([(name, start, time.monotonic_ns())])


@contextlib.contextmanager
def process(name: str) -> Generator[None]:
    """Say what this process is called in the timeline, and that it will add to it until the end of the block."""
    if not is_on():
        yield
        return
    file = _file()
    _write(file, [_name(os.getpid(), name)])
    with contextlib.ExitStack() as stack:
        # Who waits for the whole timeline waits for this lock.
        with contextlib.suppress(OSError):
            fcntl.flock(stack.enter_context(file.open("rb")), fcntl.LOCK_SH)
        yield


def add(
    spans: Iterable[tuple[str, int, int]], *, guest: bool = False, file: Path | None = None
) -> None:
    """Add what is over to the timeline, if there is one.

    Args:
        spans: Name, start and end, in nanoseconds of `time.monotonic_ns`.
        guest: They are the guest's, not this process's.
        file: The timeline's, if not the variable's: they are what a shell sees of a command.
    """
    if file is None and not is_on():
        return
    where = {"pid": _GUEST_ID, "tid": 0} if guest else {"pid": os.getpid(), "tid": _lane()}
    events = [
        {"ph": "X", "name": name, "ts": start / 1000, "dur": (end - start) / 1000, **where}
        for name, start, end in spans
    ]
    name = _name(_GUEST_ID, "guest") if guest else _name(os.getpid(), "shell") if file else None
    _write(file or _file(), [name, *events] if name else events)


def read(file: Path) -> list[dict[str, Any]]:
    """What processes have added to a file, the first begun first."""
    with file.open("rb") as lines:
        events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return sorted(events, key=lambda event: event.get("ts", 0.0))


def _file() -> Path:
    return Path(os.environ[VARIABLE])


def _name(pid: int, name: str) -> dict[str, object]:
    return {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}


def _lane() -> int:
    # Not imported for its own sake: not every command needs it.
    asyncio = sys.modules.get("asyncio")
    try:
        task = asyncio.current_task() if asyncio else None
    except RuntimeError:
        task = None
    return _lanes.setdefault(task.get_name(), len(_lanes) + 1) if task else 0


def _write(file: Path, events: Iterable[Mapping[str, object]]) -> None:
    text = "".join(json.dumps(event) + "\n" for event in events)
    # A timeline is never worth failing for. One that is finished is gone, and not made again.
    with contextlib.suppress(OSError):
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            # One write, so that lines of several processes do not mix.
            os.write(fd, text.encode())
        finally:
            os.close(fd)
