"""What one start of a container runs on: its networks, its files and its virtual machine."""

import asyncio
import importlib
import logging
import math
import shutil
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from woodlot import settings, trace
from woodlot.container.boot import MachinePlan
from woodlot.container.links import Links
from woodlot.container.sharing import Sharing
from woodlot.container.spec import ContainerSpec
from woodlot.errors import ConfigError, GuestError, VmmError
from woodlot.paths import Paths
from woodlot.store.store import Store
from woodlot.template import template
from woodlot.template.shape import device_mac
from woodlot.units import MIB
from woodlot.vmm.base import (
    Arch,
    Disk,
    UnconnectedNetwork,
    VirtualMachine,
    VmSpec,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from woodlot.guest.client import Agent
    from woodlot.guest.said import Hello
    from woodlot.template.template import Template

log = logging.getLogger(__name__)

# Room for the guest's kernel and agent beside what the user's limit allows the container.
GUEST_OVERHEAD_BYTES = 128 * MIB
MEMORY_STEP_BYTES = 128 * MIB
IMAGE_SERIAL = "image"
UPPER_SERIAL = "upper"
# A guest that goes on where it stood answers in a fraction of a second, emulated on a busy host, too.
_RESTORED_ANSWER_S = 20.0


class Machine:
    """The machine of one container; `start` comes first."""

    def __init__(
        self,
        paths: Paths,
        store: Store,
        spec: ContainerSpec,
        plan: MachinePlan,
        *,
        console_log: Path | None = None,
    ) -> None:
        self._paths = paths
        self._store = store
        self._spec = spec
        self._plan = plan
        self._directory = paths.container(spec.id)
        self._console_log = console_log or self._directory / "console.log"
        self._template: Template | None = None
        self._answer: Hello | None = None
        self._reset()

    def _reset(self) -> None:
        self.links = Links(self._spec)
        self.sharing = Sharing(self._store, self._spec, self._directory)

    @property
    def restored(self) -> bool:
        """Whether the guest was started from a template, and is still what the template was."""
        return self._template is not None

    @property
    def max_cpus(self) -> int:
        """How many its container can use at most."""
        return _vcpus(self._spec.cpus)

    @property
    def max_memory_bytes(self) -> int:
        """How much its container can use at most."""
        return _guest_memory(self._spec.memory_bytes) - GUEST_OVERHEAD_BYTES

    @asynccontextmanager
    async def start(self) -> "AsyncGenerator[tuple[VirtualMachine, Agent]]":
        """Join the networks, serve the files and run the VM, for the life of the block.

        From a template, if it may be and one works: a template that does not is removed, and the machine boots.
        Entered when the VM runs; one from a template has answered already.

        Raises:
            WoodlotError: Why there is no machine.
        """
        async with AsyncExitStack() as stack:
            if _may_restore(self._plan, self._spec):
                attempt = await stack.enter_async_context(AsyncExitStack())
                try:
                    opened = await self._open(attempt, restore=True)
                except (VmmError, GuestError) as error:
                    log.warning("booting, since a template does not work: %s", error.message)
                    await attempt.aclose()
                    if self._template is not None:
                        template.discard(self._template)
                    self._template = None
                    self._reset()
                else:
                    yield opened
                    return
            yield await self._open(stack, restore=False)

    async def hello(self, agent: "Agent") -> "Hello":
        """Wait until the guest's agent answers; one that was restored has.

        Raises:
            GuestError: It does not in time.
        """
        if self._answer is not None:
            return self._answer
        limit = _RESTORED_ANSWER_S if self.restored else settings.get_float("vm.boot_timeout")
        self._answer = await agent.hello(timeout_s=limit)
        return self._answer

    async def _open(
        self, stack: AsyncExitStack, *, restore: bool
    ) -> "tuple[VirtualMachine, Agent]":
        from woodlot.vmm.qemu.machine import QemuVmm

        sockets = self._paths.machine_sockets(self._spec.id)
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        stack.enter_context(self.links.plugged(self._store))
        if self.links.come_first:
            await stack.enter_async_context(self._joined())
        with trace.span("writable disk"):
            self._make_disk()
        with trace.span("serve files"):
            await stack.enter_async_context(self.sharing.open(sockets))
        spec = self._build_spec(sockets)
        # What a tap takes off the guest's hands is part of the card; a machine that is saved has none.
        if restore and not self.links.come_first:
            with trace.span("template"):
                self._template = await template.ensure(self._paths, spec, self._plan.guest)
        machine = self._template.machine if self._template else None
        with trace.span("VM starts"):
            vm = await self._start(
                stack, QemuVmm(self._plan.arch).start(spec, machine), join=not self.links.come_first
            )
        from woodlot.guest.client import Agent

        agent = await stack.enter_async_context(Agent(vm.control_target))
        if self._template is not None:
            shutil.copyfile(self._template.console_log, self._console_log)
            with trace.span("agent answers"):
                await self.hello(agent)
        return vm, agent

    async def _start(
        self,
        stack: AsyncExitStack,
        starting: "AbstractAsyncContextManager[VirtualMachine]",
        *,
        join: bool,
    ) -> VirtualMachine:
        """Start the monitor, and while it puts the machine together, load what comes next and join the networks."""

        async def start() -> VirtualMachine:
            try:
                return await stack.enter_async_context(starting)
            except VmmError as error:
                raise self.sharing.explain(error) from error

        async def join_networks() -> None:
            with trace.span("load gRPC"):
                # In a thread, so that it holds up nothing that QEMU waits for.
                await asyncio.to_thread(importlib.import_module, "woodlot.guest.client")
            if join:
                await stack.enter_async_context(self._joined())

        tasks = asyncio.create_task(start()), asyncio.create_task(join_networks())
        try:
            vm, _ = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self.sharing.handed_over()
        self.links.handed_over()
        return vm

    @asynccontextmanager
    async def _joined(self) -> "AsyncGenerator[None]":
        async with AsyncExitStack() as stack:
            with trace.span("join networks"):
                await stack.enter_async_context(self.links.joined(self._paths))
            yield

    def _make_disk(self) -> None:
        from woodlot.rootfs.upper import clone_disk, ensure_upper_template

        disk = self._directory / "upper.ext4"
        if not disk.exists():
            # Renamed when whole, so that a start after a crash does not take a part for it.
            part = disk.with_suffix(".part")
            part.unlink(missing_ok=True)
            clone_disk(ensure_upper_template(self._paths.disks, self._spec.disk_bytes), part)
            part.rename(disk)

    def _build_spec(self, sockets: Path) -> VmSpec:
        spec, plan = self._spec, self._plan
        return VmSpec(
            name=spec.name,
            arch=plan.arch,
            accelerator=plan.accelerator,
            vcpus=_vcpus(spec.cpus),
            memory_bytes=_guest_memory(spec.memory_bytes),
            kernel=plan.kernel,
            initramfs=plan.initramfs,
            kernel_cmdline=(*plan.kernel_cmdline, *spec.kernel_args),
            disks=(
                Disk(path=Path(spec.rootfs), serial=IMAGE_SERIAL, read_only=True),
                Disk(path=self._directory / "upper.ext4", serial=UPPER_SERIAL),
                *self.sharing.disks(),
            ),
            shares=self.sharing.devices(),
            networks=self.links.devices,
            control_socket=sockets / "a.sock",
            console_log=self._console_log,
            vmm_log=self._directory / "vmm.log",
        )


async def ensure_template(
    paths: Paths, plan: MachinePlan, *, cpus: float, memory_bytes: int, networks: int
) -> "Template":
    """The template of containers without volumes that have these limits, made if it is not there.

    Args:
        paths: The installation.
        plan: What their VMs are started with.
        cpus: Of a container.
        memory_bytes: Of a container.
        networks: How many a container is attached to.

    Raises:
        WoodlotError: It cannot be made.
    """
    spec = VmSpec(
        name="template",
        arch=plan.arch,
        accelerator=plan.accelerator,
        vcpus=_vcpus(cpus),
        memory_bytes=_guest_memory(memory_bytes),
        kernel=plan.kernel,
        initramfs=plan.initramfs,
        kernel_cmdline=plan.kernel_cmdline,
        disks=(
            Disk(path=None, serial=IMAGE_SERIAL, read_only=True),
            Disk(path=None, serial=UPPER_SERIAL),
        ),
        networks=tuple(UnconnectedNetwork(mac=device_mac(index)) for index in range(networks)),
        # Where these are does not shape it.
        control_socket=paths.runtime,
        console_log=paths.templates,
        vmm_log=paths.templates,
    )
    return await template.ensure(paths, spec, plan.guest)


def _vcpus(cpus: float) -> int:
    return max(1, math.ceil(cpus))


def _guest_memory(limit_bytes: int) -> int:
    """In steps, so that many limits have one template; the limit itself is kept inside the guest."""
    return math.ceil((limit_bytes + GUEST_OVERHEAD_BYTES) / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES


def _may_restore(plan: MachinePlan, spec: ContainerSpec) -> bool:
    """Whether the user leaves us the choice, and the machine can take up a saved state.

    Raises:
        ConfigError: The setting has no such value.
    """
    how = settings.get_str("vm.boot")
    if how not in {"template", "cold"}:
        raise ConfigError(f"the setting vm.boot cannot be {how!r}", hint="use template or cold")
    # Arguments for the kernel are there to see or change how it boots. The board of arm64 takes no device later.
    return (
        how == "template" and not spec.kernel_args and not (plan.arch is Arch.ARM64 and spec.mounts)
    )
