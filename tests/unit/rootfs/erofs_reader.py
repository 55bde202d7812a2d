"""A reader of EROFS images that shares nothing with the writer, and complains of what a kernel would trip over."""

import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 4096
TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFLNK: 7,
}
PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}


@dataclass
class Seen:
    """An inode as found in the image."""

    nid: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_s: int
    mtime_ns: int
    nlink: int
    rdev: int = 0
    data: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    inline: bool = False

    @property
    def perm(self) -> int:
        return stat.S_IMODE(self.mode)


def crc32c(data: bytes | bytearray) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 * (value & 1))
    return value


class Image:
    """An image in memory."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_bytes()
        block = bytearray(self.raw[1024:BLOCK])
        (magic, checksum, compat, bits) = struct.unpack_from("<IIIB", block)
        assert (magic, compat, bits) == (0xE0F5E1E2, 3, 12)
        block[4:8] = bytes(4)
        assert crc32c(block) == checksum
        self.root_nid, self.inodes = struct.unpack_from("<HQ", block, 14)
        self.blocks, self.meta = struct.unpack_from("<II", block, 36)
        self.uuid = bytes(block[48:64])
        assert self.blocks * BLOCK == len(self.raw)

    def inode(self, nid: int) -> Seen:
        at = self.meta * BLOCK + 32 * nid
        (form, xattr_count, mode, reserved, size, union, _ino, uid, gid, mtime, ns, nlink) = struct.unpack_from(
            "<HHHHQIIIIqII", self.raw, at
        )  # fmt: skip
        assert form & 1, "an extended inode"
        layout = form >> 1
        assert layout in {0, 2}
        assert reserved == 0
        assert ns < 10**9
        seen = Seen(nid, mode, uid, gid, size, mtime, ns, nlink, inline=layout == 2)
        end = at + 64
        if xattr_count:
            area = self.raw[end : end + 12 + 4 * (xattr_count - 1)]
            end += len(area)
            seen.xattrs = _xattrs(area)
        kind = stat.S_IFMT(mode)
        if kind in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
            whole = size if layout == 0 else size - size % BLOCK
            if whole:
                assert 0 < union < self.meta, "data lies before the metadata"
            seen.data = self.raw[union * BLOCK : union * BLOCK + whole]
            if layout == 2:
                tail = size % BLOCK
                assert tail, "an inline inode has something inline"
                assert end % BLOCK + tail <= BLOCK, "inline data stays in its block"
                if kind == stat.S_IFLNK:
                    assert at // BLOCK == (end + tail - 1) // BLOCK, (
                        "6.1 wants all of a link in a block"
                    )
                seen.data += self.raw[end : end + tail]
            assert len(seen.data) == size
        elif kind != stat.S_IFIFO:
            seen.rdev = union
        return seen

    def entries(self, node: Seen) -> list[tuple[bytes, int, int]]:
        """Name, nid and type of every entry, ``.`` and ``..`` too; checks the order."""
        found: list[tuple[bytes, int, int]] = []
        for start in range(0, node.size, BLOCK):
            block = node.data[start : start + BLOCK]
            first = struct.unpack_from("<H", block, 8)[0]
            assert first
            assert first % 12 == 0
            heads = [struct.unpack_from("<QHBB", block, at) for at in range(0, first, 12)]
            ends = [head[1] for head in heads[1:]] + [len(block)]
            for (nid, offset, kind, reserved), end in zip(heads, ends, strict=True):
                assert reserved == 0
                name = block[offset:end]
                if end == len(block):
                    name = name.rstrip(b"\0")
                assert 0 < len(name) <= 255
                found.append((name, nid, kind))
        names = [name for name, _, _ in found]
        assert names == sorted(names)
        assert len(set(names)) == len(names)
        return found

    def tree(self) -> dict[bytes, Seen]:
        """Every path, the root as an empty one; checks links, types and counts."""
        root = self.inode(self.root_nid)
        found = {b"": root}
        links: dict[int, int] = {}
        known = {self.root_nid: root}
        pending = [(b"", root, self.root_nid)]
        while pending:
            path, node, parent = pending.pop()
            for name, nid, kind in self.entries(node):
                links[nid] = links.get(nid, 0) + 1
                child = known.get(nid)
                if child is None:
                    child = known[nid] = self.inode(nid)
                assert TYPES[stat.S_IFMT(child.mode)] == kind
                if name == b".":
                    assert nid == node.nid
                elif name == b"..":
                    assert nid == parent
                else:
                    below = path + b"/" + name if path else name
                    found[below] = child
                    if stat.S_ISDIR(child.mode):
                        pending.append((below, child, node.nid))
        assert len(known) == self.inodes
        assert links == {nid: node.nlink for nid, node in known.items()}
        return found


def _xattrs(area: bytes) -> dict[bytes, bytes]:
    assert area[:12] == bytes(12), "no filter, nothing shared"
    found: dict[bytes, bytes] = {}
    at = 12
    while at < len(area):
        name_size, index, value_size = struct.unpack_from("<BBH", area, at)
        name = area[at + 4 : at + 4 + name_size]
        value = area[at + 4 + name_size : at + 4 + name_size + value_size]
        assert len(value) == value_size
        found[PREFIXES[index] + name] = value
        at += -(-(4 + name_size + value_size) // 4) * 4
    assert at == len(area)
    return found
