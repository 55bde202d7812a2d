"""`Client.system`: what containers run on, and what all of it takes."""

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING

from woodlot.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from woodlot.container.disk_usage import DiskUsage
    from woodlot.container.prune import Pruned
    from woodlot.filters import Given
    from woodlot.kernel.catalog import Kernel
    from woodlot.progress import Progress
    from woodlot.store.store import Store
    from woodlot.template.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What new containers run on."""

    kernel: "Kernel"
    accelerator: str
    """``kvm``, ``hvf`` or ``tcg``."""
    reason: str
    """Why that one."""
    remembered: bool
    """The answer was found out earlier."""
    waiting: int
    """Machines that wait for the next containers, by the setting ``vm.pool``."""
    waiting_bytes: int
    """What they take of the host's memory."""


class System:
    """What the containers of one installation run on."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    @cached_property
    def kernels(self) -> "Kernels":
        """What guests boot."""
        return Kernels(self._store)

    @cached_property
    def templates(self) -> "Templates":
        """The saved machines that containers start from."""
        return Templates(self._store)

    async def status(self, *, progress: "Progress | None" = None) -> Status:
        """The kernel and the accelerator of new containers; found out if nobody has asked before, which may fetch a kernel.

        Args:
            progress: Told of what takes long.

        Raises:
            WoodlotError: What is missing.
        """
        from woodlot.container import pool
        from woodlot.container.boot import accelerator, guest_kernel
        from woodlot.container.usage import host_memory_bytes

        kernel, _ = await guest_kernel(self._store.paths, progress)
        choice = await accelerator(self._store.paths, progress)
        waiting = [one for one in pool.find_all(self._store.paths) if one.is_ready]
        return Status(
            kernel=kernel,
            accelerator=choice.accelerator.value,
            reason=choice.reason,
            remembered=choice.remembered,
            waiting=len(waiting),
            waiting_bytes=sum(host_memory_bytes(one.pid, (one.vm_pid,)) for one in waiting),
        )

    async def drain(self) -> int:
        """Have the machines leave that wait for the next containers; how many there were. With ``vm.pool`` others come later."""
        from woodlot.container import pool

        return await asyncio.to_thread(pool.empty, self._store.paths)

    def qemu_version(self) -> str:
        """QEMU's version, for people.

        Raises:
            NotFoundError: It is not installed.
            UnsupportedError: It is too old.
        """
        from woodlot.kernel.catalog import host_arch
        from woodlot.vmm.base import Arch
        from woodlot.vmm.qemu.machine import QemuVmm

        return QemuVmm(Arch(host_arch())).version()

    async def df(self) -> "DiskUsage":
        """What everything takes on the disk, and what of it nothing needs."""
        from woodlot.container.disk_usage import measure

        return await asyncio.to_thread(measure, self._store)

    async def prune(
        self, *, filters: "Given | None" = None, images: bool = False, volumes: bool = False
    ) -> "Pruned":
        """Remove what nothing uses: containers that do not run, networks, what is left of images, old templates.

        Args:
            filters: As ``container system prune --filter``.
            images: Images that no container uses, too.
            volumes: Anonymous volumes that no container uses, too.

        Raises:
            ConfigError: A condition is none.
        """
        from woodlot.container.prune import prune_everything

        return await prune_everything(self._store, filters, every_image=images, volumes=volumes)


class Kernels:
    """The guest kernels of one installation."""

    def __init__(self, store: "Store") -> None:
        self._paths = store.paths

    def list(self) -> "Sequence[Kernel]":
        """Those that are here, by name."""
        from woodlot.kernel import catalog

        return catalog.list_kernels(self._paths)

    def default(self, arch: str | None = None) -> "Kernel | None":
        """What new containers get; None if there is none yet, and the first container fetches one.

        Args:
            arch: Of the guests, ``amd64`` or ``arm64``; None is the host's.
        """
        from woodlot.kernel import catalog

        return catalog.default_kernel(self._paths, arch or catalog.host_arch())

    def set(self, name: str) -> "Kernel":
        """Have new containers get one that is here.

        Raises:
            NotFoundError: It is not here.
        """
        from woodlot.kernel import catalog

        chosen = catalog.load(self._paths, name)
        catalog.set_default(self._paths, chosen)
        return chosen

    async def install(self, file: "Path", *, arch: str | None = None) -> "Kernel":
        """Copy a kernel that has its drivers built in, and have new containers get it.

        Args:
            file: A bzImage (amd64) or an uncompressed Image (arm64).
            arch: What it is expected to be for.

        Raises:
            ConfigError: The file is no kernel, or one for another architecture.
            NotFoundError: It cannot be read.
        """
        from woodlot.kernel import catalog, custom

        wanted = catalog.parse_arch(arch) if arch else None
        return await asyncio.to_thread(custom.install_file, self._paths, file, arch=wanted)

    async def fetch(
        self, *, arch: str | None = None, progress: "Progress | None" = None
    ) -> "Kernel":
        """Fetch the recommended kernel, or bring it up to date, and have new containers get it.

        Args:
            arch: Of the guests; None is the host's.
            progress: Told of it.

        Raises:
            WoodlotError: Why not.
        """
        from woodlot.kernel import catalog, debian

        wanted = catalog.parse_arch(arch) if arch else catalog.host_arch()
        chosen = await asyncio.to_thread(debian.fetch, self._paths, wanted, progress)
        catalog.set_default(self._paths, chosen)
        return chosen


class Templates:
    """The saved machines of one installation; they are made when they are first wanted."""

    def __init__(self, store: "Store") -> None:
        self._paths = store.paths

    def list(self) -> "Sequence[Template]":
        """Those that are whole, the last used first."""
        from woodlot.template.template import list_templates

        return list_templates(self._paths)

    async def prune(
        self,
        *,
        all: bool = False,  # noqa: A002 - as the command calls it
    ) -> "Sequence[Template]":
        """Remove those that nobody used for long, and the machines that wait there; containers that run go on.

        Args:
            all: Those used lately, too.
        """
        from woodlot.container import pool
        from woodlot.template.template import prune

        removed = await asyncio.to_thread(prune, self._paths, max_bytes=0 if all else None)
        await asyncio.to_thread(pool.prune, self._paths)
        return removed

    async def build(
        self, *, cpus: float | None = None, memory: str | None = None, networks: int = 1
    ) -> "Template":
        """Make the one of containers with these limits, unless it is there: the first start is quick then.

        With the setting ``vm.pool``, have machines wait for such containers, too.

        Args:
            cpus: Of the containers; None takes the setting.
            memory: Of the containers, as ``512m``; None takes the setting.
            networks: To which the containers are attached.

        Raises:
            WoodlotError: Why not.
        """
        from woodlot.container.boot import plan_machine
        from woodlot.container.create import choose_cpus, choose_memory
        from woodlot.container.pool import fill
        from woodlot.container.shape import Shape, bare_spec
        from woodlot.template.template import ensure
        from woodlot.vmm.base import Accelerator

        plan = await plan_machine(self._paths)
        shape = Shape.of(
            cpus=choose_cpus(cpus, emulated=plan.accelerator is Accelerator.TCG),
            memory_bytes=choose_memory(memory),
            networks=networks,
        )
        made = await ensure(self._paths, bare_spec(self._paths, plan, shape), plan.guest)
        for child in await fill(self._paths, plan, shape):
            await child.wait()
        return made
