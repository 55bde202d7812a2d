"""Tar streams of every dialect, whole and broken, in pieces of any size."""

import contextlib
import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rootfs.tars import (
    END,
    Header,
    archive,
    base256,
    directory,
    gnu_long,
    member,
    padded,
    pax_header,
)
from woodlot.errors import IntegrityError, UnsupportedError
from woodlot.rootfs.tar import Kind, TarEntry, TarReader, parse_time


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(data: bytes, size: int = 1 << 20) -> list[tuple[TarEntry, bytes]]:
    reader = TarReader(chunks(data, size), "layer x")
    found: list[tuple[TarEntry, bytes]] = []
    for entry in reader:
        stored = entry.size if entry.segments is None else sum(n for _, n in entry.segments)
        found.append((entry, b"".join(bytes(piece) for piece in reader.pieces(stored))))
    return found


def one(data: bytes) -> TarEntry:
    ((entry, _),) = read(data)
    return entry


name_text = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=300
).filter(lambda text: not text.endswith("/"))


@given(
    name=name_text,
    link=name_text,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**40), 2**40),
    data=st.binary(max_size=2000),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    size=st.sampled_from([1, 7, 512, 1000, 1 << 20]),
)
def test_what_the_standard_library_writes(
    *, name: str, link: str, mode: int, uid: int, mtime: int, data: bytes, form: int, size: int
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8") as tar:
        info = tarfile.TarInfo(name)
        info.mode, info.uid, info.gid, info.mtime, info.size = mode, uid, uid, mtime, len(data)
        tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.uid = tarfile.SYMTYPE, link, uid
        tar.addfile(info)
    (file, found), (symlink, _) = read(out.getvalue(), size)
    # The library strips slashes from names when it writes them.
    assert file.name.strip(b"/") == name.encode().strip(b"/")
    assert (file.kind, file.mode, file.uid, file.gid) == (Kind.FILE, mode, uid, uid)
    assert (file.mtime_s, file.mtime_ns, found) == (mtime, 0, data)
    assert (symlink.kind, symlink.link, symlink.uid) == (Kind.SYMLINK, link.encode(), uid)


@given(data=st.binary(max_size=3000))
def test_garbage_never_surprises(data: bytes) -> None:
    with contextlib.suppress(IntegrityError, UnsupportedError):
        read(data)


@given(
    cut=st.integers(0, 4096),
    at=st.integers(0, 4095),
    value=st.integers(0, 255),
)
def test_a_damaged_archive_never_surprises(cut: int, at: int, value: int) -> None:
    whole = bytearray(
        archive(member(b"f", b"x" * 700, pax={b"mtime": b"1.5", b"uid": b"7"}), directory(b"d"))
    )
    whole[at % len(whole)] = value
    with contextlib.suppress(IntegrityError, UnsupportedError):
        read(bytes(whole[: len(whole) - cut]), 512)


def test_ustar_prefix() -> None:
    assert one(Header(name=b"leaf", prefix=b"a/b").build() + END).name == b"a/b/leaf"
    full = Header(name=b"n" * 100, prefix=b"p" * 155).build()
    assert one(full + END).name == b"p" * 155 + b"/" + b"n" * 100
    # GNU keeps other things there.
    assert (
        one(Header(name=b"leaf", prefix=b"a/b", magic=b"ustar  \0").build() + END).name == b"leaf"
    )
    assert one(Header(name=b"leaf", prefix=b"a/b", magic=bytes(8)).build() + END).name == b"leaf"


def test_gnu_long_names_and_links() -> None:
    data = gnu_long(b"L", b"n" * 5000) + gnu_long(b"K", b"t" * 3000)
    entry = one(data + member(b"short", type=b"2", link=b"short") + END)
    assert (entry.name, entry.link) == (b"n" * 5000, b"t" * 3000)


def test_base_256_numbers() -> None:
    head = Header(
        name=b"f", uid=base256(3_000_000_000, 8), gid=base256(2**31, 8),
        size=base256(3, 12), mtime=base256(-5, 12),
    )  # fmt: skip
    ((entry, data),) = read(head.build() + padded(b"abc") + END)
    assert (entry.uid, entry.gid, entry.size, entry.mtime_s) == (3_000_000_000, 2**31, 3, -5)
    assert data == b"abc"


@pytest.mark.parametrize("field", ["uid", "gid", "size"])
def test_negative_numbers_are_refused(field: str) -> None:
    width = 12 if field == "size" else 8
    with pytest.raises(IntegrityError, match="negative"):
        one(Header(name=b"f", **{field: base256(-1, width)}).build() + END)
    with pytest.raises(IntegrityError, match="negative"):
        one(member(b"f", pax={field.encode(): b"-1"}) + END)


def test_old_archives() -> None:
    spaced = Header(name=b"f", magic=bytes(8), type=b"\0", mode=b"   644 \0", uid=b"      0\0")
    assert one(spaced.build() + END).mode == 0o644
    assert (
        one(Header(name=b"dir/", magic=bytes(8), type=b"\0").build() + END).kind is Kind.DIRECTORY
    )
    block = bytearray(Header(name=b"\xff\xfe", magic=bytes(8)).build())
    signed = sum(b - 256 if b > 127 else b for b in block[:148] + block[156:]) + 8 * 32
    block[148:156] = b"%06o\0 " % signed
    assert one(bytes(block) + END).name == b"\xff\xfe"


def test_pax_records() -> None:
    entry = one(
        member(
            b"short",
            b"abc",
            pax={
                b"path": b"d/long\nname",
                b"uid": b"5000000",
                b"mtime": b"-1.25",
                b"SCHILY.xattr.user.a=b": b"",
                b"SCHILY.xattr.user.bin": b"\0\n=\xff",
                b"LIBARCHIVE.xattr.user.a%20b": b"aGVsbG8",
                b"LIBARCHIVE.xattr.user.bin": b"AAAA",
                b"comment": b"x",
            },
        )
        + END
    )
    assert (entry.name, entry.uid) == (b"d/long\nname", 5000000)
    assert (entry.mtime_s, entry.mtime_ns) == (-2, 750_000_000)
    # A record ends its key at the first "=".
    assert entry.xattrs == {b"user.a": b"b=", b"user.bin": b"\0\n=\xff", b"user.a b": b"hello"}


def test_pax_size_overrides() -> None:
    head = pax_header({b"size": b"3"}) + Header(name=b"f", size=0).build() + padded(b"abc")
    assert read(head + member(b"g") + END)[0][1] == b"abc"


def test_global_headers_hold_until_replaced() -> None:
    data = (
        pax_header({b"uid": b"5", b"gid": b"6"}, b"g")
        + member(b"a")
        + member(b"b", pax={b"uid": b"7"})
        + pax_header({b"uid": b""}, b"g")
        + member(b"c", uid=9)
        + END
    )
    assert [(e.uid, e.gid) for e, _ in read(data)] == [(5, 6), (7, 6), (9, 6)]


def test_global_headers_without_end_are_refused() -> None:
    heads = (pax_header({b"k%d" % i: b"v" * 1000}, b"g") for i in range(100))
    with pytest.raises(IntegrityError, match="without end"):
        read(b"".join(heads) + END)


@pytest.mark.parametrize(
    "data",
    [
        b"x", b"0 a=b\n", b"6 a=b", b"99 a=b\n", b"5 a=b\n", b"7 a=b\n", b"2 a=b\n", b"6 =bc\n", b" 6 a=b\n",
        b"-6 a=b\n", b"6 a=b\nx", b"999999999999999999999999 a=b\n", b"5 abc\n", b"3 \n",
    ],
)  # fmt: skip
def test_wrong_pax_records_are_refused(data: bytes) -> None:
    head = Header(name=b"x", type=b"x", size=len(data)).build() + padded(data)
    with pytest.raises(IntegrityError, match="wrong pax header"):
        read(head + member(b"f") + END)


@pytest.mark.parametrize(
    "records",
    [
        {b"uid": b"x"},
        {b"mtime": b"now"},
        {b"size": b"1" * 5000},
        {b"LIBARCHIVE.xattr.user.a": b"*"},
    ],
)
def test_wrong_pax_values_are_refused(records: dict[bytes, bytes]) -> None:
    with pytest.raises(IntegrityError, match="wrong header for 'f'"):
        read(member(b"f", pax=records) + END)


# The end


def test_the_end_of_an_archive() -> None:
    body = member(b"f", b"abc")
    for tail in (b"", END, END[:512], END + b"garbage" * 100, END + body):
        assert len(read(body + tail)) == 1
    assert read(b"") == []
    assert read(END) == []


def test_an_empty_block_in_between_is_refused() -> None:
    with pytest.raises(IntegrityError, match="empty block"):
        read(member(b"a") + bytes(512) + member(b"b") + END)


@pytest.mark.parametrize("keep", [1, 511, 513, 600, 1023])
def test_a_truncated_archive_is_refused(keep: int) -> None:
    with pytest.raises(IntegrityError, match="ends too early"):
        read(member(b"f", b"x" * 512)[:keep])


def test_headers_that_describe_nothing_are_refused() -> None:
    for head in (pax_header({b"path": b"x"}), gnu_long(b"L", b"x")):
        with pytest.raises(IntegrityError, match="describes no entry"):
            read(head + END)


def test_a_size_that_lies_is_refused() -> None:
    with pytest.raises(IntegrityError, match="ends too early"):
        read(Header(name=b"f", size=base256(1 << 60, 12)).build() + END)
    for kind in (b"x", b"L", b"g"):
        for size in (base256(1 << 60, 12), base256(-1, 12), (1 << 20) + 1):
            with pytest.raises(IntegrityError, match="has a header of"):
                read(Header(name=b"f", type=kind, size=size).build() + END)


def test_only_files_have_data() -> None:
    data = b"".join(
        Header(name=b"x", type=kind, size=1000).build() for kind in (b"1", b"2", b"5", b"6")
    )
    assert [entry.size for entry, _ in read(data + END)] == [0, 0, 0, 0]


def test_a_wrong_checksum_is_refused() -> None:
    for checksum in (b"000000\0 ", b"\0" * 8, b"99999999"):
        with pytest.raises(IntegrityError, match="wrong checksum"):
            read(Header(name=b"f").build(checksum=checksum) + END)


def test_an_unknown_type_is_refused_and_a_label_skipped() -> None:
    with pytest.raises(UnsupportedError, match="unknown type"):
        read(member(b"f", type=b"M") + END)
    assert len(read(member(b"label", type=b"V") + member(b"f") + END)) == 1


# Sparse files

REAL = 1_000_000
SEGMENTS = [(0, 512), (4096, 1000), (900_000, 100)]
STORED = b"a" * 512 + b"b" * 1000 + b"c" * 100


def old_sparse(segments: list[tuple[int, int]], real: int, stored: bytes) -> bytes:
    def pairs(part: list[tuple[int, int]], room: int) -> bytes:
        text = b"".join(b"%011o\0%011o\0" % pair for pair in part)
        return text.ljust(24 * room, b"\0")

    block = bytearray(
        Header(name=b"sparse", type=b"S", size=len(stored), magic=b"ustar  \0").build()
    )
    rest = segments[4:]
    block[386:482] = pairs(segments[:4], 4)
    block[482] = bool(rest)
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    data = bytes(block)
    while rest:
        now, rest = rest[:21], rest[21:]
        data += (pairs(now, 21) + bytes([bool(rest)])).ljust(512, b"\0")
    return data + padded(stored)


def flat(segments: list[tuple[int, int]]) -> list[int]:
    return [number for pair in segments for number in pair]


def sparse_archives(segments: list[tuple[int, int]], real: int, stored: bytes) -> dict[str, bytes]:
    size = {b"GNU.sparse.size": b"%d" % real, b"GNU.sparse.numblocks": b"%d" % len(segments)}
    keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
    repeated = [(keys[i % 2], b"%d" % n) for i, n in enumerate(flat(segments))]
    numbers = b",".join(b"%d" % n for n in flat(segments))
    lines = b"".join(b"%d\n" % n for n in [len(segments), *flat(segments)])
    head = member(b"sparse", stored)
    return {
        "old": old_sparse(segments, real, stored),
        "0.0": pax_header([*size.items(), *repeated]) + head,
        "0.1": pax_header({**size, b"GNU.sparse.name": b"sparse", b"GNU.sparse.map": numbers})
        + member(b"GNUSparseFile.1/sparse", stored),
        "1.0": pax_header(
            {
                b"GNU.sparse.major": b"1",
                b"GNU.sparse.minor": b"0",
                b"GNU.sparse.name": b"sparse",
                b"GNU.sparse.realsize": b"%d" % real,
            }
        )
        + member(b"GNUSparseFile.1/sparse", padded(lines) + stored),
    }


@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("many", [False, True])
def test_sparse_files(form: str, many: bool) -> None:
    segments = [(i * 1000, 10) for i in range(100)] if many else SEGMENTS
    stored = b"z" * 1000 if many else STORED
    data = sparse_archives(segments, REAL, stored)[form] + member(b"after") + END
    (entry, found), (after, _) = read(data, 512)
    assert (entry.name, entry.size, entry.segments, found) == (b"sparse", REAL, segments, stored)
    assert after.name == b"after"


@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize(
    "segments",
    [
        [(512, 512), (0, 1100)],
        [(0, 1000), (999, 612)],
        [(0, 1611)],
        [(0, 1613)],
        [(REAL - 1, 1612)],
    ],
)
def test_wrong_sparse_maps_are_refused(form: str, segments: list[tuple[int, int]]) -> None:
    with pytest.raises(IntegrityError, match="wrong sparse map"):
        read(sparse_archives(segments, REAL, STORED)[form] + END)


@pytest.mark.parametrize("lines", [b"", b"x\n", b"-1\n", b"99999999\n", b"1\n0\n", b"1" * 600])
def test_a_broken_map_in_the_data_is_refused(lines: bytes) -> None:
    head = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"5"}
    with pytest.raises(IntegrityError, match="wrong sparse map"):
        read(pax_header(head) + member(b"f", padded(lines)) + END)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999))
def test_times(seconds: int, nanoseconds: int) -> None:
    total = seconds * 10**9 + nanoseconds
    text = b"%s%d.%09d" % (b"-" * (total < 0), abs(total) // 10**9, abs(total) % 10**9)
    assert parse_time(text) == (seconds, nanoseconds)
