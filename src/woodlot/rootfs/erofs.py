"""EROFS structures as bytes; pure.

    block 0     1024 bytes of nothing, the superblock (128 bytes), zeros
    inode       at meta_blkaddr * 4096 + 32 * nid: 64 bytes, attributes, then perhaps the last part of its data
    directory   blocks of entries and their names, every block and all of them in bytewise order:

        ┌────────────┬────────────┬─────┬────────┬────────┬─────┐
        │ entry 0    │ entry 1    │  …  │ name 0 │ name 1 │  …  │   an entry: nid u64, name's offset u16, type u8, 0 u8
        └────────────┴────────────┴─────┴────────┴────────┴─────┘

All numbers are little-endian. Only features of Linux 5.4 are used, and the superblock's checksum (5.5).

Source: Linux Documentation/filesystems/erofs.rst, and the structures in fs/erofs/erofs_fs.h that it refers to.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

BLOCK_BYTES = 4096
INODE_BYTES = 64
SLOT_BYTES = 32
DIRENT_BYTES = 12
SUPERBLOCK_OFFSET = 1024
MAX_BLOCKS = (1 << 32) - 1

_MAGIC = 0xE0F5E1E2
_FEATURE_CHECKSUM = 0x1
_FEATURE_MTIME = 0x2
# magic checksum feature_compat blkszbits extslots root_nid inos build_time build_time_nsec blocks meta_blkaddr
# xattr_blkaddr uuid volume_name feature_incompat u1 extra_devices devt_slotoff dirblkbits prefixes prefix_start
# packed_nid xattr_filter
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")

FLAT_PLAIN = 0
FLAT_INLINE = 2
_EXTENDED = 1
# i_format i_xattr_icount i_mode reserved i_size i_u i_ino i_uid i_gid i_mtime i_mtime_nsec i_nlink reserved
INODE = struct.Struct("<HHHHQIIIIqII16x")
DIRENT = struct.Struct("<QHBB")

# Directory entries' types, by the format bits of st_mode shifted down.
FILE_TYPES = {0o10: 1, 0o04: 2, 0o02: 3, 0o06: 4, 0o01: 5, 0o12: 7}


def inode_format(layout: int) -> int:
    """The inode's ``i_format``: extended, with its data laid out as FLAT_PLAIN or FLAT_INLINE."""
    return _EXTENDED | layout << 1


def build_superblock(
    *, root_nid: int, inodes: int, blocks: int, meta_block: int, uuid: bytes
) -> bytes:
    """Block 0 of an image, with its checksum.

    Args:
        root_nid: The root directory's inode; below 65536.
        inodes: Number of inodes.
        blocks: Size of the image.
        meta_block: Where inodes are counted from.
        uuid: 16 bytes.
    """

    def pack(checksum: int) -> bytes:
        packed = _SUPERBLOCK.pack(
            _MAGIC, checksum, _FEATURE_CHECKSUM | _FEATURE_MTIME, 12, 0, root_nid, inodes, 0, 0,
            blocks, meta_block, 0, uuid, b"", 0, 0, 0, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip
        return packed.ljust(BLOCK_BYTES - SUPERBLOCK_OFFSET, b"\0")

    return bytes(SUPERBLOCK_OFFSET) + pack(crc32c(pack(0)))


@lru_cache(maxsize=1)
def _crc_table() -> tuple[int, ...]:
    table: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) from all ones and not inverted at the end, as the kernel's ``crc32c(~0, …)``."""
    table = _crc_table()
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value


def split_names(names: Sequence[bytes]) -> tuple[list[int], int]:
    """How a directory's sorted names fill its blocks.

    Returns:
        For each block the index behind its last name, and the directory's size in bytes.
    """
    used = sum(map(len, names)) + DIRENT_BYTES * len(names)
    if used <= BLOCK_BYTES:
        return [len(names)], used
    ends: list[int] = []
    used = 0
    for index, name in enumerate(names):
        need = DIRENT_BYTES + len(name)
        if used + need > BLOCK_BYTES:
            ends.append(index)
            used = 0
        used += need
    ends.append(len(names))
    return ends, (len(ends) - 1) * BLOCK_BYTES + used


def build_dirents(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    """One block of a directory, not padded, from (name, nid, type) in order."""
    offset = DIRENT_BYTES * len(entries)
    parts: list[bytes] = []
    pack = DIRENT.pack
    for name, nid, kind in entries:
        parts.append(pack(nid, offset, kind, 0))
        offset += len(name)
    parts.extend(entry[0] for entry in entries)
    return b"".join(parts)
