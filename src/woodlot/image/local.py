"""Reading images from the local content: documents by digest, and the platforms that are whole."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from woodlot.errors import IntegrityError, LimitError, NotFoundError, UnsupportedError
from woodlot.oci.config import MAX_CONFIG_BYTES, ImageConfig, parse_config
from woodlot.oci.digest import Digest
from woodlot.oci.manifest import (
    MAX_INDEX_DEPTH,
    MAX_MANIFEST_BYTES,
    Document,
    Index,
    Manifest,
    parse_manifest,
)
from woodlot.oci.platform import Platform
from woodlot.paths import Paths
from woodlot.rootfs import FORMAT_VERSION
from woodlot.store.content import ContentStore
from woodlot.values import dataclass

# Reading one of them may fail so; a listing then goes on without it.
UNREADABLE = (NotFoundError, IntegrityError, UnsupportedError, LimitError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One platform of an image, whose manifest and configuration are here."""

    digest: Digest
    """Of the manifest."""
    manifest: Manifest
    manifest_size: int
    platform: Platform
    config: ImageConfig

    @property
    def size(self) -> int:
        """Bytes of manifest, configuration and layers as they are in the registry."""
        layers = sum(layer.size for layer in self.manifest.layers)
        return self.manifest_size + self.manifest.config.size + layers


def read_document(
    content: ContentStore, digest: Digest, *, media_type: str | None, what: str
) -> tuple[Document, int]:
    """The index or manifest with ``digest`` and its size in bytes.

    Raises:
        NotFoundError: It is not here.
        IntegrityError: It is damaged.
        UnsupportedError: It is not of a container image.
    """
    data = content.read(digest, max_bytes=MAX_MANIFEST_BYTES)
    return parse_manifest(data, media_type=media_type, what=what), len(data)


def read_config(content: ContentStore, manifest: Manifest, *, what: str) -> ImageConfig:
    """The configuration that ``manifest`` names, checked against its layers; raises as `read_document`."""
    data = content.read(manifest.config.digest, max_bytes=MAX_CONFIG_BYTES)
    config = parse_config(data, what=what)
    if len(config.diff_ids) != len(manifest.layers):
        raise IntegrityError(
            f"{what} has {len(manifest.layers)} layers, but its configuration names "
            f"{len(config.diff_ids)}"
        )
    return config


def find_variants(content: ContentStore, digest: Digest, *, what: str) -> list[Variant]:
    """The platforms of the index or manifest ``digest`` that are here; those that are not are left out."""
    found: list[Variant] = []
    for manifest_digest, manifest, size, platform in _manifests(content, digest, None, what, 0):
        try:
            config = read_config(content, manifest, what=what)
        except UNREADABLE:
            continue
        found.append(
            Variant(
                digest=manifest_digest,
                manifest=manifest,
                manifest_size=size,
                platform=platform or config.platform,
                config=config,
            )
        )
    return found


def _manifests(
    content: ContentStore, digest: Digest, platform: Platform | None, what: str, depth: int
) -> Iterator[tuple[Digest, Manifest, int, Platform | None]]:
    try:
        document, size = read_document(content, digest, media_type=None, what=what)
    except UNREADABLE:
        return
    if isinstance(document, Manifest):
        yield digest, document, size, platform
    elif depth < MAX_INDEX_DEPTH:
        for child in dict.fromkeys(document.manifests):
            yield from _manifests(content, child.digest, child.platform, what, depth + 1)


def reachable(content: ContentStore, digest: Digest) -> set[Digest]:
    """All blobs that the index, manifest or blob ``digest`` needs, itself included."""
    found: set[Digest] = set()
    pending = [(digest, 0)]
    while pending:
        current, depth = pending.pop()
        if current in found:
            continue
        found.add(current)
        try:
            document, _ = read_document(content, current, media_type=None, what=current)
        except UNREADABLE:
            continue
        if isinstance(document, Index):
            if depth < MAX_INDEX_DEPTH:
                pending += [(child.digest, depth + 1) for child in document.manifests]
        else:
            found.add(document.config.digest)
            found.update(layer.digest for layer in document.layers)
    return found


def rootfs_path(paths: Paths, diff_ids: Sequence[str]) -> Path:
    """Where the root filesystem of these layers is, or would be.

    The name follows from the layers and the builder's format, so images with the same layers share one file.
    """
    text = "\n".join((f"woodlot rootfs {FORMAT_VERSION}", *diff_ids))
    return paths.rootfs / f"{hashlib.sha256(text.encode()).hexdigest()}.erofs"
