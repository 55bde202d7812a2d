"""`Client.volumes`: files that outlive containers."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from woodlot.volume import selection

if TYPE_CHECKING:
    from woodlot.container.prune import Pruned
    from woodlot.filters import Given
    from woodlot.store.store import Store
    from woodlot.volume.volume import Volume

FILTERS = selection.KEYS
PRUNE_FILTERS = selection.PRUNE_KEYS

Kind = Literal["directory", "block"]


class Volumes:
    """The volumes of one installation."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    async def create(
        self,
        name: str | None = None,
        *,
        kind: Kind = "directory",
        size: str | None = None,
        labels: Mapping[str, str] | Sequence[str] = (),
    ) -> "Volume":
        """Make a volume.

        Args:
            name: None for a random one; such a volume is anonymous, and goes when volumes are pruned.
            kind: A directory, which several containers may use at once, or ``block``, a disk of its own, which one
                container may write or several may read.
            size: Of a disk, as ``10g``; None takes the setting ``container.disk``.
            labels: ``{"key": "value"}``, or ``["key=value", "key"]``.

        Raises:
            AlreadyExistsError: There is one of that name.
            ConfigError: It is no name, or no such size.
            LimitError: The disk is full. Nothing is left behind.
        """
        from woodlot.container.lifecycle import new_id
        from woodlot.container.options import read_labels
        from woodlot.volume.volume import choose_size, create

        return await asyncio.to_thread(
            create,
            self._store,
            name or new_id(),
            kind=kind,
            size=choose_size(kind, size),
            labels=read_labels(labels),
            anonymous=name is None,
        )

    def list(self, *, filters: "Given | None" = None) -> "Sequence[Volume]":
        """The volumes that meet all conditions, by name.

        Args:
            filters: As ``container volume list --filter``.

        Raises:
            ConfigError: A condition is none.
        """
        from woodlot.volume.selection import select

        return select(self._store, filters)

    def names(self) -> Sequence[str]:
        """Names of all volumes."""
        return [one.name for one in self._store.volumes.list()]

    def get(self, name: str) -> "Volume":
        """The volume of that name.

        Raises:
            NotFoundError: There is none.
        """
        from woodlot.volume.volume import find

        return find(self._store, name)

    def users(self, name: str) -> Sequence[str]:
        """Names of the containers that mount a volume, also of those that are stopped."""
        from woodlot.volume.volume import users

        return users(self._store, name)

    def inspect(self, volume: "Volume") -> dict[str, object]:
        """Everything about a volume as JSON types: what it is, what it takes, who uses it."""
        from woodlot.volume.volume import inspect

        return inspect(self._store, volume)

    async def delete(self, name: str) -> None:
        """Remove a volume and the files in it.

        Raises:
            NotFoundError: There is none.
            StateError: A container uses it.
        """
        from woodlot.volume.volume import delete

        await asyncio.to_thread(delete, self._store, name)

    async def prune(
        self,
        *,
        filters: "Given | None" = None,
        all: bool = False,  # noqa: A002 - as the command calls it
    ) -> "Pruned":
        """Remove the volumes that were made for one container and that no container uses.

        Args:
            filters: As ``container volume prune --filter``.
            all: Those with a name, too.

        Raises:
            ConfigError: A condition is none.
        """
        from woodlot.container.prune import prune_volumes

        return await asyncio.to_thread(prune_volumes, self._store, filters or {}, every=all)
