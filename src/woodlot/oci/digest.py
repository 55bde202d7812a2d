"""Content digests: ``ALGORITHM:HEX``, the name of a blob by its bytes.

Source: OCI image-spec, descriptor.md, "Digests".
"""

import hashlib
import re
from typing import NewType, Protocol

from woodlot.errors import IntegrityError

Digest = NewType("Digest", str)
"""A checked digest; made by `parse_digest` and `digest_bytes` only."""


class Hash(Protocol):
    """A hash under way, as `hashlib` makes them."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add ``data``."""

    def hexdigest(self) -> str:
        """The hash of everything so far."""
        ...


_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(?P<algorithm>[a-z0-9]+):(?P<hex>[0-9a-f]+)")


def parse_digest(text: str, *, what: str = "digest") -> Digest:
    """A digest we can check: sha256 or sha512, in lower-case hex.

    Args:
        text: Such as ``sha256:9f86…``.
        what: Name of the value, for the error.

    Raises:
        IntegrityError: ``text`` is no digest, or of an algorithm that we do not check.
    """
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise IntegrityError(f"{what} {text[:160]!r} is not a digest such as sha256:HEX")
    length = _HEX_LENGTH.get(match["algorithm"])
    if length is None:
        raise IntegrityError(f"{what} {text[:160]!r}: only sha256 and sha512 digests are supported")
    if len(match["hex"]) != length:
        raise IntegrityError(f"{what} {text[:160]!r} must have {length} hex digits")
    return Digest(text)


def digest_bytes(data: bytes, *, algorithm: str = "sha256") -> Digest:
    """The digest of ``data``."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")


def algorithm_of(digest: Digest) -> str:
    """``sha256`` or ``sha512``."""
    return digest.partition(":")[0]


def hex_of(digest: Digest) -> str:
    """The hex digits alone."""
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """The first 12 hex digits, for people."""
    return digest.rpartition(":")[2][:12]


def new_hash(digest: Digest) -> Hash:
    """An empty hash of the digest's algorithm."""
    return hashlib.new(algorithm_of(digest))


def check_bytes(data: bytes, digest: Digest, *, what: str) -> None:
    """Compare ``data`` with the ``digest`` it is known by.

    Raises:
        IntegrityError: They differ; ``what`` names the object.
    """
    actual = digest_bytes(data, algorithm=algorithm_of(digest))
    if actual != digest:
        raise IntegrityError(
            f"{what} does not match its digest", details=f"expected {digest}, got {actual}"
        )
