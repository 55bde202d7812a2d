"""`woodlot.aio` for programs without asyncio: one event loop in a thread of its own does the work."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from woodlot import aio
from woodlot.aio import MAX_OUTPUT_BYTES, STOP_GRACE_S, Result
from woodlot.container import state
from woodlot.container.disk_usage import DiskUsage
from woodlot.container.files import Change
from woodlot.container.prune import Pruned
from woodlot.container.spec import ContainerSpec
from woodlot.container.usage import RunningProcess, Stats
from woodlot.filters import Given
from woodlot.image.image import Image, LocalImage
from woodlot.store.events import Event

if TYPE_CHECKING:
    from woodlot.progress import Progress

T = TypeVar("T")


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="woodlot")
        self._thread.start()

    def run(self, work: "Coroutine[Any, Any, T]") -> T:
        """Its result; when the caller is interrupted meanwhile, it is cancelled and waited for."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Container:
    """One container; made by `Client.run`, `Client.get` and `run`."""

    def __init__(self, loop: _Loop, inner: aio.Container) -> None:
        self._loop = loop
        self._inner = inner

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._inner.id

    @property
    def name(self) -> str:
        """Its name, given or chosen."""
        return self._inner.name

    @property
    def spec(self) -> ContainerSpec:
        """All it was made with."""
        return self._inner.spec

    def state(self) -> state.State:
        """See `woodlot.aio.Container.state`."""

        async def ask() -> state.State:
            return self._inner.state()

        return self._loop.run(ask())

    def exec(
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
        """Run one more process to its end; see `woodlot.aio.Container.exec`."""
        return self._loop.run(
            self._inner.exec(
                args,
                input=input,
                env=env,
                cwd=cwd,
                user=user,
                timeout_s=timeout_s,
                max_output_bytes=max_output_bytes,
            )
        )

    def wait(self) -> int:
        """The exit status of its process, once it has ended."""
        return self._loop.run(self._inner.wait())

    def kill(self, signal_number: int = 9) -> None:
        """Send its process a signal."""
        self._loop.run(self._inner.kill(signal_number))

    def stats(self) -> Stats:
        """What it uses now, and has used; see `woodlot.aio.Container.stats`."""
        return self._loop.run(self._inner.stats())

    def top(self) -> Sequence[RunningProcess]:
        """What runs in it; see `woodlot.aio.Container.top`."""
        return self._loop.run(self._inner.top())

    def pause(self) -> None:
        """Let its processes stand still; see `woodlot.aio.Container.pause`."""
        self._loop.run(self._inner.pause())

    def unpause(self) -> None:
        """Let them go on; see `woodlot.aio.Container.unpause`."""
        self._loop.run(self._inner.unpause())

    def update(
        self, *, cpus: float | None = None, memory: str | None = None, restart: str | None = None
    ) -> None:
        """Change its limits or policy; see `woodlot.aio.Container.update`."""
        self._loop.run(self._inner.update(cpus=cpus, memory=memory, restart=restart))

    def stop(self, *, grace_s: float = STOP_GRACE_S) -> None:
        """See `woodlot.aio.Container.stop`."""
        self._loop.run(self._inner.stop(grace_s=grace_s))

    def logs(self) -> str:
        """What its process has printed so far, stdout and stderr as they came."""
        return self._loop.run(self._inner.logs())

    def put(self, source: bytes | str | Path, path: str, *, archive: bool = False) -> None:
        """Make a file or copy a tree into the container; see `woodlot.aio.Container.put`."""
        self._loop.run(self._inner.put(source, path, archive=archive))

    def get(self, path: str, *, max_bytes: int = MAX_OUTPUT_BYTES) -> bytes:
        """The content of a file in the container; see `woodlot.aio.Container.get`."""
        return self._loop.run(self._inner.get(path, max_bytes=max_bytes))

    def get_to(self, path: str, target: Path, *, archive: bool = False) -> None:
        """Copy a file or tree to the host; see `woodlot.aio.Container.get_to`."""
        self._loop.run(self._inner.get_to(path, target, archive=archive))

    def diff(self) -> list[Change]:
        """Where its root filesystem differs from the image; see `woodlot.aio.Container.diff`."""
        return self._loop.run(self._inner.diff())

    def commit(
        self,
        reference: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        progress: "Progress | None" = None,
    ) -> Image:
        """Make an image of it; see `woodlot.aio.Container.commit`."""
        return self._loop.run(
            self._inner.commit(
                reference,
                author=author,
                message=message,
                changes=changes,
                pause=pause,
                progress=progress,
            )
        )

    def delete(self, *, force: bool = False) -> None:
        """Remove it and all it wrote; see `woodlot.aio.Container.delete`."""
        self._loop.run(self._inner.delete(force=force))


class Client:
    """One installation; closed by leaving its ``with`` block.

    Args:
        root: Keep all data there; None is the user's own place, or ``WOODLOT_ROOT``.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self._inner = aio.Client(root)
        self._loop = _Loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.run(self._inner.__aexit__(kind, error, trace))
        self._loop.close()

    @contextlib.contextmanager
    def run(
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
    ) -> Generator[Container]:
        """A new container for the life of the block; see `woodlot.aio.Client.run`."""
        manager = self._inner.run(
            image,
            args,
            name=name,
            env=env,
            user=user,
            cwd=cwd,
            network=network,
            egress=egress,
            cpus=cpus,
            memory=memory,
            read_only=read_only,
            tmpfs=tmpfs,
            publish_sockets=publish_sockets,
            cap_add=cap_add,
            cap_drop=cap_drop,
            platform=platform,
            progress=progress,
        )
        inner = self._loop.run(manager.__aenter__())
        try:
            yield Container(self._loop, inner)
        finally:
            self._loop.run(manager.__aexit__(None, None, None))

    def get(self, key: str) -> Container:
        """The container with that name, id or unique start of an id.

        Raises:
            NotFoundError: There is none.
        """

        async def ask() -> aio.Container:
            return self._inner.get(key)

        return Container(self._loop, self._loop.run(ask()))

    def containers(
        self,
        *,
        all: bool = True,  # noqa: A002 - as Docker's library calls it
        filters: Given | None = None,
    ) -> list[Container]:
        """The containers that meet all conditions, oldest first; see `woodlot.aio.Client.containers`."""

        async def ask() -> list[aio.Container]:
            return self._inner.containers(all=all, filters=filters)

        return [Container(self._loop, inner) for inner in self._loop.run(ask())]

    def pull(
        self, image: str, *, platform: str | None = None, progress: "Progress | None" = None
    ) -> Image:
        """Fetch an image and make it ready to run; see `woodlot.aio.Client.pull`."""
        return self._loop.run(self._inner.pull(image, platform=platform, progress=progress))

    def images(self, *, filters: Given | None = None) -> list[LocalImage]:
        """The images that are here and meet all conditions; see `woodlot.aio.Client.images`."""

        async def ask() -> list[LocalImage]:
            return self._inner.images(filters=filters)

        return self._loop.run(ask())

    def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: Given | None = None,
    ) -> Generator[Event]:
        """What happens to containers, images, networks and volumes; see `woodlot.aio.Client.events`."""
        happening = self._inner.events(since=since, until=until, filters=filters)

        async def following() -> Event | None:
            return await anext(happening, None)

        try:
            while (event := self._loop.run(following())) is not None:
                yield event
        finally:
            self._loop.run(happening.aclose())

    def df(self) -> DiskUsage:
        """What everything takes on the disk, and what of it nothing needs."""

        async def ask() -> DiskUsage:
            return self._inner.df()

        return self._loop.run(ask())

    def prune(
        self, *, filters: Given | None = None, images: bool = False, volumes: bool = False
    ) -> Pruned:
        """Remove what nothing uses; see `woodlot.aio.Client.prune`."""
        return self._loop.run(self._inner.prune(filters=filters, images=images, volumes=volumes))


@contextlib.contextmanager
def run(
    image: str,
    args: Sequence[str] = (),
    *,
    root: str | os.PathLike[str] | None = None,
    **options: Any,  # noqa: ANN401 - those of Client.run
) -> Generator[Container]:
    """A new container in the user's own installation for the life of the block; see `Client.run`."""
    with Client(root) as client, client.run(image, args, **options) as container:
        yield container
