"""`woodlot.aio` for programs without asyncio: one event loop in a thread of its own does the work."""

import contextlib
import os
from collections.abc import Generator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from woodlot.aio.client import Client as AioClient
from woodlot.aio.container import Container as AioContainer
from woodlot.aio.containers import Containers as AioContainers
from woodlot.aio.images import Images as AioImages
from woodlot.aio.networks import Networks as AioNetworks
from woodlot.aio.options import Options
from woodlot.aio.starting import Starting as AioStarting
from woodlot.aio.system import Kernels as AioKernels
from woodlot.aio.system import System as AioSystem
from woodlot.aio.system import Templates as AioTemplates
from woodlot.aio.volumes import Volumes as AioVolumes
from woodlot.container.boot import MachinePlan
from woodlot.container.client import Attachment as AioAttachment
from woodlot.container.meter import Meter as AioMeter
from woodlot.container.spec import ContainerSpec
from woodlot.container.state import State
from woodlot.paths import Paths
from woodlot.sync.mirror import (
    Loop,
    Mirror,
    iterated,
    mirrored,
    mirrored_block,
    mirrored_each,
    mirrored_waited,
    plain,
    waited,
)


class Attachment(Mirror[AioAttachment]):
    """The stdio of a process in a container; made by `Container.stream` and `Container.attach`."""

    started = waited(AioAttachment.started)
    output = iterated(AioAttachment.output)
    write = waited(AioAttachment.write)
    close_stdin = waited(AioAttachment.close_stdin)
    signal = waited(AioAttachment.signal)
    resize = waited(AioAttachment.resize)


class Container(Mirror[AioContainer]):
    """One container; made by `Client.run` and `Client.containers`."""

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._inner.id

    @property
    def name(self) -> str:
        """Its name, given or chosen."""
        return self._inner.name

    @property
    def image(self) -> str:
        """See `woodlot.aio.Container.image`."""
        return self._inner.image

    @property
    def image_name(self) -> str:
        """See `woodlot.aio.Container.image_name`."""
        return self._inner.image_name

    @property
    def spec(self) -> ContainerSpec:
        """See `woodlot.aio.Container.spec`."""
        return self._inner.spec

    @property
    def state(self) -> State:
        """See `woodlot.aio.Container.state`."""
        return self._inner.state

    @property
    def is_live(self) -> bool:
        """See `woodlot.aio.Container.is_live`."""
        return self._inner.is_live

    @property
    def is_resumable(self) -> bool:
        """See `woodlot.aio.Container.is_resumable`."""
        return self._inner.is_resumable

    @property
    def boot_log(self) -> Path:
        """See `woodlot.aio.Container.boot_log`."""
        return self._inner.boot_log

    refresh = plain(AioContainer.refresh)
    start = waited(AioContainer.start)
    stop = waited(AioContainer.stop)
    restart = waited(AioContainer.restart)
    kill = waited(AioContainer.kill)
    wait = waited(AioContainer.wait)
    pause = waited(AioContainer.pause)
    unpause = waited(AioContainer.unpause)
    update = waited(AioContainer.update)
    rename = plain(AioContainer.rename)
    delete = waited(AioContainer.delete)
    exec = waited(AioContainer.exec)
    stream = mirrored_block(Attachment, AioContainer.stream)
    exec_detached = waited(AioContainer.exec_detached)
    attach = mirrored_block(Attachment, AioContainer.attach)
    stats = waited(AioContainer.stats)
    top = waited(AioContainer.top)
    logs = waited(AioContainer.logs)
    log_records = plain(AioContainer.log_records)
    follow_log = iterated(AioContainer.follow_log)
    put = waited(AioContainer.put)
    put_from = waited(AioContainer.put_from)
    put_tar = waited(AioContainer.put_tar)
    get = waited(AioContainer.get)
    get_to = waited(AioContainer.get_to)
    get_tar = iterated(AioContainer.get_tar)
    export = iterated(AioContainer.export)
    diff = iterated(AioContainer.diff)
    commit = waited(AioContainer.commit)
    sizes = plain(AioContainer.sizes)
    plan = waited(AioContainer.plan)

    def begin(self, plan: MachinePlan) -> "Starting":
        """See `woodlot.aio.Container.begin`."""
        return Starting(self._loop, self._inner.begin(plan))


class Starting(Mirror[AioStarting]):
    """A container on its way; made by `Containers.begin` and `Container.begin`, see `woodlot.aio.Starting`."""

    @property
    def container(self) -> Container:
        """It."""
        return Container(self._loop, self._inner.container)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    wait = plain(AioStarting.wait)
    start = waited(AioStarting.start)
    attach = mirrored_block(Attachment, AioStarting.attach)
    forget = plain(AioStarting.forget)


class Meter(Mirror[AioMeter[Container]]):
    """Samples of containers, again and again; made by `Containers.meter`."""

    read = waited(AioMeter[Container].read)


class Containers(Mirror[AioContainers]):
    """The containers of one installation."""

    run = mirrored_block(Container, AioContainers.run)
    create = mirrored_waited(Container, AioContainers.create)
    prepare = waited(AioContainers.prepare)
    record = mirrored(Container, AioContainers.record)
    begin = mirrored(Starting, AioContainers.begin)
    get = mirrored(Container, AioContainers.get)
    list = mirrored_each(Container, AioContainers.list)
    names = plain(AioContainers.names)
    resumable = mirrored_each(Container, AioContainers.resumable)
    meter = mirrored_block(Meter, AioContainers.meter)
    prune = waited(AioContainers.prune)


class Images(Mirror[AioImages]):
    """The images of one installation."""

    pull = waited(AioImages.pull)
    list = plain(AioImages.list)
    names = plain(AioImages.names)
    get = plain(AioImages.get)
    inspect = plain(AioImages.inspect)
    delete = waited(AioImages.delete)
    sweep = waited(AioImages.sweep)
    prune = waited(AioImages.prune)


class Volumes(Mirror[AioVolumes]):
    """The volumes of one installation."""

    create = waited(AioVolumes.create)
    list = plain(AioVolumes.list)
    names = plain(AioVolumes.names)
    get = plain(AioVolumes.get)
    users = plain(AioVolumes.users)
    inspect = plain(AioVolumes.inspect)
    delete = waited(AioVolumes.delete)
    prune = waited(AioVolumes.prune)


class Networks(Mirror[AioNetworks]):
    """The networks of one installation; ``default`` is always there."""

    create = plain(AioNetworks.create)
    list = plain(AioNetworks.list)
    names = plain(AioNetworks.names)
    get = plain(AioNetworks.get)
    is_running = plain(AioNetworks.is_running)
    members = waited(AioNetworks.members)
    delete = waited(AioNetworks.delete)
    prune = waited(AioNetworks.prune)


class Kernels(Mirror[AioKernels]):
    """The guest kernels of one installation."""

    list = plain(AioKernels.list)
    default = plain(AioKernels.default)
    set = plain(AioKernels.set)
    install = waited(AioKernels.install)
    fetch = waited(AioKernels.fetch)


class Templates(Mirror[AioTemplates]):
    """The saved machines of one installation; they are made when they are first wanted."""

    list = plain(AioTemplates.list)
    prune = waited(AioTemplates.prune)
    build = waited(AioTemplates.build)


class System(Mirror[AioSystem]):
    """What the containers of one installation run on."""

    @cached_property
    def kernels(self) -> Kernels:
        """What guests boot."""
        return Kernels(self._loop, self._inner.kernels)

    @cached_property
    def templates(self) -> Templates:
        """The saved machines that containers start from."""
        return Templates(self._loop, self._inner.templates)

    status = waited(AioSystem.status)
    qemu_version = plain(AioSystem.qemu_version)
    df = waited(AioSystem.df)
    prune = waited(AioSystem.prune)
    drain = waited(AioSystem.drain)


class Client(Mirror[AioClient]):
    """One installation; closed by leaving its ``with`` block.

    Args:
        root: Keep all data there; None is the user's own place, or ``WOODLOT_ROOT``.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        super().__init__(Loop(), AioClient(root))

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

    @cached_property
    def containers(self) -> Containers:
        """Containers: made, listed, found."""
        return Containers(self._loop, self._inner.containers)

    @cached_property
    def images(self) -> Images:
        """What containers are made from."""
        return Images(self._loop, self._inner.images)

    @cached_property
    def volumes(self) -> Volumes:
        """Files that outlive containers."""
        return Volumes(self._loop, self._inner.volumes)

    @cached_property
    def networks(self) -> Networks:
        """What containers are attached to."""
        return Networks(self._loop, self._inner.networks)

    @cached_property
    def system(self) -> System:
        """What containers run on."""
        return System(self._loop, self._inner.system)

    @property
    def paths(self) -> Paths:
        """Where everything is."""
        return self._inner.paths

    run = mirrored_block(Container, AioClient.run)
    events = iterated(AioClient.events)


@contextlib.contextmanager
def run(
    image: str,
    args: Sequence[str] = (),
    *,
    root: str | os.PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Generator[Container]:
    """A new container in the user's own installation for the life of the block; see `Client.run`."""
    with Client(root) as client, client.run(image, args, **options) as container:
        yield container
