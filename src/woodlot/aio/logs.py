"""What a container printed, and prints."""

from typing import TYPE_CHECKING

from woodlot.aio.handle import Handle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from pathlib import Path

    from woodlot.container.logs import Record


class Log(Handle):
    """A container whose log is read."""

    async def logs(self) -> str:
        """What its process has printed so far, stdout and stderr as they came."""
        return "".join(record.text for record in self.log_records())

    def log_records(
        self, *, tail: int | None = None, since: float | None = None, until: float | None = None
    ) -> "Iterator[Record]":
        """The lines that its process has printed so far.

        Args:
            tail: Only the last ones.
            since: Only those from then on, in seconds since 1970.
            until: Only those up to then.
        """
        from woodlot.container.logs import LogReader, Selection

        reader = LogReader(self._store.paths.container(self.id) / "stdio.log")
        reader.open()
        try:
            yield from Selection(since, until).last(reader.read(), tail)
        finally:
            reader.close()

    def follow_log(
        self, *, tail: int | None = None, since: float | None = None, until: float | None = None
    ) -> "AsyncGenerator[Sequence[Record]]":
        """The lines that its process has printed and will print, in pieces as they come, until the container ends.

        While nobody takes them, its process is held back: none is lost. The arguments are those of `log_records`.
        """
        from woodlot.aio.follow import follow
        from woodlot.container.logs import Selection

        return follow(self, self._store, tail, Selection(since, until))

    @property
    def boot_log(self) -> "Path":
        """What its guest's kernel says; not there before its first start."""
        return self._store.paths.container(self.id) / "console.log"
