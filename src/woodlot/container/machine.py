"""What one start of a container runs on: its networks, its files and its virtual machine."""

import asyncio
import importlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from woodlot import settings, trace
from woodlot.container.boot import MachinePlan
from woodlot.container.links import Links
from woodlot.container.shape import (
    GUEST_OVERHEAD_BYTES,
    IMAGE_SERIAL,
    UPPER_SERIAL,
    count_vcpus,
    guest_memory,
    may_restore,
)
from woodlot.container.sharing import Sharing
from woodlot.container.spec import ContainerSpec
from woodlot.errors import GuestError, VmmError
from woodlot.paths import Paths
from woodlot.store.store import Store
from woodlot.template import template
from woodlot.vmm.base import (
    Disk,
    VirtualMachine,
    VmSpec,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from woodlot.container.warm import WarmMachine
    from woodlot.guest.client import Agent
    from woodlot.guest.said import Hello
    from woodlot.template.template import Template

    Opened = tuple[VirtualMachine, Agent]

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")

# A guest that goes on where it stood answers in a fraction of a second, emulated on a busy host, too.
RESTORED_ANSWER_S = 20.0


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
        warm: "WarmMachine | None" = None,
    ) -> None:
        """Make ready for it.

        Args:
            paths: The installation.
            store: Its store.
            spec: The container.
            plan: What its VM is started with.
            console_log: What its kernel says; None for the container's own file.
            warm: One that waited for a container of this shape; ended if it is of no use.
        """
        self._paths = paths
        self._store = store
        self._spec = spec
        self._plan = plan
        self._directory = paths.container(spec.id)
        self._console_log = console_log or self._directory / "console.log"
        self._warm = warm
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
        return count_vcpus(self._spec.cpus)

    @property
    def max_memory_bytes(self) -> int:
        """How much its container can use at most."""
        return guest_memory(self._spec.memory_bytes) - GUEST_OVERHEAD_BYTES

    @asynccontextmanager
    async def start(self) -> "AsyncGenerator[Opened]":
        """Join the networks, serve the files and run the VM, for the life of the block.

        One that waited for us, else from a template, if it may be and one works: a template that does not is removed, and the
        machine boots. Entered when the VM runs; one that did not boot has answered already.

        Raises:
            WoodlotError: Why there is no machine.
        """
        ways: list[tuple[str, Callable[[AsyncExitStack], Awaitable[Opened]]]] = []
        if self._warm is not None:
            ways.append(
                ("starting one, since the machine that waited is of no use", self._take_over)
            )
        if may_restore(self._plan, self._spec):
            ways.append(("booting, since a template does not work", self._restore))
        async with AsyncExitStack() as stack:
            for otherwise, way in ways:
                attempt = await stack.enter_async_context(AsyncExitStack())
                try:
                    opened = await way(attempt)
                except (VmmError, GuestError) as error:
                    log.warning("%s: %s", otherwise, error.message)
                    await attempt.aclose()
                    if self._template is not None and self._warm is None:
                        template.discard(self._template)
                    self._template = self._answer = self._warm = None
                    self._reset()
                else:
                    yield opened
                    return
            yield await self._open(stack, restore=False)

    async def _restore(self, stack: AsyncExitStack) -> "Opened":
        return await self._open(stack, restore=True)

    async def _take_over(self, stack: AsyncExitStack) -> "Opened":
        """Go on with the machine that waited: its disks come to their places while its card is joined to the network."""
        warm = self._warm
        assert warm is not None  # noqa: S101 - that is why we are asked
        await stack.enter_async_context(warm)
        sockets = self._make_sockets(stack)
        stack.enter_context(self.links.plugged(self._store, warm.links))
        if self.links.come_first:
            raise VmmError("a machine that waited has no tap")
        self._template, self._answer = warm.template, warm.hello
        log.info("the container goes on with a machine that waited")

        async def become() -> None:
            with trace.span("writable disk"):
                self._make_disk()
            with trace.span("take the machine over"):
                await warm.become(self._build_spec(sockets))

        async def join() -> None:
            await stack.enter_async_context(self._joined())

        await _all(become(), join())
        return warm.vm, warm.agent

    async def hello(self, agent: "Agent") -> "Hello":
        """Wait until the guest's agent answers; one that was restored has.

        Raises:
            GuestError: It does not in time.
        """
        if self._answer is not None:
            return self._answer
        limit = RESTORED_ANSWER_S if self.restored else settings.get_float("vm.boot_timeout")
        self._answer = await agent.hello(timeout_s=limit)
        return self._answer

    def _make_sockets(self, stack: AsyncExitStack) -> Path:
        sockets = self._paths.machine_sockets(self._spec.id)
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        return sockets

    async def _open(self, stack: AsyncExitStack, *, restore: bool) -> "Opened":
        from woodlot.vmm.qemu.machine import QemuVmm

        sockets = self._make_sockets(stack)
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

        vm, _ = await _all(start(), join_networks())
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
            vcpus=count_vcpus(spec.cpus),
            memory_bytes=guest_memory(spec.memory_bytes),
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


async def _all(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """What both give; if one fails, the other is over, too, when it is told."""
    tasks = asyncio.create_task(first), asyncio.create_task(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
