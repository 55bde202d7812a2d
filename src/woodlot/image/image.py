"""Local images: what a name stands for, ready to run."""

import json
import re
from datetime import datetime
from pathlib import Path

from woodlot.errors import ConfigError, NotFoundError
from woodlot.image.local import Variant, find_variants, rootfs_path
from woodlot.oci.config import MAX_CONFIG_BYTES, ImageConfig
from woodlot.oci.descriptor import Descriptor
from woodlot.oci.digest import Digest
from woodlot.oci.platform import Platform, choose, host
from woodlot.oci.reference import Reference, parse_reference
from woodlot.store.images import ImageRecord
from woodlot.store.store import Store
from woodlot.values import dataclass

_ID_DIGITS = 64
# Shorter ones are more often meant as names.
_ID = re.compile(r"(?P<algorithm>sha256:)?(?P<digits>[0-9a-f]{4,64})")


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
    record = find_record(store, reference)
    if record is None:
        name = reference if isinstance(reference, str) else reference.familiar
        raise NotFoundError(f"no such image here: {name}", hint=f"container pull {name}")
    reference = parse_reference(record.reference)
    wanted = platform or host()
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

    @property
    def created_at(self) -> float:
        """When it was built, or, where it does not tell, when it came here; in seconds since 1970."""
        built = self.variants[0].config.created if self.variants else None
        return (built or self.record.created_at).timestamp()


def list_images(store: Store) -> list[LocalImage]:
    """All local images, by name."""
    return [_local(store, record) for record in store.images.list()]


def find_image(store: Store, reference: Reference | str) -> LocalImage:
    """The local image of ``reference`` with all its platforms.

    Raises:
        NotFoundError: It is not here.
        ConfigError: ``reference`` is not the name of an image.
    """
    record = find_record(store, reference)
    if record is None:
        name = reference if isinstance(reference, str) else reference.familiar
        raise NotFoundError(
            f"no such image here: {name}", hint="list them with `container image list`"
        )
    return _local(store, record)


def find_record(store: Store, reference: Reference | str) -> ImageRecord | None:
    """The record of a name, of an id or of the start of one id only; a name comes first.

    Raises:
        ConfigError: ``reference`` is none of these, or several ids start so.
    """
    if not isinstance(reference, str):
        return store.images.get(str(reference))
    match = _ID.fullmatch(reference)
    # 64 digits are never a name.
    if match is None or not (match["algorithm"] or len(match["digits"]) == _ID_DIGITS):
        named = store.images.get(str(parse_reference(reference)))
        if named is not None or match is None:
            return named
    start = f"{match['algorithm'] or 'sha256:'}{match['digits']}"
    found = [record for record in store.images.list() if record.digest.startswith(start)]
    if len({record.digest for record in found}) > 1:
        names = ", ".join(record.reference for record in found[:5])
        raise ConfigError(
            f"{reference!r} is the start of several image ids: {names}",
            hint="give more of the id, or the name",
        )
    return found[0] if found else None


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
