"""Tells a guest what changes in the directories that it shares with the host."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from woodlot.errors import GuestError
from woodlot.files.changes import Change, Kind, Watcher
from woodlot.files.share import Share

if TYPE_CHECKING:
    from woodlot._pb.agent.v1 import agent_pb2
    from woodlot.guest.client import Agent

log = logging.getLogger(__name__)

# The filesystem in the guest that is told waits as long for a server on the host, whose end is noticed sooner.
_TIMEOUT_S = 60.0


class Watch:
    """A directory that is being watched; made by `watch_all`."""

    def __init__(self, watcher: Watcher, scan: "asyncio.Task[None]") -> None:
        self._watcher = watcher
        self._scan = scan

    async def tell(self, tag: str, agent: "Agent") -> None:
        """Tell the guest of every change in its share ``tag``, until cancelled."""
        await asyncio.shield(self._scan)
        async for changes in self._watcher.changes():
            try:
                await agent.play_changes(build_request(tag, changes), timeout_s=_TIMEOUT_S)
            except GuestError as error:
                log.warning("some changes were not told: %s", error.message)


@asynccontextmanager
async def watch_all(shares: Iterable[Share]) -> AsyncGenerator[dict[str, Watch]]:
    """Watch the directories of ``shares`` for the life of the block; by tag.

    One that cannot be watched is left out, and the log says why: its files are shared all the same.
    """
    async with AsyncExitStack() as stack:
        watches: dict[str, Watch] = {}
        for share in shares:
            try:
                watcher = Watcher(share.source)
            except OSError as error:
                log.warning("changes in %s are not told: %s", share.source, error.strerror)
                continue
            stack.callback(watcher.close)
            # A large tree takes a while, in which the VM starts.
            scan = asyncio.create_task(asyncio.to_thread(watcher.scan))
            stack.push_async_callback(asyncio.wait, (scan,))
            watches[share.tag] = Watch(watcher, scan)
        yield watches


def build_request(tag: str, changes: Sequence[Change]) -> "agent_pb2.PlayChangesRequest":
    """The message that tells of ``changes``."""
    from woodlot._pb.agent.v1 import agent_pb2

    kinds = {
        Kind.CREATED: agent_pb2.Change.KIND_CREATED,
        Kind.DELETED: agent_pb2.Change.KIND_DELETED,
        Kind.MOVED: agent_pb2.Change.KIND_MOVED,
        Kind.MOVED_OUT: agent_pb2.Change.KIND_MOVED_OUT,
        Kind.MOVED_IN: agent_pb2.Change.KIND_MOVED_IN,
        Kind.MODIFIED: agent_pb2.Change.KIND_MODIFIED,
        Kind.CLOSED: agent_pb2.Change.KIND_CLOSED,
        Kind.ATTRIBUTES: agent_pb2.Change.KIND_ATTRIBUTES,
    }
    return agent_pb2.PlayChangesRequest(
        source=tag,
        changes=[
            agent_pb2.Change(
                kind=kinds[change.kind],
                directory=change.directory,
                name=change.name,
                is_directory=change.is_directory,
                to_directory=change.to_directory,
                to_name=change.to_name,
            )
            for change in changes
        ],
    )
