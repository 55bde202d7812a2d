"""Layers laid over each other, seen through the image they give."""

import stat
from collections.abc import Awaitable, Callable

import pytest

from tests.unit.rootfs.erofs_reader import Seen
from tests.unit.rootfs.tars import (
    LIMITS,
    archive,
    directory,
    gnu_long,
    hard_link,
    member,
    pax_header,
    symlink,
)
from woodlot.errors import IntegrityError, LimitError
from woodlot.rootfs.build import BuildLimits

Merge = Callable[..., Awaitable["dict[bytes, Seen]"]]


def names(tree: dict[bytes, Seen]) -> set[bytes]:
    return set(tree) - {b""}


async def test_an_empty_image_has_a_root(merge: Merge) -> None:
    tree = await merge(archive())
    assert names(tree) == set()
    assert tree[b""].mode == stat.S_IFDIR | 0o755


async def test_no_layers_at_all(merge: Merge) -> None:
    assert names(await merge()) == set()


async def test_the_root_takes_its_entry(merge: Merge) -> None:
    tree = await merge(archive(directory(b"./", 0o700, uid=5, gid=6, mtime=7)))
    root = tree[b""]
    assert (root.perm, root.uid, root.gid, root.mtime_s) == (0o700, 5, 6, 7)


@pytest.mark.parametrize(
    "name",
    [
        b"a/b",
        b"./a/b",
        b"/a/b",
        b"a//b",
        b"./a/./b",
        b"//a/b",
        b"a/x/../b",
        b"/../a/b",
        b"x/.././a/b",
    ],
)
async def test_names_are_cleaned(merge: Merge, name: bytes) -> None:
    assert names(await merge(archive(member(name)))) == {b"a", b"a/b"}


@pytest.mark.parametrize("name", [b"../a", b"a/../../b", b"..", b"./../x", b"a/../.."])
async def test_a_name_that_escapes_is_refused(merge: Merge, name: bytes) -> None:
    with pytest.raises(IntegrityError, match="leaves the root") as caught:
        await merge(archive(member(name)))
    assert repr(name.decode()) in caught.value.message
    assert "layer sha256:" in caught.value.message


async def test_a_link_that_escapes_is_refused(merge: Merge) -> None:
    with pytest.raises(IntegrityError, match="leaves the root"):
        await merge(archive(hard_link(b"a", b"../../etc/passwd")))


async def test_implicit_parents(merge: Merge) -> None:
    tree = await merge(archive(member(b"a/b/c")))
    assert (tree[b"a"].mode, tree[b"a"].uid) == (stat.S_IFDIR | 0o755, 0)
    assert tree[b"a"].nlink == 3


async def test_the_later_entry_wins(merge: Merge) -> None:
    tree = await merge(archive(member(b"f", b"one"), member(b"f", b"second", mode=0o600)))
    assert (tree[b"f"].data, tree[b"f"].perm, tree[b"f"].nlink) == (b"second", 0o600, 1)


async def test_a_later_directory_entry_keeps_the_children(merge: Merge) -> None:
    first = archive(
        directory(b"d", pax={b"SCHILY.xattr.user.a": b"1"}), member(b"d/f", b"x"), directory(b"d/s")
    )
    tree = await merge(first, archive(directory(b"d", 0o1777, uid=9, mtime=5)))
    assert names(tree) == {b"d", b"d/f", b"d/s"}
    found = tree[b"d"]
    assert (found.perm, found.uid, found.mtime_s, found.xattrs) == (0o1777, 9, 5, {})


async def test_directory_over_file_and_file_over_directory(merge: Merge) -> None:
    tree = await merge(
        archive(member(b"f"), directory(b"d"), member(b"d/x"), directory(b"l"), member(b"l/x")),
        archive(directory(b"f"), member(b"f/in"), member(b"d", b"now"), symlink(b"l", b"f")),
    )
    assert names(tree) == {b"f", b"f/in", b"d", b"l"}
    assert (tree[b"d"].data, tree[b"l"].data) == (b"now", b"f")


async def test_a_file_in_the_way_becomes_a_directory(merge: Merge) -> None:
    assert names(await merge(archive(member(b"a")), archive(member(b"a/b")))) == {b"a", b"a/b"}


# Whiteouts


async def test_a_whiteout_removes_what_is_below(merge: Merge) -> None:
    tree = await merge(
        archive(member(b"a/keep"), member(b"a/gone"), member(b"d/x/y"), member(b"f")),
        archive(member(b"a/.wh.gone"), member(b".wh.d"), member(b".wh.never")),
    )
    assert names(tree) == {b"a", b"a/keep", b"f"}


@pytest.mark.parametrize("flip", [False, True])
async def test_a_whiteout_spares_its_own_layer(merge: Merge, flip: bool) -> None:
    entries = [member(b"f", b"new"), member(b".wh.f")]
    tree = await merge(archive(member(b"f", b"old")), archive(*entries[:: -1 if flip else 1]))
    assert tree[b"f"].data == b"new"


@pytest.mark.parametrize("flip", [False, True])
async def test_an_opaque_directory_spares_its_own_layer(merge: Merge, flip: bool) -> None:
    entries = [
        directory(b"o", 0o711),
        member(b"o/new"),
        member(b"o/sub/deep/new"),
        member(b"o/.wh..wh..opq"),
    ]
    below = archive(
        directory(b"o", 0o700), member(b"o/old"), directory(b"o/sub", 0o700), member(b"o/sub/old"),
        member(b"o/sub/deep/old"), member(b"o/gone/old"), member(b"else"),
    )  # fmt: skip
    tree = await merge(below, archive(*entries[:: -1 if flip else 1]))
    assert names(tree) == {
        b"o", b"o/new", b"o/sub", b"o/sub/deep", b"o/sub/deep/new", b"else",
    }  # fmt: skip
    assert tree[b"o"].perm == 0o711
    assert tree[b"o/sub"].perm == 0o755, "made anew as a parent, not the one from below"


@pytest.mark.parametrize("flip", [False, True])
async def test_a_whiteout_of_a_directory_that_its_layer_writes_into(
    merge: Merge, flip: bool
) -> None:
    entries = [member(b"x/new"), member(b".wh.x")]
    below = archive(directory(b"x", 0o700, uid=7), member(b"x/old"))
    tree = await merge(below, archive(*entries[:: -1 if flip else 1]))
    assert names(tree) == {b"x", b"x/new"}
    assert (tree[b"x"].perm, tree[b"x"].uid) == (0o755, 0)


@pytest.mark.parametrize("flip", [False, True])
async def test_a_whiteout_inside_a_removed_directory_makes_it_anew(
    merge: Merge, flip: bool
) -> None:
    entries = [member(b"x/y/.wh.old"), member(b".wh.x")]
    below = archive(directory(b"x/y", 0o700), member(b"x/y/old"), member(b"x/z"))
    tree = await merge(below, archive(*entries[:: -1 if flip else 1]))
    assert names(tree) == {b"x", b"x/y"}
    assert tree[b"x/y"].perm == 0o755


async def test_whiteouts_of_one_layer_do_not_reach_the_next(merge: Merge) -> None:
    tree = await merge(
        archive(member(b"a")), archive(member(b".wh.a")), archive(member(b"a", b"back"))
    )
    assert tree[b"a"].data == b"back"


async def test_a_whiteout_in_the_base_layer_removes_nothing(merge: Merge) -> None:
    tree = await merge(archive(member(b"d/a"), member(b"d/.wh.a"), member(b"d/.wh..wh..opq")))
    assert names(tree) == {b"d", b"d/a"}


async def test_a_directory_replaced_in_its_layer_is_pure(merge: Merge) -> None:
    tree = await merge(
        archive(member(b"d/old")),
        archive(member(b"d"), directory(b"d"), member(b"d/new"), member(b".wh.d")),
    )
    assert names(tree) == {b"d", b"d/new"}


@pytest.mark.parametrize("name", [b".wh.", b"a/.wh..", b".wh..."])
async def test_a_whiteout_of_nothing_is_refused(merge: Merge, name: bytes) -> None:
    with pytest.raises(IntegrityError, match="names nothing"):
        await merge(archive(member(name)))


async def test_aufs_metadata_is_skipped(merge: Merge) -> None:
    tree = await merge(
        archive(
            directory(b".wh..wh.plnk"),
            member(b".wh..wh.plnk/1.2", b"shared"),
            member(b".wh..wh.aufs"),
            directory(b"./.wh..wh.orph"),
            member(b"d/.wh..wh.aufs"),
            hard_link(b"a", b".wh..wh.plnk/1.2"),
            hard_link(b"b", b"./.wh..wh.plnk/1.2"),
        )
    )
    assert names(tree) == {b"a", b"b", b"d"}
    assert (tree[b"a"].data, tree[b"a"].nlink) == (b"shared", 2)


# Links


async def test_hard_links_share_an_inode(merge: Merge) -> None:
    tree = await merge(
        archive(member(b"one", b"data", uid=3), hard_link(b"two", b"./one")),
        archive(hard_link(b"d/three", b"/two"), member(b".wh.one")),
    )
    assert names(tree) == {b"two", b"d", b"d/three"}
    assert tree[b"two"] is tree[b"d/three"]
    assert (tree[b"two"].data, tree[b"two"].nlink, tree[b"two"].uid) == (b"data", 2, 3)


async def test_a_hard_link_outlives_the_replaced_name(merge: Merge) -> None:
    tree = await merge(archive(member(b"a", b"old"), hard_link(b"b", b"a"), member(b"a", b"new")))
    assert (tree[b"a"].data, tree[b"b"].data, tree[b"b"].nlink) == (b"new", b"old", 1)


async def test_hard_links_to_other_things(merge: Merge) -> None:
    tree = await merge(
        archive(
            symlink(b"s", b"nowhere"), hard_link(b"s2", b"s"),
            member(b"p", type=b"6"), hard_link(b"p2", b"p"), hard_link(b"p2", b"p2"),
        )
    )  # fmt: skip
    assert tree[b"s"] is tree[b"s2"]
    assert tree[b"p"] is tree[b"p2"]
    assert tree[b"p"].nlink == 2


@pytest.mark.parametrize("target", [b"missing", b"d", b"d/missing", b"f/x", b"", b"/"])
async def test_an_impossible_hard_link_is_refused(merge: Merge, target: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"'l' is a hard link to"):
        await merge(archive(directory(b"d"), member(b"f"), hard_link(b"l", target)))


@pytest.mark.parametrize(
    "target", [b"usr/lib", b"/usr/lib", b"../../usr/./lib", b"usr/x/../lib", b"indirect"]
)
async def test_a_name_goes_through_links_inside_the_root(merge: Merge, target: bytes) -> None:
    tree = await merge(
        archive(directory(b"usr/lib"), directory(b"usr/x"), symlink(b"indirect", b"/usr/lib"), symlink(b"lib", target)),
        archive(member(b"lib/foo", b"1"), hard_link(b"bar", b"lib/foo"), member(b"lib/old/.wh.x")),
    )  # fmt: skip
    assert tree[b"usr/lib/foo"].data == b"1"
    assert tree[b"bar"] is tree[b"usr/lib/foo"]
    assert stat.S_ISLNK(tree[b"lib"].mode)
    assert b"usr/lib/old" in tree


async def test_the_last_component_is_not_followed(merge: Merge) -> None:
    tree = await merge(
        archive(directory(b"d"), symlink(b"l", b"d"), symlink(b"m", b"d")),
        archive(directory(b"l", 0o700), member(b"m", b"file")),
    )
    assert (tree[b"l"].mode, tree[b"m"].data) == (stat.S_IFDIR | 0o700, b"file")
    assert tree[b"d"].perm == 0o755


async def test_a_lookup_is_not_remembered_past_a_change(merge: Merge) -> None:
    tree = await merge(
        archive(
            directory(b"a"), directory(b"b"), symlink(b"l", b"a"), member(b"l/1"),
            symlink(b"l", b"b"), member(b"l/2"),
            member(b"x/1"), member(b"x"), member(b"x/2"),
        )
    )  # fmt: skip
    assert names(tree) == {b"a", b"a/1", b"b", b"b/2", b"l", b"x", b"x/2"}


async def test_a_dangling_link_makes_its_target(merge: Merge) -> None:
    tree = await merge(archive(symlink(b"run", b"var/run"), member(b"run/pid")))
    assert names(tree) == {b"run", b"var", b"var/run", b"var/run/pid"}


@pytest.mark.parametrize("links", [{b"a": b"a"}, {b"a": b"b", b"b": b"a"}, {b"a": b"x/../a"}])
async def test_links_in_a_circle_are_refused(merge: Merge, links: dict[bytes, bytes]) -> None:
    with pytest.raises(IntegrityError, match="too many symbolic links"):
        await merge(archive(*(symlink(*link) for link in links.items()), member(b"a/f")))


# Kinds, names and limits


async def test_devices(merge: Merge) -> None:
    tree = await merge(
        archive(
            member(b"null", type=b"3", mode=0o666, major=1, minor=3),
            member(b"disk", type=b"4", major=259, minor=0xABCDE),
            member(b"pipe", type=b"6", mode=0o600),
        )
    )
    assert (tree[b"null"].mode, tree[b"null"].rdev) == (stat.S_IFCHR | 0o666, 0x103)
    disk = tree[b"disk"].rdev
    assert ((disk >> 8) & 0xFFF, (disk & 0xFF) | ((disk >> 12) & 0xFFF00)) == (259, 0xABCDE)
    assert tree[b"pipe"].mode == stat.S_IFIFO | 0o600
    with pytest.raises(IntegrityError, match="impossible device"):
        await merge(archive(member(b"x", type=b"3", major=4096)))


async def test_special_bits_and_large_ids(merge: Merge) -> None:
    tree = await merge(
        archive(member(b"f", mode=0o107755, pax={b"uid": b"3000000000", b"gid": b"4294967294"}))
    )
    found = tree[b"f"]
    assert (found.mode, found.uid, found.gid) == (stat.S_IFREG | 0o7755, 3000000000, 4294967294)
    with pytest.raises(IntegrityError, match="impossible owner"):
        await merge(archive(member(b"f", pax={b"uid": b"4294967295"})))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1234567890.123456789", (1234567890, 123456789)),
        (b"-2000000000", (-2000000000, 0)),
        (b"-1.5", (-2, 500000000)),
        (b"4500000000.1", (4500000000, 100000000)),
        (b"0.0000000019", (0, 1)),
    ],
)
async def test_times_are_exact(merge: Merge, text: bytes, expected: tuple[int, int]) -> None:
    found = (await merge(archive(member(b"f", pax={b"mtime": text}))))[b"f"]
    assert (found.mtime_s, found.mtime_ns) == expected


async def test_an_impossible_time_is_refused(merge: Merge) -> None:
    with pytest.raises(IntegrityError, match="impossible time"):
        await merge(archive(member(b"f", pax={b"mtime": b"9223372036854775808"})))


async def test_long_names(merge: Merge) -> None:
    assert b"n" * 255 in await merge(archive(gnu_long(b"L", b"n" * 255) + member(b"x")))
    for name in (b"n" * 256, b"n" * 256 + b"/x", b"d/" + b"n" * 300):
        with pytest.raises(IntegrityError, match="255 are possible"):
            await merge(archive(gnu_long(b"L", name) + member(b"x")))


async def test_a_name_with_a_nul_is_refused(merge: Merge) -> None:
    with pytest.raises(IntegrityError, match="NUL"):
        await merge(archive(pax_header({b"path": b"a\0b"}) + member(b"x")))


async def test_a_deep_tree(merge: Merge) -> None:
    deep = b"/".join([b"d"] * 5000)
    tree = await merge(
        archive(gnu_long(b"L", deep + b"/f") + member(b"x", b"leaf")),
        archive(gnu_long(b"L", deep + b"/.wh.f") + member(b"x"), gnu_long(b"L", deep + b"/.wh..wh..opq") + member(b"x")),
        fsck=False,  # it recurses
    )  # fmt: skip
    assert len(tree) == 5001


@pytest.mark.parametrize("size", [1, 100, 4031, 4032, 4033, 4095])
async def test_link_targets_of_every_size(merge: Merge, size: int) -> None:
    target = b"t" * size
    assert (await merge(archive(symlink(b"l", target))))[b"l"].data == target


@pytest.mark.parametrize("target", [b"", b"t" * 4096])
async def test_an_impossible_link_target_is_refused(merge: Merge, target: bytes) -> None:
    with pytest.raises(IntegrityError, match="impossible target"):
        await merge(archive(symlink(b"l", target)))


async def test_too_many_entries(merge: Merge) -> None:
    limits = BuildLimits(max_bytes=LIMITS.max_bytes, max_ratio=1000, max_entries=10)
    await merge(archive(*(member(b"%d" % i) for i in range(10))), limits=limits)
    with pytest.raises(LimitError, match="more than 10 entries"):
        await merge(archive(member(b"/".join([b"d"] * 11))), limits=limits)
    with pytest.raises(LimitError, match="more than 10 entries"):
        await merge(archive(*([member(b"same")] * 11)), limits=limits)


@pytest.mark.parametrize("kind", [b"0", b"2", b"3", b"1"])
async def test_nothing_replaces_the_root(merge: Merge, kind: bytes) -> None:
    with pytest.raises(IntegrityError, match="replace the root"):
        await merge(archive(member(b".", type=kind, link=b"x")))
