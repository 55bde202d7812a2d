"""`Client.containers`: containers made, listed and found."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Unpack

from woodlot.container import selection

if TYPE_CHECKING:
    from woodlot.aio.container import Container
    from woodlot.aio.images import Scheme
    from woodlot.aio.options import Options
    from woodlot.aio.starting import Starting
    from woodlot.container.begin import Prepared
    from woodlot.container.client import Attachment
    from woodlot.container.create import Request
    from woodlot.container.meter import Meter
    from woodlot.container.prune import Pruned
    from woodlot.filters import Given
    from woodlot.progress import Progress
    from woodlot.store.store import Store

FILTERS = selection.KEYS
PRUNE_FILTERS = selection.PRUNE_KEYS


class Containers:
    """The containers of one installation."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    @contextlib.asynccontextmanager
    async def run(
        self, image: str, args: Sequence[str] = (), **options: "Unpack[Options]"
    ) -> "AsyncGenerator[Container]":
        """A new container for the life of the block; however the block or the program ends, it is gone then.

        Its stdin stays open, so that a shell or an interpreter, which is what most images run, waits for `exec`.

        Args:
            image: Its name; pulled if it is not here.
            args: In place of the image's command.
            options: See `woodlot.aio.Options`.

        Raises:
            WoodlotError: Why there is no container.
        """
        import asyncio

        prepared = await self._prepare(image, args, options, interactive=True, remove=True)
        with self.begin(prepared) as starting:
            await asyncio.to_thread(starting.wait)
            container = starting.container
            # As its owner: the supervisor ends the container when this stream breaks, whatever became of us.
            async with starting.attach(owner=True, stdin=True) as attachment:
                await attachment.started()
                container.refresh()
                draining = asyncio.create_task(_drain(attachment))
                try:
                    yield container
                finally:
                    await container.stop(grace_s=0)
                    draining.cancel()
                    await asyncio.gather(draining, return_exceptions=True)

    async def create(
        self,
        image: str,
        args: Sequence[str] = (),
        *,
        stdin: bool = False,
        remove: bool = False,
        restart: str | None = None,
        **options: "Unpack[Options]",
    ) -> "Container":
        """Make a container that stays, and that `Container.start` starts.

        Args:
            image: Its name; pulled if it is not here.
            args: In place of the image's command.
            stdin: Keep its stdin open, for `Container.attach`.
            remove: Delete it when it has ended.
            restart: When it is started again: ``no``, ``on-failure[:MAX]``, ``unless-stopped`` or ``always``.
            options: See `woodlot.aio.Options`.

        Raises:
            WoodlotError: Why there is no container.
        """
        prepared = await self._prepare(
            image, args, options, interactive=stdin, remove=remove, restart=restart
        )
        return self.record(prepared)

    async def _prepare(
        self,
        image: str,
        args: Sequence[str],
        options: "Options",
        *,
        interactive: bool,
        remove: bool,
        restart: str | None = None,
    ) -> "Prepared":
        from woodlot.aio.options import build_request

        return await self.prepare(
            image,
            build_request(args, options, interactive=interactive, remove=remove, restart=restart),
            platform=options.get("platform"),
            scheme=options.get("scheme", "auto"),
            progress=options.get("progress"),
        )

    async def prepare(
        self,
        image: str,
        request: "Request",
        *,
        platform: str | None = None,
        scheme: "Scheme" = "auto",
        max_concurrent: int | None = None,
        progress: "Progress | None" = None,
    ) -> "Prepared":
        """See to all that a new container needs, which may take long the first time: its image, a kernel, an accelerator.

        The first half of `run` and `create`, for programs whose containers are to start the moment they are wanted; `begin` and
        `record` are the other.

        Args:
            image: Its name; pulled if it is not here.
            request: The container.
            platform: As ``linux/arm64``; None is the host's.
            scheme: How the registry is spoken to, as for `Images.pull`.
            max_concurrent: Blobs fetched at once; None takes the setting ``image.concurrent_downloads``.
            progress: Told of the pull.

        Raises:
            WoodlotError: Why there can be no such container.
        """
        from woodlot.container.begin import prepare
        from woodlot.oci.platform import parse_platform

        request.check()
        return await prepare(
            self._store,
            image,
            request,
            platform=parse_platform(platform) if platform else None,
            scheme=scheme,
            max_concurrent=max_concurrent,
            progress=progress,
        )

    def record(self, prepared: "Prepared") -> "Container":
        """Make a container that is prepared, without starting it."""
        from woodlot.aio.container import Container
        from woodlot.container import begin, state
        from woodlot.container.lifecycle import Container as Found

        spec = begin.create(self._store, prepared)
        return Container(self._store, Found(spec=spec, state=state.Created()))

    def begin(self, prepared: "Prepared") -> "Starting":
        """Make a container that is prepared and begin its start.

        Outside of an event loop, in a program of one thread that has not used gRPC, its supervisor is forked, which takes a
        tenth of the time of a fresh interpreter.

        Args:
            prepared: By `prepare`, for this one container.
        """
        from woodlot.aio.container import Container
        from woodlot.aio.starting import Starting
        from woodlot.container import begin, state
        from woodlot.container.lifecycle import Container as Found

        spec, lifeline = begin.begin(self._store, prepared)
        container = Container(self._store, Found(spec=spec, state=state.Starting()))
        return Starting(self._store, container, lifeline)

    def names(self) -> Sequence[str]:
        """Names of all containers; quicker than `list`."""
        return [one.name for one in self._store.containers.list()]

    def get(self, key: str) -> "Container":
        """The container with that name, id or unique start of an id.

        Raises:
            NotFoundError: There is none.
        """
        from woodlot.aio.container import Container
        from woodlot.container.lifecycle import find

        return Container(self._store, find(self._store, key))

    def list(
        self,
        *,
        all: bool = True,  # noqa: A002 - as Docker's library calls it
        filters: "Given | None" = None,
        last: int | None = None,
    ) -> "Sequence[Container]":
        """The containers that meet all conditions, oldest first.

        Args:
            all: Those that do not run, too.
            filters: As ``container list --filter``: ``{"status": "running", "label": ["tier=front", "env"]}``.
            last: Only so many, the last made, whether or not they run.

        Raises:
            ConfigError: A condition is none.
        """
        from woodlot.aio.container import Container

        found = selection.select(self._store, everything=all, given=filters, last=last)
        return [Container(self._store, one) for one in found]

    def resumable(self) -> "Sequence[Container]":
        """Those that ran when the host went down, or were stopped so, and whose restart policy wants them back."""
        return [one for one in self.list() if one.is_resumable]

    def meter(self) -> "Meter[Container]":
        """What takes samples of what several containers use, at once and again and again; an ``async with`` block closes it."""
        from woodlot.container.meter import Meter

        return Meter(self._store.paths)

    async def prune(self, *, filters: "Given | None" = None) -> "Pruned":
        """Delete all containers that do not run, and what they wrote.

        Args:
            filters: As ``container prune --filter``.

        Raises:
            ConfigError: A condition is none.
        """
        import asyncio

        from woodlot.container.prune import prune_containers

        return await asyncio.to_thread(prune_containers, self._store, filters or {})


async def _drain(attachment: "Attachment") -> None:
    """The log has it; what nobody takes would hold the process back."""
    async for _ in attachment.output():
        pass
