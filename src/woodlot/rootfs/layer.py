"""One layer blob: decompressed and checked while it streams.

Source: OCI image-spec, layer.md (media types), config.md (``rootfs.diff_ids``).
"""

import hashlib
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

from isal import igzip_lib  # pyright: ignore[reportMissingTypeStubs]

from woodlot.errors import IntegrityError, LimitError, UnsupportedError
from woodlot.units import MIB, format_size
from woodlot.values import dataclass

CHUNK_BYTES = MIB
_READ_BYTES = 256 << 10
# A layer of a few kilobytes may legally grow a thousandfold; below this no growth is a bomb.
RATIO_FLOOR_BYTES = MIB
_FIRST_FEED_BYTES = 4 << 10

# isal's stubs declare an instance.
_GZIP_ERROR = cast("type[Exception]", igzip_lib.IsalError)
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # preceded by a byte 0x50 to 0x5f


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSource:
    """One layer of an image.

    Attributes:
        path: The blob as the registry sent it, compressed or not.
        media_type: Media type of its descriptor.
        digest: Digest of the blob; the caller has checked it.
        diff_id: Digest of the uncompressed tar, checked here.
    """

    path: Path
    media_type: str
    digest: str
    diff_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildLimits:
    """What an image may grow to.

    Attributes:
        max_bytes: All layers together, uncompressed, and holes of sparse files counted.
        max_ratio: Growth of one layer when decompressed; the first MiB is free.
        max_entries: Files, directories and links made, also those that a later layer removes.
    """

    max_bytes: int
    max_ratio: float
    max_entries: int


class Budget:
    """What is left of `BuildLimits.max_bytes`; shared by the two threads of a build."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._left = max_bytes
        self._lock = threading.Lock()

    def spend(self, amount: int, what: str) -> None:
        """Take ``amount`` bytes.

        Raises:
            LimitError: There is less left; ``what`` names who asked.
        """
        with self._lock:
            self._left -= amount
            if self._left < 0:
                raise LimitError(
                    f"{what}: the image unpacks to more than {format_size(self._max)}",
                    hint="raise the setting image.max_size if you trust the image",
                )


def read_layer(
    source: LayerSource,
    *,
    limits: BuildLimits,
    budget: Budget,
    advance: Callable[[int], None],
) -> Generator[bytes]:
    """The uncompressed tar of ``source`` in pieces of at most 1 MiB.

    The last piece has been given when the digest is checked: nothing read from here may be used before the
    iteration has ended.

    Args:
        source: The layer.
        limits: For the growth of this layer.
        budget: For the image as a whole.
        advance: Told the compressed bytes as they are read.

    Raises:
        IntegrityError: Truncated or damaged data, or another tar than ``source.diff_id``.
        LimitError: The layer grows too much.
        UnsupportedError: A media type that is no layer tar, or an unknown digest algorithm.
    """
    what = f"layer {source.digest}"
    algorithm, _, expected = source.diff_id.partition(":")
    if algorithm not in {"sha256", "sha512"}:
        raise UnsupportedError(f"{what}: cannot check the diff_id {source.diff_id!r}")
    checksum = hashlib.new(algorithm)
    allowed = max(source.path.stat().st_size * limits.max_ratio, RATIO_FLOOR_BYTES)
    total = 0
    with source.path.open("rb", buffering=0) as blob:
        for chunk in _decompress(_Counted(blob, advance), source.media_type, what):
            total += len(chunk)
            if total > allowed:
                raise LimitError(
                    f"{what}: grows more than {limits.max_ratio:g} times when decompressed",
                    hint="raise the setting image.max_ratio if you trust the image",
                )
            budget.spend(len(chunk), what)
            checksum.update(chunk)
            yield chunk
    if checksum.hexdigest() != expected:
        raise IntegrityError(
            f"{what}: its contents do not match the image's configuration",
            details=f"expected {source.diff_id}, got {algorithm}:{checksum.hexdigest()}",
        )


class _Counted:
    """A blob that tells how much of it was read."""

    def __init__(self, blob: BinaryIO, advance: Callable[[int], None]) -> None:
        self._blob = blob
        self._advance = advance

    def read(self, size: int = _READ_BYTES) -> bytes:
        data = self._blob.read(size)
        self._advance(len(data))
        return data


def _decompress(blob: _Counted, media_type: str, what: str) -> Iterator[bytes]:
    """Decompress by the magic number, as every runtime does; the media type must not contradict it."""
    base = media_type.partition(";")[0]
    kind, _, suffix = base.partition("+")
    if suffix not in {"", "gzip", "zstd"} or "tar" not in kind:
        raise UnsupportedError(f"{what}: cannot unpack the media type {media_type!r}")
    first = blob.read()
    if first.startswith(_GZIP_MAGIC):
        return _gunzip(blob, first, what)
    if first.startswith(_ZSTD_MAGIC) or (first[1:4] == _ZSTD_SKIPPABLE and first[0] >> 4 == 5):
        return _unzstd(blob, first, what)
    if suffix or kind.endswith(".gzip"):
        raise IntegrityError(f"{what}: is {media_type} but not compressed like that")
    return _plain(blob, first)


def _plain(blob: _Counted, data: bytes) -> Iterator[bytes]:
    while data:
        yield data
        data = blob.read(CHUNK_BYTES)


class _Decoder(Protocol):
    """What isal's stubs leave untyped."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _new_gzip_decoder() -> _Decoder:
    return cast("_Decoder", igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def _gunzip(blob: _Counted, data: bytes, what: str) -> Iterator[bytes]:
    """Every member of a gzip file (RFC 1952), which may be followed by zeros.

    Input goes in small steps first: what a member leaves over is copied, and a file may have a member
    for each of its files (eStargz), or a million of them out of malice.
    """
    position = 0
    while True:
        decoder = _new_gzip_decoder()
        step = _FIRST_FEED_BYTES
        while not decoder.eof:
            feed = b""
            if decoder.needs_input:
                if position == len(data):
                    data, position = blob.read(), 0
                    if not data:
                        raise IntegrityError(f"{what}: the gzip data ends too early")
                feed = data[position : position + step]
                position += len(feed)
                step = min(step * 2, _READ_BYTES)
            try:
                chunk = decoder.decompress(feed, CHUNK_BYTES)
            except (_GZIP_ERROR, ValueError) as error:
                raise IntegrityError(f"{what}: damaged gzip data: {error}") from error
            if chunk:
                yield chunk
        position -= len(decoder.unused_data)
        if data[position : position + 1] in {b"", b"\0"}:
            data, position = _after_zeros(blob, data[position:]), 0
            if not data:
                return
        # Its second byte may be in the next piece; the decoder looks at it.
        if data[position] != _GZIP_MAGIC[0]:
            raise IntegrityError(f"{what}: garbage after the gzip data")


def _after_zeros(blob: _Counted, data: bytes) -> bytes:
    """What follows a run of zeros, empty at the end of the file."""
    data = data.lstrip(b"\0")
    while not data:
        more = blob.read()
        if not more:
            return b""
        data = more.lstrip(b"\0")
    return data


class _Prefixed:
    """A blob whose first bytes have been read already."""

    def __init__(self, first: bytes, blob: _Counted) -> None:
        self._first = first
        self._blob = blob

    def read(self, size: int) -> bytes:
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return self._blob.read(size)


def _unzstd(blob: _Counted, first: bytes, what: str) -> Iterator[bytes]:
    """Every frame of a zstd file (RFC 8878), skippable ones skipped.

    The library's default for the window size (128 MiB) bounds the memory.
    """
    import zstandard

    decoder = zstandard.ZstdDecompressor()
    # The library wants no more of its source than read().
    source = cast("IO[bytes]", _Prefixed(first, blob))
    with decoder.stream_reader(source, read_size=_READ_BYTES, read_across_frames=True) as reader:
        while True:
            try:
                chunk = reader.read(CHUNK_BYTES)
            except zstandard.ZstdError as error:
                raise IntegrityError(f"{what}: damaged zstd data: {error}") from error
            if not chunk:
                return
            yield chunk
