"""A process that keeps a machine for a container that is yet to come, and then is that container's supervisor.

    machine warmed up → wait at p.sock ─┬─ a start: take over lock, lifeline, environment and log; be the supervisor
                                        └─ told to leave, nobody came, or the machine died: leave

Who connects hears when it is their turn, says what is wanted, and hears that it is done: so of two who come at once one is
refused and turns elsewhere, and nobody hands a container to a member that is stuck.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from woodlot import settings
from woodlot.container import pool
from woodlot.container.boot import MachinePlan
from woodlot.container.launch import detach, redirect
from woodlot.container.lifeline import Lifeline
from woodlot.container.shape import Shape
from woodlot.container.supervisor import keep_log, lead
from woodlot.container.warm import warmed_up
from woodlot.errors import WoodlotError
from woodlot.paths import Paths
from woodlot.store.locks import hold
from woodlot.values import dataclass
from woodlot.vmm.base import VirtualMachine

log = logging.getLogger(__name__)

_BACKLOG = 16
_CALLER_S = 2.0
_MAX_FDS = 2
_MAX_MESSAGE_BYTES = 4 << 20
_UCRED = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user, group
# What a supervisor loads on its way, which nobody has to wait for here.
_LOADED = (
    "woodlot.container.file_calls",
    "woodlot.container.file_service",
    "woodlot.container.logs",
    "woodlot.container.service",
    "woodlot.container.session",
    "woodlot.network.egress",
    "woodlot.network.switch",
    "woodlot.rootfs.upper",
    "woodlot._pb.supervisor.v1.supervisor_pb2_grpc",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What somebody who started a container has handed over."""

    container_id: str
    plan: MachinePlan
    environment: Mapping[str, str]
    lock: int
    lifeline: int


async def live(paths: Paths, name: str, plan: MachinePlan, shape: Shape, lock: int) -> None:
    """Be a member of the pool, and what becomes of it.

    Args:
        paths: The installation.
        name: Of the member.
        plan: What the VMs of the containers that it is for are started with.
        shape: Of those VMs.
        lock: Held as long as it is a member.
    """
    directory, sockets = paths.pool / name, paths.pool_sockets(name)
    async with contextlib.AsyncExitStack() as member:
        member.callback(os.close, lock)
        member.callback(pool.remove, paths, name)
        sockets.mkdir(mode=0o700)
        # One after the other, so that whoever runs something meanwhile has a processor left.
        turn = await member.enter_async_context(contextlib.AsyncExitStack())
        await turn.enter_async_context(hold(paths.pool / "warming"))
        async with warmed_up(paths, plan, shape, directory, sockets) as warm:
            for module in _LOADED:
                importlib.import_module(module)
            await turn.aclose()
            with _listening(sockets / "p.sock") as listener:
                if not pool.announce(directory, pid=os.getpid(), vm_pid=warm.vm.pid):
                    return
                call = await _wait(listener, warm.vm)
            if call is None:
                return
            lifeline = Lifeline(socket.socket(fileno=call.lifeline))
            try:
                _become_supervisor(paths.container(call.container_id), directory, call)
            except OSError as error:
                lifeline.fail(WoodlotError(f"a machine that waited could not be taken: {error}"))
                raise
            # Another one can come in its place.
            await member.aclose()
            await lead(paths, call.container_id, call.plan, lifeline, warm=warm)


@contextlib.contextmanager
def _listening(path: Path) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(os.fspath(path))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003
        yield listener


async def _wait(listener: socket.socket, vm: VirtualMachine) -> Call | None:
    """Return when somebody wants the machine, or with None when it is time to leave."""
    loop = asyncio.get_running_loop()
    called: asyncio.Future[Call | None] = loop.create_future()

    def leave() -> None:
        if not called.done():
            called.set_result(None)

    def answer() -> None:
        try:
            connection, _ = listener.accept()
            # There is nothing else to do meanwhile.
            with connection:
                connection.settimeout(_CALLER_S)
                call = _hear(connection)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("somebody who connected was refused: %r", error)
        else:
            if not called.done():
                called.set_result(call)
                loop.remove_reader(listener)

    loop.add_signal_handler(signal.SIGTERM, leave)
    loop.add_reader(listener, answer)
    ended = asyncio.create_task(vm.wait())
    idle = loop.call_later(settings.get_float("vm.pool_idle") * 60, leave)
    try:
        await asyncio.wait((called, ended), return_when=asyncio.FIRST_COMPLETED)
        return called.result() if called.done() else None
    finally:
        idle.cancel()
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
        loop.remove_reader(listener)
        loop.remove_signal_handler(signal.SIGTERM)


def _hear(connection: socket.socket) -> Call | None:
    """What the caller wants, which it then knows that we do; None to leave.

    Raises:
        OSError: It is gone, too slow, or not of our user.
        ValueError: It speaks nonsense; KeyError and TypeError, too.
    """
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    if _UCRED.unpack(peer)[1] != os.geteuid():
        raise PermissionError("it is another user's")
    connection.sendall(pool.READY)
    header, fds, _, _ = socket.recv_fds(connection, pool.HEADER.size, _MAX_FDS)
    try:
        (size,) = pool.HEADER.unpack(header) if len(header) == pool.HEADER.size else (0,)
        with connection.makefile("rb") as stream:
            # What is too long is cut, and no JSON then.
            message: dict[str, Any] = json.loads(stream.read(min(size, _MAX_MESSAGE_BYTES)))
        if message.get("leave"):
            call = None
        else:
            lock, lifeline = fds
            call = Call(
                container_id=message["id"],
                plan=MachinePlan.from_json(message["plan"]),
                environment=message["environment"],
                lock=lock,
                lifeline=lifeline,
            )
        connection.sendall(pool.TAKEN)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return call


def _become_supervisor(container: Path, directory: Path, call: Call) -> None:
    """Have the log, the settings and the environment of a container's, and the machine's logs in its directory."""
    redirect(container / "supervisor.log")
    os.environ.clear()
    os.environ.update(call.environment)
    settings.reread()
    # Not for what we start to inherit: it must not keep the lock.
    os.set_inheritable(call.lock, False)  # noqa: FBT003
    for name in ("console.log", "vmm.log"):
        # QEMU has them open, and goes on writing there.
        (directory / name).replace(container / name)


def main() -> None:
    """What `pool.fill` runs: detach, then be a member."""
    fields: dict[str, Any] = json.loads(sys.argv[1])
    if os.fork():
        os._exit(0)
    paths = Paths(data=Path(fields["data"]), runtime=Path(fields["runtime"]))
    lock = fields["lock"]
    detach(paths.pool / "log", {lock})
    keep_log()
    os.set_inheritable(lock, False)  # noqa: FBT003
    # As for every supervisor; see `launch`.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    try:
        asyncio.run(
            live(
                paths,
                fields["name"],
                MachinePlan.from_json(fields["plan"]),
                Shape(**fields["shape"]),
                lock,
            )
        )
    except WoodlotError as error:
        log.warning("no machine waits: %s\n%s", error.message, error.details or "")
        sys.exit(1)


if __name__ == "__main__":
    main()
