"""The tree that the layers of an image make, one laid over the other.

Names in an archive are names inside the root. They are cleaned as text first, as Docker does; then the directory
is looked up component by component, and a symbolic link on the way is followed inside the root, as in a chroot.
The last component is never followed: an entry replaces a link of its name.

A whiteout removes what lower layers made and nothing of its own layer, whatever the order of the entries. So each
directory that lower layers had a part in remembers which of its names the current layer made.

Source: OCI image-spec, layer.md, "Applying Changesets", "Whiteouts".
"""

import stat

from woodlot.errors import IntegrityError, LimitError
from woodlot.rootfs.layer import BuildLimits
from woodlot.rootfs.node import Directory, File, Node, Special, Symlink
from woodlot.rootfs.tar import Kind, TarEntry, show_name
from woodlot.rootfs.xattr import encode_xattrs

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS_PREFIX = b".wh..wh."
_AUFS_LINKS = b".wh..wh.plnk/"

MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4095
_MAX_LINKS_FOLLOWED = 40  # as Linux
_MAX_ID = (1 << 32) - 2  # the last one means "no change" to chown
# Names, link targets and attributes are kept in memory.
_MAX_TEXT_BYTES = 1 << 30
_IMPLICIT_MODE = 0o755
_CACHED_PARENTS = 1 << 16
_CACHED_NAME_BYTES = 1024
_DOTS = frozenset((b"", b".", b".."))


class Tree:
    """The merged tree; feed it layer by layer, base first.

    Attributes:
        root: The root directory.
        files: Every regular file ever added, in order, also those no longer in the tree.
    """

    def __init__(self, limits: BuildLimits) -> None:
        self.root = Directory(_IMPLICIT_MODE, 0, 0, 0, 0, parent=None, pure_since=0)
        self.files: list[File] = []
        self._limits = limits
        self._layer = -1
        self._what = ""
        self._entries = 0
        self._text_bytes = 0
        # Directories by the text that led to them; emptied when a lookup could now end elsewhere.
        self._parents: dict[bytes, Directory] = {}
        self._xattrs: dict[bytes, bytes] = {}
        self._aufs_links: dict[bytes, Node] = {}

    def begin_layer(self, what: str) -> None:
        """The entries that follow belong to the next layer, named ``what`` in errors."""
        self._layer += 1
        self._what = what
        self._aufs_links = {}
        self._parents.clear()

    def add(self, entry: TarEntry) -> File | None:
        """Apply one entry.

        Returns:
            The file that the entry's data belongs to, if it has any.

        Raises:
            IntegrityError: A name or link that leaves the root or cannot exist.
            LimitError: More entries than allowed.
        """
        head, _, base = entry.name.rpartition(b"/")
        if base in _DOTS:
            parts = self._clean(entry.name, entry)
            if not parts:
                self._set_root(entry)
                return None
            base = parts.pop()
            head = b"/".join(parts)
        if entry.name.startswith(b"."):
            clean = entry.name.removeprefix(b"./")
            if clean.startswith(_AUFS_PREFIX) and clean != _OPAQUE:
                return self._aufs(entry, clean)
        parent = self._parents.get(head) or self._find_parent(head, entry)
        if base.startswith(_WHITEOUT):
            self._white_out(parent, base)
            return None
        return self._place(parent, base, entry)

    def _place(self, parent: Directory, base: bytes, entry: TarEntry) -> File | None:
        old = parent.children.get(base)
        file: File | None = None
        node: Node
        match entry.kind:
            case Kind.FILE:
                node = file = self._new_file(entry)
            case Kind.DIRECTORY:
                if isinstance(old, Directory):
                    self._describe(old, entry)
                    self._mark(parent, base)
                    return None
                node = self._new_directory(parent, entry)
            case Kind.HARD_LINK:
                node = self._find_target(entry)
                if node is old:
                    self._mark(parent, base)
                    return None
            case _:
                node = self._new_other(entry)
        if isinstance(old, Directory | Symlink):
            self._parents.clear()
        self._link(parent, base, node)
        return file

    def _link(self, parent: Directory, base: bytes, node: Node) -> None:
        if len(base) > MAX_NAME_BYTES:
            raise IntegrityError(
                f"{self._what}: a name of {len(base)} bytes, and {MAX_NAME_BYTES} are possible: {show_name(base)}"
            )
        if 0 in base:
            raise IntegrityError(f"{self._what}: the name {show_name(base)} holds a NUL")
        self._count(len(base))
        parent.children[base] = node
        self._mark(parent, base)

    def _mark(self, parent: Directory, base: bytes) -> None:
        """Remember that the current layer made this name."""
        if parent.pure_since != self._layer:
            self._touch(parent)
            parent.fresh.add(base)

    def _touch(self, directory: Directory) -> None:
        """Remember that the current layer has an entry somewhere in this directory."""
        if directory.fresh_layer != self._layer:
            directory.fresh_layer = self._layer
            directory.fresh = set()

    # Making nodes

    def _new_file(self, entry: TarEntry) -> File:
        file = File(
            entry.mode, entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns, size=entry.size
        )
        self._check(file, entry)
        if entry.size:
            self.files.append(file)
        return file

    def _new_directory(self, parent: Directory, entry: TarEntry) -> Directory:
        directory = Directory(
            entry.mode, entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns,
            parent=parent, pure_since=self._layer,
        )  # fmt: skip
        self._check(directory, entry)
        return directory

    def _new_other(self, entry: TarEntry) -> Node:
        node: Node
        if entry.kind is Kind.SYMLINK:
            target = entry.link
            if not 0 < len(target) <= MAX_TARGET_BYTES or 0 in target:
                raise IntegrityError(
                    f"{self._what}: {_shown(entry)} is a symbolic link with an impossible target of {len(target)} bytes"
                )
            self._keep_text(len(target))
            node = Symlink(
                0o777, entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns, target=target
            )
        else:
            kind = {
                Kind.CHARACTER_DEVICE: stat.S_IFCHR,
                Kind.BLOCK_DEVICE: stat.S_IFBLK,
                Kind.FIFO: stat.S_IFIFO,
            }[entry.kind]
            node = Special(
                kind | entry.mode, entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns,
                rdev=self._encode_device(entry),
            )  # fmt: skip
        self._check(node, entry)
        return node

    def _encode_device(self, entry: TarEntry) -> int:
        """A device number as Linux keeps it on disk (``new_encode_dev``): 12 bits major, 20 bits minor."""
        major, minor = entry.dev_major, entry.dev_minor
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise IntegrityError(
                f"{self._what}: {_shown(entry)} is the impossible device {major}:{minor}"
            )
        return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)

    def _describe(self, node: Node, entry: TarEntry) -> None:
        """Give a node the metadata of a later entry."""
        node.mode = stat.S_IFMT(node.mode) | entry.mode
        node.uid, node.gid = entry.uid, entry.gid
        node.mtime_s, node.mtime_ns = entry.mtime_s, entry.mtime_ns
        node.xattrs = b""
        self._check(node, entry)

    def _check(self, node: Node, entry: TarEntry) -> None:
        if entry.uid > _MAX_ID or entry.gid > _MAX_ID:
            raise IntegrityError(
                f"{self._what}: {_shown(entry)} has the impossible owner {entry.uid}:{entry.gid}"
            )
        if not -(1 << 63) <= entry.mtime_s < 1 << 63:
            raise IntegrityError(f"{self._what}: {_shown(entry)} has an impossible time")
        if entry.xattrs:
            try:
                encoded = encode_xattrs(entry.xattrs)
            except ValueError as error:
                raise IntegrityError(f"{self._what}: {_shown(entry)}: {error}") from error
            known = self._xattrs.setdefault(encoded, encoded)
            if known is encoded:
                self._keep_text(len(encoded))
            node.xattrs = known

    def _count(self, name_bytes: int) -> None:
        """One more entry is kept in memory."""
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise LimitError(
                f"{self._what}: the image holds more than {self._limits.max_entries} entries",
                hint="raise the setting image.max_entries if you trust the image",
            )
        self._keep_text(name_bytes)

    def _keep_text(self, amount: int) -> None:
        self._text_bytes += amount
        if self._text_bytes > _MAX_TEXT_BYTES:
            raise LimitError(
                f"{self._what}: the image's names and attributes take more than {_MAX_TEXT_BYTES >> 20} MiB"
            )

    def _set_root(self, entry: TarEntry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise IntegrityError(f"{self._what}: {_shown(entry)} would replace the root directory")
        self._describe(self.root, entry)

    # Finding

    def _clean(self, name: bytes, entry: TarEntry) -> list[bytes]:
        """The components of a name, with ``.``, ``..`` and empty ones taken away.

        Raises:
            IntegrityError: The name leaves the root.
        """
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                if parts:
                    parts.pop()
                elif not name.startswith(b"/"):
                    raise IntegrityError(
                        f"{self._what}: {_shown(entry)} leaves the root directory by its name or link"
                    )
            elif part not in {b"", b"."}:
                parts.append(part)
        return parts

    def _find_parent(self, head: bytes, entry: TarEntry) -> Directory:
        """The directory of this name; what is missing of it is made, and what is no directory is replaced."""
        parent = self._walk(self._clean(head, entry), make=True)
        assert parent is not None  # noqa: S101 - it was made
        if len(head) <= _CACHED_NAME_BYTES:
            if len(self._parents) >= _CACHED_PARENTS:
                self._parents.clear()
            self._parents[head] = parent
        return parent

    def _walk(self, parts: list[bytes], *, make: bool) -> Directory | None:
        """Follow ``parts`` from the root; None if they do not lead to a directory and ``make`` is false."""
        pending = parts[::-1]
        current = self.root
        followed = 0
        while pending:
            part = pending.pop()
            if part == b"..":  # from a link's target
                current = current.parent
                continue
            child = current.children.get(part)
            if isinstance(child, Directory):
                current = child
                if make:
                    self._touch(child)
            elif isinstance(child, Symlink):
                followed += 1
                if followed > _MAX_LINKS_FOLLOWED:
                    raise IntegrityError(
                        f"{self._what}: {show_name(b'/'.join(parts))} goes through too many symbolic links"
                    )
                if child.target.startswith(b"/"):
                    current = self.root
                target = [p for p in child.target.split(b"/") if p not in {b"", b"."}]
                pending.extend(reversed(target))
            elif make:
                made = Directory(_IMPLICIT_MODE, 0, 0, 0, 0, parent=current, pure_since=self._layer)
                self._link(current, part, made)
                current = made
            else:
                return None
        return current

    def _find_target(self, entry: TarEntry) -> Node:
        """The node that a hard link names.

        Raises:
            IntegrityError: There is none, or it is a directory.
        """
        if entry.link.removeprefix(b"./").startswith(_AUFS_LINKS):
            node = self._aufs_links.get(entry.link.removeprefix(b"./"))
        else:
            parts = self._clean(entry.link, entry)
            base = parts.pop() if parts else b""
            directory = self._walk(parts, make=False)
            node = directory.children.get(base) if directory else None
        if node is None:
            raise IntegrityError(
                f"{self._what}: {_shown(entry)} is a hard link to {show_name(entry.link)}, which does not exist"
            )
        if isinstance(node, Directory):
            raise IntegrityError(
                f"{self._what}: {_shown(entry)} is a hard link to the directory {show_name(entry.link)}"
            )
        return node

    # Removing

    def _aufs(self, entry: TarEntry, clean: bytes) -> File | None:
        """Skip AUFS's own files, except that hard links may name those in ``.wh..wh.plnk``."""
        if entry.kind is Kind.FILE and clean.startswith(_AUFS_LINKS):
            file = self._new_file(entry)
            self._count(len(clean))
            self._aufs_links[clean] = file
            return file
        return None

    def _white_out(self, parent: Directory, base: bytes) -> None:
        """Apply a whiteout or opaque marker found in ``parent``."""
        self._parents.clear()
        if base == _OPAQUE:
            self._prune(parent)
            return
        if base.startswith(_AUFS_PREFIX):
            return
        name = base.removeprefix(_WHITEOUT)
        if name in _DOTS:
            raise IntegrityError(f"{self._what}: the whiteout {show_name(base)} names nothing")
        child = parent.children.get(name)
        if child is None or parent.pure_since == self._layer:
            return
        fresh = parent.fresh_layer == self._layer and name in parent.fresh
        if isinstance(child, Directory):
            self._prune(child)
            if not fresh and child.fresh_layer == self._layer:
                self._make_implicit(child)
                self._mark(parent, name)
                return
        if not fresh:
            del parent.children[name]

    def _prune(self, top: Directory) -> None:
        """Remove what lower layers made inside ``top``.

        A directory of a lower layer stays if this layer has entries in it, but then only as their implicit parent.
        """
        layer = self._layer
        if top.pure_since == layer:
            return
        order = [top]
        for directory in order:  # grows on the way
            order.extend(
                child
                for child in directory.children.values()
                if isinstance(child, Directory) and child.pure_since != layer
            )
        for directory in reversed(order):  # children before their parents
            fresh = directory.fresh if directory.fresh_layer == layer else ()
            kept: dict[bytes, Node] = {}
            for name, child in directory.children.items():
                if name in fresh:
                    kept[name] = child
                elif isinstance(child, Directory) and child.fresh_layer == layer:
                    self._make_implicit(child)
                    kept[name] = child
            directory.children = kept
            directory.pure_since = layer
            directory.fresh = set()

    @staticmethod
    def _make_implicit(directory: Directory) -> None:
        directory.mode = stat.S_IFDIR | _IMPLICIT_MODE
        directory.uid = directory.gid = directory.mtime_s = directory.mtime_ns = 0
        directory.xattrs = b""


def _shown(entry: TarEntry) -> str:
    return show_name(entry.name)
