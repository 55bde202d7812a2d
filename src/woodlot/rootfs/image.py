"""The metadata of an image: where every inode lies, and writing them behind the file data.

    ┌───────┬───────────────────────────┬──────────────────────┬──────────────────────────────┐
    │ super │ file data, whole blocks,  │ whole blocks of      │ inodes, each with attributes │
    │ block │ in the order of the tars  │ large directories    │ and the end of its data      │
    └───────┴───────────────────────────┴──────────────────────┴──────────────────────────────┘
    0       1                                                  meta_blkaddr

An inode with all that follows it lies within one block, unless its attributes alone are larger than that.
"""

import mmap
import os
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from woodlot.errors import LimitError
from woodlot.rootfs.blocks import Appender
from woodlot.rootfs.erofs import (
    BLOCK_BYTES,
    FILE_TYPES,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODE,
    INODE_BYTES,
    MAX_BLOCKS,
    SLOT_BYTES,
    build_dirents,
    build_superblock,
    inode_format,
    split_names,
)
from woodlot.rootfs.node import Directory, File, Node, Special, Symlink
from woodlot.rootfs.xattr import count_field

# Inode number 0 would be read as "no file" by programs that list a directory; the first slots stay empty.
_FIRST_SLOT_BYTES = 64
_OPEN_BLOCKS = 32
_PLAIN = inode_format(FLAT_PLAIN)
_INLINE = inode_format(FLAT_INLINE)


class _Packer:
    """Gives inodes their places: in the open block that they fill best, or in a new one."""

    def __init__(self) -> None:
        self.size = BLOCK_BYTES
        # Bytes left in a block and where it ends, ascending.
        self._rooms = [(BLOCK_BYTES - _FIRST_SLOT_BYTES, BLOCK_BYTES)]

    def place(self, size: int) -> int:
        """The offset, from the start of the metadata, of ``size`` bytes; a multiple of 32."""
        size += -size % SLOT_BYTES
        rooms = self._rooms
        at = bisect_left(rooms, (size, 0))
        if at < len(rooms):
            left, end = rooms.pop(at)
        else:
            left = size + -size % BLOCK_BYTES
            end = self.size = self.size + left
        left -= size
        if left >= INODE_BYTES:
            insort(rooms, (left, end))
            if len(rooms) > _OPEN_BLOCKS:
                del rooms[0]
        return end - left - size


class _Layout:
    """The places of everything that is not file data.

    Attributes:
        nodes: Every inode of the tree, once; a directory's children follow each other.
        meta_block: First block of the inodes.
        blocks: Size of the image.
    """

    def __init__(self, root: Directory, first_block: int) -> None:
        self._packer = _Packer()
        self._next_block = first_block
        self.nodes: list[Node] = []
        self._visit(root)
        pending = [root]
        while pending:
            children = pending.pop().children
            first = len(self.nodes)
            for child in children.values():
                if not child.nid:
                    self._visit(child)
                child.nlink += 1
            pending.extend(
                node for node in reversed(self.nodes[first:]) if isinstance(node, Directory)
            )
        self.meta_block = self._next_block
        self.blocks = self.meta_block + self._packer.size // BLOCK_BYTES
        if self.blocks > MAX_BLOCKS:
            raise LimitError("the image is larger than 16 TiB")

    def _visit(self, node: Node) -> None:
        fixed = INODE_BYTES + len(node.xattrs)
        inline = 0
        if isinstance(node, File):
            if node.tail >= 0:
                inline = node.size % BLOCK_BYTES
        elif isinstance(node, Directory):
            inline = self._plan_directory(node, BLOCK_BYTES - fixed)
        elif isinstance(node, Symlink):
            inline = len(node.target)
            if fixed + inline > BLOCK_BYTES:
                inline = 0
                node.block = self._next_block
                self._next_block += 1
        node.nid = self._packer.place(fixed + inline) // SLOT_BYTES
        self.nodes.append(node)

    def _plan_directory(self, node: Directory, room: int) -> int:
        """Put the children in the order of the disk, with ``.`` and ``..``; the bytes that go next to the inode."""
        children = node.children
        children[b"."] = node
        children[b".."] = node.parent
        node.children = {name: children[name] for name in sorted(children)}
        ends, node.size = split_names(tuple(node.children))
        tail = node.size % BLOCK_BYTES
        whole = len(ends) - bool(tail)
        node.inline = 0 < tail <= room
        if not node.inline:
            whole, tail = len(ends), 0
        if whole:
            node.block = self._next_block
            self._next_block += whole
        return tail


def write_metadata(
    fd: int,
    root: Directory,
    *,
    first_block: int,
    spool: mmap.mmap | bytes,
    uuid: bytes,
    check: Callable[[], None],
) -> tuple[int, int]:
    """Complete an image that holds its file data: directories, inodes, superblock.

    Args:
        fd: The image.
        root: The tree; its directories are changed on the way.
        first_block: The block behind the file data.
        spool: The ends of files that go next to their inodes.
        uuid: Of the file system, 16 bytes.
        check: Called now and then; may raise to stop the work.

    Returns:
        The image's size in bytes, and the number of inodes.

    Raises:
        LimitError: The image would be larger than the format allows (16 TiB).
    """
    layout = _Layout(root, first_block)
    check()
    meta_offset = layout.meta_block * BLOCK_BYTES
    root_nid = root.nid
    out = Appender(fd, meta_offset, durable=True)
    position = 0
    nodes = sorted(layout.nodes, key=lambda node: node.nid)
    for count, node in enumerate(nodes):
        if not count & 0xFFF:
            check()
        start = node.nid * SLOT_BYTES
        head = _build_inode(node, count + 1)
        data = _inline_data(fd, node, spool)
        out.put(bytes(start - position) + head + node.xattrs + data)
        position = start + INODE_BYTES + len(node.xattrs) + len(data)
    out.put(bytes(-position % BLOCK_BYTES))
    out.flush()
    size = layout.blocks * BLOCK_BYTES
    os.truncate(fd, size)
    superblock = build_superblock(
        root_nid=root_nid,
        inodes=len(nodes),
        blocks=layout.blocks,
        meta_block=layout.meta_block,
        uuid=uuid,
    )
    os.pwrite(fd, superblock, 0)
    return size, len(nodes)


def _build_inode(node: Node, number: int) -> bytes:
    form, size, place = _PLAIN, 0, 0
    if isinstance(node, File):
        form, size, place = _INLINE if node.tail >= 0 else _PLAIN, node.size, node.block
    elif isinstance(node, Directory):
        form, size, place = _INLINE if node.inline else _PLAIN, node.size, node.block
    elif isinstance(node, Symlink):
        form, size, place = _PLAIN if node.block else _INLINE, len(node.target), node.block
    elif isinstance(node, Special):
        place = node.rdev
    return INODE.pack(
        form, count_field(node.xattrs), node.mode, 0, size, place, number,
        node.uid, node.gid, node.mtime_s, node.mtime_ns, node.nlink,
    )  # fmt: skip


def _inline_data(fd: int, node: Node, spool: mmap.mmap | bytes) -> bytes:
    """What goes next to the inode; what goes to blocks of its own is written there."""
    if isinstance(node, File):
        if node.tail < 0:
            return b""
        return spool[node.tail : node.tail + node.size % BLOCK_BYTES]
    if isinstance(node, Directory):
        data = b"".join(_directory_blocks(node))
        inline = len(data) % BLOCK_BYTES if node.inline else 0
    elif isinstance(node, Symlink):
        data = node.target
        inline = 0 if node.block else len(data)
    else:
        return b""
    whole = len(data) - inline
    if whole:
        padded = data[:whole] + bytes(-whole % BLOCK_BYTES)
        os.pwrite(fd, padded, node.block * BLOCK_BYTES)
    return data[whole:]


def _directory_blocks(node: Directory) -> Iterator[bytes]:
    """The directory's blocks, every one but the last padded."""
    entries = [
        (name, child.nid, FILE_TYPES[child.mode >> 12]) for name, child in node.children.items()
    ]
    if node.size <= BLOCK_BYTES:
        yield build_dirents(entries)
        return
    ends, _ = split_names(tuple(node.children))
    start = 0
    for end in ends:
        block = build_dirents(entries[start:end])
        yield block if end == len(entries) else block.ljust(BLOCK_BYTES, b"\0")
        start = end
