"""Images made of other images: one more layer, or none, and another configuration.

    layer ─▶ configuration ─▶ manifest ─▶ root filesystem ─▶ record

As with a pull, the record comes last: until then nothing is there but blobs that a sweep takes away.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol, cast

from isal import isal_zlib  # pyright: ignore[reportMissingTypeStubs]

from woodlot.errors import LimitError, NotFoundError
from woodlot.image.image import Image, make_image
from woodlot.image.local import Variant, read_document
from woodlot.image.rootfs import build, building
from woodlot.oci.config import MAX_CONFIG_BYTES, ImageConfig, extend_config, parse_config
from woodlot.oci.descriptor import Descriptor
from woodlot.oci.digest import Digest, digest_bytes
from woodlot.oci.manifest import (
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    MAX_LAYERS,
    OCI_LAYER_GZIP,
    Manifest,
    build_manifest,
)
from woodlot.oci.reference import Reference, unnamed
from woodlot.progress import Progress
from woodlot.store.content import ContentStore
from woodlot.store.store import Store
from woodlot.units import format_size
from woodlot.values import dataclass

# With this one gzip is as quick as the disk; the header tells no time.
_LEVEL = 2
_GZIP_WINDOW = 31
# Two blocks of zeros, as every writer ends a tar with.
_EMPTY = digest_bytes(bytes(1024))


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The image that another is made of."""

    manifest: Manifest
    config: ImageConfig
    document: bytes
    """What `config` was read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer that is in the content, compressed with gzip."""

    digest: Digest
    size: int
    diff_id: Digest
    """Digest of the tar."""


def read_base(content: ContentStore, digest: Digest, *, what: str) -> Base:
    """The image whose manifest has ``digest``.

    Raises:
        NotFoundError: A part of it is not here.
        IntegrityError: A part is damaged.
        LimitError: It has so many layers that one more is too many.
    """
    manifest, _ = read_document(content, digest, media_type=None, what=what)
    if not isinstance(manifest, Manifest):
        raise NotFoundError(f"image {what} is not here for one platform alone")
    if len(manifest.layers) >= MAX_LAYERS:
        raise LimitError(f"image {what} has {MAX_LAYERS} layers, and no image can have more")
    document = content.read(manifest.config.digest, max_bytes=MAX_CONFIG_BYTES)
    return Base(manifest=manifest, config=parse_config(document, what=what), document=document)


class _Compressor(Protocol):
    """A stream that is being compressed."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def write_layer(
    content: ContentStore, tar: Iterator[bytes], *, max_bytes: int, what: str
) -> Layer | None:
    """Put a tar into the content, while the store is in use; nothing that is in it is looked at here.

    Returns:
        The layer; None if the tar is empty.

    Raises:
        LimitError: It has more than ``max_bytes``, or the disk is full.
    """
    # Any: isal's stubs leave parts of it untyped.
    gzip = cast("Any", isal_zlib)
    compressor: _Compressor = gzip.compressobj(_LEVEL, gzip.DEFLATED, _GZIP_WINDOW)
    plain = hashlib.sha256()
    size = 0
    with content.draft() as draft:
        for piece in tar:
            size += len(piece)
            if size > max_bytes:
                raise LimitError(
                    f"{what} is larger than {format_size(max_bytes)}",
                    hint="raise the setting image.max_size (WOODLOT_IMAGE_MAX_SIZE)",
                )
            plain.update(piece)
            draft.write(compressor.compress(piece))
        diff_id = Digest(f"sha256:{plain.hexdigest()}")
        if diff_id == _EMPTY:
            return None
        draft.write(compressor.flush())
        return Layer(digest=draft.commit(), size=draft.size, diff_id=diff_id)


async def derive(
    store: Store,
    base: Base,
    config: ImageConfig,
    layer: Layer | None,
    reference: Reference | None,
    *,
    progress: Progress,
) -> Image:
    """Make an image and record it, while the store is in use.

    Args:
        store: Where.
        base: What it is made of.
        config: As it is to be, with the base's layers and with the base's history before its own.
        layer: Above the base's; from a stranger, as far as this is concerned.
        reference: Its name, taken from whatever has it; None for an image that is known by its id.
        progress: Told of the unpacking.

    Raises:
        IntegrityError: The layer is no tar, or holds an impossible entry.
        LimitError: The image is larger than allowed, or the disk is full.
    """
    manifest = base.manifest
    layers = manifest.layers
    if layer is not None:
        docker = manifest.media_type == DOCKER_MANIFEST
        kind = DOCKER_LAYER_GZIP if docker else OCI_LAYER_GZIP
        layers += (Descriptor(media_type=kind, digest=layer.digest, size=layer.size),)
        config = replace(config, diff_ids=(*config.diff_ids, layer.diff_id))
    document = extend_config(base.document, config)
    if len(document) > MAX_CONFIG_BYTES:
        raise LimitError(f"the image's configuration has more than {MAX_CONFIG_BYTES} bytes")
    described = Descriptor(
        media_type=manifest.config.media_type, digest=digest_bytes(document), size=len(document)
    )
    manifest = replace(manifest, config=described, layers=layers)
    data = build_manifest(manifest)
    digest = digest_bytes(data)
    reference = reference or unnamed(digest)
    variant = Variant(
        digest=digest,
        manifest=manifest,
        manifest_size=len(data),
        platform=config.platform,
        # What is written can be read: else it is found out now.
        config=parse_config(document, what=reference.familiar),
    )
    image = make_image(store, reference, digest, variant)
    for blob, name in ((document, described.digest), (data, digest)):
        await asyncio.to_thread(store.content.put, blob, name)
    async with building(image) as needed:
        if needed:
            await build(store.content, image, progress)
    store.images.put(
        reference=str(reference),
        digest=digest,
        media_type=manifest.media_type,
        size=len(data),
        event=None if reference.is_unnamed else "tag",
    )
    return image
