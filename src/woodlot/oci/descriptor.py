"""Descriptors: how one piece of content points to another.

Source: OCI image-spec, descriptor.md.
"""

from woodlot.oci.digest import Digest, parse_digest
from woodlot.oci.jsonvalue import JsonObject
from woodlot.oci.platform import Platform, make_platform
from woodlot.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Media type, digest and size of a blob or manifest."""

    media_type: str
    digest: Digest
    size: int
    """Bytes."""
    platform: Platform | None = None
    """Given in an index, for each of its manifests."""


def parse_descriptor(value: object, *, what: str) -> Descriptor:
    """The descriptor in a JSON value; unknown members are ignored.

    Raises:
        IntegrityError: It is none; ``what`` names it.
    """
    item = JsonObject.of(value, what=what)
    return Descriptor(
        media_type=item.text("mediaType"),
        digest=parse_digest(item.text("digest"), what=f"{what}: digest"),
        size=item.size("size"),
        platform=_platform(item) if "platform" in item else None,
    )


def _platform(item: JsonObject) -> Platform:
    platform = item.object_or_empty("platform")
    return make_platform(
        platform.text_or_none("os") or "unknown",
        platform.text_or_none("architecture") or "unknown",
        platform.text_or_none("variant"),
    )
