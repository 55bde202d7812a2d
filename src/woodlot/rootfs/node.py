"""What a tree is made of: inodes, which directories know by name."""

import stat


class Node:
    """An inode; two names that hold the same object are hard links.

    Attributes:
        mode: File type and permissions, as in ``st_mode``.
        mtime_s: Seconds since 1970, negative before.
        mtime_ns: Nanoseconds to add.
        xattrs: Extended attributes, encoded for the inode; empty for none.
        nlink: Number of links; counted when the image is laid out.
        nid: Number and place of the inode in the image, in units of 32 bytes; 0 until it is laid out.
    """

    __slots__ = ("gid", "mode", "mtime_ns", "mtime_s", "nid", "nlink", "uid", "xattrs")

    def __init__(self, mode: int, uid: int, gid: int, mtime_s: int, mtime_ns: int) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_s = mtime_s
        self.mtime_ns = mtime_ns
        self.xattrs = b""
        self.nlink = 0
        self.nid = 0


class File(Node):
    """A regular file.

    Attributes:
        size: In bytes.
        block: First block of its data in the image; 0 if none.
        tail: Offset in the spool of its last, unfinished block, which goes next to the inode; -1 if none does.
    """

    __slots__ = ("block", "size", "tail")

    def __init__(
        self, mode: int, uid: int, gid: int, mtime_s: int, mtime_ns: int, *, size: int
    ) -> None:
        super().__init__(stat.S_IFREG | mode, uid, gid, mtime_s, mtime_ns)
        self.size = size
        self.block = 0
        self.tail = -1


class Symlink(Node):
    """A symbolic link.

    Attributes:
        target: As the archive has it.
        block: Block of the target in the image if it has no place next to the inode, else 0.
    """

    __slots__ = ("block", "target")

    def __init__(
        self, mode: int, uid: int, gid: int, mtime_s: int, mtime_ns: int, *, target: bytes
    ) -> None:
        super().__init__(stat.S_IFLNK | mode, uid, gid, mtime_s, mtime_ns)
        self.target = target
        self.block = 0


class Special(Node):
    """A device or FIFO; ``rdev`` as the kernel encodes device numbers, 0 for a FIFO."""

    __slots__ = ("rdev",)

    def __init__(
        self, mode: int, uid: int, gid: int, mtime_s: int, mtime_ns: int, *, rdev: int
    ) -> None:
        super().__init__(mode, uid, gid, mtime_s, mtime_ns)
        self.rdev = rdev


class Directory(Node):
    """A directory.

    Attributes:
        parent: The directory it is in; the root's is the root.
        children: Its entries, without ``.`` and ``..``.
        pure_since: Number of a layer: nothing in here, at any depth, is from a layer below that one.
        fresh_layer: The last layer that had an entry in here, at any depth; ``fresh`` speaks of it.
        fresh: Names of entries that this layer made. Only kept for directories that are not pure.
        size: Bytes of its entries in the image.
        block: First block of its entries in the image; 0 if all of them are next to the inode.
        inline: Whether the last, unfinished block of its entries is next to the inode.
    """

    __slots__ = (
        "block", "children", "fresh", "fresh_layer", "inline", "parent", "pure_since", "size",
    )  # fmt: skip

    def __init__(
        self,
        mode: int,
        uid: int,
        gid: int,
        mtime_s: int,
        mtime_ns: int,
        *,
        parent: "Directory | None",
        pure_since: int,
    ) -> None:
        super().__init__(stat.S_IFDIR | mode, uid, gid, mtime_s, mtime_ns)
        self.parent = self if parent is None else parent
        self.children: dict[bytes, Node] = {}
        self.pure_since = pure_since
        self.fresh_layer = pure_since
        self.fresh: set[bytes] = set()
        self.size = 0
        self.block = 0
        self.inline = False
