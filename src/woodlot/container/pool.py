"""Machines that wait for the next containers, so that a start is spared what needs no container.

    pool/lock                 held by who counts and starts them
    pool/log                  what went wrong with them
    pool/NAME/lock            held by a member, the process that keeps the machine, as long as it waits
    pool/NAME/member.json     what it waits for; without it, the member leaves
    pool/NAME/console.log …   become the container's
    runtime/pNAME12/p.sock    where it is taken; there once it waits

Nobody looks after them but those who come by: whoever used a shape has as many wait as the setting ``vm.pool`` says, once its
own container runs or is over. A member becomes the supervisor of the container that takes it (see member.py), so it is taken
once only; one that nobody takes leaves by itself.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from woodlot import process, settings, trace
from woodlot.container.boot import MachinePlan
from woodlot.container.shape import Shape, bare_spec, may_restore
from woodlot.container.spec import ContainerSpec
from woodlot.errors import NotFoundError
from woodlot.paths import Paths
from woodlot.store.locks import hold, hold_sync, open_lock, try_flock, unlock_and_close
from woodlot.template import shape as template_shape
from woodlot.values import dataclass
from woodlot.vmm.qemu import binary

if TYPE_CHECKING:
    from woodlot.store.store import Store

log = logging.getLogger(__name__)

# Said by a member: that it is the caller's, and that it has what it needs.
READY, TAKEN = b"r", b"t"
HEADER = struct.Struct("!I")
_ANSWER_S = 1.0
_TAKEN_S = 10.0
_MAX_LOG_BYTES = 1 << 20
# A container that runs for so long is not about to end, and its user does not wait any more.
_RUNS_ON_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A machine that waits, or is on its way to."""

    name: str
    template: str
    """Of the containers that can take it."""
    since: float
    """Seconds since 1970."""
    pid: int
    """Of the process that keeps it; 0 as long as it is not ready."""
    vm_pid: int
    directory: Path
    socket: Path

    @property
    def is_ready(self) -> bool:
        """Whether it can be taken."""
        return self.pid != 0


# For those who start containers.


def wanted_template(store: "Store", plan: MachinePlan, spec: ContainerSpec) -> str:
    """The id of the template whose members can become that container; empty if none can, or the pool is off.

    Raises:
        ConfigError: A setting is not valid.
    """
    if settings.get_int("vm.pool") <= 0 or not _fits(plan, spec):
        return ""
    from woodlot.network import network

    for wanted in spec.networks:
        try:
            if network.find(store, wanted.network).driver is network.Driver.BRIDGE:
                return ""
        except NotFoundError:
            return ""
    return _template_of(store.paths, plan, _shape_of(spec))


def take(
    paths: Paths, template: str, container_id: str, plan: MachinePlan, fds: Sequence[int]
) -> bool:
    """Have a member become a container's supervisor.

    Args:
        paths: The installation.
        template: See `wanted_template`.
        container_id: A container from `lifecycle.reserve`.
        plan: What its VM is started with.
        fds: The container's lock and the supervisor's end of the lifeline; still the caller's to close.

    Returns:
        Whether one has done so; if not, nothing has happened.
    """
    message = {"id": container_id, "plan": plan.to_json(), "environment": environment()}
    with trace.span("look for a machine that waits"):
        return any(
            _tell(member, message, fds)
            for member in _read_all(paths)
            if member.is_ready and member.template == template
        )


def environment() -> dict[str, str]:
    """What of our environment a supervisor goes by."""
    names = ("WOODLOT_", "XDG_", "PYTHON", "HOME", "SSH_AUTH_SOCK")
    ours = {name: value for name, value in os.environ.items() if name.startswith(names)}
    return {**process.minimal_environment(), **ours}


def _tell(member: Member, message: Mapping[str, object], fds: Sequence[int] = ()) -> bool:
    """Whether the member does what the message says."""
    data = json.dumps(message).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(os.fspath(member.socket))
            if connection.recv(1) != READY:
                return False
        except OSError:
            # It is dead, taken, or on its way to either.
            return False
        connection.settimeout(_TAKEN_S)
        try:
            socket.send_fds(connection, [HEADER.pack(len(data))], fds)
            connection.sendall(data)
            return connection.recv(1) == TAKEN
        except TimeoutError:
            # It has what we gave it, and may yet do so: whoever waits for it hears of its end.
            return True
        except OSError:
            return False


# For those who look after it.


def find_all(paths: Paths) -> list[Member]:
    """Those that live, the oldest first; what dead ones have left is removed."""
    if not paths.pool.is_dir():
        return []
    with hold_sync(paths.pool / "lock"):
        return _sweep(paths)


async def fill(paths: Paths, plan: MachinePlan, shape: Shape) -> Sequence[process.Child]:
    """Have as many wait as the setting says, of this shape if there is room; they are ready later.

    All shapes share the room: without any of this one, the oldest of the others leaves.

    Args:
        paths: The installation.
        plan: What the VMs are started with.
        shape: Of the containers they wait for.

    Returns:
        What starts them, and ends soon; the caller's to reap.
    """
    size = max(0, settings.get_int("vm.pool"))
    if not size and not paths.pool.is_dir():
        return ()
    paths.pool.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with hold(paths.pool / "lock"):
        members = _sweep(paths)
        template = _template_of(paths, plan, shape)
        others = [member for member in members if member.template != template]
        has_ours = len(others) < len(members)
        room = size - len(members)
        # The oldest go first, and ours last.
        leaving = sorted(members, key=lambda one: (one.template == template, one.since))
        leaving = leaving[: max(0, -room)]
        if size and room <= 0 and not has_ours:
            leaving = others[: 1 - room]
            room = 1
        for member in leaving:
            dismiss(member)
        return [_start(paths, plan, shape, template) for _ in range(room)]


@contextlib.asynccontextmanager
async def filled_after(
    paths: Paths, plan: MachinePlan, spec: ContainerSpec, started: "asyncio.Future[None]"
) -> AsyncGenerator[None]:
    """Fill the pool for containers like one that was started, while its user does not wait: when it runs on, or is over.

    Args:
        paths: The installation.
        plan: What its VM was started with.
        spec: The container, to whose end the block goes.
        started: Done when its process runs, or never will.
    """
    over = asyncio.Event()

    async def fill_once() -> None:
        await asyncio.wait((started,))
        if started.exception() is not None or not _fits(plan, spec):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RUNS_ON_S):
                await over.wait()
        for child in await fill(paths, plan, _shape_of(spec)):
            if over.is_set():
                child.let_go()
            else:
                await child.wait()

    filling = asyncio.create_task(fill_once())
    try:
        yield
    finally:
        over.set()
        if not started.done():
            filling.cancel()
        [problem] = await asyncio.gather(filling, return_exceptions=True)
        if isinstance(problem, Exception):
            # Of no concern to the container.
            log.warning("the pool is not filled: %s", problem)


def dismiss(member: Member) -> None:
    """Have a member leave, at once or as soon as its machine is ready; unless it is taken in this moment."""
    (member.directory / "member.json").unlink(missing_ok=True)
    _tell(member, {"leave": True})


def empty(paths: Paths, *, keep: Collection[str] = ()) -> int:
    """Have the members leave, and return when they are gone.

    Args:
        paths: The installation.
        keep: Templates whose members stay.

    Returns:
        How many there were.
    """
    leaving = [member for member in find_all(paths) if member.template not in keep]
    for member in leaving:
        dismiss(member)
    for member in leaving:
        with contextlib.suppress(FileNotFoundError), hold_sync(member.directory / "lock"):
            pass
    find_all(paths)
    return len(leaving)


def prune(paths: Paths) -> None:
    """Have those leave that nobody will take: their template is gone, or the pool is off."""
    from woodlot.template.template import list_templates

    left = [one.id for one in list_templates(paths)] if settings.get_int("vm.pool") > 0 else []
    empty(paths, keep=left)


def _fits(plan: MachinePlan, spec: ContainerSpec) -> bool:
    """Whether a machine that knows nothing of a container can become its own: files come with the machine."""
    return may_restore(plan, spec) and all(mount.type == "socket" for mount in spec.mounts)


def _shape_of(spec: ContainerSpec) -> Shape:
    return Shape.of(cpus=spec.cpus, memory_bytes=spec.memory_bytes, networks=len(spec.networks))


def _template_of(paths: Paths, plan: MachinePlan, shape: Shape) -> str:
    spec = bare_spec(paths, plan, shape)
    program = binary.find_qemu(plan.arch)
    return template_shape.build_id(template_shape.describe(spec, program, plan.guest))


def _start(paths: Paths, plan: MachinePlan, shape: Shape, template: str) -> process.Child:
    """Start a member, which counts from now on; it leaves the process that is returned behind."""
    name = os.urandom(6).hex()
    directory = paths.pool / name
    directory.mkdir(mode=0o700)
    lock = open_lock(directory / "lock")
    try:
        try_flock(lock)
        os.set_inheritable(lock, True)  # noqa: FBT003
        _write(directory, template=template)
        fields = {
            "data": str(paths.data),
            "runtime": str(paths.runtime),
            "name": name,
            "lock": lock,
            "plan": plan.to_json(),
            "shape": asdict(shape),
        }
        _cut_log(paths.pool / "log")
        ours = environment()
        # What it does before it is taken belongs to nobody's timeline.
        ours.pop(trace.VARIABLE, None)
        return process.spawn(
            [sys.executable, "-m", "woodlot.container.member", json.dumps(fields)],
            log_path=paths.pool / "log",
            env=ours,
            pass_fds=(lock,),
            die_with_parent=False,
        )
    finally:
        os.close(lock)


def announce(directory: Path, *, pid: int, vm_pid: int) -> bool:
    """Say that the member in a directory is ready; False if it has been told to leave meanwhile.

    Args:
        directory: The member's.
        pid: Of the process that keeps it.
        vm_pid: Of its machine's monitor.
    """
    try:
        fields: dict[str, Any] = json.loads((directory / "member.json").read_bytes())
    except FileNotFoundError:
        return False
    _write(directory, template=fields["template"], pid=pid, vm_pid=vm_pid)
    return True


def _write(directory: Path, *, template: str, pid: int = 0, vm_pid: int = 0) -> None:
    fields = {"template": template, "since": time.time(), "pid": pid, "vm_pid": vm_pid}
    part = directory / "member.part"
    part.write_text(json.dumps(fields))
    part.replace(directory / "member.json")


def _cut_log(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _MAX_LOG_BYTES:
            path.unlink()


def _sweep(paths: Paths) -> list[Member]:
    """The members that live; with the pool's lock held, so that none is just being made."""
    for directory in paths.pool.iterdir():
        if not directory.is_dir():
            continue
        lock = open_lock(directory / "lock")
        try:
            if try_flock(lock):
                remove(paths, directory.name)
        finally:
            unlock_and_close(lock)
    return _read_all(paths)


def remove(paths: Paths, name: str) -> None:
    """Remove what a member has on the disk."""
    shutil.rmtree(paths.pool_sockets(name), ignore_errors=True)
    shutil.rmtree(paths.pool / name, ignore_errors=True)


def _read_all(paths: Paths) -> list[Member]:
    found: list[Member] = []
    for path in paths.pool.glob("*/member.json"):
        # It may be leaving in this moment.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            fields: dict[str, Any] = json.loads(path.read_bytes())
            name = path.parent.name
            found.append(
                Member(
                    name=name,
                    template=fields["template"],
                    since=fields["since"],
                    pid=fields["pid"],
                    vm_pid=fields["vm_pid"],
                    directory=path.parent,
                    socket=paths.pool_sockets(name) / "p.sock",
                )
            )
    return sorted(found, key=lambda member: member.since)
