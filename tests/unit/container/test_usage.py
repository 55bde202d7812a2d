import dataclasses
from pathlib import Path

import pytest

from woodlot._pb.agent.v1 import agent_pb2
from woodlot.container.usage import Stats, decode_processes, host_memory_bytes

IDLE = Stats(
    time_s=10.0,
    cpu_usage_us=1_000_000,
    memory_bytes=256,
    memory_limit_bytes=1024,
    host_memory_bytes=0,
    network_rx_bytes=0,
    network_tx_bytes=0,
    block_read_bytes=0,
    block_write_bytes=0,
    processes=1,
)


@pytest.mark.parametrize(
    ("time_s", "cpu_usage_us", "percent"),
    [
        (12.0, 1_000_000, 0.0),
        (12.0, 2_000_000, 50.0),
        (10.5, 2_000_000, 200.0),
        # A guest whose clock stands still or goes back, or that takes back what it said.
        (10.0, 2_000_000, 0.0),
        (9.0, 2_000_000, 0.0),
        (12.0, 500_000, 0.0),
    ],
)
def test_cpu_percent(time_s: float, cpu_usage_us: int, percent: float) -> None:
    later = dataclasses.replace(IDLE, time_s=time_s, cpu_usage_us=cpu_usage_us)
    assert later.cpu_percent(IDLE) == pytest.approx(percent)


def test_memory_percent() -> None:
    assert IDLE.memory_percent == 25.0
    assert dataclasses.replace(IDLE, memory_limit_bytes=0).memory_percent == 0.0


def test_a_guest_that_tells_of_more_than_it_may_is_cut_short() -> None:
    processes = [agent_pb2.ListProcessesResponse.Process(pid=pid) for pid in range(1, 5001)]
    found = decode_processes(agent_pb2.ListProcessesResponse(processes=processes, left_out=3))
    assert [len(found.listed), found.listed[-1].pid, found.left_out] == [4096, 4096, 907]


def make_process(proc: Path, pid: int, pss_kib: int, *children: int) -> None:
    task = proc / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    (task / "children").write_text(" ".join(map(str, children)) + " ")
    (proc / str(pid) / "smaps_rollup").write_text(
        f"00400000-7ffd [rollup]\nRss:  {pss_kib * 2} kB\nPss:    {pss_kib} kB\nPss_Dirty: 1 kB\n"
    )


def test_the_host_pays_for_supervisor_and_helpers(tmp_path: Path) -> None:
    # The supervisor started the monitor, a file server with a child, and the switch of a network.
    make_process(tmp_path, 1, 1, 2, 3, 5)
    make_process(tmp_path, 2, 10)
    make_process(tmp_path, 3, 100, 4)
    make_process(tmp_path, 4, 1000)
    make_process(tmp_path, 5, 10000)
    assert host_memory_bytes(1, (2, 3), proc=tmp_path) == 1111 * 1024
    # One that has ended meanwhile costs nothing.
    assert host_memory_bytes(1, (2, 9), proc=tmp_path) == 11 * 1024
    assert host_memory_bytes(1, (2,), proc=tmp_path / "nothing") == 0
