"""One installation, by its nouns."""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from woodlot.paths import find_paths
from woodlot.store.events import KEYS, build_test
from woodlot.store.store import Store

if TYPE_CHECKING:
    from woodlot.aio.container import Container
    from woodlot.aio.containers import Containers
    from woodlot.aio.images import Images
    from woodlot.aio.networks import Networks
    from woodlot.aio.options import Options
    from woodlot.aio.system import System
    from woodlot.aio.volumes import Volumes
    from woodlot.filters import Given
    from woodlot.paths import Paths
    from woodlot.store.events import Event

EVENT_FILTERS = KEYS


class Client:
    """One installation; closed by leaving its ``async with`` block.

    Args:
        root: Keep all data there; None is the user's own place, or ``WOODLOT_ROOT``.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self._store = Store(find_paths(root))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._store.close()

    # Each noun is loaded when it is used: a command pays for its own.

    @cached_property
    def containers(self) -> "Containers":
        """Containers: made, listed, found."""
        from woodlot.aio.containers import Containers

        return Containers(self._store)

    @cached_property
    def images(self) -> "Images":
        """What containers are made from."""
        from woodlot.aio.images import Images

        return Images(self._store)

    @cached_property
    def volumes(self) -> "Volumes":
        """Files that outlive containers."""
        from woodlot.aio.volumes import Volumes

        return Volumes(self._store)

    @cached_property
    def networks(self) -> "Networks":
        """What containers are attached to."""
        from woodlot.aio.networks import Networks

        return Networks(self._store)

    @cached_property
    def system(self) -> "System":
        """What containers run on."""
        from woodlot.aio.system import System

        return System(self._store)

    @property
    def paths(self) -> "Paths":
        """Where everything is."""
        return self._store.paths

    def run(
        self, image: str, args: Sequence[str] = (), **options: "Unpack[Options]"
    ) -> "AbstractAsyncContextManager[Container]":
        """A new container for the life of a block; see `Containers.run`."""
        return self.containers.run(image, args, **options)

    async def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: "Given | None" = None,
    ) -> "AsyncGenerator[Event]":
        """What happens to containers, images, networks and volumes, as it happens.

        Args:
            since: Also what happened from then on, in seconds since 1970.
            until: The end, in seconds since 1970; None for none.
            filters: As ``container events --filter``.

        Raises:
            ConfigError: A condition is none.
        """
        meets = build_test(filters or {})
        bounds = (None if moment is None else round(moment * 1e9) for moment in (since, until))
        async with aclosing(self._store.events.follow(*bounds)) as happening:
            async for event in happening:
                if meets(event):
                    yield event
