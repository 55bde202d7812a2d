"""Starts a container's supervisor as a process of its own, with no tie to the one that asked but the lifeline."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
import traceback
from pathlib import Path

from woodlot import process, trace
from woodlot.container import pool
from woodlot.container.boot import MachinePlan
from woodlot.container.lifeline import Lifeline
from woodlot.paths import Paths


def launch(
    paths: Paths,
    container_id: str,
    plan: MachinePlan,
    lock: int,
    *,
    visit: bool = False,
    template: str = "",
) -> socket.socket:
    """Start the supervisor, or find one that waits.

    Args:
        paths: The installation.
        container_id: A container from `lifecycle.reserve`.
        plan: What its VM is started with.
        lock: The descriptor `reserve` gave; closed here, and held by the supervisor from now on.
        visit: Only for the container's files, until the lifeline is closed.
        template: Whose members of the pool can be the supervisor; see `pool.wanted_template`.

    Returns:
        The launcher's end of the lifeline; closing it before the process is started abandons the container.
    """
    ours, theirs = socket.socketpair()
    if template and pool.take(paths, template, container_id, plan, (lock, theirs.fileno())):
        theirs.close()
        # Not unlocked: a duplicate of the descriptor holds it.
        os.close(lock)
        return ours
    # A fork costs a tenth of a fresh interpreter, but carries over only the thread that calls it, so it is for the
    # command; a program that uses the library, and may have threads, a loop or gRPC under way, gets a fresh one.
    if threading.active_count() == 1 and "grpc" not in sys.modules and not _in_loop():
        _fork(paths, container_id, plan, lock, theirs, visit=visit)
    else:
        _spawn(paths, container_id, plan, lock, theirs, visit=visit)
    theirs.close()
    os.close(lock)
    return ours


def _in_loop() -> bool:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return True
    return False


def _fork(
    paths: Paths,
    container_id: str,
    plan: MachinePlan,
    lock: int,
    lifeline: socket.socket,
    *,
    visit: bool,
) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    status = 1
    try:
        os.setsid()
        # A second fork: the supervisor is nobody's child, so nobody has to reap it.
        if os.fork() == 0:
            _become_supervisor(paths, container_id, plan, lock, lifeline, visit=visit)
        status = 0
    finally:
        # Never back into the caller's code, whatever happened.
        os._exit(status)


def _become_supervisor(
    paths: Paths,
    container_id: str,
    plan: MachinePlan,
    lock: int,
    lifeline: socket.socket,
    *,
    visit: bool,
) -> None:
    detach(paths.container(container_id) / "supervisor.log", {lock, lifeline.fileno()})
    # What we fork only executes another program. gRPC's handlers for a fork look for its threads in the child, which
    # are not there, and now and then the child died of it.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # Not for the VMM to inherit: it must not keep the lock.
    os.set_inheritable(lock, False)  # noqa: FBT003
    try:
        with trace.span("load the supervisor"):
            from woodlot.container.supervisor import supervise

        supervise(paths, container_id, plan, Lifeline(lifeline), visit=visit)
    except BaseException:
        # There is nobody above to see it, only the log.
        traceback.print_exc()
        raise


def detach(log_path: Path, keep: set[int]) -> None:
    """Let go of the terminal, the working directory and every descriptor but ``keep``."""
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    redirect(log_path)
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def redirect(log_path: Path) -> None:
    """Have what we print and log appended to a file."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target in (1, 2):
        os.dup2(log, target)
    os.close(log)


def _spawn(
    paths: Paths,
    container_id: str,
    plan: MachinePlan,
    lock: int,
    lifeline: socket.socket,
    *,
    visit: bool,
) -> None:
    fields = json.dumps(
        {
            "data": str(paths.data),
            "runtime": str(paths.runtime),
            "id": container_id,
            "lock": lock,
            "lifeline": lifeline.fileno(),
            "plan": plan.to_json(),
            "visit": visit,
        }
    )
    process.spawn(
        [sys.executable, "-m", "woodlot.container.launch", fields],
        log_path=paths.container(container_id) / "supervisor.log",
        env=pool.environment(),
        pass_fds=(lock, lifeline.fileno()),
        die_with_parent=False,
    )


def main() -> None:
    """What `_spawn` runs: detach once more, then be the supervisor."""
    fields = json.loads(sys.argv[1])
    if os.fork():
        os._exit(0)
    _become_supervisor(
        Paths(data=Path(fields["data"]), runtime=Path(fields["runtime"])),
        fields["id"],
        MachinePlan.from_json(fields["plan"]),
        fields["lock"],
        socket.socket(fileno=fields["lifeline"]),
        visit=fields["visit"],
    )


if __name__ == "__main__":
    main()
