"""A container's log, as it grows."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from woodlot.container.logs import LogReader, Record, Selection, parse_records
from woodlot.container.state import Stopped
from woodlot.errors import StateError

if TYPE_CHECKING:
    from woodlot.aio.handle import Handle
    from woodlot.store.store import Store

_PIECE = 1000


async def follow(
    container: "Handle", store: "Store", tail: int | None, selection: Selection
) -> AsyncGenerator[Sequence[Record]]:
    """The log's files up to the moment the supervisor's stream begins, and then the stream until it ends.

    One stream is one start of the container; if it is started again by its restart policy, there is another.
    """
    from woodlot.container.client import connect

    reader = LogReader(store.paths.container(container.id) / "stdio.log")
    reader.open()
    try:
        if not container.is_live:
            for piece in _pieces(selection.last(reader.read(), tail)):
                yield piece
            return
        view = _View(selection, tail)
        while True:
            began = False
            try:
                async with (
                    connect(store.paths, container.id) as supervised,
                    supervised.follow() as (position, records),
                ):
                    began = True
                    # It may have been rotated since.
                    reader.open()
                    for piece in view.old(reader.read(position)):
                        yield piece
                    async for data in records:
                        yield view.new(data)
            except StateError:
                # The supervisor is gone: killed, or done before we came, and then all it wrote is in the files.
                if not began:
                    reader.open()
                    for piece in view.old(reader.read()):
                        yield piece
                return
            if container.spec.restart.name == "no":
                return
            if isinstance(container.refresh(), Stopped):
                return
            view.again()
            reader.close()
            reader.open()
    finally:
        reader.close()


class _View:
    """What a follower has seen of a log."""

    def __init__(self, selection: Selection, tail: int | None) -> None:
        self._selection = selection
        self._tail = tail
        self._since = self._seen = ""

    def again(self) -> None:
        """A stream gives all that one start writes, and the next start writes later; `tail` is about what was before the first."""
        self._since = self._seen or "0"
        self._tail = None

    def old(self, records: Iterable[Record]) -> Iterator[Sequence[Record]]:
        """Pieces of the log's files, but for what was seen."""
        unseen = self._noted(record for record in records if record.time > self._since)
        return _pieces(self._selection.last(unseen, self._tail))

    def new(self, data: bytes) -> Sequence[Record]:
        """A piece of the stream."""
        return [record for record in self._noted(parse_records(data)) if record in self._selection]

    def _noted(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            self._seen = record.time
            yield record


def _pieces(records: Iterable[Record]) -> Iterator[Sequence[Record]]:
    rest = iter(records)
    while piece := list(islice(rest, _PIECE)):
        yield piece
