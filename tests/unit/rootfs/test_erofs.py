"""The image's structures: sizes at every edge, large directories, attributes."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rootfs.erofs_reader import BLOCK, Seen
from tests.unit.rootfs.tars import archive, directory, member, symlink
from woodlot.errors import IntegrityError
from woodlot.rootfs import blocks
from woodlot.rootfs.erofs import build_dirents, crc32c, split_names
from woodlot.rootfs.xattr import encode_xattrs

Merge = Callable[..., Awaitable["dict[bytes, Seen]"]]


def test_crc32c() -> None:
    # RFC 3720, B.4: 32 bytes of zeros give 0x8a9136aa, inverted as usual.
    assert crc32c(bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA


@given(st.sets(st.binary(min_size=1, max_size=255), min_size=1, max_size=300))
def test_every_block_of_a_directory_is_full_but_fits(names: set[bytes]) -> None:
    ordered = sorted(names)
    ends, size = split_names(ordered)
    start = 0
    for number, end in enumerate(ends):
        block = build_dirents([(name, 1, 1) for name in ordered[start:end]])
        last = number == len(ends) - 1
        assert len(block) <= BLOCK
        assert last or len(block) + 12 + len(ordered[end]) > BLOCK
        assert not last or size == number * BLOCK + len(block)
        start = end
    assert start == len(ordered)


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        4031,
        4032,
        4033,
        4095,
        4096,
        4097,
        4096 + 2048,
        4096 + 2049,
        8191,
        8192,
        70_000,
        3_000_001,
    ],
)
async def test_files_of_every_size(merge: Merge, size: int) -> None:
    data = os.urandom(size)
    tree = await merge(archive(member(b"a", b"1"), member(b"f", data), member(b"z", b"2")))
    assert tree[b"f"].data == data
    assert (tree[b"a"].data, tree[b"z"].data) == (b"1", b"2")
    if size % BLOCK:
        assert tree[b"f"].inline == (size <= 4032 or size % BLOCK <= 2048)


async def test_a_large_directory(merge: Merge) -> None:
    names = [b"many/%05d" % i for i in range(3000)]
    tree = await merge(archive(directory(b"many"), *map(member, names)))
    assert set(tree) == {b"", b"many", *names}
    assert tree[b"many"].nlink == 2
    assert tree[b"many"].size > 3000 * 17


async def test_directories_of_every_size(merge: Merge) -> None:
    entries = [
        member(b"d%02d/%s%02d" % (count, b"n" * 250, i))
        for count in range(1, 40)
        for i in range(count)
    ]
    tree = await merge(archive(*entries))
    assert len(tree) == 1 + 39 + sum(range(1, 40))


async def test_names_around_the_dots(merge: Merge) -> None:
    names = {
        b"!",
        b"-",
        b"--x",
        b"+",
        b"...",
        b"..a",
        b".a",
        b".-",
        b"/".join([b"0", b"-"]),
        b"\xff",
        b"\x01",
    }
    assert set(await merge(archive(*map(member, names)))) == {b"", b"0", *names}


async def test_subdirectories_count_as_links(merge: Merge) -> None:
    tree = await merge(archive(directory(b"d/a"), directory(b"d/b"), member(b"d/f")))
    assert (tree[b""].nlink, tree[b"d"].nlink, tree[b"d/a"].nlink) == (3, 4, 2)


async def test_extended_attributes(merge: Merge) -> None:
    wanted = {
        b"user.note": b"hello",
        b"user.empty": b"",
        b"trusted.x": b"1",
        b"security.capability": bytes(range(20)),
        b"system.posix_acl_access": b"acl",
        b"system.posix_acl_default": b"more",
    }
    left_out = {
        b"com.apple.quarantine": b"x", b"user.": b"x", b"system.nfs4_acl": b"x",
        b"trusted.overlay.opaque": b"y", b"user.overlay.redirect": b"/",
    }  # fmt: skip
    pax = {b"SCHILY.xattr." + key: value for key, value in (wanted | left_out).items()}
    tree = await merge(
        archive(
            member(b"f", b"data", pax=pax),
            directory(b"d", pax=pax),
            member(b"only", pax={b"SCHILY.xattr.com.apple.x": b"1"}),
        )
    )
    assert tree[b"f"].xattrs == tree[b"d"].xattrs == wanted
    assert tree[b"f"].data == b"data"
    assert tree[b"only"].xattrs == {}


@pytest.mark.parametrize("size", [3000, 4000, 4016, 4017, 5000, 65535])
@pytest.mark.parametrize("data", [b"", b"short", b"x" * 5000])
async def test_large_attributes(merge: Merge, size: int, data: bytes) -> None:
    value = os.urandom(size)
    pax = {b"SCHILY.xattr.user.v": value}
    link = archive(member(b"l", type=b"2", link=b"target", pax=pax))
    rest = archive(member(b"f", data, pax=pax), directory(b"d", pax=pax), member(b"d/x"), member(b"s", b"s"), directory(b"./", pax=pax))  # fmt: skip
    tree = await merge(rest, link)
    assert tree[b"f"].data == data
    assert tree[b"l"].data == b"target"
    for path in (b"", b"f", b"d", b"l"):
        assert tree[path].xattrs == {b"user.v": value}


async def test_impossible_attributes_are_refused(merge: Merge) -> None:
    many = {b"user.%d" % i: bytes(60_000) for i in range(5)}
    for xattrs in ({b"user.v": bytes(65536)}, {b"user." + b"n" * 251: b""}, many):
        pax = {b"SCHILY.xattr." + key: value for key, value in xattrs.items()}
        with pytest.raises(IntegrityError, match="extended attribute"):
            await merge(archive(member(b"f", pax=pax)))


def test_attributes_are_in_order_whatever_theirs_was() -> None:
    pairs = [(b"user.b", b"1"), (b"user.a", b"2"), (b"security.z", b"3")]
    assert encode_xattrs(dict(pairs)) == encode_xattrs(dict(reversed(pairs)))


async def test_tails_share_blocks(merge: Merge) -> None:
    tree = await merge(archive(*(member(b"%04d" % i, b"x" * (i * 37 % 4000)) for i in range(1000))))
    used = {seen.nid * 32 // BLOCK for seen in tree.values()}
    total = sum(64 + seen.size for seen in tree.values())
    assert len(used) * BLOCK < total * 1.15


def test_erase_without_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_punch", lambda *_args: False)
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    with path.open("r+b") as file:
        blocks.erase(file.fileno(), 4096, 2_500_000)
    assert path.read_bytes() == b"x" * 4096 + bytes(2_500_000) + b"x" * (3_000_000 - 2_504_096)


async def test_symlinks_keep_bytes(merge: Merge) -> None:
    assert (await merge(archive(symlink(b"l", b"\xff \n"))))[b"l"].data == b"\xff \n"
