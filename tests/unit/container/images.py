"""Local images small enough to write down: nothing is fetched, and the root filesystem is an empty file."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from woodlot.image.local import rootfs_path
from woodlot.oci.digest import Digest, digest_bytes
from woodlot.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from woodlot.oci.platform import parse_platform
from woodlot.oci.reference import parse_reference
from woodlot.store.store import Store

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
PLATFORMS = ("linux/amd64", "linux/arm64")


class Blob(NamedTuple):
    media_type: str
    digest: Digest
    size: int

    def to_json(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def add_image(
    store: Store,
    name: str,
    config: Mapping[str, object] | None = None,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Put an image into the store, as if it had been pulled for each of the platforms."""
    manifests = [
        _add_manifest(store, platform, {"Cmd": ["sh"]} if config is None else config)
        for platform in platforms
    ]
    index = _put(
        store, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}, OCI_INDEX
    )
    store.images.put(
        reference=str(parse_reference(name)),
        digest=index.digest,
        media_type=OCI_INDEX,
        size=index.size,
    )


def _add_manifest(store: Store, platform: str, config: Mapping[str, object]) -> dict[str, object]:
    parsed = parse_platform(platform)
    described = {"os": parsed.os, "architecture": parsed.architecture}
    layer = platform.encode()
    diff_id = digest_bytes(layer)
    store.content.put(layer, diff_id)
    rootfs = rootfs_path(store.paths, [diff_id])
    rootfs.parent.mkdir(parents=True, exist_ok=True)
    rootfs.touch()
    document = {**described, "config": config, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _put(store, document, OCI_CONFIG).to_json(),
        "layers": [Blob(OCI_LAYER, diff_id, len(layer)).to_json()],
    }
    return _put(store, manifest, OCI_MANIFEST).to_json() | {"platform": described}


def _put(store: Store, document: Mapping[str, object], media_type: str) -> "Blob":
    data = json.dumps(document).encode()
    digest = digest_bytes(data)
    store.content.put(data, digest)
    return Blob(media_type, digest, len(data))
