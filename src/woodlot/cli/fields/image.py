"""Docker's fields of images."""

import time
from typing import TYPE_CHECKING, Any

from woodlot.cli.fields import short_id, show_local_time
from woodlot.units import format_age, format_size, format_time

if TYPE_CHECKING:
    from woodlot.aio import Client, LocalImage, Variant
    from woodlot.cli.listing import Fields

_NONE = "<none>"


def listed(client: "Client", *, truncate: bool) -> "Fields[LocalImage]":
    """Those of ``docker images``."""
    used = [container.spec.image_digest for container in client.containers.list()]

    def containers(one: "LocalImage") -> str:
        digests = {one.record.digest, *(variant.digest for variant in one.variants)}
        return str(sum(digest in digests for digest in used))

    return {
        "Containers": containers,
        "CreatedAt": lambda one: show_local_time(one.created_at),
        "CreatedSince": lambda one: f"{format_age(max(0.0, time.time() - one.created_at))} ago",
        "Digest": lambda one: one.record.digest,
        "ID": lambda one: short_id(one.record.digest, truncate=truncate),
        "Repository": lambda one: one.reference.familiar_name,
        "Size": lambda one: format_size(sum(variant.size for variant in one.variants)),
        "Tag": lambda one: one.reference.tag or _NONE,
    }


def inspected(client: "Client") -> "Fields[LocalImage]":
    """The most used ones of ``docker image inspect``, in its structure; the first platform counts."""

    def document(one: "LocalImage") -> dict[str, Any]:
        variants: Any = client.images.inspect(one)["variants"]
        return variants[0]["config"] if variants else {}

    def first(one: "LocalImage") -> "Variant | None":
        return one.variants[0] if one.variants else None

    return {
        "Architecture": lambda one: document(one).get("architecture", ""),
        "Config": lambda one: document(one).get("config", {}),
        "Created": lambda one: format_time(one.created_at),
        "Id": lambda one: one.record.digest,
        "Os": lambda one: document(one).get("os", ""),
        "RepoDigests": lambda one: (
            []
            if one.reference.is_unnamed
            else [f"{one.reference.familiar_name}@{one.record.digest}"]
        ),
        "RepoTags": lambda one: [one.reference.familiar] if one.reference.tag else [],
        "RootFS": lambda one: {
            "Type": "layers",
            "Layers": list(found.config.diff_ids) if (found := first(one)) else [],
        },
        "Size": lambda one: found.size if (found := first(one)) else 0,
    }
