"""What runs in a container: its own process, and those that join it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from woodlot.container import requests
from woodlot.container.events import tell
from woodlot.container.spec import ContainerSpec, ExecSpec
from woodlot.errors import StateError, WoodlotError
from woodlot.store.store import Store

if TYPE_CHECKING:
    from woodlot.guest.client import Agent, Process

log = logging.getLogger(__name__)

_PAUSE_TIMEOUT_S = 20.0


class Processes:
    """The processes of one start of a container, for its clients."""

    def __init__(self, store: Store, spec: ContainerSpec, on_change: Callable[[], None]) -> None:
        """There are none yet.

        Args:
            store: Told of what happens.
            spec: The container.
            on_change: Called when they stand still, and when they go on.
        """
        self._store = store
        self._spec = spec
        self._on_change = on_change
        self.first: Process | None = None
        """The container's own, from when it is being started."""
        self.started_at = 0.0
        """When that ran, in seconds since 1970; 0 if it never did."""
        self.over = asyncio.Event()
        """Set when that has ended."""
        self._agent: Agent | None = None
        self._joined: dict[str, Process] = {}
        self._detached: set[asyncio.Task[None]] = set()
        self._going = asyncio.Event()
        self._going.set()
        self._pausing = asyncio.Lock()

    def open(self, agent: "Agent") -> None:
        """The guest is ready for processes."""
        self._agent = agent

    @property
    def are_running(self) -> bool:
        """Whether the container's own runs, and so whatever joined it may."""
        return self.started_at > 0 and not self.over.is_set()

    @property
    def own(self) -> "Process":
        """The container's process, to send things to.

        Raises:
            StateError: It does not run.
        """
        if self.first is None or self.over.is_set():
            raise StateError(f"container {self._spec.name} is not running")
        return self.first

    @property
    def agent(self) -> "Agent":
        """The guest's agent, to ask about the container while its process runs.

        Raises:
            StateError: It does not run.
        """
        if self._agent is None or not self.are_running:
            raise StateError(f"container {self._spec.name} is not running")
        return self._agent

    @property
    def are_paused(self) -> bool:
        """Whether they stand still."""
        return not self._going.is_set()

    async def going(self) -> None:
        """Return when they do not stand still."""
        await self._going.wait()

    def find(self, exec_id: str) -> "Process":
        """A process to send things to: one that `exec` runs, or the container's own.

        Raises:
            StateError: It does not run.
        """
        if not exec_id:
            return self.own
        if exec_id not in self._joined:
            raise StateError(f"container {self._spec.name} runs no process {exec_id} any more")
        return self._joined[exec_id]

    @asynccontextmanager
    async def exec(
        self, spec: ExecSpec, *, rows: int = 0, columns: int = 0
    ) -> "AsyncGenerator[Process]":
        """Run one more process in the container, for the life of the block.

        Args:
            spec: The process.
            rows: Height of the client's terminal; 0 if it has none.
            columns: Width of it.

        Raises:
            StateError: The container does not run, or stands still, or the process's id is taken.
        """
        async with self.join(spec, rows, columns) as process:
            tell(self._store, self._spec, "exec_start", execID=spec.id)
            yield process

    @asynccontextmanager
    async def join(
        self, spec: ExecSpec, rows: int = 0, columns: int = 0
    ) -> "AsyncGenerator[Process]":
        """As `exec`, and nobody is told of it."""
        agent = self.agent
        if self.are_paused:
            raise StateError(
                f"container {self._spec.name} is paused",
                hint=f"container unpause {self._spec.name}",
            )
        if spec.id in self._joined:
            raise StateError(f"container {self._spec.name} runs a process {spec.id} already")
        request = requests.process_request(
            requests.join_process(self._spec.process, spec), rows, columns
        )
        async with agent.run(request, first=False) as process:
            self._joined[spec.id] = process
            try:
                yield process
            finally:
                del self._joined[spec.id]

    async def exec_detached(self, spec: ExecSpec) -> None:
        """Run one more process and return when it runs; nobody sees its output.

        Raises:
            WoodlotError: Why it does not run.
        """
        from woodlot.guest.said import Started

        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                async with self.exec(spec) as process:
                    async for event in process.events():
                        if isinstance(event, Started):
                            started.set_result(None)
            except WoodlotError as error:
                if started.done():
                    log.warning("a detached process: %s", error.message)
                else:
                    started.set_exception(error)

        task = asyncio.create_task(run())
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        await started

    async def pause(self) -> None:
        """Let its processes stand still.

        Raises:
            StateError: They do, or it does not run.
            GuestError: One waits for a server of the host's.
        """
        # Whoever asked may leave meanwhile; what the guest does is known all the same.
        await asyncio.shield(asyncio.create_task(self._pause()))

    async def _pause(self) -> None:
        async with self._pausing:
            agent = self.agent
            if self.are_paused:
                raise StateError(f"container {self._spec.name} is paused already")
            await agent.pause(timeout_s=_PAUSE_TIMEOUT_S)
            self._going.clear()
            self._tell_paused("pause")

    async def unpause(self) -> None:
        """Let its processes go on.

        Raises:
            StateError: They do not stand still.
        """
        await asyncio.shield(asyncio.create_task(self._unpause()))

    async def _unpause(self) -> None:
        async with self._pausing:
            agent = self.agent
            if not self.are_paused:
                raise StateError(f"container {self._spec.name} is not paused")
            await agent.unpause(timeout_s=_PAUSE_TIMEOUT_S)
            self._going.set()
            self._tell_paused("unpause")

    def _tell_paused(self, action: str) -> None:
        if self.are_running:
            self._on_change()
            tell(self._store, self._spec, action)
