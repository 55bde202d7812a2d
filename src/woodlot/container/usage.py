"""What a container uses, and what runs in it.

Most of it is the guest's word: numbers are bounded by their types, texts are cut and stripped.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from woodlot.guest.said import clean
from woodlot.values import dataclass

if TYPE_CHECKING:
    from woodlot._pb.agent.v1 import agent_pb2
    from woodlot._pb.supervisor.v1 import supervisor_pb2

MAX_PROCESSES = 4096
"""What an honest guest tells of at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a container uses at a moment, and has used since it was started."""

    time_s: float
    """Of a clock that never goes back, to tell how far two samples are apart."""
    cpu_usage_us: int
    """Microseconds of processors, of all together."""
    memory_bytes: int
    """What its processes use of the guest's memory, without cache that can go at once."""
    memory_limit_bytes: int
    host_memory_bytes: int
    """What its VM, file servers and supervisor take of the host's; 0 where the host does not tell."""
    network_rx_bytes: int
    network_tx_bytes: int
    block_read_bytes: int
    block_write_bytes: int
    processes: int
    """With threads."""

    def cpu_percent(self, before: "Stats") -> float:
        """Of one processor, since an earlier sample; two that are busy all the time are 200."""
        elapsed_s = self.time_s - before.time_s
        used_us = self.cpu_usage_us - before.cpu_usage_us
        return max(0.0, used_us / elapsed_s / 1e4) if elapsed_s > 0 else 0.0

    @property
    def memory_percent(self) -> float:
        """Of what it may use."""
        return 100 * self.memory_bytes / self.memory_limit_bytes if self.memory_limit_bytes else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProcess:
    """A process in a container; its ids are those it has there."""

    pid: int
    parent_pid: int
    """0 if that is not in the container."""
    group_id: int
    session_id: int
    uid: int
    user: str
    """Its name in the container; empty if it has none."""
    cpu_s: float
    age_s: float
    """Since it was started."""
    terminal: int
    """The device's number; 0 for none."""
    state: str
    """One letter, as in proc_pid_stat(5)."""
    nice: int
    threads: int
    virtual_bytes: int
    resident_bytes: int
    name: str
    command: str
    """With arguments, cut where they are long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """What runs in a container, by pid."""

    listed: Sequence[RunningProcess]
    left_out: int = 0
    """How many more there are than a guest tells of."""

    def __iter__(self) -> Iterator[RunningProcess]:
        return iter(self.listed)

    def __len__(self) -> int:
        return len(self.listed)


def decode_stats(message: "supervisor_pb2.StatsResponse") -> Stats:
    """A sample, from a supervisor's answer."""
    guest = message.guest
    return Stats(
        time_s=guest.time_nanos / 1e9,
        cpu_usage_us=guest.cpu_usage_usec,
        memory_bytes=guest.memory_usage_bytes,
        memory_limit_bytes=guest.memory_limit_bytes,
        host_memory_bytes=message.host_memory_bytes,
        network_rx_bytes=guest.network_rx_bytes,
        network_tx_bytes=guest.network_tx_bytes,
        block_read_bytes=guest.block_read_bytes,
        block_write_bytes=guest.block_write_bytes,
        processes=guest.processes,
    )


def decode_processes(message: "agent_pb2.ListProcessesResponse") -> Processes:
    """The processes, from a guest's answer."""
    listed = (
        RunningProcess(
            pid=one.pid,
            parent_pid=one.parent_pid,
            group_id=one.group_id,
            session_id=one.session_id,
            uid=one.uid,
            user=clean(one.user),
            cpu_s=one.cpu_millis / 1e3,
            age_s=one.age_millis / 1e3,
            terminal=one.terminal,
            state=clean(one.state)[:1],
            nice=one.nice,
            threads=one.threads,
            virtual_bytes=one.virtual_bytes,
            resident_bytes=one.resident_bytes,
            name=clean(one.name),
            command=clean(one.command),
        )
        for one in message.processes[:MAX_PROCESSES]
    )
    beyond = max(0, len(message.processes) - MAX_PROCESSES)
    return Processes(listed=tuple(listed), left_out=message.left_out + beyond)


def host_memory_bytes(
    supervisor: int, helpers: Iterable[int], *, proc: Path = Path("/proc")
) -> int:
    """What a container's processes take of the host's memory; what they share with others counts in parts.

    Args:
        supervisor: Its supervisor, without children: the switch of a network, which is everybody's, may be one.
        helpers: What the supervisor started for the container, with their children.
        proc: Where the host tells.

    Returns:
        Bytes; 0 where the host does not tell (not Linux).
    """
    pids = {supervisor, *_with_children(proc, helpers)}
    return sum(_proportional_bytes(proc / str(pid)) for pid in pids)


def _with_children(proc: Path, pids: Iterable[int]) -> set[int]:
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        for path in (proc / str(pid)).glob("task/*/children"):
            with contextlib.suppress(OSError):
                waiting += [int(child) for child in path.read_text().split()]
    return found


def _proportional_bytes(process: Path) -> int:
    """Pss of proc_pid_smaps_rollup(5); of a process that has ended, 0."""
    with contextlib.suppress(OSError):
        for line in (process / "smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Pss":
                return int(value.split()[0]) * 1024
    return 0
