"""Blobs: every compression, whole, damaged and malicious."""

import gzip
import hashlib
import os
import struct
import zlib
from pathlib import Path

import pytest
import zstandard

from tests.unit.rootfs.tars import LIMITS, write_blob, write_layer
from woodlot.errors import IntegrityError, LimitError, UnsupportedError, WoodlotError
from woodlot.rootfs.layer import Budget, BuildLimits, LayerSource, read_layer
from woodlot.units import GIB, MIB

DATA = b"".join(bytes([i % 251]) * 997 for i in range(3000)) + os.urandom(300_000)
DIFF_ID = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
GZIP = "gzip"
ZSTD = "zstd"


def read(
    source: LayerSource, *, limits: BuildLimits = LIMITS, budget: Budget | None = None
) -> tuple[bytes, int]:
    told = 0

    def advance(amount: int) -> None:
        nonlocal told
        told += amount

    chunks = list(read_layer(source, limits=limits, budget=budget or Budget(GIB), advance=advance))
    assert all(0 < len(chunk) <= MIB for chunk in chunks)
    return b"".join(chunks), told


@pytest.mark.parametrize("compression", [GZIP, ZSTD, ""])
def test_every_compression(tmp_path: Path, compression: str) -> None:
    source = write_layer(tmp_path, DATA, compression)
    assert read(source) == (DATA, source.path.stat().st_size)


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(gzip.compress(DATA[:5]) + gzip.compress(DATA[5:]), id="two members"),
        pytest.param(
            b"".join(gzip.compress(DATA[at : at + 99_991]) for at in range(0, len(DATA), 99_991)),
            id="many members",
        ),
        pytest.param(gzip.compress(DATA) + gzip.compress(b"") * 300, id="empty members"),
        pytest.param(gzip.compress(DATA) + bytes(600_000), id="zeros behind"),
        pytest.param(gzip.compress(DATA[:9]) + bytes(5) + gzip.compress(DATA[9:]), id="zeros between"),
    ],
)  # fmt: skip
def test_members_of_gzip(tmp_path: Path, blob: bytes) -> None:
    assert read(write_blob(tmp_path, blob, GZIP, DIFF_ID))[0] == DATA


def test_frames_of_zstd(tmp_path: Path) -> None:
    skipped = struct.pack("<II", 0x184D2A50, 5) + b"chunk"
    blob = skipped + zstandard.compress(DATA[:70_000]) + skipped + zstandard.compress(DATA[70_000:])
    assert read(write_blob(tmp_path, blob + skipped, ZSTD, DIFF_ID))[0] == DATA


def test_the_magic_number_decides(tmp_path: Path) -> None:
    """A registry may call zstd gzip, and a compressed layer plain: runtimes have always unpacked both."""
    assert read(write_blob(tmp_path, zstandard.compress(DATA), GZIP, DIFF_ID))[0] == DATA
    assert read(write_blob(tmp_path, gzip.compress(DATA), "", DIFF_ID))[0] == DATA
    docker = write_layer(tmp_path, DATA)
    media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    found = LayerSource(
        path=docker.path, media_type=media_type, digest=docker.digest, diff_id=docker.diff_id
    )
    assert read(found)[0] == DATA


@pytest.mark.parametrize("compression", [GZIP, ZSTD])
@pytest.mark.parametrize("blob", [b"", b"x", b"plain text", DATA])
def test_what_is_not_compressed_as_said(tmp_path: Path, compression: str, blob: bytes) -> None:
    source = write_blob(tmp_path, blob, compression, DIFF_ID)
    with pytest.raises(IntegrityError, match="not compressed like that") as caught:
        read(source)
    assert source.digest in caught.value.message


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar+encrypted",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.oci.image.layer.v1.tar+xz",
        "application/wasm",
        "",
    ],
)
def test_other_media_types_are_refused(tmp_path: Path, media_type: str) -> None:
    source = write_layer(tmp_path, DATA)
    other = LayerSource(
        path=source.path, media_type=media_type, digest=source.digest, diff_id=DIFF_ID
    )
    with pytest.raises(UnsupportedError, match="media type"):
        read(other)


@pytest.mark.parametrize("compression", [GZIP, ZSTD, ""])
@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_truncated_layers(tmp_path: Path, compression: str, keep: float) -> None:
    blob = write_layer(tmp_path, DATA, compression).path.read_bytes()
    source = write_blob(tmp_path, blob[: int(len(blob) * keep)], compression, DIFF_ID)
    with pytest.raises(IntegrityError) as caught:
        read(source)
    assert source.digest in caught.value.message


@pytest.mark.parametrize("compression", [GZIP, ZSTD])
@pytest.mark.parametrize("at", [3, 20, 1000, -5, -1])
def test_damaged_layers(tmp_path: Path, compression: str, at: int) -> None:
    blob = bytearray(write_layer(tmp_path, DATA, compression).path.read_bytes())
    blob[at] ^= 0x55
    source = write_blob(tmp_path, bytes(blob), compression, DIFF_ID)
    with pytest.raises(IntegrityError) as caught:
        read(source)
    assert source.digest in caught.value.message


def test_garbage_behind_gzip(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="garbage"):
        read(write_blob(tmp_path, gzip.compress(DATA) + b"more", GZIP, DIFF_ID))


def test_another_diff_id(tmp_path: Path) -> None:
    wrong = f"sha256:{'0' * 64}"
    with pytest.raises(IntegrityError, match="do not match") as caught:
        read(write_layer(tmp_path, DATA, diff_id=wrong))
    assert caught.value.details is not None
    assert wrong in caught.value.details
    sha512 = f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    assert read(write_layer(tmp_path, DATA, diff_id=sha512))[0] == DATA
    with pytest.raises(UnsupportedError, match="diff_id"):
        read(write_layer(tmp_path, DATA, diff_id="md5:00"))


@pytest.mark.parametrize("compression", [GZIP, ZSTD])
def test_a_bomb_by_ratio(tmp_path: Path, compression: str) -> None:
    limits = BuildLimits(max_bytes=GIB, max_ratio=100, max_entries=10)
    with pytest.raises(LimitError, match="more than 100 times"):
        read(write_layer(tmp_path, bytes(50 * MIB), compression), limits=limits)
    small = bytes(MIB)
    assert read(write_layer(tmp_path, small, compression), limits=limits)[0] == small


def test_a_bomb_by_size(tmp_path: Path) -> None:
    budget = Budget(2 * len(DATA) - 1)
    source = write_layer(tmp_path, DATA)
    read(source, budget=budget)
    with pytest.raises(LimitError, match="unpacks to more than"):
        read(source, budget=budget)


def test_a_bomb_is_noticed_before_it_goes_off(tmp_path: Path) -> None:
    """A gigabyte in a megabyte: no more than the limit is ever made of it."""
    blob = gzip.compress(bytes(64 * MIB), 9) * 16
    source = write_blob(tmp_path, blob, GZIP, DIFF_ID)
    chunks = read_layer(source, limits=LIMITS, budget=Budget(5 * MIB), advance=lambda _: None)
    seen: list[int] = []
    with pytest.raises(LimitError):
        seen.extend(map(len, chunks))
    assert sum(seen) <= 5 * MIB


def test_a_million_members(tmp_path: Path) -> None:
    source = write_blob(tmp_path, gzip.compress(b"") * 100_000, GZIP, DIFF_ID)
    with pytest.raises(WoodlotError):
        read(source)


def test_a_huge_zstd_window_is_refused(tmp_path: Path) -> None:
    header = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0xA8]) + b"\x01\x00\x00"  # window of 2 GiB
    with pytest.raises(IntegrityError, match="zstd"):
        read(write_blob(tmp_path, header, ZSTD, DIFF_ID))


def test_a_deflate_stream_without_checksum(tmp_path: Path) -> None:
    raw = zlib.compressobj(wbits=-15)
    body = raw.compress(DATA) + raw.flush()
    with pytest.raises(IntegrityError):
        read(write_blob(tmp_path, b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body, GZIP, DIFF_ID))
