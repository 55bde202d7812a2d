"""The root filesystem of an image, made of the blobs of its layers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from woodlot import settings
from woodlot.image.image import Image
from woodlot.progress import Progress
from woodlot.store.content import ContentStore
from woodlot.store.locks import hold


@asynccontextmanager
async def building(image: Image) -> AsyncGenerator[bool]:
    """Nobody else makes it during the block, which is told whether it is to be made; others of the same layers wait."""
    async with hold(image.rootfs.with_suffix(".lock")):
        yield not image.rootfs.is_file()


async def build(content: ContentStore, image: Image, progress: Progress) -> None:
    """Make it, within what the settings allow.

    Raises:
        IntegrityError: A layer is damaged, or its archive is none.
        LimitError: It is larger than allowed, or the disk is full.
        NotFoundError: A layer is missing.
    """
    from woodlot.rootfs.build import BuildLimits, LayerSource, build_rootfs

    await build_rootfs(
        [
            LayerSource(
                path=content.path(layer.digest),
                media_type=layer.media_type,
                digest=layer.digest,
                diff_id=diff_id,
            )
            for layer, diff_id in zip(image.layers, image.config.diff_ids, strict=True)
        ],
        image.rootfs,
        limits=BuildLimits(
            max_bytes=settings.get_int("image.max_size"),
            max_ratio=settings.get_float("image.max_ratio"),
            max_entries=settings.get_int("image.max_entries"),
        ),
        progress=progress,
    )
