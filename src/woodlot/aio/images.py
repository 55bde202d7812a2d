"""`Client.images`: the images that are here, and those of registries."""

import asyncio
from typing import TYPE_CHECKING, Literal

from woodlot.image import selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from woodlot.container.prune import Pruned
    from woodlot.filters import Given
    from woodlot.image.collect import Swept
    from woodlot.image.image import Image, LocalImage
    from woodlot.progress import Progress
    from woodlot.store.store import Store

Scheme = Literal["auto", "http", "https"]
FILTERS = selection.KEYS
PRUNE_FILTERS = selection.PRUNE_KEYS


class Images:
    """The images of one installation."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    async def pull(
        self,
        image: str,
        *,
        platform: str | None = None,
        scheme: Scheme = "auto",
        max_concurrent: int | None = None,
        progress: "Progress | None" = None,
    ) -> "Image":
        """Fetch an image and make it ready to run.

        Args:
            image: Its name.
            platform: As ``linux/arm64``; None is the host's.
            scheme: ``auto`` is plain HTTP for registries on this machine, HTTPS for all others.
            max_concurrent: Blobs fetched at once; None takes the setting ``image.concurrent_downloads``.
            progress: Told of it.

        Raises:
            WoodlotError: Why not.
        """
        from woodlot.image.pull import pull
        from woodlot.oci.platform import parse_platform

        return await pull(
            self._store,
            image,
            platform=parse_platform(platform) if platform else None,
            scheme=scheme,
            max_concurrent=max_concurrent,
            progress=progress,
        )

    def list(self, *, filters: "Given | None" = None) -> "Sequence[LocalImage]":
        """The images that are here and meet all conditions, by name.

        Args:
            filters: As ``container image list --filter``.

        Raises:
            ConfigError: A condition is none.
        """
        from woodlot.image.selection import select

        return select(self._store, filters)

    def names(self) -> "Sequence[str]":
        """Names of the images that are here, as people write them; quicker than `list`."""
        from woodlot.oci.reference import parse_reference

        return [parse_reference(one.reference).familiar for one in self._store.images.list()]

    def get(self, name: str) -> "LocalImage":
        """The image of that name, id or unique start of an id, with all its platforms that are here.

        Raises:
            NotFoundError: It is not here.
        """
        from woodlot.image.image import find_image

        return find_image(self._store, name)

    def inspect(self, image: "LocalImage") -> dict[str, object]:
        """Everything about an image as JSON types: id, name, and the configuration of each platform."""
        from woodlot.image.image import inspect

        return inspect(self._store, image)

    async def delete(self, name: str, *, force: bool = False, sweep: bool = True) -> str:
        """Forget an image, and free the room that nothing else needs; its whole name.

        Args:
            name: Its name, or its id if it has one name only.
            force: Also when stopped containers were made from it; they keep their root filesystem.
            sweep: Free the room now; of many images `sweep` does it at once.

        Raises:
            NotFoundError: There is no such image.
            StateError: A container was made from it.
        """
        from woodlot.image.collect import delete

        reference = delete(self._store, name, force=force)
        if sweep:
            await self.sweep()
        return str(reference)

    async def sweep(self) -> "Swept | None":
        """Free the room that no image and no container needs; None while somebody pulls or makes a container: later, then."""
        from woodlot.image.collect import sweep

        return await asyncio.to_thread(sweep, self._store)

    async def prune(
        self,
        *,
        filters: "Given | None" = None,
        all: bool = False,  # noqa: A002 - as the command calls it
    ) -> "Pruned":
        """Free what no image and no container needs.

        Args:
            filters: As ``container image prune --filter``.
            all: Images that no container uses, too.

        Raises:
            ConfigError: A condition is none.
        """
        from woodlot.container.prune import prune_images

        return await asyncio.to_thread(prune_images, self._store, filters or {}, every=all)
