"""Images of containers: what a container has changed becomes a layer above its image's."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

from woodlot import settings
from woodlot.container import health, options, sockets
from woodlot.container.events import tell
from woodlot.container.files import reach
from woodlot.container.health import HealthRequest
from woodlot.container.instructions import change
from woodlot.container.lifecycle import Container
from woodlot.container.spec import ContainerSpec
from woodlot.container.threaded import consume
from woodlot.errors import ConfigError
from woodlot.image.derive import Layer, derive, read_base, write_layer
from woodlot.image.image import Image
from woodlot.oci.config import History, ImageConfig
from woodlot.oci.digest import Digest
from woodlot.oci.reference import Reference, parse_reference
from woodlot.progress import NoProgress, Progress
from woodlot.store.store import Store
from woodlot.values import dataclass

_TASK = "commit"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """What somebody asks of a container's image.

    Attributes:
        reference: Its name; None for one that is known by its id.
        author: Of the image, and of its layer in the history.
        message: On its layer.
        changes: Instructions of a Dockerfile, as ``CMD ["true"]``.
        pause: A container that runs stands still while it is read.
    """

    reference: str | None = None
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True

    def parse_reference(self) -> Reference | None:
        """The name.

        Raises:
            ConfigError: It is none that an image can be given.
        """
        if self.reference is None:
            return None
        reference = parse_reference(self.reference)
        if reference.digest is not None:
            raise ConfigError(
                f"an image cannot be given the digest of another: {self.reference}",
                hint="give a name and a tag, as app:1.0",
            )
        return reference

    def check_text(self) -> None:
        """See that all of it can be written down.

        Raises:
            ConfigError: A text is not UTF-8, or holds a NUL.
        """
        for text in (self.author, self.message, *self.changes):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ConfigError(f"{text!r} is not UTF-8") from error
            if "\0" in text:
                raise ConfigError(f"{text!r} holds a NUL")


async def commit(
    store: Store,
    container: Container,
    request: CommitRequest | None = None,
    progress: Progress | None = None,
) -> Image:
    """Make an image of a container, running or stopped: its files, without what is mounted, and its configuration.

    Its processes go on as soon as the files are read, or this ends otherwise.

    Raises:
        ConfigError: The name or a change is not valid.
        LimitError: The image would be larger than allowed, or the disk is full.
        StateError: The container is being started or removed, or cannot be read.
    """
    request, progress = request or CommitRequest(), progress or NoProgress()
    request.check_text()
    reference = request.parse_reference()
    spec = container.spec
    base = read_base(store.content, Digest(spec.image_digest), what=spec.image)
    # Before anything stands still.
    config = describe(spec, base.config, request)
    async with AsyncExitStack() as using:
        async with reach(store, container) as files:
            # Only now: a supervisor that was started for this shares no lock with us.
            await using.enter_async_context(store.using())
            progress.start(_TASK, f"Reading container {spec.name}")

            def write(pieces: Iterator[bytes]) -> Layer | None:
                return write_layer(
                    store.content,
                    _counted(pieces, progress),
                    max_bytes=settings.get_int("image.max_size"),
                    what=f"what container {spec.name} has changed",
                )

            layer = await consume(files.export_layer(going=not request.pause), write)
            progress.finish(_TASK)
        entry = History(
            created=config.created,
            created_by=" ".join(_command(spec)),
            comment=request.message,
            empty_layer=layer is None,
            author=request.author,
        )
        config = replace(config, history=(*base.config.history, entry))
        image = await derive(store, base, config, layer, reference, progress=progress)
    tell(
        store,
        spec,
        "commit",
        comment=request.message,
        imageID=str(image.digest),
        imageRef=str(image.reference),
    )
    return image


def _counted(pieces: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for piece in pieces:
        progress.advance(_TASK, len(piece))
        yield piece


def _command(spec: ContainerSpec) -> tuple[str, ...]:
    return spec.process.args[spec.process.entrypoint_args :]


def describe(spec: ContainerSpec, base: ImageConfig, request: CommitRequest) -> ImageConfig:
    """The configuration of a container's image: as the container was made, and as the request says.

    What was not asked for when it was made is as the image below has it, so that the next container is made alike.

    Raises:
        ConfigError: A change is not valid.
    """
    process = spec.process
    usual = health.build_spec(HealthRequest(), base.healthcheck)
    anonymous = {mount.destination for mount in spec.mounts if mount.anonymous}
    ports = {f"{port.container_port}/{port.protocol}" for port in spec.ports}
    config = replace(
        base,
        entrypoint=process.args[: process.entrypoint_args],
        cmd=_command(spec),
        env=tuple(_own_env(spec, base)),
        user=process.user,
        workdir=base.workdir if process.cwd == (base.workdir or "/") else process.cwd,
        labels=dict(spec.labels),
        volumes=tuple(sorted(anonymous.union(base.volumes))),
        exposed_ports=tuple(sorted(ports.union(base.exposed_ports))),
        healthcheck=(
            base.healthcheck if spec.health == usual else health.build_image_check(spec.health)
        ),
        on_build=(),
        created=datetime.now(UTC),
        author=request.author,
    )
    return change(config, request.changes)


def _own_env(spec: ContainerSpec, base: ImageConfig) -> Iterator[str]:
    """The variables without those that every container is given."""
    given = {"PATH": options.DEFAULT_PATH, "HOSTNAME": spec.hostname}
    if spec.process.tty:
        given["TERM"] = "xterm"
    if spec.ssh:
        given[sockets.SSH_VARIABLE] = sockets.SSH_SOCKET
    of_image = {text.partition("=")[0] for text in base.env}
    for text in spec.process.env:
        name, _, value = text.partition("=")
        if name in of_image or given.get(name) != value:
            yield text
