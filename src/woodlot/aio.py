"""Containers from asyncio; `woodlot.Client` is the same for programs without it.

async with Client() as client, client.run("python:3.11", network="none") as container:
print((await container.exec(["python3", "-c", "print(6 * 7)"], timeout_s=5)).stdout)
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from woodlot.container import begin, copy, disk_usage, lifecycle, prune, selection, state
from woodlot.container.client import Attachment, Supervised
from woodlot.container.commit import CommitRequest, commit
from woodlot.container.create import Request
from woodlot.container.disk_usage import DiskUsage
from woodlot.container.files import Change, ChangeKind, Files, reach
from woodlot.container.lifeline import wait_ready
from woodlot.container.logs import LogReader
from woodlot.container.prune import Pruned
from woodlot.container.session import End
from woodlot.container.spec import ContainerSpec, ExecSpec
from woodlot.container.update import build_update, update
from woodlot.container.usage import RunningProcess, Stats
from woodlot.errors import ConfigError, LimitError, TimeLimitError, WoodlotError
from woodlot.filters import Given
from woodlot.guest.client import Output
from woodlot.image import selection as image_selection
from woodlot.image.image import Image, LocalImage
from woodlot.oci.platform import parse_platform
from woodlot.paths import find_paths
from woodlot.store.events import Event, build_test
from woodlot.store.store import Store
from woodlot.units import MIB

if TYPE_CHECKING:
    from woodlot.progress import Progress

STOP_GRACE_S = 5.0
MAX_OUTPUT_BYTES = 16 * MIB
MAX_CHANGES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a process in a container ended, and what it printed."""

    exit_code: int
    """Its status, or 128 and the signal that ended it."""
    stdout_bytes: bytes
    stderr_bytes: bytes
    oom_killed: bool = False

    @property
    def stdout(self) -> str:
        """What it printed, as UTF-8; what is none becomes U+FFFD."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """As `stdout`."""
        return self.stderr_bytes.decode("utf-8", "replace")


class Container:
    """One container; made by `Client.run` and `Client.get`."""

    def __init__(self, store: Store, spec: ContainerSpec) -> None:
        self._store = store
        self.spec = spec

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.spec.id

    @property
    def name(self) -> str:
        """Its name, given or chosen."""
        return self.spec.name

    def state(self) -> state.State:
        """Created, Starting, Running, Paused, Restarting or Stopped, with what belongs to it.

        Raises:
            NotFoundError: It was deleted.
        """
        return lifecycle.find(self._store, self.id).state

    async def exec(
        self,
        args: Sequence[str],
        *,
        input: str | bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout_s: float | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Result:
        """Run one more process in the container to its end.

        Args:
            args: The program and its arguments; no shell is involved.
            input: For its stdin, which is empty without.
            env: Variables over the container's own.
            cwd: Working directory in place of the container's.
            user: ``name|uid[:group|gid]`` in place of the container's.
            timeout_s: Seconds it may run.
            max_output_bytes: Of stdout and stderr together.

        Raises:
            ExecutionError: It cannot be executed.
            TimeLimitError: It ran too long; it was killed.
            LimitError: It printed too much; it was killed.
            StateError: The container does not run.
        """
        printed: dict[bool, bytearray] = {False: bytearray(), True: bytearray()}
        data = input.encode() if isinstance(input, str) else input
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._exec(args, env, cwd, user, stdin=data is not None) as attachment,
            ):
                await attachment.started()
                async with asyncio.TaskGroup() as tasks:
                    if data is not None:
                        tasks.create_task(_feed(attachment, data))
                    end = await _collect(attachment, printed, args, max_output_bytes)
        except TimeoutError:
            raise TimeLimitError(
                f"{args[0]!r} in container {self.name} ran longer than {timeout_s:g} s"
            ) from None
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return Result(
            exit_code=end.code,
            stdout_bytes=bytes(printed[False]),
            stderr_bytes=bytes(printed[True]),
            oom_killed=end.oom_killed,
        )

    @contextlib.asynccontextmanager
    async def stream(
        self,
        args: Sequence[str],
        *,
        stdin: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
    ) -> AsyncGenerator[Attachment]:
        """Run one more process and be its stdio; it is killed if it still runs at the end of the block.

        Args:
            args: The program and its arguments.
            stdin: Its stdin will be written to, and closed.
            env: Variables over the container's own.
            cwd: Working directory in place of the container's.
            user: ``name|uid[:group|gid]`` in place of the container's.
        """
        async with self._exec(args, env, cwd, user, stdin=stdin) as attachment:
            await attachment.started()
            yield attachment

    @contextlib.asynccontextmanager
    async def _exec(
        self,
        args: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str | None,
        user: str | None,
        *,
        stdin: bool,
    ) -> AsyncGenerator[Attachment]:
        if not args or isinstance(args, str):
            raise ConfigError(f"a process is a list of a program and its arguments, not {args!r}")
        spec = ExecSpec(
            id=secrets.token_hex(8),
            args=tuple(args),
            env=tuple(f"{name}={value}" for name, value in (env or {}).items()),
            cwd=cwd or "",
            user=user or "",
            stdin=stdin,
        )
        async with self._supervised() as supervised, supervised.exec(spec) as attachment:
            yield attachment

    async def wait(self) -> int:
        """The exit status of its process, once it has ended."""
        if not isinstance(ended := self.state(), state.Stopped):
            with contextlib.suppress(WoodlotError):
                async with self._supervised() as supervised:
                    return (await supervised.wait()).code
            # Its supervisor is gone: the record tells.
            ended = self.state()
        return ended.exit_code if isinstance(ended, state.Stopped) else state.KILLED_EXIT_CODE

    async def kill(self, signal_number: int = 9) -> None:
        """Send its process a signal."""
        async with self._supervised() as supervised:
            await supervised.signal(signal_number)

    async def stats(self) -> Stats:
        """What it uses now, and has used; of two samples, `Stats.cpu_percent` tells how busy it was between them.

        Raises:
            StateError: It does not run.
        """
        async with self._supervised() as supervised:
            return await supervised.stats()

    async def top(self) -> Sequence[RunningProcess]:
        """What runs in it, by pid; of very many, the first 4096.

        Raises:
            StateError: It does not run.
        """
        async with self._supervised() as supervised:
            return (await supervised.top()).listed

    async def pause(self) -> None:
        """Let its processes stand still.

        Raises:
            StateError: They do already, or it does not run.
        """
        async with self._supervised() as supervised:
            await supervised.pause()

    async def unpause(self) -> None:
        """Let them go on.

        Raises:
            StateError: They do not stand still.
        """
        async with self._supervised() as supervised:
            await supervised.unpause()

    async def update(
        self, *, cpus: float | None = None, memory: str | None = None, restart: str | None = None
    ) -> None:
        """Change it: at once, within what its virtual machine was started with, or while it is stopped.

        Args:
            cpus: May be a fraction.
            memory: As ``512m`` or ``2g``.
            restart: When it is started again, as ``on-failure:3``.

        Raises:
            LimitError: It runs, and its virtual machine has less.
            ConfigError: A value is not valid, or none is given.
        """
        wanted = build_update(cpus=cpus, memory=memory, restart_policy=restart)
        await update(self._store, lifecycle.find(self._store, self.id), wanted)
        self.spec = lifecycle.find(self._store, self.id).spec

    async def stop(self, *, grace_s: float = STOP_GRACE_S) -> None:
        """Its stop signal, then SIGKILL; returns when its virtual machine is gone. One that is stopped stays so."""
        with contextlib.suppress(WoodlotError):
            async with self._supervised() as supervised:
                await supervised.stop(grace_s=grace_s)
        await lifecycle.until_ended(self._store.paths, self.id)

    async def logs(self) -> str:
        """What its process has printed so far, stdout and stderr as they came."""
        reader = LogReader(self._store.paths.container(self.id) / "stdio.log")
        reader.open()
        try:
            return "".join(record.text for record in reader.read())
        finally:
            reader.close()

    async def put(self, source: bytes | str | Path, path: str, *, archive: bool = False) -> None:
        """Make a file or copy a tree into the container, running or not; there it is root's.

        Args:
            source: A file's content, or a `Path` of the host: a file, or a directory with all below it.
            path: As for ``container cp``: with a `Path`, a directory that is there takes it under its own name.
            archive: Keep the owners that files of the host have.

        Raises:
            StateError: A directory is where a file is to be, or the other way round.
            NotFoundError: The directory that it is to be in is not there.
        """
        async with self._files() as files:
            if isinstance(source, Path):
                await copy.copy_to(files, str(source), path, copy.Manner(archive=archive))
            else:
                await copy.put(files, source, path)

    async def get(self, path: str, *, max_bytes: int = MAX_OUTPUT_BYTES) -> bytes:
        """The content of a file in the container, running or not.

        Raises:
            NotFoundError: It is not there.
            LimitError: It has more than ``max_bytes``.
        """
        async with self._files() as files:
            return await copy.get(files, path, max_bytes=max_bytes)

    async def get_to(self, path: str, target: Path, *, archive: bool = False) -> None:
        """Copy a file or tree of the container, running or not, to the host, where it is yours.

        Nothing is written but below ``target``, whatever the container holds: no symlink is followed, and devices and
        pipes are left out.

        Args:
            path: In the container; ``DIR/.`` is what is in the directory.
            target: As for ``container cp``: a directory that is there takes it under its own name.
            archive: Keep the owners it has in the container, which takes root.
        """
        async with self._files() as files:
            await copy.copy_from(files, path, str(target), copy.Manner(archive=archive))

    async def diff(self) -> list[Change]:
        """Where its root filesystem differs from the image, sorted, a directory before what is in it.

        Raises:
            LimitError: In more than a million places.
        """
        found: list[Change] = []
        async with self._files() as files, contextlib.aclosing(files.diff()) as changes:
            async for change in changes:
                found.append(change)
                if len(found) > MAX_CHANGES:
                    raise LimitError(f"container {self.name} differs in too many places")
        return found

    async def commit(
        self,
        reference: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        progress: "Progress | None" = None,
    ) -> Image:
        """Make an image of it, running or stopped: its files, without what is mounted, and its configuration.

        Args:
            reference: The image's name, taken from another that has it; None for one that is known by its id.
            author: Of the image.
            message: For its history.
            changes: Instructions of a Dockerfile: ``['CMD ["true"]', "ENV A=1"]``.
            pause: Its processes stand still while its files are read.
            progress: Told of the reading and of the unpacking.

        Raises:
            ConfigError: The name or a change is not valid.
            LimitError: The image would be larger than allowed.
        """
        request = CommitRequest(
            reference=reference,
            author=author,
            message=message,
            changes=tuple(changes),
            pause=pause,
        )
        return await commit(self._store, lifecycle.find(self._store, self.id), request, progress)

    @contextlib.asynccontextmanager
    async def _files(self) -> AsyncGenerator[Files]:
        async with reach(self._store, lifecycle.find(self._store, self.id)) as files:
            yield files

    async def delete(self, *, force: bool = False) -> None:
        """Remove it and all it wrote.

        Args:
            force: Kill it first if it runs.
        """
        if force:
            await self.stop(grace_s=0)
        lifecycle.delete(self._store, lifecycle.find(self._store, self.id))

    def _supervised(self) -> Supervised:
        return Supervised(self._store.paths.sockets(self.id) / "s.sock")


class Client:
    """One installation; closed by leaving its ``async with`` block.

    Args:
        root: Keep all data there; None is the user's own place, or ``WOODLOT_ROOT``.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self._store = Store(find_paths(root or os.environ.get("WOODLOT_ROOT")))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._store.close()

    @contextlib.asynccontextmanager
    async def run(
        self,
        image: str,
        args: Sequence[str] = (),
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        network: str = "default",
        egress: str | None = None,
        cpus: float | None = None,
        memory: str | None = None,
        read_only: bool = False,
        tmpfs: Sequence[str] = (),
        publish_sockets: Sequence[str] = (),
        cap_add: Sequence[str] = (),
        cap_drop: Sequence[str] = (),
        platform: str | None = None,
        progress: "Progress | None" = None,
    ) -> AsyncGenerator[Container]:
        """A new container for the life of the block; however the block or the program ends, it is gone then.

        Its stdin stays open, so that a shell or an interpreter, which is what most images run, waits for `exec`.

        Args:
            image: Its name; pulled if it is not here.
            args: In place of the image's command.
            name: Of the container.
            env: Variables over the image's own.
            user: ``name|uid[:group|gid]`` in place of the image's.
            cwd: Working directory in place of the image's.
            network: ``none`` for no network at all.
            egress: What it may reach beyond the network: ``all``, ``none`` or a list as in
                ``allow=example.org,198.51.100.0/24:443``. None leaves it to the network.
            cpus: May be a fraction.
            memory: As ``512m`` or ``2g``.
            read_only: Its root filesystem cannot be written.
            tmpfs: Memory filesystems, ``/path[:options]``.
            publish_sockets: Unix sockets of the host that lead to the container's, ``/host/path:/path``.
            cap_add: Capabilities over Docker's default.
            cap_drop: Capabilities to take away.
            platform: As ``linux/arm64``; None is the host's.
            progress: Told of the pull.

        Raises:
            WoodlotError: Why there is no container.
        """
        request = Request(
            args=tuple(args),
            name=name,
            interactive=True,
            env=tuple(f"{key}={value}" for key, value in (env or {}).items()),
            user=user,
            workdir=cwd,
            networks=(network,),
            egress=(egress,) if egress else (),
            cpus=cpus,
            memory=memory,
            read_only=read_only,
            tmpfs=tuple(tmpfs),
            publish_sockets=tuple(publish_sockets),
            cap_add=tuple(cap_add),
            cap_drop=tuple(cap_drop),
            remove=True,
        )
        request.check()
        prepared = await begin.prepare(
            self._store,
            image,
            request,
            platform=parse_platform(platform) if platform else None,
            progress=progress,
        )
        spec, lifeline = begin.begin(self._store, prepared, request)
        with lifeline:
            await asyncio.to_thread(wait_ready, lifeline)
            container = Container(self._store, spec)
            # As its owner: the supervisor ends the container when this stream breaks, whatever became of us.
            async with (
                Supervised(self._store.paths.sockets(spec.id) / "s.sock") as supervised,
                supervised.attach(start=True, owner=True, stdin=True) as attachment,
            ):
                await attachment.started()
                draining = asyncio.create_task(_drain(attachment))
                try:
                    yield container
                finally:
                    await container.stop(grace_s=0)
                    draining.cancel()
                    await asyncio.gather(draining, return_exceptions=True)

    def get(self, key: str) -> Container:
        """The container with that name, id or unique start of an id.

        Raises:
            NotFoundError: There is none.
        """
        return Container(self._store, lifecycle.find(self._store, key).spec)

    def containers(
        self,
        *,
        all: bool = True,  # noqa: A002 - as Docker's library calls it
        filters: Given | None = None,
    ) -> list[Container]:
        """The containers that meet all conditions, oldest first.

        Args:
            all: Those that do not run, too.
            filters: As ``container list --filter``: ``{"status": "running", "label": ["tier=front", "env"]}``.

        Raises:
            ConfigError: A condition is none.
        """
        found = selection.select(self._store, everything=all, given=filters)
        return [Container(self._store, one.spec) for one in found]

    async def pull(
        self, image: str, *, platform: str | None = None, progress: "Progress | None" = None
    ) -> Image:
        """Fetch an image and make it ready to run.

        Args:
            image: Its name.
            platform: As ``linux/arm64``; None is the host's.
            progress: Told of the pull.

        Raises:
            WoodlotError: It cannot be had.
        """
        from woodlot.image.pull import pull

        wanted = parse_platform(platform) if platform else None
        return await pull(self._store, image, platform=wanted, progress=progress)

    def images(self, *, filters: Given | None = None) -> list[LocalImage]:
        """The images that are here and meet all conditions, by name.

        Args:
            filters: As ``container image list --filter``.

        Raises:
            ConfigError: A condition is none.
        """
        return image_selection.select(self._store, filters)

    async def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: Given | None = None,
    ) -> AsyncGenerator[Event]:
        """What happens to containers, images, networks and volumes, as it happens.

        Args:
            since: Also what happened from then on, in seconds since 1970.
            until: The end, in seconds since 1970; None for none.
            filters: As ``container events --filter``.

        Raises:
            ConfigError: A condition is none.
        """
        meets = build_test(filters or {})
        bounds = (None if moment is None else round(moment * 1e9) for moment in (since, until))
        async with contextlib.aclosing(self._store.events.follow(*bounds)) as happening:
            async for event in happening:
                if meets(event):
                    yield event

    def df(self) -> DiskUsage:
        """What everything takes on the disk, and what of it nothing needs."""
        return disk_usage.measure(self._store)

    async def prune(
        self, *, filters: Given | None = None, images: bool = False, volumes: bool = False
    ) -> Pruned:
        """Remove what nothing uses: containers that do not run, networks, what is left of images, old templates.

        Args:
            filters: As ``container system prune --filter``.
            images: Images that no container uses, too.
            volumes: Anonymous volumes that no container uses, too.

        Raises:
            ConfigError: A condition is none.
        """
        return await prune.prune_everything(
            self._store, filters, every_image=images, volumes=volumes
        )


async def _feed(attachment: Attachment, data: bytes) -> None:
    for start in range(0, len(data), 1 << 16):
        await attachment.write(data[start : start + (1 << 16)])
    await attachment.close_stdin()


async def _collect(
    attachment: Attachment,
    printed: Mapping[bool, bytearray],
    args: Sequence[str],
    max_output_bytes: int,
) -> End:
    async for item in attachment.output():
        if isinstance(item, End):
            return item
        printed[item.stderr].extend(item.data)
        if sum(map(len, printed.values())) > max_output_bytes:
            raise LimitError(f"{args[0]!r} printed more than {max_output_bytes} bytes")
    raise WoodlotError(f"the output of {args[0]!r} ended without an exit status")


async def _drain(attachment: Attachment) -> None:
    """The log has it; what nobody takes would hold the process back."""
    async for _ in attachment.output():
        pass


__all__ = [
    "Attachment",
    "Change",
    "ChangeKind",
    "Client",
    "Container",
    "DiskUsage",
    "End",
    "Output",
    "Pruned",
    "Result",
    "RunningProcess",
    "Stats",
]
