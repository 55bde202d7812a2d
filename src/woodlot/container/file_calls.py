"""Which calls of the agent's service `Files` are under way for the supervisor's clients, and when there may be any."""

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from woodlot.errors import WoodlotError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    import grpc.aio

    from woodlot.guest.client import Agent

Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"

# While these are under way, the container's processes stand still.
_STILL = ("Export", "ExportLayer")


class FileCalls:
    """Calls wait until the guest is set up, and end when it is shut down."""

    def __init__(self) -> None:
        self._agent: asyncio.Future[Agent] = asyncio.get_running_loop().create_future()
        self._calls: dict[Call, str] = {}
        self._cut: dict[Call, WoodlotError] = {}

    def open(self, agent: "Agent") -> None:
        """The guest's files can be had: at first, or once more after `close`."""
        if self._agent.done():
            self._agent = asyncio.get_running_loop().create_future()
        self._agent.set_result(agent)

    def close(self, error: WoodlotError) -> None:
        """No more calls: those under way end with the error, and so do those that come."""
        if self._agent.done():
            if self._agent.exception():
                return
            self._cancel(error, self._calls.values())
            self._agent = asyncio.get_running_loop().create_future()
        self._agent.set_exception(error)
        self._agent.exception()  # retrieved: nobody may be waiting

    def release(self, error: WoodlotError) -> None:
        """End the calls that the container's processes stand still for, with an error."""
        self._cancel(error, _STILL)

    def _cancel(self, error: WoodlotError, methods: "Collection[str]") -> None:
        for call, name in self._calls.items():
            if name in methods:
                self._cut[call] = error
                call.cancel()

    async def agent(self) -> "Agent":
        """The guest's, once it is set up.

        Raises:
            WoodlotError: Why there are no files to be had.
        """
        return await asyncio.shield(self._agent)

    @contextmanager
    def under_way(self, call: Call, method: str) -> "Generator[None]":
        """During the block `close` and `cancel` end the call."""
        self._calls[call] = method
        try:
            yield
        finally:
            self._calls.pop(call)
            self._cut.pop(call, None)

    def why_cut(self, call: Call) -> WoodlotError | None:
        """Why a call that is under way was ended from this side; None if it was not."""
        return self._cut.get(call)
