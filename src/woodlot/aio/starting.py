"""Containers on their way from a record to a process that runs."""

import contextlib
import importlib
from typing import TYPE_CHECKING, Self

from woodlot import trace
from woodlot.container.lifeline import wait_ready

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from woodlot.aio.container import Container
    from woodlot.container.client import Attachment, Supervised
    from woodlot.store.store import Store


class Starting:
    """A container whose supervisor boots its virtual machine, and gives up when the ``with`` block ends before its process runs.

    Made by `Containers.begin` and `Container.begin`.
    """

    def __init__(self, store: "Store", container: "Container", lifeline: "socket.socket") -> None:
        self._store = store
        self._lifeline = lifeline
        self._container = container

    @property
    def container(self) -> "Container":
        """It."""
        return self._container

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self._lifeline.close()

    def wait(self) -> None:
        """Return when the supervisor answers, and `start` and `attach` can be called; blocks the thread.

        Raises:
            WoodlotError: Why it never will.
        """
        # Meanwhile, load what `start` and `attach` need.
        with trace.span("load gRPC"):
            importlib.import_module("woodlot.container.client")
        with trace.span("wait for the supervisor"):
            wait_ready(self._lifeline)

    async def start(self) -> None:
        """Start its process; returns when it runs.

        Raises:
            WoodlotError: Why it does not.
        """
        async with self._supervised() as supervised:
            await supervised.start()

    @contextlib.asynccontextmanager
    async def attach(
        self, *, owner: bool = False, stdin: bool = False, window: tuple[int, int] = (0, 0)
    ) -> "AsyncGenerator[Attachment]":
        """Start its process and be its stdio; `Attachment.started` returns when it runs.

        Args:
            owner: The container ends when the block is left before the process has ended.
            stdin: Its stdin will be written to, and closed.
            window: Rows and columns of its terminal.
        """
        async with (
            self._supervised() as supervised,
            supervised.attach(start=True, owner=owner, stdin=stdin, window=window) as attachment,
        ):
            yield attachment

    def _supervised(self) -> "Supervised":
        from woodlot.container.client import connect

        return connect(self._store.paths, self.container.id)

    def forget(self) -> None:
        """Give it up, and delete it if it is new and its process never ran, so that its name is free again."""
        from woodlot.container.begin import forget

        self._lifeline.close()
        forget(self._store, self.container.spec)
