"""The process that stands behind one container: it owns the VM, the agent's connection, the log and the record.

It lives from `container run` until the container has ended, and answers clients on its socket. Its life in order:

    open its sockets, start the machine (networks, disk, VM) → serve the socket, tell the launcher → agent answers → configure guest,
    mount root filesystem → (a client asks) start the process → carry output → process ends → shut the guest down →
    end the VM → write the record → answer the clients → leave

For the files of a container that is stopped it lives, too, as a visit: without network and process, until its launcher
leaves; the record says "stopped" all the while, and stays as it is.

The container's lock is held throughout, so "does its supervisor live?" is a question to the kernel. Killing it with
SIGKILL takes the VM with it (parent-death signal); the next command finds the lock free and mends the record.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import signal
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

from woodlot import settings
from woodlot.container import lifecycle, options, state
from woodlot.container.boot import MachinePlan
from woodlot.container.lifeline import Lifeline
from woodlot.container.machine import IMAGE_SERIAL, UPPER_SERIAL, Machine
from woodlot.container.relays import Relays
from woodlot.container.spec import ContainerSpec, ExecSpec, ProcessSpec
from woodlot.errors import (
    ErrorCode,
    ExecutionError,
    GuestError,
    IntegrityError,
    LimitError,
    StateError,
    VmmError,
    WoodlotError,
)
from woodlot.paths import Paths
from woodlot.process import last_words
from woodlot.store.store import Store
from woodlot.units import MIB
from woodlot.vmm.base import VirtualMachine, VmExit

if TYPE_CHECKING:
    from woodlot._pb.agent.v1 import agent_pb2
    from woodlot.container.session import End
    from woodlot.guest.client import Agent, Process

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
_SETUP_TIMEOUT_S = 30.0
# An image may have gigabytes where a volume is mounted, and the guest may be emulated.
_FILL_TIMEOUT_S = 3600.0
_SHUTDOWN_TIMEOUT_S = 10.0
_KILL_TIMEOUT_S = 2.0
_LAST_ANSWERS_S = 5.0
_ENTROPY_BYTES = 64
_BOOT_HINT = "`--kernel-arg loglevel=7` shows how far the kernel comes"


class Supervisor:
    """One container's life; made and run by `supervise`."""

    def __init__(
        self,
        paths: Paths,
        store: Store,
        spec: ContainerSpec,
        plan: MachinePlan,
        lifeline: Lifeline,
        *,
        visit: bool = False,
    ) -> None:
        from woodlot.container.file_calls import FileCalls
        from woodlot.container.logs import LogWriter
        from woodlot.container.session import Session

        self._paths = paths
        self._store = store
        self._spec = _without_world(spec) if visit else spec
        self._plan = plan
        self._lifeline = lifeline
        self._directory = paths.container(spec.id)
        self._visit = visit
        # A visit's is not the last start's, which its user may want to read.
        self._console = self._directory / ("visit.log" if visit else "console.log")
        self._machine = Machine(paths, store, self._spec, plan, console_log=self._console)
        self._network_lost = ""
        # Those of the client that starts it: a fork or `launch` hands its variables on.
        self._relays = Relays(paths, self._spec, os.environ)
        self.session: Session = Session(
            LogWriter(self._directory / "stdio.log", max_bytes=settings.get_int("log.max_size"))
        )
        loop = asyncio.get_running_loop()
        self._wanted: asyncio.Future[tuple[int, int]] = loop.create_future()
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[End] = loop.create_future()
        self._process_over = asyncio.Event()
        self._visit_over = asyncio.Event()
        self._abandoned = asyncio.Event()
        self.file_calls: FileCalls = FileCalls()
        self._owned = False
        self._answered = False
        self._started_at = 0.0
        self._process: Process | None = None
        self._execs: dict[str, Process] = {}
        self._detached: set[asyncio.Task[None]] = set()
        self._agent: Agent | None = None
        self._vm: VirtualMachine | None = None
        self._stopping: asyncio.Task[End] | None = None

    # What clients ask for.

    @property
    def process(self) -> "Process":
        """The container's process, to send things to.

        Raises:
            StateError: It does not run.
        """
        if self._process is None or self._process_over.is_set():
            raise StateError(f"container {self._spec.name} is not running")
        return self._process

    def find_process(self, exec_id: str) -> "Process":
        """A process to send things to: one that `exec` runs, or the container's own.

        Raises:
            StateError: It does not run.
        """
        if not exec_id:
            return self.process
        if exec_id not in self._execs:
            raise StateError(f"container {self._spec.name} runs no process {exec_id} any more")
        return self._execs[exec_id]

    async def start_process(self, *, owned: bool, rows: int = 0, columns: int = 0) -> None:
        """Start the process unless it runs already, and return when it does.

        Args:
            owned: The container ends when the client that asks here leaves.
            rows: Height of the client's terminal; 0 if it has none.
            columns: Width of it.

        Raises:
            WoodlotError: Why it could not be started.
        """
        if self._visit:
            raise StateError(
                f"files of container {self._spec.name} are being copied",
                hint="start it when that is done",
            )
        self._owned = self._owned or owned
        if not self._wanted.done():
            self._wanted.set_result((rows, columns))
        await asyncio.shield(self._started)

    @asynccontextmanager
    async def exec(
        self, spec: ExecSpec, *, rows: int = 0, columns: int = 0
    ) -> "AsyncGenerator[Process]":
        """Run one more process in the container, for the life of the block.

        Args:
            spec: The process.
            rows: Height of the client's terminal; 0 if it has none.
            columns: Width of it.

        Raises:
            StateError: The container does not run, or the process's id is taken.
        """
        if self._agent is None or not self._started.done() or self._process_over.is_set():
            raise StateError(f"container {self._spec.name} is not running")
        if spec.id in self._execs:
            raise StateError(f"container {self._spec.name} runs a process {spec.id} already")
        async with self._agent.run(self._exec_request(spec, rows, columns), first=False) as process:
            self._execs[spec.id] = process
            try:
                yield process
            finally:
                del self._execs[spec.id]

    async def exec_detached(self, spec: ExecSpec) -> None:
        """Run one more process and return when it runs; nobody sees its output.

        Raises:
            WoodlotError: Why it does not run.
        """
        from woodlot.guest.client import Started

        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                async with self.exec(spec) as process:
                    async for event in process.events():
                        if isinstance(event, Started):
                            started.set_result(None)
            except WoodlotError as error:
                if started.done():
                    log.warning("a detached process: %s", error.message)
                else:
                    started.set_exception(error)

        task = asyncio.create_task(run())
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        await started

    async def ended(self) -> "End":
        """How the container ended, once it has."""
        return await asyncio.shield(self._ended)

    async def stop(self, *, signal_number: int = 0, grace_s: float = STOP_GRACE_S) -> "End":
        """Signal, wait, SIGKILL, and the plug at last; return when the VM is gone."""
        # Its processes stand still meanwhile, and would not see the signal.
        self.file_calls.cancel(
            "Export", StateError(f"container {self._spec.name} is being stopped")
        )
        number = signal_number or options.parse_signal(self._spec.stop_signal)
        if self._process is None:
            self._abandoned.set()
            return await self.ended()
        for signal_now, wait_s in ((number, grace_s), (signal.SIGKILL.value, _KILL_TIMEOUT_S)):
            with contextlib.suppress(WoodlotError, TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.process.signal(signal_now)
                    await self._process_over.wait()
            if self._process_over.is_set():
                return await self.ended()
        log.warning("the process survived SIGKILL; pulling the plug")
        assert self._vm is not None  # noqa: S101 - a process has a VM
        self._vm.kill()
        return await self.ended()

    def owner_left(self) -> None:
        """The client that the container belongs to is gone."""
        if self._stopping is None and not self._ended.done():
            log.info("the owning client is gone: stopping the container")
            self._stopping = asyncio.create_task(self.stop())

    # The life.

    async def run(self) -> None:
        """Everything, from the disk to the last answer."""
        from woodlot.container.session import End

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.owner_left)
        async with AsyncExitStack() as stack:
            try:
                stack.enter_context(self._relays.open())
                vm, agent = await stack.enter_async_context(self._machine.start())
                self._vm = vm
                await stack.enter_async_context(self._serve())
                log.info("virtual machine started, process %d", vm.pid)
                self._lifeline.ready()
                self._lifeline.on_close(self._launcher_left)
                end = await self._live(vm, agent)
            except WoodlotError as error:
                explained = self._explain(error)
                end = End(code=exit_code(explained), reason=explained.message)
                self._refuse(explained)
            self.file_calls.close(self._over())
            await self.session.finish()
            self._process_over.set()
            if self._vm is not None:
                self._vm.kill()
                await self._vm.wait()
            self._relays.close()
            self._record(end)
            self._ended.set_result(end)
            # Leaving the stack stops the server, which lets the answers out first.

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
        if not self._started.done():
            self._started.set_exception(error)
            self._started.exception()  # retrieved: nobody may be waiting
        self._lifeline.fail(error)
        self.file_calls.close(error)

    def _over(self) -> StateError:
        return StateError(f"container {self._spec.name} has ended")

    @asynccontextmanager
    async def _serve(self) -> AsyncGenerator[None]:
        import grpc.aio

        from woodlot._pb.supervisor.v1 import supervisor_pb2_grpc
        from woodlot.container.service import Service

        # Any: the generated code carries no types.
        register: Any = cast("Any", supervisor_pb2_grpc).add_SupervisorServicer_to_server
        server: Any = cast("Any", grpc.aio).server(
            options=[("grpc.max_receive_message_length", 1 * MIB)]
        )
        register(Service(self), server)
        server.add_generic_rpc_handlers((self.file_calls.handler(),))
        server.add_insecure_port(f"unix:{self._paths.sockets(self._spec.id) / 's.sock'}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(_LAST_ANSWERS_S)

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
        if self._started.done() and not self._process_over.is_set():
            self._write_running()

    def _vm_died(self, vm_exit: VmExit) -> "End":
        from woodlot.container.session import End

        reason = f"the virtual machine ended: {vm_exit.reason}"
        if self._process is None:
            raise VmmError(
                f"container {self._spec.name}: {reason}",
                details=last_words(self._console),
                hint=f"a kernel that cannot run the agent does this; {_BOOT_HINT}",
            )
        return End(code=state.KILLED_EXIT_CODE, reason=self._machine.sharing.lost() or reason)

    def _write_running(self) -> None:
        assert self._vm is not None  # noqa: S101 - a process has a VM
        leases = self._machine.links.leases
        self._write_state(
            state.Running(
                started_at=self._started_at,
                vm_pid=self._vm.pid,
                accelerator=self._plan.accelerator.value,
                ip=leases[0].ip if leases else "",
                networks=tuple(asdict(lease) for lease in leases),
                ports=tuple(asdict(port) for port in self._machine.links.ports),
                network_lost=self._network_lost,
            )
        )

    async def _life(self, vm: VirtualMachine, agent: "Agent") -> "End":
        from woodlot.container.session import end_of

        async with AsyncExitStack() as stack:
            await self._prepare(agent)
            self._agent = agent
            await stack.enter_async_context(self._machine.sharing.watch(agent, vm.kill))
            self.file_calls.open(agent)
            if self._visit:
                return await self._be_visited(agent)
            await stack.enter_async_context(self._relays.carry(agent, self._started))
            rows, columns = await self._wanted
            async with agent.run(self._process_request(rows, columns), first=True) as process:
                self._process = process
                self._started.add_done_callback(self._process_started)
                try:
                    exited = await self.session.pump(process, self._started)
                except (ExecutionError, GuestError):
                    if not self._started.done():
                        self._process = None
                    raise
            self._process_over.set()
            log.info("process ended with %d", exited.code)
            self.file_calls.close(self._over())
            await self.session.finish()
            # What is thrown away need not be whole; what outlives the container must be.
            if not self._spec.remove or self._spec.mounts:
                try:
                    await agent.shutdown(timeout_s=_SHUTDOWN_TIMEOUT_S)
                except GuestError as error:
                    log.warning("the guest was not shut down in order: %s", error.message)
            return replace(end_of(exited), reason=self._lost_writes())

    async def _be_visited(self, agent: "Agent") -> "End":
        """Let clients have the files until the launcher leaves; then all that was written reaches the disks."""
        from woodlot.container.session import End

        await self._visit_over.wait()
        self.file_calls.close(self._over())
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
        await agent.configure(self._configure_request(), timeout_s=_SETUP_TIMEOUT_S)
        try:
            timeout_s = _FILL_TIMEOUT_S if self._machine.sharing.fills else _SETUP_TIMEOUT_S
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
        self._started_at = time.time()
        log.info("process runs")
        self._write_running()

    def _launcher_left(self) -> None:
        if self._visit and self._agent is not None:
            self._visit_over.set()
        elif not self._started.done():
            log.info("the launcher left before the process was started")
            self._abandoned.set()
        elif self._owned:
            self.owner_left()

    def _record(self, end: "End") -> None:
        if self._visit:
            return
        if self._spec.remove:
            # What a full disk leaves, the next command removes.
            with contextlib.suppress(LimitError):
                lifecycle.erase(self._store, self._spec.id)
            return
        self._write_state(
            state.Stopped(
                exit_code=end.code,
                started_at=self._started_at,
                finished_at=time.time(),
                oom_killed=end.oom_killed,
                reason=end.reason,
            )
        )

    def _write_state(self, new: state.State) -> None:
        """Record it; on a full disk the container goes on without, and its clients still hear how it ended."""
        written = state.to_json(new)
        try:
            try:
                self._store.containers.update_state(self._spec.id, written)
            except LimitError:
                # Opened again, the database uses the room it has put aside.
                self._store.close()
                self._store.containers.update_state(self._spec.id, written)
        except LimitError as error:
            log.error("%s is not recorded: %s", state.label(new), error.message)  # noqa: TRY400 - no bug

    # What the guest is told.

    def _configure_request(self) -> "agent_pb2.ConfigureRequest":
        from woodlot._pb.agent.v1 import agent_pb2

        return agent_pb2.ConfigureRequest(
            time_unix_nanos=time.time_ns(),
            entropy=secrets.token_bytes(_ENTROPY_BYTES),
            interfaces=self._machine.links.interface_requests(restored=self._machine.restored),
        )

    def _create_request(self) -> "agent_pb2.CreateContainerRequest":
        from woodlot._pb.agent.v1 import agent_pb2

        spec = self._spec
        return agent_pb2.CreateContainerRequest(
            id=spec.id,
            hostname=spec.hostname,
            rootfs=agent_pb2.RootFilesystem(
                image_serial=IMAGE_SERIAL, upper_serial=UPPER_SERIAL, read_only=spec.read_only
            ),
            mounts=self._machine.sharing.requests(self._relays.requests()),
            resources=agent_pb2.Resources(
                cpu_millis=round(spec.cpus * 1000), memory_bytes=spec.memory_bytes
            ),
            masked_paths=MASKED_PATHS,
            readonly_paths=READONLY_PATHS,
            etc_files={
                name: text
                for name, text in self._machine.links.etc_files().items()
                # A file of the user's own comes first.
                if not self._machine.sharing.hides(f"/etc/{name}")
            },
            shm_bytes=spec.shm_bytes,
        )

    def _exec_request(self, spec: ExecSpec, rows: int, columns: int) -> "agent_pb2.Process":
        own = self._spec.process
        process = replace(
            own,
            args=spec.args,
            env=_overlay_env(own.env, ("TERM=xterm",) if spec.tty else (), spec.env),
            cwd=spec.cwd or own.cwd,
            user=spec.user or own.user,
            tty=spec.tty,
            stdin=spec.stdin,
            init=False,
        )
        return _encode_process(process, rows, columns)

    def _process_request(self, rows: int, columns: int) -> "agent_pb2.Process":
        return _encode_process(self._spec.process, rows, columns)


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


def _overlay_env(*layers: Iterable[str]) -> tuple[str, ...]:
    """``NAME=value`` of all layers, each name once, the last one wins."""
    variables = {text.partition("=")[0]: text for layer in layers for text in layer}
    return tuple(variables.values())


def _encode_process(process: ProcessSpec, rows: int, columns: int) -> "agent_pb2.Process":
    from woodlot._pb.agent.v1 import agent_pb2

    return agent_pb2.Process(
        args=process.args,
        env=process.env,
        cwd=process.cwd,
        user=process.user,
        tty=process.tty,
        window=agent_pb2.WindowSize(rows=rows, columns=columns),
        stdin=process.stdin,
        capabilities=process.capabilities,
        rlimits=[
            agent_pb2.Rlimit(type=limit.type, soft=limit.soft, hard=limit.hard)
            for limit in process.rlimits
        ],
        init=process.init,
    )


# OCI runtime-spec defaults as Docker sets them.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def exit_code(error: WoodlotError) -> int:
    """The exit status that tells of ``error``, as Docker's: 127 not found, 126 not executable, 125 ours."""
    if isinstance(error, ExecutionError):
        return 126 if error.code is ErrorCode.NOT_EXECUTABLE else 127
    return 125


def supervise(
    paths: Paths, container_id: str, plan: MachinePlan, lifeline: Lifeline, *, visit: bool = False
) -> None:
    """Be the supervisor of a container, from here to its end; the container's lock is already held.

    Args:
        paths: The installation.
        container_id: The container.
        plan: What its VM is started with.
        lifeline: To the launcher.
        visit: Only for its files, until the launcher leaves; its process is not started.
    """
    logging.basicConfig(
        # With `--debug`, the command that forked us has set a level already.
        level=min(logging.INFO, logging.root.level),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )

    async def main() -> None:
        store = Store(paths)
        record = store.containers.get(container_id)
        spec = ContainerSpec.from_json(record.spec)
        await Supervisor(paths, store, spec, plan, lifeline, visit=visit).run()

    try:
        asyncio.run(main())
    except Exception as error:  # the log is the only place left to say it
        log.exception("the supervisor failed")
        lifeline.fail(
            error
            if isinstance(error, WoodlotError)
            else WoodlotError(f"the supervisor failed: {error}")
        )
        os._exit(1)
