"""What changes below a directory: a watch for each directory there is, and for each that comes.

Whoever changes things may be hostile, and swap a directory for a symlink at any moment: every directory is opened step by
step from the root, following no link, and what was opened is what is watched.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import AsyncGenerator, Iterable
from enum import StrEnum, auto
from pathlib import Path
from typing import NamedTuple

from woodlot.inotify import Event, Inotify, Mask

log = logging.getLogger(__name__)

MAX_WATCHES = 100_000
# The kernel puts the two halves of a rename into the queue one after the other, not at once.
_OTHER_HALF_S = 0.02
_MASK = (
    Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
    | Mask.MODIFY | Mask.CLOSE_WRITE | Mask.ATTRIB
)  # fmt: skip
_O_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Kind(StrEnum):
    """What happened to a name."""

    CREATED = auto()
    DELETED = auto()
    MOVED = auto()
    MOVED_OUT = auto()
    """To somewhere that is not below the root."""
    MOVED_IN = auto()
    MODIFIED = auto()
    CLOSED = auto()
    """After it was open to be written."""
    ATTRIBUTES = auto()


_KINDS = (
    (Mask.CREATE, Kind.CREATED),
    (Mask.DELETE, Kind.DELETED),
    (Mask.MODIFY, Kind.MODIFIED),
    (Mask.CLOSE_WRITE, Kind.CLOSED),
    (Mask.ATTRIB, Kind.ATTRIBUTES),
)


class Change(NamedTuple):
    """What happened to a name in a directory, which is a path below the root, empty for the root."""

    kind: Kind
    directory: bytes
    name: bytes
    is_directory: bool = False
    to_directory: bytes = b""
    to_name: bytes = b""


class _Directory:
    """A directory that is watched."""

    __slots__ = ("children", "found", "name", "parent", "watch")

    def __init__(self, watch: int, parent: "_Directory | None", name: bytes) -> None:
        self.watch = watch
        self.parent = parent
        self.name = name
        self.children: dict[bytes, _Directory] = {}
        # What was in it already when it was first looked at, and is told of then.
        self.found: set[bytes] = set()

    def path(self) -> bytes:
        names: list[bytes] = []
        directory = self
        while directory.parent is not None:
            names.append(directory.name)
            directory = directory.parent
        return b"/".join(reversed(names))


class _Half(NamedTuple):
    """The first half of a rename."""

    directory: _Directory
    name: bytes
    is_directory: bool


class Watcher:
    """Tells what changes below a directory. `close` it.

    Args:
        root: The directory; a symlink is followed.
        max_watches: More directories than that are not watched.

    Raises:
        OSError: It cannot be opened, or this user has no inotify instances left.
    """

    def __init__(self, root: Path, *, max_watches: int = MAX_WATCHES) -> None:
        self._path = root
        self._max_watches = max_watches
        self._full = False
        self._directories: dict[int, _Directory] = {}
        self._halves: dict[int, _Half] = {}
        self._root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._inotify = Inotify()
        except OSError:
            os.close(self._root_fd)
            raise
        self._missed = False

    def close(self) -> None:
        """End all watches."""
        self._inotify.close()
        os.close(self._root_fd)

    def scan(self) -> None:
        """Watch all directories there are; blocking. What happens from now on is told by `changes`."""
        if not self._directories:
            self._watch(None, b"")
        self._descend(list(self._directories.values()))

    async def changes(self) -> AsyncGenerator[list[Change]]:
        """What happens, in order; what happens while the consumer is busy waits in the kernel's queue."""
        while True:
            await self._readable()
            found = self.translate(self._inotify.read())
            if self._halves:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_OTHER_HALF_S):
                        await self._readable()
                found += self.translate(self._inotify.read())
                found += self._moved_out()
            if found:
                yield found
            if self._missed:
                self._missed = False
                await asyncio.to_thread(self.scan)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self._inotify.fd, wake)
        try:
            await ready
        finally:
            loop.remove_reader(self._inotify.fd)

    def translate(self, events: Iterable[Event]) -> list[Change]:
        """The changes that ``events`` tell of; the first half of a rename waits for the second."""
        changes: list[Change] = []
        written: set[tuple[int, bytes]] = set()
        for event in events:
            if event.mask & Mask.Q_OVERFLOW:
                log.warning("%s changes too fast: some changes were not told", self._path)
                self._missed = True
                continue
            directory = self._directories.get(event.watch)
            if directory is None:
                continue
            if event.mask & Mask.IGNORED:
                self._forget(directory)
                continue
            if not event.name:
                continue
            at = (event.watch, event.name)
            if event.mask & Mask.MODIFY:
                if at in written:
                    continue
                written.add(at)
            else:
                written.discard(at)
            changes += self._translate(directory, event)
        return changes

    def _translate(self, directory: _Directory, event: Event) -> list[Change]:
        name, is_directory = event.name, bool(event.mask & Mask.ISDIR)
        if event.mask & Mask.MOVED_FROM:
            directory.found.discard(name)
            self._halves[event.cookie] = _Half(directory, name, is_directory)
            return []
        if event.mask & Mask.MOVED_TO:
            return [self._moved_to(directory, event, is_directory=is_directory)]
        for bit, kind in _KINDS:
            if event.mask & bit:
                if kind is Kind.CREATED and name in directory.found:
                    directory.found.remove(name)
                    return []
                if kind is Kind.DELETED:
                    directory.found.discard(name)
                changes = [Change(kind, directory.path(), name, is_directory)]
                if kind is Kind.CREATED and is_directory:
                    changes += self._enter(directory, name)
                return changes
        return []

    def _moved_to(self, directory: _Directory, event: Event, *, is_directory: bool) -> Change:
        half = self._halves.pop(event.cookie, None)
        if half is None:
            if is_directory:
                self._enter(directory, event.name)
            return Change(Kind.MOVED_IN, directory.path(), event.name, is_directory)
        change = Change(
            Kind.MOVED, half.directory.path(), half.name, is_directory, directory.path(), event.name
        )
        moved = half.directory.children.pop(half.name, None)
        if moved is not None:
            moved.parent, moved.name = directory, event.name
            directory.children[event.name] = moved
        elif is_directory:
            self._enter(directory, event.name)
        return change

    def _moved_out(self) -> list[Change]:
        halves, self._halves = self._halves, {}
        changes: list[Change] = []
        for half in halves.values():
            changes.append(
                Change(Kind.MOVED_OUT, half.directory.path(), half.name, half.is_directory)
            )
            gone = half.directory.children.get(half.name)
            if gone is not None:
                self._leave(gone)
        return changes

    def _enter(self, parent: _Directory, name: bytes) -> list[Change]:
        """Watch a directory that has come, and tell what was made in it before that."""
        directory = self._watch(parent, name)
        return [] if directory is None else self._descend([directory], new=True)

    def _descend(self, todo: list[_Directory], *, new: bool = False) -> list[Change]:
        changes: list[Change] = []
        while todo:
            directory = todo.pop()
            try:
                listed = self._list(directory)
            except OSError:
                continue  # gone since, or not for us to read
            for name, is_directory in listed:
                if new:
                    directory.found.add(name)
                    changes.append(Change(Kind.CREATED, directory.path(), name, is_directory))
                if is_directory and name not in directory.children:
                    child = self._watch(directory, name)
                    if child is not None:
                        todo.append(child)
        return changes

    def _list(self, directory: _Directory) -> list[tuple[bytes, bool]]:
        fd = self._open(directory)
        try:
            with os.scandir(fd) as entries:
                # With a descriptor, names come as text.
                return [
                    (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                ]
        finally:
            os.close(fd)

    def _open(self, directory: _Directory) -> int:
        """A descriptor of it, found from the root without following a link."""
        fd = os.dup(self._root_fd)
        for step in [b".", *filter(None, directory.path().split(b"/"))]:
            try:
                below = os.open(step, _O_DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _watch(self, parent: _Directory | None, name: bytes) -> _Directory | None:
        if len(self._directories) >= self._max_watches:
            self._warn_full(f"{self._max_watches} directories are watched, and no more")
            return None
        directory = _Directory(0, parent, name)
        try:
            fd = self._open(directory)
        except OSError:
            return None
        try:
            directory.watch = self._inotify.add(fd, _MASK)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._warn_full(
                    "the user has no watches left; raise sysctl fs.inotify.max_user_watches"
                )
            return None
        finally:
            os.close(fd)
        known = self._directories.get(directory.watch)
        if known is not None:  # it moved here, of which we will hear
            return None
        self._directories[directory.watch] = directory
        if parent is not None:
            parent.children[name] = directory
        return directory

    def _warn_full(self, why: str) -> None:
        if not self._full:
            self._full = True
            log.warning("not all changes below %s are told to the container: %s", self._path, why)

    def _leave(self, directory: _Directory) -> None:
        """End the watches of a directory that is not below the root any more."""
        todo = [directory]
        while todo:
            gone = todo.pop()
            todo += gone.children.values()
            self._inotify.remove(gone.watch)
        self._forget(directory)

    def _forget(self, directory: _Directory) -> None:
        if directory.parent is not None and (
            directory.parent.children.get(directory.name) is directory
        ):
            del directory.parent.children[directory.name]
        todo = [directory]
        while todo:
            gone = todo.pop()
            todo += gone.children.values()
            self._directories.pop(gone.watch, None)
