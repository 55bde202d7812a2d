"""One start of a container, from its machine to the machine's end.

    networks, files, VM → agent answers → configure the guest, mount the root filesystem → (somebody wants it) start the
    process → carry its output → process ends → shut the guest down → end the VM

For the files of a container that is stopped it is a visit: without network and process, until somebody says that it is over.
"""

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from woodlot import settings, trace
from woodlot.container import health, logfiles, options, requests, state
from woodlot.container.boot import MachinePlan
from woodlot.container.events import tell
from woodlot.container.guest_trace import traced
from woodlot.container.machine import Machine
from woodlot.container.processes import Processes
from woodlot.container.relays import Relays
from woodlot.container.shape import IMAGE_SERIAL
from woodlot.container.spec import ContainerSpec, HealthSpec
from woodlot.errors import (
    ErrorCode,
    ExecutionError,
    GuestError,
    IntegrityError,
    StateError,
    VmmError,
    WoodlotError,
)
from woodlot.paths import Paths
from woodlot.process import last_words
from woodlot.store.store import Store
from woodlot.vmm.base import VirtualMachine, VmExit

if TYPE_CHECKING:
    from woodlot._pb.agent.v1 import agent_pb2
    from woodlot.container.file_calls import FileCalls
    from woodlot.container.session import End
    from woodlot.container.warm import WarmMachine
    from woodlot.guest.client import Agent

log = logging.getLogger(__name__)

_SETUP_TIMEOUT_S = 30.0
# An image may have gigabytes where a volume is mounted, and the guest may be emulated.
_FILL_TIMEOUT_S = 3600.0
_SHUTDOWN_TIMEOUT_S = 10.0
_KILL_TIMEOUT_S = 2.0
# The guest itself gives up before.
_BOOT_HINT = "`--kernel-arg loglevel=7` shows how far the kernel comes"


class Life:
    """One start of a container; `lived` runs it."""

    def __init__(
        self,
        paths: Paths,
        store: Store,
        spec: ContainerSpec,
        plan: MachinePlan,
        file_calls: "FileCalls",
        *,
        visit: bool = False,
        warm: "WarmMachine | None" = None,
    ) -> None:
        """Make ready for it.

        Args:
            paths: The installation.
            store: Its store.
            spec: The container.
            plan: What its VM is started with.
            file_calls: Opened and closed with the guest.
            visit: Only for the container's files.
            warm: A machine that waited, to go on with.
        """
        from woodlot.container.logs import LogWriter
        from woodlot.container.session import Session

        self._paths = paths
        self._store = store
        self._spec = _without_world(spec) if visit else spec
        self._plan = plan
        self._visit = visit
        self._directory = directory = paths.container(spec.id)
        # A visit's is not the last start's, which its user may want to read.
        self._console = directory / ("visit.log" if visit else "console.log")
        self._machine = Machine(
            paths, store, self._spec, plan, console_log=self._console, warm=warm
        )
        self._network_lost = ""
        self._health = state.Health() if spec.health else None
        # Those of the client that starts it: a fork or `launch` hands its variables on.
        self._relays = Relays(paths, self._spec, os.environ)
        self._file_calls = file_calls
        self.session: Session = Session(
            LogWriter(directory / "stdio.log", max_bytes=settings.get_int("log.max_size"))
        )
        loop = asyncio.get_running_loop()
        self._wanted: asyncio.Future[tuple[int, int]] = loop.create_future()
        self.started: asyncio.Future[None] = loop.create_future()
        """Done when the process runs, or why it never will."""
        self.ended: asyncio.Future[End] = loop.create_future()
        """How it ended; for whoever runs this life to say, once that is recorded."""
        self._visit_over = asyncio.Event()
        self._abandoned = asyncio.Event()
        self._answered = False
        self._on_change: Callable[[], None] = lambda: None
        self.processes = Processes(store, self._spec, self._changed)
        self._vm: VirtualMachine | None = None

    # What clients ask for.

    @property
    def machine(self) -> Machine:
        """What it runs on."""
        return self._machine

    @property
    def _is_thrown_away(self) -> bool:
        """Whether nothing that its processes wrote outlives the container."""
        return self._spec.remove and not self._spec.mounts

    @property
    def helpers(self) -> tuple[int, ...]:
        """The processes of the host that are there for it alone, beside this one."""
        monitor = (self._vm.pid,) if self._vm is not None else ()
        return (*monitor, *self._machine.sharing.pids)

    def want_process(self, rows: int = 0, columns: int = 0) -> None:
        """Have the process started as soon as it can be, unless it is; zeros for no terminal."""
        if not self._wanted.done():
            self._wanted.set_result((rows, columns))

    async def stop(self, *, signal_number: int, grace_s: float) -> None:
        """Signal the process, wait, SIGKILL, and the plug at last; return when it is known to end."""
        # Its processes stand still meanwhile, and would not see the signal.
        self._file_calls.release(StateError(f"container {self._spec.name} is being stopped"))
        number = signal_number or options.parse_signal(self._spec.stop_signal)
        if self.processes.first is None:
            self._abandoned.set()
            return
        for signal_now, wait_s in ((number, grace_s), (signal.SIGKILL.value, _KILL_TIMEOUT_S)):
            with contextlib.suppress(WoodlotError, TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.processes.own.signal(signal_now)
                    if self.processes.are_paused:
                        # It sees the signal when it goes on.
                        await self.processes.unpause()
                    await self.processes.over.wait()
            if self.processes.over.is_set():
                return
        log.warning("the process survived SIGKILL; pulling the plug")
        assert self._vm is not None  # noqa: S101 - a process has a VM
        self._vm.kill()

    def launcher_left(self) -> None:
        """Nobody waits for a start that was not asked for yet, or for the end of a visit."""
        if self._visit and self._answered:
            self._visit_over.set()
        elif not self.started.done():
            log.info("the launcher left before the process was started")
            self._abandoned.set()

    # The life.

    @asynccontextmanager
    async def lived(
        self, *, up: Callable[[], Awaitable[None]], on_change: Callable[[], None]
    ) -> "AsyncGenerator[End]":
        """Live it; entered when it is over, left when what it used has been given back.

        The VM is gone when the block is entered, or ends beside it if nothing of the container's is kept.

        Args:
            up: Called when the VM runs, and before anything is asked of its guest.
            on_change: Called when `describe` has something new to say.
        """
        from woodlot.container.session import End

        self._on_change = on_change
        async with AsyncExitStack() as stack:
            try:
                stack.enter_context(self._relays.open())
                vm, agent = await stack.enter_async_context(self._machine.start())
                self._vm = vm
                log.info("virtual machine started, process %d", vm.pid)
                stack.enter_context(logfiles.kept_small(self._directory))
                await up()
                end = await self._live(vm, agent)
            except WoodlotError as error:
                explained = self._explain(error)
                end = End(code=exit_code(explained), reason=explained.message)
                self._refuse(explained)
            self._file_calls.close(self._over())
            await self.session.finish()
            self.processes.over.set()
            if self._vm is not None:
                self._vm.kill()
                # Nobody has to wait until the host has taken back what is thrown away.
                if not self._is_thrown_away:
                    with trace.span("end the VM"):
                        await self._vm.wait()
            self._relays.close()
            yield end

    def _changed(self) -> None:
        self._on_change()

    def describe(self, *, restart_count: int) -> state.Running:
        """What is recorded while the process runs."""
        assert self._vm is not None  # noqa: S101 - a process has a VM
        links = self._machine.links
        kind = state.Paused if self.processes.are_paused else state.Running
        return kind(
            started_at=self.processes.started_at,
            vm_pid=self._vm.pid,
            accelerator=self._plan.accelerator.value,
            ip=links.leases[0].ip if links.leases else "",
            networks=tuple(asdict(lease) for lease in links.leases),
            ports=tuple(asdict(port) for port in links.ports),
            network_lost=self._network_lost,
            files_lost=self._machine.sharing.lost(),
            restart_count=restart_count,
            health=self._health,
        )

    def _explain(self, error: WoodlotError) -> WoodlotError:
        """The error, with the container's name; if the agent never answered, rather that the kernel is damaged."""
        from woodlot.kernel import catalog

        if isinstance(error, VmmError | GuestError) and not self._answered:
            try:
                catalog.check_image(self._paths, self._plan.kernel)
            except IntegrityError as damage:
                damage.details = error.message
                error = damage
        if isinstance(error, GuestError | IntegrityError):
            error.message = f"container {self._spec.name}: {error.message}"
        return error

    def _refuse(self, error: WoodlotError) -> None:
        log.warning("%s%s", error.message, f"\n{error.details}" if error.details else "")
        if not self.started.done():
            self.started.set_exception(error)
            self.started.exception()  # retrieved: nobody may be waiting
        self._file_calls.close(error)

    def _over(self) -> StateError:
        return StateError(f"container {self._spec.name} has ended")

    async def _live(self, vm: VirtualMachine, agent: "Agent") -> "End":
        """Race the container's life against the VM's death and against being abandoned.

        Raises:
            WoodlotError: The container's process never ran.
        """
        life = asyncio.create_task(self._life(vm, agent))
        death = asyncio.create_task(vm.wait())
        abandoned = asyncio.create_task(self._abandoned.wait())
        watching = asyncio.create_task(self._watch_networks(vm))
        try:
            await asyncio.wait((life, death, abandoned), return_when=asyncio.FIRST_COMPLETED)
            if life.done() and not isinstance(life.exception(), GuestError):
                return life.result()
            if abandoned.done() and not death.done():
                raise StateError(f"container {self._spec.name} was stopped before it ran")
            # The agent's connection breaks a moment before the VM's end is known.
            await asyncio.wait((death,), timeout=_KILL_TIMEOUT_S)
            if death.done():
                return self._vm_died(death.result())
            return life.result()
        finally:
            for task in (life, death, abandoned, watching):
                task.cancel()
            await asyncio.gather(life, death, abandoned, watching, return_exceptions=True)

    async def _watch_networks(self, vm: VirtualMachine) -> None:
        """Record that a network is gone; the container goes on, for what it does may not need it."""
        reason = await self._machine.links.lost()
        # When the VM ends, its connection does, too, and the first is known later.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_TIMEOUT_S):
                await vm.wait()
                return
        log.error("%s; it comes back when the container is started again", reason)
        self._network_lost = reason
        if self.processes.are_running:
            self._on_change()

    def _lost_files(self) -> None:
        if self.processes.are_running:
            self._on_change()

    def _vm_died(self, vm_exit: VmExit) -> "End":
        from woodlot.container.session import End

        reason = f"the virtual machine ended: {vm_exit.reason}"
        if self.processes.first is None:
            raise VmmError(
                f"container {self._spec.name}: {reason}",
                details=last_words(self._console),
                hint=f"a kernel that cannot run the agent does this; {_BOOT_HINT}",
            )
        return End(code=state.KILLED_EXIT_CODE, reason=self._machine.sharing.lost() or reason)

    async def _life(self, vm: VirtualMachine, agent: "Agent") -> "End":
        from woodlot.container.session import end_of

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(traced(agent, self.started))
            await self._prepare(agent)
            self.processes.open(agent)
            await stack.enter_async_context(
                self._machine.sharing.watch(agent, lost=self._lost_files, stuck=vm.kill)
            )
            self._file_calls.open(agent)
            if self._visit:
                return await self._be_visited(agent)
            await stack.enter_async_context(self._relays.carry(agent, self.started))
            with trace.span("wait until it is wanted"):
                rows, columns = await self._wanted
            request = requests.process_request(self._spec.process, rows, columns)
            async with agent.run(request, first=True) as process:
                self.processes.first = process
                self.started.add_done_callback(self._process_started)
                try:
                    with trace.span("process"):
                        async with self._watched_health():
                            exited = await self.session.pump(process, self.started)
                except (ExecutionError, GuestError):
                    if not self.started.done():
                        self.processes.first = None
                    raise
            self.processes.over.set()
            log.info("process ended with %d", exited.code)
            self._file_calls.close(self._over())
            await self.session.finish()
            # What is thrown away need not be whole; what outlives the container must be.
            if not self._is_thrown_away:
                try:
                    with trace.span("shut the guest down"):
                        await agent.shutdown(timeout_s=_SHUTDOWN_TIMEOUT_S)
                except GuestError as error:
                    log.warning("the guest was not shut down in order: %s", error.message)
            return replace(end_of(exited), reason=self._lost_writes())

    @asynccontextmanager
    async def _watched_health(self) -> AsyncGenerator[None]:
        """During the block, from when the process runs, see whether it is well."""

        async def watch(spec: HealthSpec) -> None:
            await asyncio.shield(self.started)
            await health.watch(
                spec, self.processes.join, self._tell_health, ready=self.processes.going
            )

        watching = asyncio.create_task(watch(self._spec.health)) if self._spec.health else None
        try:
            yield
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    def _tell_health(self, found: state.Health) -> None:
        changed = self._health is None or found.status != self._health.status
        self._health = found
        if changed:
            log.info("the container is %s", found.status)
            tell(self._store, self._spec, f"health_status: {found.status}")
        self._on_change()

    async def _be_visited(self, agent: "Agent") -> "End":
        """Let clients have the files until the launcher leaves; then all that was written reaches the disks."""
        from woodlot.container.session import End

        await self._visit_over.wait()
        self._file_calls.close(self._over())
        await agent.shutdown(timeout_s=_SHUTDOWN_TIMEOUT_S)
        return End(code=0)

    def _lost_writes(self) -> str:
        """Said beside the process's own status: inside the guest it was an error that does not tell the cause."""
        if self._vm is None or not self._vm.disk_full:
            return "; ".join(filter(None, (self._network_lost, self._machine.sharing.lost())))
        return f"the host's disk is full and what it wrote was lost; free some space at {self._paths.data}"

    async def _prepare(self, agent: "Agent") -> None:
        try:
            hello = await self._machine.hello(agent)
        except GuestError as error:
            error.details = last_words(self._console)
            error.hint = error.hint or f"raise vm.boot_timeout if this host is slow; {_BOOT_HINT}"
            raise
        self._answered = True
        log.info("agent %s, kernel %s", hello.agent_version, hello.kernel_release)
        with trace.span("configure the guest"):
            await agent.configure(self._configure_request(), timeout_s=_SETUP_TIMEOUT_S)
        try:
            timeout_s = _FILL_TIMEOUT_S if self._machine.sharing.fills else _SETUP_TIMEOUT_S
            with trace.span("set up the container"):
                await self._machine.sharing.guard(
                    agent.create_container(self._create_request(), timeout_s=timeout_s)
                )
            await self._machine.sharing.filled()
        except GuestError as error:
            error.details = last_words(self._console)
            if f'disk "{IMAGE_SERIAL}"' in error.message:
                # Pulling alone would not look at a file that is there; a file that is missing is made again.
                error.hint = (
                    f"have the root filesystem made again: rm -f {shlex.quote(self._spec.rootfs)}"
                )
            raise
        log.info("root filesystem and network are set up")

    def _process_started(self, started: "asyncio.Future[None]") -> None:
        if started.cancelled() or started.exception() is not None:
            return
        self.processes.started_at = time.time()
        log.info("process runs")
        self._on_change()
        tell(self._store, self._spec, "start")

    def _configure_request(self) -> "agent_pb2.ConfigureRequest":
        return requests.configure_request(
            self._machine.links.interface_requests(restored=self._machine.restored)
        )

    def _create_request(self) -> "agent_pb2.CreateContainerRequest":
        sharing = self._machine.sharing
        return requests.create_request(
            self._spec,
            mounts=sharing.requests(self._relays.requests()),
            etc_files={
                name: text
                for name, text in self._machine.links.etc_files().items()
                # A file of the user's own comes first.
                if not sharing.hides(f"/etc/{name}")
            },
        )


def _without_world(spec: ContainerSpec) -> ContainerSpec:
    """The container with its files alone: no networks, and no sockets of the host's."""
    return replace(
        spec,
        networks=(),
        ports=(),
        sockets=(),
        ssh=False,
        mounts=tuple(mount for mount in spec.mounts if mount.type != "socket"),
    )


def exit_code(error: WoodlotError) -> int:
    """The exit status that tells of ``error``, as Docker's: 127 not found, 126 not executable, 125 ours."""
    if isinstance(error, ExecutionError):
        return 126 if error.code is ErrorCode.NOT_EXECUTABLE else 127
    return 125
