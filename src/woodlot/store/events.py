r"""What happened to containers, images, networks and volumes: one line of JSON for each event, in Docker's form.

    {"Type": "container", "Action": "die", "Actor": {"ID": "…", "Attributes": {"name": "web", "exitCode": "0"}},
     "scope": "local", "time": 1767268800, "timeNano": 1767268800000000000}

Whoever does something appends its line; there is nobody in between. The file is bounded: the one before it is kept as
``.1``, and what was in the one before that is forgotten.

Source: Docker's Engine API, ``GET /events``.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

from woodlot import filters
from woodlot.errors import WoodlotError
from woodlot.oci.reference import parse_reference
from woodlot.store.locks import hold_sync
from woodlot.values import dataclass

log = logging.getLogger(__name__)

EventType = Literal["container", "image", "network", "volume"]

MAX_BYTES = 4 << 20
_MAX_TEXT = 1024
_MAX_ATTRIBUTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    type: EventType
    action: str
    """As Docker names it: ``create``, ``start``, ``die``, ``health_status: healthy``, …"""
    id: str
    """Of what it happened to."""
    time_ns: int
    """Nanoseconds since 1970."""
    attributes: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The event as Docker shows it."""
        return {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": dict(self.attributes)},
            "scope": "local",
            "time": self.time_ns // 10**9,
            "timeNano": self.time_ns,
        }


KEYS = ("container", "event", "image", "label", "network", "type", "volume")


def build_test(given: filters.Given) -> "filters.Test[Event]":
    """What tells whether an event meets all conditions, as Docker's ``events --filter`` has them.

    Raises:
        ConfigError: A condition is none.
    """
    makers: dict[str, filters.Maker[Event]] = {
        "container": _is("container"),
        # `health_status` stands for all of them.
        "event": lambda text: lambda one: text in {one.action, one.action.partition(":")[0]},
        "image": _of_image,
        "label": filters.label(lambda one: one.attributes),
        "network": _is("network"),
        "type": lambda text: lambda one: one.type == text,
        "volume": _is("volume"),
    }
    return filters.build(given, makers, what="events")


def _is(kind: EventType) -> "filters.Maker[Event]":
    """One of a kind, by its name or the start of its id."""

    def make(text: str) -> "filters.Test[Event]":
        return lambda one: (
            one.type == kind
            and bool(text)
            and (one.id.startswith(text) or one.attributes.get("name") == text)
        )

    return make


def _of_image(text: str) -> "filters.Test[Event]":
    """An image, or a container made from it."""
    try:
        names = {text, str(parse_reference(text))}
    except WoodlotError:
        names = {text}

    def meets(one: Event) -> bool:
        attributes = one.attributes
        if one.type == "image":
            return bool({one.id, attributes.get("name", "")} & names)
        return attributes.get("image", "") in names

    return meets


class EventLog:
    """The events of one installation."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "events.jsonl"

    def add(
        self, kind: EventType, action: str, subject: str, attributes: Mapping[str, str]
    ) -> None:
        """Tell of an event that has happened just now. Never raises: it costs the event, not what happened.

        Args:
            kind: Of what it happened to.
            action: What happened.
            subject: Id of what it happened to.
            attributes: More about it; texts beyond 1 KiB are cut, and so is what is beyond 64 of them.
        """
        event = Event(
            type=kind,
            action=action[:_MAX_TEXT],
            id=subject,
            time_ns=0,
            attributes={
                name[:_MAX_TEXT]: value[:_MAX_TEXT]
                for name, value in list(attributes.items())[:_MAX_ATTRIBUTES]
            },
        )
        try:
            self._append(event.to_json())
        except OSError as error:
            log.warning("an event is lost: %s", error)

    def _append(self, fields: dict[str, Any]) -> None:
        with hold_sync(self._directory / "lock"):
            # Here, so that times never go back in the file.
            now = time.time_ns()
            line = json.dumps({**fields, "time": now // 10**9, "timeNano": now}) + "\n"
            with self._path.open("ab", buffering=0) as file:
                size = file.tell()
                if file.write(line.encode()) < len(line):
                    # The disk is full: no half a line.
                    file.truncate(size)
            if size > MAX_BYTES:
                self._path.replace(self._older)

    @property
    def _older(self) -> Path:
        return self._path.with_suffix(".jsonl.1")

    def read(self, since_ns: int = 0, until_ns: int | None = None) -> Iterator[Event]:
        """What has happened in that time, oldest first; damaged lines are left out."""
        for path in (self._older, self._path):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                yield from _between(_parse(file), since_ns, until_ns)

    async def follow(
        self, since_ns: int | None = None, until_ns: int | None = None
    ) -> AsyncGenerator[Event]:
        """What happens from now on, or happened from a time on, as it comes.

        Args:
            since_ns: Nanoseconds since 1970; None for now.
            until_ns: The end; None for none.
        """
        since = time.time_ns() if since_ns is None else since_ns
        if until_ns is not None and until_ns <= time.time_ns():
            for event in self.read(since, until_ns):
                yield event
            return
        async with aclosing(self._follow(since, until_ns)) as happening:
            async for event in happening:
                yield event

    async def _follow(self, since_ns: int, until_ns: int | None) -> AsyncGenerator[Event]:
        import asyncio

        from woodlot.inotify import Inotify, Mask

        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        woken = asyncio.Event()
        watching = Inotify()
        loop = asyncio.get_running_loop()
        try:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                watching.add(directory, Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO)
            finally:
                os.close(directory)

            def wake() -> None:
                watching.read()
                woken.set()

            loop.add_reader(watching.fd, wake)
            last = since_ns - 1
            with _Tail(self._path) as tail:
                for event in self.read(last + 1):
                    last = event.time_ns
                    yield event
                while True:
                    woken.clear()
                    for event in tail.read():
                        # The tail begins before what has been read.
                        if event.time_ns > last:
                            last = event.time_ns
                            yield event
                    try:
                        left_s = None if until_ns is None else (until_ns - time.time_ns()) / 1e9
                        async with asyncio.timeout(left_s):
                            await woken.wait()
                    except TimeoutError:
                        return
        finally:
            loop.remove_reader(watching.fd)
            watching.close()


class _Tail:
    """Reads a file that grows and is renamed when it is long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._open()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._file = self._path.open("rb")

    def read(self) -> Iterator[Event]:
        """What has come, over a renaming: the old one is read to its end, then the new one from its beginning."""
        while True:
            if self._file is None:
                self._open()
            if self._file is None:
                return
            moved = not self._is_current()
            yield from _parse(self._file)
            if not moved:
                return
            self._file.close()
            self._file = None

    def _is_current(self) -> bool:
        assert self._file is not None  # noqa: S101
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


def _between(events: Iterator[Event], since_ns: int, until_ns: int | None) -> Iterator[Event]:
    for event in events:
        if event.time_ns >= since_ns and (until_ns is None or event.time_ns <= until_ns):
            yield event


def _parse(file: BinaryIO) -> Iterator[Event]:
    for line in file:
        if not line.endswith(b"\n"):
            # Being written: read again, whole.
            file.seek(-len(line), os.SEEK_CUR)
            return
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            fields = json.loads(line)
            actor = fields["Actor"]
            yield Event(
                type=fields["Type"],
                action=fields["Action"],
                id=actor["ID"],
                time_ns=fields["timeNano"],
                attributes=dict(actor["Attributes"].items()),
            )
