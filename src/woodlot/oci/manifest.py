"""Indexes and manifests, of OCI and of Docker's schema 2.

Source: OCI image-spec, image-index.md and manifest.md; distribution, manifest-v2-2.md.
"""

import json
from typing import TypeAlias

from woodlot.errors import IntegrityError, UnsupportedError
from woodlot.oci.descriptor import Descriptor, parse_descriptor
from woodlot.oci.jsonvalue import JsonObject, parse_object
from woodlot.values import dataclass

MAX_MANIFEST_BYTES = 4 << 20
MAX_LAYERS = 512
MAX_INDEX_ENTRIES = 4096
MAX_INDEX_DEPTH = 4

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEX_TYPES = frozenset((OCI_INDEX, DOCKER_INDEX))
MANIFEST_TYPES = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
ACCEPT = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_INDEX}, {DOCKER_MANIFEST}"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
LAYER_TYPES = frozenset(
    (
        "application/vnd.oci.image.layer.v1.tar",
        OCI_LAYER_GZIP,
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        DOCKER_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One image for several platforms."""

    media_type: str
    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    """Base first."""


Document: TypeAlias = Index | Manifest


def parse_manifest(data: bytes, *, media_type: str | None, what: str) -> Document:
    """The index or manifest in ``data``.

    Args:
        data: At most `MAX_MANIFEST_BYTES`, already checked against their digest.
        media_type: As announced by the descriptor or the registry; None when nothing was.
        what: The image, for errors.

    Raises:
        IntegrityError: Malformed, or one thing by its type and another by its content.
        UnsupportedError: Not the manifest of a container image, or one with layers we do not read.
    """
    document = parse_object(data, what=f"manifest of {what}")
    if document.members.get("schemaVersion") == 1:
        raise UnsupportedError(
            f"{what} has a manifest of Docker's schema 1, which nobody makes any more",
            hint="push the image again with a current tool",
        )
    own = document.text_or_none("mediaType")
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    # A document that can be read as both means different things to different readers (CVE-2021-41190).
    if is_index == is_manifest:
        raise IntegrityError(f"manifest of {what} must have either manifests or config and layers")
    kinds = INDEX_TYPES if is_index else MANIFEST_TYPES
    for claimed in (own, _bare(media_type)):
        if claimed in INDEX_TYPES | MANIFEST_TYPES and claimed not in kinds:
            raise IntegrityError(f"manifest of {what} is announced as {claimed} but is not one")
    chosen = own or _bare(media_type)
    if chosen is None or chosen not in kinds:
        chosen = OCI_INDEX if is_index else OCI_MANIFEST
    if is_index:
        return _index(document, chosen, what)
    return _manifest(document, chosen, what)


def build_manifest(manifest: Manifest) -> bytes:
    """The document of a manifest, which `parse_manifest` reads back."""

    def describe(descriptor: Descriptor) -> dict[str, object]:
        return {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        }

    document = {
        "schemaVersion": 2,
        "mediaType": manifest.media_type,
        "config": describe(manifest.config),
        "layers": [describe(layer) for layer in manifest.layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _bare(media_type: str | None) -> str | None:
    return media_type.partition(";")[0].strip() if media_type else None


def _index(document: JsonObject, media_type: str, what: str) -> Index:
    return Index(
        media_type=media_type,
        manifests=tuple(
            parse_descriptor(item, what=f"index of {what}: manifests[{number}]")
            for number, item in enumerate(document.items("manifests", limit=MAX_INDEX_ENTRIES))
        ),
    )


def _manifest(document: JsonObject, media_type: str, what: str) -> Manifest:
    config = parse_descriptor(document.members.get("config"), what=f"manifest of {what}: config")
    if config.media_type not in {OCI_CONFIG, DOCKER_CONFIG}:
        raise UnsupportedError(
            f"{what} is not a container image but an artifact of type "
            f"{document.text_or_none('artifactType') or config.media_type}"
        )
    layers = tuple(
        parse_descriptor(item, what=f"manifest of {what}: layers[{number}]")
        for number, item in enumerate(document.items("layers", limit=MAX_LAYERS))
    )
    for number, layer in enumerate(layers):
        _check_layer(layer, f"layer {number + 1} of {what}")
    return Manifest(media_type=media_type, config=config, layers=layers)


def _check_layer(layer: Descriptor, what: str) -> None:
    if layer.media_type in LAYER_TYPES:
        return
    if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
        raise UnsupportedError(
            f"{what} is not in the registry (a foreign layer, {layer.media_type})",
            hint="push the image with its foreign layers, or use another base image",
        )
    if "+encrypted" in layer.media_type:
        raise UnsupportedError(
            f"{what} is encrypted ({layer.media_type})", hint="push the image decrypted"
        )
    raise UnsupportedError(f"{what} has the unknown type {layer.media_type[:200]}")
