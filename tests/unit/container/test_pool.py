"""Machines that wait: who takes which, how many there are, and when they leave."""

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from tests.unit.container.specs import WEB
from woodlot.container import member, pool
from woodlot.container.boot import MachinePlan
from woodlot.container.shape import Shape
from woodlot.container.spec import ContainerSpec, Mount, NetworkSpec
from woodlot.errors import StateError
from woodlot.network import network
from woodlot.paths import Paths
from woodlot.store.locks import open_lock, try_flock
from woodlot.store.store import Store
from woodlot.vmm.base import Accelerator, Arch, VirtualMachine

PLAN = MachinePlan(
    arch=Arch.AMD64,
    accelerator=Accelerator.TCG,
    kernel=Path("/k/vmlinuz"),
    initramfs=Path("/k/init.cpio"),
    guest="kernel agent",
    kernel_cmdline=("quiet",),
)
SPEC = dataclasses.replace(WEB, networks=(NetworkSpec(network="default"),), kernel_args=())
SHAPE = Shape.of(cpus=1, memory_bytes=128 << 20, networks=1)
OURS, OTHERS = "ours", "others"


@pytest.fixture(autouse=True)
def no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("woodlot.vmm.qemu.binary.find_qemu", lambda _: Path("/bin/true"))


class Vm:
    """Stands for a machine: ends when the test says so."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def wait(self) -> None:
        await self.ended.wait()


class Waiting:
    """A member that waits in this process, as far as its socket goes."""

    def __init__(self, paths: Paths, *, template: str = OURS) -> None:
        self.vm = Vm()
        self.directory = paths.pool / "aabbccddeeff"
        self.sockets = paths.pool_sockets(self.directory.name)
        self.directory.mkdir(parents=True)
        self.sockets.mkdir()
        pool._write(self.directory, template=template)
        self.outcome: asyncio.Task[member.Call | None] | None = None

    async def __aenter__(self) -> Self:
        assert pool.announce(self.directory, pid=1, vm_pid=2)
        ready = asyncio.Event()

        async def wait() -> member.Call | None:
            with member._listening(self.sockets / "p.sock") as listener:
                ready.set()
                return await member._wait(listener, cast("VirtualMachine", self.vm))

        self.outcome = asyncio.create_task(wait())
        await ready.wait()
        return self

    async def __aexit__(self, *args: object) -> None:
        self.vm.ended.set()
        assert self.outcome is not None
        await self.outcome

    async def call(self) -> member.Call | None:
        assert self.outcome is not None
        return await asyncio.wait_for(asyncio.shield(self.outcome), 5)


@pytest.fixture
def handed() -> Iterator[Sequence[int]]:
    """Two descriptors to hand over."""
    fds = os.pipe()
    yield fds
    for fd in fds:
        os.close(fd)


async def take(paths: Paths, fds: Sequence[int], *, template: str = OURS) -> bool:
    return await asyncio.to_thread(pool.take, paths, template, SPEC.id, PLAN, fds)


async def test_a_start_takes_a_machine_once(
    paths: Paths, handed: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOODLOT_LOG_MAX_SIZE", "3m")
    monkeypatch.setenv("SECRET", "of the shell's")
    async with Waiting(paths) as waiting:
        assert not await take(paths, handed, template=OTHERS)
        taken = await asyncio.gather(*(take(paths, handed) for _ in range(4)))
        assert sorted(taken) == [False, False, False, True]
        call = await waiting.call()
        assert call is not None
        assert (call.container_id, call.plan) == (SPEC.id, PLAN)
        assert call.environment["WOODLOT_LOG_MAX_SIZE"] == "3m"
        assert "SECRET" not in call.environment
        # They are the very files.
        for ours, theirs in zip(handed, (call.lock, call.lifeline), strict=True):
            assert os.path.sameopenfile(ours, theirs)
            os.close(theirs)
        assert not await take(paths, handed)


async def test_it_leaves_when_told(paths: Paths) -> None:
    async with Waiting(paths) as waiting:
        [found] = pool._read_all(paths)
        await asyncio.to_thread(pool.dismiss, found)
        assert await waiting.call() is None
    assert pool._read_all(paths) == []


async def test_it_leaves_when_nobody_comes(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOODLOT_VM_POOL_IDLE", "0.0001")
    async with Waiting(paths) as waiting:
        assert await waiting.call() is None


async def test_it_leaves_when_its_machine_dies(paths: Paths) -> None:
    async with Waiting(paths) as waiting:
        waiting.vm.ended.set()
        assert await waiting.call() is None


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0\0\0\0",
        b"\0\0\0\x02[]",
        b"\0\0\0\x02{}",
        b"\xff\xff\xff\xffx",
        b"\0\0\0\x0a" + b'{"id": 1}\n',
    ],
)
async def test_nonsense_is_refused_and_the_next_one_is_served(
    paths: Paths, handed: Sequence[int], said: bytes
) -> None:
    async with Waiting(paths) as waiting:

        def talk() -> bytes:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(waiting.sockets / "p.sock"))
                assert caller.recv(1) == pool.READY
                caller.sendall(said)
                caller.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    return caller.recv(1)
                return b""

        assert await asyncio.to_thread(talk) == b""
        assert await take(paths, handed)
        call = await waiting.call()
        assert call is not None
        os.close(call.lock)
        os.close(call.lifeline)


async def test_another_user_is_refused(
    paths: Paths, handed: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Waiting(paths):
        uid = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        assert not await take(paths, handed)


@pytest.mark.parametrize("says", [None, b"", pool.READY])
async def test_one_that_is_stuck_or_dies_gets_no_container(
    paths: Paths, handed: Sequence[int], says: bytes | None
) -> None:
    waiting = Waiting(paths)
    pool.announce(waiting.directory, pid=1, vm_pid=2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(waiting.sockets / "p.sock"))
        listener.listen()

        def serve() -> None:
            if says is not None:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(says)

        serving = asyncio.create_task(asyncio.to_thread(serve))
        began = time.monotonic()
        assert not await take(paths, handed)
        assert time.monotonic() - began < 5
        await serving


def test_one_that_is_not_ready_is_not_asked(paths: Paths, handed: Sequence[int]) -> None:
    Waiting(paths)
    assert not pool.take(paths, OURS, SPEC.id, PLAN, handed)


def test_one_that_was_told_to_leave_does_not_become_ready(paths: Paths) -> None:
    waiting = Waiting(paths)
    [found] = pool._read_all(paths)
    pool.dismiss(found)
    assert not pool.announce(waiting.directory, pid=1, vm_pid=2)
    assert not (waiting.directory / "member.json").exists()


# How many there are.


class Members:
    """In the place of processes: they live as long as their lock is held."""

    def __init__(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        self._paths = paths
        self._held: dict[str, int] = {}
        self.started: list[str] = []
        monkeypatch.setattr("woodlot.process.spawn", self._spawn)
        monkeypatch.setattr(pool, "_template_of", lambda *_: OURS)

    def _spawn(self, argv: Sequence[str], **options: Any) -> SimpleNamespace:
        fields = json.loads(argv[-1])
        assert options["pass_fds"] == (fields["lock"],)
        assert "WOODLOT_TRACE" not in options["env"]
        self.started.append(fields["name"])
        self._held[fields["name"]] = os.dup(fields["lock"])
        return SimpleNamespace()

    def add(self, name: str, template: str, *, since: float) -> None:
        """One that lives."""
        directory = self._paths.pool / name
        directory.mkdir(parents=True)
        self._held[name] = open_lock(directory / "lock")
        try_flock(self._held[name])
        fields = {"template": template, "since": since, "pid": 1, "vm_pid": 2}
        (directory / "member.json").write_text(json.dumps(fields))

    def die(self, name: str) -> None:
        """As with SIGKILL."""
        os.close(self._held.pop(name))

    def close(self) -> None:
        for name in list(self._held):
            self.die(name)


@pytest.fixture
def members(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Members]:
    made = Members(paths, monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize(
    "case",
    [
        (0, "", "", 0),
        (2, "", "", 2),
        (2, "o", "o", 1),
        (2, "oo", "oo", 0),
        # Others have the room that is not needed.
        (3, "xo", "xo", 1),
        (2, "xo", "xo", 0),
        # The oldest of them leaves for the first of ours.
        (2, "xx", " x", 1),
        (1, "x", " ", 1),
        # There is less room than there was: others leave first.
        (1, "xo", " o", 0),
        (1, "oo", " o", 0),
        (1, "oox", " o ", 0),
        (1, "xxx", "   ", 1),
        (0, "xo", "  ", 0),
    ],
)
async def test_how_many_wait(
    paths: Paths,
    members: Members,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[int, str, str, int],
) -> None:
    """``o`` is one of ours, ``x`` another's, the oldest first; a blank has left."""
    size, there, stay, started = case
    monkeypatch.setenv("WOODLOT_VM_POOL", str(size))
    for age, kind in enumerate(there):
        members.add(f"{age}", OURS if kind == "o" else OTHERS, since=age)
    await pool.fill(paths, PLAN, SHAPE)
    assert len(members.started) == started
    left = {one.name for one in pool._read_all(paths)} - set(members.started)
    assert left == {str(age) for age, kind in enumerate(stay) if kind != " "}


async def test_many_at_once_start_no_more_than_there_is_room_for(
    paths: Paths, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOODLOT_VM_POOL", "3")
    await asyncio.gather(*(pool.fill(paths, PLAN, SHAPE) for _ in range(8)))
    assert len(members.started) == 3


async def test_what_a_dead_one_has_left_goes_and_another_comes(
    paths: Paths, members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOODLOT_VM_POOL", "1")
    await pool.fill(paths, PLAN, SHAPE)
    [first] = members.started
    sockets = paths.pool_sockets(first)
    sockets.mkdir(parents=True)
    await pool.fill(paths, PLAN, SHAPE)
    assert members.started == [first]
    members.die(first)
    assert pool.find_all(paths) == []
    assert not sockets.exists()
    assert not (paths.pool / first).exists()
    await pool.fill(paths, PLAN, SHAPE)
    assert len(members.started) == 2


def test_emptied(paths: Paths, members: Members) -> None:
    members.add("0", OURS, since=0)
    members.add("1", OTHERS, since=1)
    members.die("1")
    members.add("2", OTHERS, since=2)
    assert pool.empty(paths, keep=[OURS, OTHERS]) == 0
    assert [one.name for one in pool.find_all(paths)] == ["0", "2"]


async def test_nothing_is_made_for_a_pool_that_is_off(paths: Paths, members: Members) -> None:
    await pool.fill(paths, PLAN, SHAPE)
    assert not paths.pool.exists()
    assert pool.find_all(paths) == []


# Who may, and when.


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"networks": ()}, True),
        ({"mounts": (Mount(type="socket", source="/s", destination="/s"),)}, True),
        ({"mounts": (Mount(type="bind", source="/x", destination="/x"),)}, False),
        ({"mounts": (Mount(type="volume", source="v", destination="/x"),)}, False),
        ({"kernel_args": ("loglevel=7",)}, False),
        ({"networks": (NetworkSpec(network="bridge"),)}, False),
        ({"networks": (NetworkSpec(network="gone"),)}, False),
    ],
)
def test_who_can_have_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], *, fits: bool
) -> None:
    monkeypatch.setattr(network, "check_driver", lambda _: None)
    network.create(store, "bridge", driver=network.Driver.BRIDGE)
    spec: ContainerSpec = dataclasses.replace(SPEC, **changes)
    assert pool.wanted_template(store, PLAN, spec) == ""
    monkeypatch.setenv("WOODLOT_VM_POOL", "1")
    assert bool(pool.wanted_template(store, PLAN, spec)) is fits
    monkeypatch.setenv("WOODLOT_VM_BOOT", "cold")
    assert pool.wanted_template(store, PLAN, spec) == ""


def test_a_limit_of_the_same_step_has_the_same_machine(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOODLOT_VM_POOL", "1")

    def template(memory_mib: int) -> str:
        spec = dataclasses.replace(SPEC, memory_bytes=memory_mib << 20)
        return pool.wanted_template(store, PLAN, spec)

    assert template(100) == template(128) != template(129)


@pytest.mark.parametrize("ends", ["at once", "never", "before it runs"])
async def test_it_is_filled_when_the_user_waits_no_more(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    filled: list[Shape] = []

    async def fill(_: Paths, plan: MachinePlan, shape: Shape) -> None:
        filled.append(shape)
        raise OSError("no space left")

    monkeypatch.setattr(pool, "fill", fill)
    monkeypatch.setattr(pool, "_RUNS_ON_S", 0.01 if ends == "never" else 60)
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with pool.filled_after(paths, PLAN, SPEC, started):
        await asyncio.sleep(0)
        if ends == "before it runs":
            started.set_exception(StateError("it was stopped"))
        else:
            started.set_result(None)
        if ends == "never":
            while not filled:
                await asyncio.sleep(0.01)
        assert bool(filled) is (ends == "never")
    assert bool(filled) is (ends != "before it runs")


def test_a_log_that_grew_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool._cut_log(log)
    log.write_bytes(b"x" * 100)
    pool._cut_log(log)
    assert log.exists()
    log.write_bytes(b"x" * (pool._MAX_LOG_BYTES + 1))
    pool._cut_log(log)
    assert not log.exists()
