"""Local images: what a name stands for, ready to run."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from woodlot.errors import NotFoundError
from woodlot.image.local import Variant, find_variants, rootfs_path
from woodlot.oci.config import MAX_CONFIG_BYTES, ImageConfig
from woodlot.oci.descriptor import Descriptor
from woodlot.oci.digest import Digest
from woodlot.oci.platform import Platform, choose, host
from woodlot.oci.reference import Reference, parse_reference
from woodlot.store.images import ImageRecord
from woodlot.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One platform of a local image, whole: blobs, configuration and root filesystem are there."""

    reference: Reference
    digest: Digest
    """Of the index or manifest that the reference stands for."""
    manifest_digest: Digest
    """Of the platform's manifest."""
    platform: Platform
    config: ImageConfig
    layers: tuple[Descriptor, ...]
    """Base first."""
    size: int
    """Bytes in the registry: manifest, configuration and layers."""
    created: datetime | None
    rootfs: Path
    """EROFS image, read-only, shared."""


def load(store: Store, reference: Reference | str, platform: Platform | None = None) -> Image:
    """The local image of ``reference`` for ``platform``; None is the host's.

    To record that the image is needed, do that and this inside `Store.using`.

    Raises:
        NotFoundError: It is not here, not for this platform, or not whole any more; pulling it repairs that.
        ConfigError: ``reference`` is not the name of an image.
    """
    if isinstance(reference, str):
        reference = parse_reference(reference)
    wanted = platform or host()
    record = store.images.get(str(reference))
    if record is None:
        raise NotFoundError(
            f"no such image here: {reference.familiar}", hint=f"container pull {reference.familiar}"
        )
    variants = find_variants(store.content, record.digest, what=reference.familiar)
    position = choose(wanted, (variant.platform for variant in variants))
    if position is None:
        here = ", ".join(str(variant.platform) for variant in variants)
        raise NotFoundError(
            f"image {reference.familiar} is not here for {wanted}",
            details=f"here for: {here}" if here else None,
            hint=f"container pull --platform {wanted} {reference.familiar}",
        )
    image = make_image(store, reference, record.digest, variants[position])
    if not image.rootfs.is_file():
        raise NotFoundError(
            f"the root filesystem of image {reference.familiar} is missing",
            details=str(image.rootfs),
            hint=f"container pull --platform {wanted} {reference.familiar}",
        )
    return image


def make_image(store: Store, reference: Reference, digest: Digest, variant: Variant) -> Image:
    """The image that a variant is; nothing is checked."""
    return Image(
        reference=reference,
        digest=digest,
        manifest_digest=variant.digest,
        platform=variant.platform,
        config=variant.config,
        layers=variant.manifest.layers,
        size=variant.size,
        created=variant.config.created,
        rootfs=rootfs_path(store.paths, variant.config.diff_ids),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """A name and the platforms of it that are here; what a list shows."""

    record: ImageRecord
    reference: Reference
    variants: tuple[Variant, ...]


def list_images(store: Store) -> list[LocalImage]:
    """All local images, by name."""
    return [_local(store, record) for record in store.images.list()]


def find_image(store: Store, reference: Reference | str) -> LocalImage:
    """The local image of ``reference`` with all its platforms.

    Raises:
        NotFoundError: It is not here.
        ConfigError: ``reference`` is not the name of an image.
    """
    if isinstance(reference, str):
        reference = parse_reference(reference)
    record = store.images.get(str(reference))
    if record is None:
        raise NotFoundError(
            f"no such image here: {reference.familiar}",
            hint="list them with `container image list`",
        )
    return _local(store, record)


def _local(store: Store, record: ImageRecord) -> LocalImage:
    return LocalImage(
        record=record,
        reference=parse_reference(record.reference),
        variants=tuple(find_variants(store.content, record.digest, what=record.reference)),
    )


def inspect(store: Store, image: LocalImage) -> dict[str, object]:
    """Everything about an image as JSON types: id, configuration and the variants that are here."""
    record = image.record
    return {
        "id": record.digest,
        "configuration": {
            "name": record.reference,
            "creationDate": record.created_at.isoformat(),
            "descriptor": {
                "mediaType": record.media_type,
                "digest": record.digest,
                "size": record.size,
            },
        },
        "variants": [
            {
                "platform": _platform(variant.platform),
                "digest": variant.digest,
                "size": variant.size,
                "config": json.loads(
                    store.content.read(variant.manifest.config.digest, max_bytes=MAX_CONFIG_BYTES)
                ),
            }
            for variant in image.variants
        ],
    }


def _platform(platform: Platform) -> dict[str, str]:
    shown = {"os": platform.os, "architecture": platform.architecture}
    return shown | ({"variant": platform.variant} if platform.variant else {})
