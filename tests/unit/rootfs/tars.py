"""Tar archives byte by byte, also such as no library would write, and layers made of them."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import zstandard

from woodlot.rootfs.build import BuildLimits, LayerSource
from woodlot.units import GIB

BLOCK = 512
END = bytes(2 * BLOCK)
LIMITS = BuildLimits(max_bytes=4 * GIB, max_ratio=1000, max_entries=100_000)


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    bits = 8 * width - 1
    return ((value % (1 << bits)) | 1 << bits).to_bytes(width, "big")


@dataclass(kw_only=True)
class Header:
    """One header; numbers given as bytes go in as they are."""

    name: bytes
    type: bytes = b"0"
    mode: int | bytes = 0o644
    uid: int | bytes = 0
    gid: int | bytes = 0
    size: int | bytes = 0
    mtime: int | bytes = 0
    link: bytes = b""
    magic: bytes = b"ustar\x0000"
    major: int | bytes = 0
    minor: int | bytes = 0
    prefix: bytes = b""

    def build(self, *, checksum: bytes | None = None) -> bytes:
        def number(value: int | bytes, width: int) -> bytes:
            return value if isinstance(value, bytes) else octal(value, width)

        parts = [
            self.name[:100].ljust(100, b"\0"),
            number(self.mode, 8),
            number(self.uid, 8),
            number(self.gid, 8),
            number(self.size, 12),
            number(self.mtime, 12),
            b" " * 8,
            self.type,
            self.link[:100].ljust(100, b"\0"),
            self.magic,
            bytes(64),
            number(self.major, 8),
            number(self.minor, 8),
            self.prefix.ljust(155, b"\0"),
            bytes(12),
        ]
        block = b"".join(parts)
        assert len(block) == BLOCK
        return block.replace(b" " * 8, checksum or b"%06o\0 " % sum(block), 1)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(
    name: bytes, data: bytes = b"", *, pax: dict[bytes, bytes] | None = None, **fields: object
) -> bytes:
    """An entry with its data and the pax header before it."""
    header = Header(name=name, size=len(data), **fields)  # type: ignore[arg-type]
    long = gnu_long(b"L", name) if len(name) > 100 else b""
    return (pax_header(pax) if pax else b"") + long + header.build() + padded(data)


def directory(name: bytes, mode: int = 0o755, **fields: object) -> bytes:
    return member(name, type=b"5", mode=mode, **fields)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> bytes:
    if len(target) > 100:
        return gnu_long(b"K", target) + member(name, type=b"2", link=b"...")
    return member(name, type=b"2", link=target)


def hard_link(name: bytes, target: bytes) -> bytes:
    return member(name, type=b"1", link=target)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (key, value)
    size = len(rest)
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d%s" % (size, rest)


def pax_header(
    records: dict[bytes, bytes] | list[tuple[bytes, bytes]],
    kind: bytes = b"x",
) -> bytes:
    pairs = records.items() if isinstance(records, dict) else records
    data = b"".join(record(key, value) for key, value in pairs)
    return Header(name=b"PaxHeader", type=kind, size=len(data)).build() + padded(data)


def gnu_long(kind: bytes, name: bytes) -> bytes:
    data = name + b"\0"
    head = Header(name=b"././@LongLink", type=kind, size=len(data), magic=b"ustar  \0")
    return head.build() + padded(data)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + END


def write_layer(
    directory: Path, tar: bytes, compression: str = "gzip", *, diff_id: str | None = None
) -> LayerSource:
    """Store a layer's blob as the registry would have sent it."""
    if compression == "gzip":
        blob = gzip.compress(tar, 1, mtime=0)
    elif compression == "zstd":
        blob = zstandard.compress(tar)
    else:
        blob = tar
    return write_blob(
        directory, blob, compression, diff_id or f"sha256:{hashlib.sha256(tar).hexdigest()}"
    )


def write_blob(directory: Path, blob: bytes, compression: str, diff_id: str) -> LayerSource:
    digest = hashlib.sha256(blob).hexdigest()
    path = directory / digest
    path.write_bytes(blob)
    suffix = f"+{compression}" if compression else ""
    return LayerSource(
        path=path,
        media_type=f"application/vnd.oci.image.layer.v1.tar{suffix}",
        digest=f"sha256:{digest}",
        diff_id=diff_id,
    )
