"""What a container's VM gets of the host's files: from the mounts of its spec to servers, disks and requests."""

import asyncio
import logging
import posixpath
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from woodlot.container.spec import ContainerSpec, Mount
from woodlot.errors import GuestError, StateError, WoodlotError
from woodlot.store.locks import hold
from woodlot.store.store import Store
from woodlot.vmm.base import Disk, SharedFiles

if TYPE_CHECKING:
    from woodlot._pb.agent.v1 import agent_pb2
    from woodlot.container.watch import Watch
    from woodlot.files.share import Server, Share
    from woodlot.guest.client import Agent
    from woodlot.volume.volume import Volume

log = logging.getLogger(__name__)

T = TypeVar("T")

_ABORT_TIMEOUT_S = 10.0
# A disk's own directories, such as lost+found, are not the container's.
_BLOCK_ROOT = "data"


class Sharing:
    """The files of one start of a container; `open` comes first.

    A source that is mounted twice is served once, writable if either is: the guest's mounts are what differs.
    """

    def __init__(self, store: Store, spec: ContainerSpec, directory: Path) -> None:
        self._store = store
        self._spec = spec
        self._directory = directory
        self._volumes: dict[str, Volume] = {}
        self._to_fill: set[str] = set()
        self._cut_short: set[str] = set()
        self._filling = AsyncExitStack()
        self._shares: dict[str, Share] = {}
        self._disks: dict[str, Disk] = {}
        self._servers: list[Server] = []
        self._watches: dict[str, Watch] = {}
        self._lost: list[str] = []

    @asynccontextmanager
    async def open(self, sockets: Path) -> AsyncGenerator[None]:
        """Serve the files for the life of the block; the servers start while the VM does.

        Waits for another container that is filling a volume of this one.

        Args:
            sockets: The container's directory of sockets.

        Raises:
            NotFoundError: A source is missing, or virtiofsd is.
            ConfigError: A source is of a kind that cannot be shared.
        """
        # Most share nothing, and do not wait for what it takes.
        if not self._spec.mounts:
            yield
            return
        from woodlot.container.watch import watch_all
        from woodlot.files.share import serve

        async with self._filling:
            await self._open_volumes()
            for mount in self._spec.mounts:
                self._add(mount)
            async with (
                watch_all(share for share in self._shares.values() if share.watched) as watches,
                serve(
                    list(self._shares.values()),
                    stage=self._directory,
                    sockets=sockets,
                    logs=self._directory,
                ) as servers,
            ):
                self._watches = watches
                self._servers = servers
                yield

    async def _open_volumes(self) -> None:
        from woodlot.volume.volume import find, reset

        copies = {m.source for m in self._spec.mounts if m.type == "volume" and m.copy}
        # In one order for all containers, so that no two wait for each other.
        for name in sorted({m.source for m in self._spec.mounts if m.type == "volume"}):
            volume = self._volumes[name] = find(self._store, name)
            # Also who wants nothing copied must not see a half of what somebody else is copying.
            if not (volume.filling.exists() or (name in copies and volume.needs_filling())):
                continue
            async with AsyncExitStack() as held:
                await held.enter_async_context(hold(volume.lock))
                if name not in copies:
                    if volume.filling.exists():
                        await asyncio.to_thread(reset, self._store, volume)
                elif volume.needs_filling():
                    # From here on what is in it is not whole.
                    if volume.filling.exists():
                        self._cut_short.add(name)
                    volume.filling.touch()
                    self._to_fill.add(name)
                    self._filling.push_async_exit(held.pop_all())

    async def filled(self) -> None:
        """The guest has copied what the image has into the volumes that lacked it."""
        for name in self._to_fill:
            self._volumes[name].filling.unlink(missing_ok=True)
        await self._filling.aclose()

    def _add(self, mount: Mount) -> None:
        from woodlot.files.share import Share, check_source

        if mount.type == "socket":
            return
        # Whoever fills a volume has to write it first.
        read_only = mount.read_only and mount.source not in self._to_fill
        volume = self._volumes.get(mount.source) if mount.type == "volume" else None
        if volume is not None and volume.record.kind == "block":
            disk = self._disks.get(mount.source)
            if disk is None:
                disk = Disk(path=volume.disk, serial=f"volume{len(self._disks)}", read_only=True)
            self._disks[mount.source] = replace(disk, read_only=disk.read_only and read_only)
            return
        source = volume.data if volume is not None else Path(mount.source)
        if mount.make_source and not source.exists():
            _make_directory(source)
        share = self._shares.get(mount.source)
        if share is None:
            is_file = check_source(source, what=f"the mount at {mount.destination}")
            tag = f"fs{len(self._shares)}"
            share = Share(tag=tag, source=source, is_file=is_file, read_only=True)
        self._shares[mount.source] = replace(
            share,
            read_only=share.read_only and read_only,
            watched=share.watched or (mount.watch and not share.is_file),
        )

    def devices(self) -> tuple[SharedFiles, ...]:
        """What the VM is given over virtio-fs."""
        return tuple(
            SharedFiles(tag=server.share.tag, socket_fd=server.fd) for server in self._servers
        )

    def disks(self) -> tuple[Disk, ...]:
        """The block volumes."""
        return tuple(self._disks.values())

    def handed_over(self) -> None:
        """The VM's monitor runs: from now on it alone holds the servers' sockets, and they end with it."""
        for server in self._servers:
            server.handed_over()

    def explain(self, error: WoodlotError) -> WoodlotError:
        """The reason behind ``error``, where it is one of these files; else ``error``."""
        for server in self._servers:
            if cause := server.ended():
                return cause
        for name, disk in self._disks.items():
            # QEMU: Is another process using the image [PATH]?
            if f"[{disk.path}]" in f"{error.message}\n{error.details}":
                return StateError(
                    f"volume {name} is in use by another container, and a block volume has one writer",
                    details=error.message,
                    hint="stop that one first, mount it read-only in both, or use a directory volume",
                )
        return error

    async def guard(self, request: Awaitable[T]) -> T:
        """Await ``request``, but not longer than the servers it may depend on.

        Raises:
            VmmError: A server ended first.
        """
        asked = asyncio.ensure_future(request)
        ends = [asyncio.ensure_future(server.wait()) for server in self._servers]
        try:
            await asyncio.wait((asked, *ends), return_when=asyncio.FIRST_COMPLETED)
            for server in self._servers:
                if not asked.done() and (cause := server.ended()):
                    raise cause
            return await asked
        finally:
            for task in (asked, *ends):
                task.cancel()
            await asyncio.gather(asked, *ends, return_exceptions=True)

    @asynccontextmanager
    async def watch(
        self, agent: "Agent", *, lost: Callable[[], None], stuck: Callable[[], None]
    ) -> AsyncGenerator[None]:
        """During the block, a server's end is an I/O error in the guest, where it would be a hang.

        And what changes on the host is told to the guest.

        Args:
            agent: Of the guest.
            lost: Called when `lost` has more to say.
            stuck: Called if a process in the guest waits, for ever, for what the server had taken and not answered.
        """
        tasks = [
            asyncio.create_task(self._watch(index, server, agent, lost, stuck))
            for index, server in enumerate(self._servers)
        ]
        tasks += [
            asyncio.create_task(watch.tell(tag, agent)) for tag, watch in self._watches.items()
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(
        self,
        index: int,
        server: "Server",
        agent: "Agent",
        lost: Callable[[], None],
        stuck: Callable[[], None],
    ) -> None:
        how = await server.wait()
        reason = f"the file server for {server.share.source} ended with {how}"
        self._lost.append(reason)
        log.error("%s: I/O errors in the container", reason)
        lost()
        try:
            await agent.abort_mount(index, timeout_s=_ABORT_TIMEOUT_S)
        except GuestError as error:
            log.error("a process waits for it for ever: %s", error.message)  # noqa: TRY400 - no bug
            stuck()

    @property
    def pids(self) -> tuple[int, ...]:
        """The servers' processes."""
        return tuple(server.pid for server in self._servers)

    @property
    def fills(self) -> bool:
        """Whether the guest is to copy files of the image into a volume."""
        return bool(self._to_fill)

    def lost(self) -> str:
        """What was lost while the container ran, in words; empty if nothing was."""
        return "; ".join(self._lost)

    def hides(self, path: str) -> bool:
        """Whether one of the user's own mounts has exactly this destination."""
        return any(mount.destination == path for mount in self._spec.mounts)

    def requests(self, more: "Iterable[agent_pb2.Mount]" = ()) -> "list[agent_pb2.Mount]":
        """All mounts of the container for the agent, with ``more``: what lies in another's directory comes after it."""
        from woodlot._pb.agent.v1 import agent_pb2

        mounts = [
            agent_pb2.Mount(
                type="tmpfs", source="tmpfs", destination=mount.destination, options=mount.options
            )
            for mount in self._spec.tmpfs
        ]
        mounts += [self._request(m) for m in self._spec.mounts if m.type != "socket"]
        mounts += more
        return sorted(mounts, key=lambda mount: posixpath.normpath(mount.destination).count("/"))

    def _request(self, mount: Mount) -> "agent_pb2.Mount":
        from woodlot._pb.agent.v1 import agent_pb2
        from woodlot.files.share import SINGLE_NAME

        disk, share = self._disks.get(mount.source), self._shares.get(mount.source)
        request = agent_pb2.Mount(
            destination=mount.destination, options=["ro"] if mount.read_only else []
        )
        if disk is not None:
            request.type, request.source, request.name = "ext4", disk.serial, _BLOCK_ROOT
        elif share is not None:
            request.type, request.source = "virtiofs", share.tag
            request.name = SINGLE_NAME if share.is_file else ""
            request.watch = share.watched
        if mount.type == "volume" and mount.copy and mount.source in self._to_fill:
            request.copy_up = True
            request.cut_short = mount.source in self._cut_short
        return request


def _make_directory(path: Path) -> None:
    """Make a directory and its parents as a shell would: the supervisor's own umask is closed."""
    if not path.parent.exists():
        _make_directory(path.parent)
    try:
        path.mkdir()
        path.chmod(0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise WoodlotError(
            f"cannot make the directory {path} to share it: {error.strerror}",
            hint="make it yourself, or share another one",
        ) from error
