"""A machine that is ready before there is a container for it: restored, its agent has answered, and it stands still."""

import importlib
import logging
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from woodlot.container.boot import MachinePlan
from woodlot.container.machine import RESTORED_ANSWER_S
from woodlot.container.shape import Shape, bare_spec
from woodlot.errors import GuestError, VmmError
from woodlot.network.link import Link
from woodlot.paths import Paths
from woodlot.template import template
from woodlot.template.shape import device_mac
from woodlot.template.template import Template
from woodlot.values import dataclass
from woodlot.vmm.base import Accelerator, StreamNetwork, VmSpec
from woodlot.vmm.qemu.machine import QemuMachine, QemuVmm

if TYPE_CHECKING:
    from woodlot.guest.client import Agent
    from woodlot.guest.said import Hello

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmMachine:
    """It; ended by leaving its ``async with`` block."""

    vm: QemuMachine
    agent: "Agent"
    hello: "Hello"
    """What the agent has answered."""
    links: Sequence[Link]
    """Of its cards, in order."""
    template: Template
    """That it was started from."""
    stack: AsyncExitStack
    """What ends it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stack.__aexit__(kind, error, trace)

    async def become(self, spec: VmSpec) -> None:
        """Be a container's, with its disks; the guest goes on.

        Raises:
            VmmError: A disk cannot be opened, or QEMU is gone.
        """
        await self.vm.become(spec)
        await self.vm.resume()


@asynccontextmanager
async def warmed_up(
    paths: Paths, plan: MachinePlan, shape: Shape, directory: Path, sockets: Path
) -> AsyncGenerator[WarmMachine]:
    """Start a machine from its template, and have it stand still for whoever takes it out of this block.

    Args:
        paths: The installation.
        plan: What its VM is started with.
        shape: Of its containers.
        directory: For its logs.
        sockets: For its agent's socket.

    Raises:
        WoodlotError: There is no template, or it does not work.
    """
    async with AsyncExitStack() as stack:
        links = [Link() for _ in range(shape.networks)]
        for link in links:
            stack.callback(link.close)
        spec = replace(
            bare_spec(paths, plan, shape),
            name="pool",
            networks=tuple(
                StreamNetwork(mac=device_mac(index), socket_fd=link.fd)
                for index, link in enumerate(links)
            ),
            control_socket=sockets / "a.sock",
            console_log=directory / "console.log",
            vmm_log=directory / "vmm.log",
        )
        found = await template.ensure(paths, spec, plan.guest)
        try:
            vm = await stack.enter_async_context(QemuVmm(plan.arch).start(spec, found.machine))
            for link in links:
                link.handed_over()
            shutil.copyfile(found.console_log, spec.console_log)
            # QEMU is started from a process of one thread; gRPC has several.
            client = importlib.import_module("woodlot.guest.client")
            agent: Agent = await stack.enter_async_context(client.Agent(vm.control_target))
            hello = await agent.hello(timeout_s=RESTORED_ANSWER_S)
        except (VmmError, GuestError):
            template.discard(found)
            raise
        if plan.accelerator is Accelerator.TCG:
            from woodlot.container.rehearsal import rehearse

            await rehearse(vm, agent, spec, paths.disks, directory)
        await vm.pause()
        for link in links:
            link.drain()
        yield WarmMachine(
            vm=vm,
            agent=agent,
            hello=hello,
            links=links,
            template=found,
            stack=stack,
        )
