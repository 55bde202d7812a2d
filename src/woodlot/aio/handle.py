"""What a container is known by, and how it is reached."""

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from woodlot.container.state import KILLED_EXIT_CODE, Running, State, Stopped
from woodlot.errors import NotFoundError, StateError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from woodlot.container.client import Supervised
    from woodlot.container.lifecycle import Container as Found
    from woodlot.container.spec import ContainerSpec
    from woodlot.oci.reference import Reference
    from woodlot.store.store import Store


class Handle:
    """A container, as of the last look at it."""

    def __init__(self, store: "Store", found: "Found") -> None:
        self._store = store
        self._found = found

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._found.spec.id

    @property
    def name(self) -> str:
        """Its name, given or chosen."""
        return self._found.spec.name

    @property
    def image(self) -> str:
        """Name of the image it was made from, as people write it."""
        return self._image().familiar

    @property
    def image_name(self) -> str:
        """The same in full, with registry and tag; only of an image without a name it is shorter."""
        image = self._image()
        return image.familiar if image.is_unnamed else str(image)

    def _image(self) -> "Reference":
        from woodlot.oci.reference import parse_reference

        return parse_reference(self._found.spec.image)

    @property
    def spec(self) -> "ContainerSpec":
        """All it was made with, as of the last look at it; see `refresh`."""
        return self._found.spec

    @property
    def state(self) -> State:
        """Created, Starting, Running, Paused, Restarting or Stopped, with what belongs to it, as of the last look; see `refresh`."""
        return self._found.state

    @property
    def is_live(self) -> bool:
        """Whether it ran, or was on its way to it, at the last look; see `refresh`."""
        return self._found.is_live

    def refresh(self) -> State:
        """Look again, as methods that change it do; its state now.

        Raises:
            NotFoundError: It was deleted.
        """
        from woodlot.container.lifecycle import find

        self._found = find(self._store, self.id)
        return self.state

    def _supervised(self) -> "Supervised":
        """A connection to its supervisor, which need not be there."""
        from woodlot.container.client import connect

        return connect(self._store.paths, self.id)

    @contextlib.asynccontextmanager
    async def _running(self) -> "AsyncGenerator[Supervised]":
        """A connection, to one that is live."""
        if not self.is_live:
            self._look()
        if not self.is_live:
            raise self._not_running()
        async with self._supervised() as supervised:
            yield supervised

    @contextlib.asynccontextmanager
    async def _started(self) -> "AsyncGenerator[Supervised]":
        """A connection, to one whose process runs."""
        if not isinstance(self.state, Running):
            self._look()
        if not isinstance(self.state, Running):
            raise self._not_running()
        async with self._supervised() as supervised:
            yield supervised

    def _not_running(self) -> StateError:
        return StateError(
            f"container {self.name} is not running", hint=f"container start {self.name}"
        )

    def _look(self) -> None:
        """As `refresh`, of one that may be gone by now."""
        try:
            self.refresh()
        except NotFoundError:
            seen = self._found
            ended = Stopped(
                exit_code=KILLED_EXIT_CODE, finished_at=time.time(), reason="it was removed"
            )
            self._found = replace(seen, state=ended)
