"""The process that stands behind one container: it leads the container's lives, keeps its record and answers its clients.

It lives from `container run` until the container has ended and is not to be started again. Its life in order:

    start a `Life` → its VM runs: serve the socket, tell the launcher → it ends: write the record, answer the clients →
    (by the restart policy: wait, then the next `Life`) → leave

For the files of a container that is stopped it lives, too, as a visit, until its launcher leaves; the record says
"stopped" all the while, and stays as it is.

The container's lock is held throughout, so "does its supervisor live?" is a question to the kernel. Killing it with
SIGKILL takes the VM with it (parent-death signal); the next command finds the lock free and mends the record.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from woodlot import trace
from woodlot.container import lifecycle, options, pool, requests, restart, state
from woodlot.container.boot import MachinePlan
from woodlot.container.events import tell
from woodlot.container.life import Life
from woodlot.container.lifeline import Lifeline
from woodlot.container.spec import ContainerSpec
from woodlot.errors import LimitError, StateError, WoodlotError
from woodlot.paths import Paths
from woodlot.store.store import Store
from woodlot.units import MIB

if TYPE_CHECKING:
    from woodlot.container.session import End
    from woodlot.container.update import Update
    from woodlot.container.warm import WarmMachine

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
_LAST_ANSWERS_S = 5.0
_UPDATE_TIMEOUT_S = 10.0


class Supervisor:
    """One container's supervisor; made and run by `supervise`."""

    def __init__(
        self,
        paths: Paths,
        store: Store,
        spec: ContainerSpec,
        plan: MachinePlan,
        lifeline: Lifeline,
        *,
        visit: bool = False,
        warm: "WarmMachine | None" = None,
    ) -> None:
        """Make ready for the container's lives.

        Args:
            paths: The installation.
            store: Its store.
            spec: The container.
            plan: What its VM is started with.
            lifeline: To the launcher.
            visit: Only for its files.
            warm: What its first life is to go on with.
        """
        from woodlot.container.file_calls import FileCalls

        self._paths = paths
        self._store = store
        self._spec = spec
        self._plan = plan
        self._lifeline = lifeline
        self._visit = visit
        self._file_calls = FileCalls()
        self.life = self._make_life(warm)
        """The life that is led, or between two of them the next."""
        self._owned = False
        self._stop_asked = asyncio.Event()
        self._by_user = False
        self._restart_count = 0
        self._over: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._leaving: asyncio.Task[End] | None = None

    def _make_life(self, warm: "WarmMachine | None" = None) -> Life:
        return Life(
            self._paths,
            self._store,
            self._spec,
            self._plan,
            self._file_calls,
            visit=self._visit,
            warm=warm,
        )

    # What clients ask for.

    async def start_process(self, *, owned: bool, rows: int = 0, columns: int = 0) -> None:
        """Start the process unless it runs already, and return when it does.

        Args:
            owned: The container ends when the client that asks here leaves; not if it is to be restarted.
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
        self._owned = self._owned or (owned and self._spec.restart.name == "no")
        self.life.want_process(rows, columns)
        await asyncio.shield(self.life.started)

    async def signal(self, number: int, *, exec_id: str) -> None:
        """Send a signal to a process; the container's own is not started again after one that means to stop it.

        Raises:
            StateError: The process does not run.
        """
        stops = (signal.SIGKILL.value, options.parse_signal(self._spec.stop_signal))
        process = self.life.processes.find(exec_id)
        if not exec_id and number in stops:
            self._by_user = True
            self._stop_asked.set()
        await process.signal(number)
        if not exec_id:
            self._tell("kill", signal=str(number))

    async def update(self, wanted: "Update") -> None:
        """Change limits and policy, at once and for the next starts.

        Raises:
            LimitError: The virtual machine has less.
            StateError: It does not run.
        """
        spec = wanted.apply(self._spec)
        agent = self.life.processes.agent
        wanted.check_fits(self.life.machine)
        resources = requests.resources(spec)
        await agent.update(resources, timeout_s=_UPDATE_TIMEOUT_S)
        self._store.containers.change_spec(spec.id, wanted.changes())
        self._spec = wanted.apply(self._spec)

    async def stop(
        self, *, signal_number: int = 0, grace_s: float = STOP_GRACE_S, by_user: bool = True
    ) -> "End":
        """Signal, wait, SIGKILL, and the plug at last; return when the VM is gone, and stays so.

        Args:
            signal_number: 0 for the container's own stop signal.
            grace_s: Seconds between the signal and SIGKILL.
            by_user: The container's user wants it stopped, also when the host has come up again.
        """
        self._by_user = self._by_user or by_user
        self._stop_asked.set()
        await self.life.stop(signal_number=signal_number, grace_s=grace_s)
        end = await asyncio.shield(self._over)
        self._tell("stop")
        return end

    def owner_left(self) -> None:
        """The client that the container belongs to, if it does to one, is gone."""
        if self._owned and self._spec.restart.name == "no":
            log.info("the owning client is gone")
            self._leave()

    def _leave(self) -> None:
        """The container shall end, and nobody has asked for that who would be told."""
        if self._leaving is None and not self._over.done():
            log.info("stopping the container")
            self._leaving = asyncio.create_task(self.stop(by_user=False))

    # Its lives.

    async def run(self) -> None:
        """Everything, from the first start to the last answer."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._leave)
        back_off = restart.BackOff()
        async with AsyncExitStack() as serving:

            async def up() -> None:
                if not self._restart_count:
                    with trace.span("serve clients"):
                        await serving.enter_async_context(self._serve())
                    self._lifeline.ready()
                    self._lifeline.on_close(self._launcher_left)

            while True:
                life = self.life
                async with life.lived(up=up, on_change=self._write_running) as end:
                    if error := life.started.exception() if life.started.done() else None:
                        self._lifeline.fail(cast("WoodlotError", error))
                    ran_s = (
                        time.time() - life.processes.started_at
                        if life.processes.started_at
                        else 0.0
                    )
                    if life.processes.started_at:
                        if end.oom_killed:
                            self._tell("oom")
                        self._tell("die", exitCode=str(end.code), reason=end.reason)
                    again = self._is_to_restart(end)
                    if again:
                        self._record_restarting(end, life)
                        self._restart_count += 1
                        self.life = self._make_life()
                        self.life.want_process()
                        life.ended.set_result(end)
                    else:
                        await self._finish(end, life, serving)
                if not again:
                    return
                delay_s = back_off.after(ran_s)
                log.info("starting again in %.1f s, for the %d. time", delay_s, self._restart_count)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._stop_asked.wait()
                if self._stop_asked.is_set():
                    await self.life.session.finish()
                    await self._finish(
                        end, self.life, serving, started_at=life.processes.started_at
                    )
                    return

    def _is_to_restart(self, end: "End") -> bool:
        """Not what never ran: whoever asked has been told why."""
        return (
            not self._visit
            and not self._stop_asked.is_set()
            and (self.life.processes.started_at > 0 or self._restart_count > 0)
            and restart.restarts(self._spec.restart, exit_code=end.code, count=self._restart_count)
        )

    async def _finish(
        self, end: "End", life: Life, serving: AsyncExitStack, *, started_at: float = 0.0
    ) -> None:
        """Record the end, answer everybody, and serve no more."""
        with trace.span("record the end"):
            self._record(end, started_at or life.processes.started_at)
        if not life.started.done():
            life.started.set_exception(StateError(f"container {self._spec.name} was stopped"))
            life.started.exception()  # retrieved: nobody may be waiting
        life.ended.set_result(end)
        self._over.set_result(end)
        # Closing the server lets the answers out first.
        await serving.aclose()
        shutil.rmtree(self._paths.sockets(self._spec.id), ignore_errors=True)

    @asynccontextmanager
    async def _serve(self) -> AsyncGenerator[None]:
        import grpc.aio

        from woodlot._pb.supervisor.v1 import supervisor_pb2_grpc
        from woodlot.container.file_service import build_handler
        from woodlot.container.service import Service

        # Any: the generated code carries no types.
        register: Any = cast("Any", supervisor_pb2_grpc).add_SupervisorServicer_to_server
        server: Any = cast("Any", grpc.aio).server(
            options=[("grpc.max_receive_message_length", 1 * MIB)]
        )
        register(Service(self), server)
        server.add_generic_rpc_handlers((build_handler(self._file_calls),))
        sockets = self._paths.sockets(self._spec.id)
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        server.add_insecure_port(f"unix:{sockets / 's.sock'}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(_LAST_ANSWERS_S)

    def _launcher_left(self) -> None:
        if self.life.started.done():
            self.owner_left()
        if not self._restart_count:
            self.life.launcher_left()

    # The record.

    def _tell(self, action: str, **attributes: str) -> None:
        if not self._visit:
            tell(self._store, self._spec, action, **attributes)

    def _write_running(self) -> None:
        self._write_state(self.life.describe(restart_count=self._restart_count))

    def _record_restarting(self, end: "End", life: Life) -> None:
        self._write_state(
            state.Restarting(
                exit_code=end.code,
                started_at=life.processes.started_at,
                finished_at=time.time(),
                oom_killed=end.oom_killed,
                reason=end.reason,
                restart_count=self._restart_count + 1,
            )
        )

    def _record(self, end: "End", started_at: float) -> None:
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
                started_at=started_at,
                finished_at=time.time(),
                oom_killed=end.oom_killed,
                reason=end.reason,
                restart_count=self._restart_count,
                by_user=self._by_user,
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
    # With `--debug`, the command that forked us has set a level already.
    keep_log(level=min(logging.INFO, logging.root.level))
    asyncio.run(lead(paths, container_id, plan, lifeline, visit=visit))


def keep_log(*, level: int = logging.INFO) -> None:
    """Log to where our errors go."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )


async def lead(
    paths: Paths,
    container_id: str,
    plan: MachinePlan,
    lifeline: Lifeline,
    *,
    visit: bool = False,
    warm: "WarmMachine | None" = None,
) -> None:
    """As `supervise`, in an event loop that runs; a failure of ours ends the process.

    Args:
        paths: The installation.
        container_id: The container.
        plan: What its VM is started with.
        lifeline: To the launcher.
        visit: Only for its files.
        warm: A machine that waited, for its first life.
    """
    try:
        with trace.process("supervisor"):
            store = Store(paths)
            spec = ContainerSpec.from_json(store.containers.get(container_id).spec)
            supervisor = Supervisor(paths, store, spec, plan, lifeline, visit=visit, warm=warm)
            async with pool.filled_after(paths, plan, spec, supervisor.life.started):
                await supervisor.run()
    except Exception as error:  # the log is the only place left to say it
        log.exception("the supervisor failed")
        lifeline.fail(
            error
            if isinstance(error, WoodlotError)
            else WoodlotError(f"the supervisor failed: {error}")
        )
        os._exit(1)
