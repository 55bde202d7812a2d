"""What several containers use, sampled together."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from woodlot.container.client import Supervised, connect
from woodlot.container.spec import ContainerSpec
from woodlot.container.usage import Stats
from woodlot.errors import WoodlotError
from woodlot.paths import Paths
from woodlot.values import dataclass

_SAMPLE_TIMEOUT_S = 3.0


class Metered(Protocol):
    """A container, as of a moment."""

    @property
    def spec(self) -> ContainerSpec:
        """What it is."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether it can be asked."""
        ...


T = TypeVar("T", bound=Metered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Generic[T]):
    """One container's sample; None for one that does not run, or does not answer."""

    container: T
    stats: Stats | None
    cpu_percent: float | None
    """None at the first sample."""


class Meter(Generic[T]):
    """Samples of containers, again and again; closed by leaving its ``async with`` block."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._connections: dict[str, tuple[Supervised, AsyncExitStack]] = {}
        self._before: dict[str, Stats] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for container_id in tuple(self._connections):
            await self._hang_up(container_id)

    async def read(self, containers: Sequence[T]) -> list[Reading[T]]:
        """A sample of each, all taken at once."""
        wanted = {one.spec.id for one in containers if one.is_live}
        for container_id in self._connections.keys() - wanted:
            await self._hang_up(container_id)
        return list(await asyncio.gather(*(self._read(one) for one in containers)))

    async def _read(self, container: T) -> Reading[T]:
        container_id = container.spec.id
        stats = await self._sample(container_id) if container.is_live else None
        if stats is None:
            await self._hang_up(container_id)
            return Reading(container=container, stats=None, cpu_percent=None)
        before = self._before.get(container_id)
        self._before[container_id] = stats
        percent = stats.cpu_percent(before) if before else None
        return Reading(container=container, stats=stats, cpu_percent=percent)

    async def _sample(self, container_id: str) -> Stats | None:
        try:
            async with asyncio.timeout(_SAMPLE_TIMEOUT_S):
                return await (await self._connect(container_id)).stats()
        except (WoodlotError, TimeoutError):
            return None

    async def _connect(self, container_id: str) -> Supervised:
        if container_id not in self._connections:
            stack = AsyncExitStack()
            supervised = connect(self._paths, container_id)
            await stack.enter_async_context(supervised)
            self._connections[container_id] = supervised, stack
        return self._connections[container_id][0]

    async def _hang_up(self, container_id: str) -> None:
        self._before.pop(container_id, None)
        if container_id in self._connections:
            await self._connections.pop(container_id)[1].aclose()
