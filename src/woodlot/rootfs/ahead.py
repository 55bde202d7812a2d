"""Work done ahead of its consumer, in a thread of its own."""

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class _Failed:
    """The last item of an iteration that raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _End:
    """The last item of an iteration that ended."""


class ReadAhead(Generic[T]):
    """An iterator whose items are made by a thread, up to ``depth`` of them ahead.

    A context manager: the thread runs inside the block and has ended after it, also when the items were not
    all taken. What the source raises is raised to the consumer in its place in the order.
    """

    def __init__(self, source: Iterator[T], *, depth: int, name: str) -> None:
        self._source = source
        self._items: queue.Queue[T | _Failed | _End] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        # The thread may wait for room; it looks at the flag after each item it has put.
        while self._thread.is_alive():
            try:
                self._items.get(timeout=0.01)
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item = self._items.get()
        if isinstance(item, _End):
            raise StopIteration
        if isinstance(item, _Failed):
            raise item.error
        return item

    def _run(self) -> None:
        try:
            for item in self._source:
                self._items.put(item)
                if self._stopped.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            self._items.put(_Failed(error))
        else:
            self._items.put(_End())
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
