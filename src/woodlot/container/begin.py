"""From what is asked for to a supervisor that answers: the steps that the command and the SDK share."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from woodlot.container import lifecycle, pool, state
from woodlot.container.boot import MachinePlan, plan_machine
from woodlot.container.create import Request, build_spec
from woodlot.container.launch import launch
from woodlot.container.lifecycle import Container
from woodlot.container.lifeline import wait_ready
from woodlot.container.network import resolve_networks
from woodlot.container.spec import ContainerSpec
from woodlot.errors import ConfigError, NotFoundError
from woodlot.image.image import Image, load
from woodlot.oci.platform import Platform
from woodlot.paths import Paths
from woodlot.progress import Progress
from woodlot.store.locks import hold_sync, unlock_and_close
from woodlot.store.store import Store
from woodlot.values import dataclass
from woodlot.vmm.base import Accelerator, Arch

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a new container is made from; for `begin` or `create`, once."""

    image: Image
    plan: MachinePlan
    request: Request
    kept: contextlib.ExitStack
    """Until it is closed, nobody deletes the image or sweeps parts of it away."""


async def prepare(
    store: Store,
    reference: str,
    request: Request,
    *,
    platform: Platform | None = None,
    scheme: str = "auto",
    progress: Progress | None = None,
    max_concurrent: int | None = None,
) -> Prepared:
    """The image, pulled if it is not here, and what the VM is started with; both may take long the first time.

    Raises:
        WoodlotError: The name is taken, the image cannot be had, or there is no kernel, agent or QEMU.
    """
    if request.name:
        # Before anything is fetched; that nobody takes it meanwhile is made sure with the record.
        lifecycle.check_name_is_free(store, request.name)

    async def fetch() -> None:
        from woodlot.image.pull import pull

        await pull(
            store,
            reference,
            platform=platform,
            scheme=scheme,
            progress=progress,
            max_concurrent=max_concurrent,
        )

    with contextlib.ExitStack() as kept:
        kept.enter_context(store.using_sync())
        image = await _keep(store, reference, platform, kept, fetch)
        try:
            arch = Arch(image.platform.architecture)
        except ValueError:
            raise ConfigError(
                f"image {image.reference.familiar} is for {image.platform}, which no guest of ours can run",
                hint="choose linux/amd64 or linux/arm64 with --platform",
            ) from None
        plan = await plan_machine(
            store.paths, arch=arch, kernel_file=request.kernel, progress=progress
        )
        return Prepared(image, plan, request, kept.pop_all())


async def _keep(
    store: Store,
    reference: str,
    platform: Platform | None,
    kept: contextlib.ExitStack,
    fetch: Callable[[], Awaitable[None]],
) -> Image:
    """The local image, fetched if it is not here; until ``kept`` is closed, nobody deletes it."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with store.database.transaction():
                image = load(store, reference, platform)
                kept.enter_context(store.leased(image.digest))
        except NotFoundError:
            # Also of what was fetched, if somebody has deleted it in that moment.
            if not tries_left:
                raise
            await fetch()
        else:
            return image
    raise AssertionError("the last try returns or raises")


def begin(store: Store, prepared: Prepared) -> tuple[ContainerSpec, socket.socket]:
    """Record a new container and start its supervisor; blocking for the time of a fork.

    Returns:
        The container, and the launcher's end of the lifeline, for `wait_ready`; closing it before the process is
        started abandons the container.
    """
    spec, lock, template = _reserve(store, prepared, starts=True)
    # SQLite must not be open across a fork; it opens again when it is used.
    store.close()
    return spec, launch(store.paths, spec.id, prepared.plan, lock, template=template)


def create(store: Store, prepared: Prepared) -> ContainerSpec:
    """Record a new container, to be started later."""
    spec, lock, _ = _reserve(store, prepared, starts=False)
    unlock_and_close(lock)
    return spec


def _reserve(store: Store, prepared: Prepared, *, starts: bool) -> tuple[ContainerSpec, int, str]:
    with prepared.kept:
        emulated = prepared.plan.accelerator is Accelerator.TCG
        spec = build_spec(prepared.image, prepared.request, emulated=emulated)
        spec = replace(spec, networks=resolve_networks(store, spec.networks))
        template = pool.wanted_template(store, prepared.plan, spec) if starts else ""
        return spec, lifecycle.reserve(store, spec, starts=starts), template


async def plan_again(paths: Paths, spec: ContainerSpec) -> MachinePlan:
    """What a stopped container's VM is started with."""
    return await plan_machine(
        paths,
        arch=Arch(spec.platform.split("/")[1]),
        kernel_file=Path(spec.kernel) if spec.kernel else None,
    )


def begin_again(store: Store, container: Container, plan: MachinePlan) -> socket.socket:
    """Start a supervisor for a stopped container; the lifeline is as `begin` gives it."""
    template = pool.wanted_template(store, plan, container.spec)
    lock = lifecycle.reopen(store, container)
    store.close()
    return launch(store.paths, container.spec.id, plan, lock, template=template)


@contextlib.asynccontextmanager
async def visited(store: Store, container: Container) -> AsyncGenerator[None]:
    """A VM for the files of a stopped container, for the block; nobody can start or remove it meanwhile.

    Raises:
        WoodlotError: It is not stopped any more, or has no VM.
    """
    plan = await plan_again(store.paths, container.spec)
    lock = lifecycle.keep_stopped(store, container)
    store.close()
    with launch(store.paths, container.spec.id, plan, lock, visit=True) as lifeline:
        try:
            await asyncio.to_thread(wait_ready, lifeline)
            yield
        finally:
            # Also for the thread that waits, if we are cancelled.
            with contextlib.suppress(OSError):
                lifeline.shutdown(socket.SHUT_RDWR)
            await lifecycle.until_ended(store.paths, container.spec.id)


def forget(store: Store, spec: ContainerSpec) -> None:
    """Delete a container that never ran, so that its name is free again."""
    directory = store.paths.container(spec.id)
    if directory.is_dir():
        with hold_sync(directory / "lock"):
            pass
    for container in lifecycle.find_all(store):
        match container.state:
            case state.Stopped(started_at=0.0) if container.spec.id == spec.id:
                lifecycle.delete(store, container)
            case _:
                pass
