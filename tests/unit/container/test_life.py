"""What the supervisor tells the guest and the VMM, word for word, and its end where no VM ever ran."""

import asyncio
import dataclasses
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from tests.unit.container.specs import WEB
from woodlot.container import life as life_module
from woodlot.container import lifecycle, restart, state
from woodlot.container.boot import MachinePlan
from woodlot.container.life import Life, exit_code
from woodlot.container.lifeline import Lifeline, wait_ready
from woodlot.container.machine import Machine
from woodlot.container.requests import process_request
from woodlot.container.restart import parse_policy
from woodlot.container.session import End
from woodlot.container.spec import ContainerSpec, DnsSpec, ExecSpec, Mount, ProcessSpec
from woodlot.container.supervisor import Supervisor
from woodlot.container.update import Update
from woodlot.errors import (
    ConfigError,
    ErrorCode,
    ExecutionError,
    GuestError,
    LimitError,
    NotFoundError,
    StateError,
    WoodlotError,
)
from woodlot.network.switch import Lease
from woodlot.store.store import Store
from woodlot.template.template import Template
from woodlot.units import MIB
from woodlot.vmm.base import (
    Accelerator,
    Arch,
    Disk,
    StreamNetwork,
    VirtualMachine,
    VmExit,
    VmSpec,
)

if TYPE_CHECKING:
    from woodlot.guest.client import Agent, Process
    from woodlot.network.link import Link
    from woodlot.network.switch import Attachment

PLAN = MachinePlan(
    arch=Arch.AMD64,
    accelerator=Accelerator.TCG,
    kernel=Path("/k/vmlinuz"),
    initramfs=Path("/k/init.cpio"),
    guest="kernel agent",
    kernel_cmdline=("plan",),
)

# No network, so no switch is started.
ALONE = dataclasses.replace(WEB, networks=())

CONFIGURE = """\
interfaces {
  mac: "52:54:00:27:1a:41"
  name: "eth0"
  addresses: "10.86.0.2/24"
  addresses: "fd00:86::2/64"
  mtu: 1500
  routes {
    destination: "0.0.0.0/0"
    gateway: "10.86.0.1"
  }
  routes {
    destination: "::/0"
    gateway: "fd00:86::1"
  }
}
"""
CREATE = """\
id: "abababababababababababababababababababababababababababababababab"
hostname: "abababababab"
rootfs {
  image_serial: "image"
  upper_serial: "upper"
  read_only: true
}
mounts {
  type: "tmpfs"
  source: "tmpfs"
  destination: "/a"
  options: "size=1m"
  options: "exec"
}
mounts {
  type: "tmpfs"
  source: "tmpfs"
  destination: "/a/b"
}
resources {
  cpu_millis: 1500
  memory_bytes: 209715200
}
masked_paths: "/proc/asound"
masked_paths: "/proc/acpi"
masked_paths: "/proc/interrupts"
masked_paths: "/proc/kcore"
masked_paths: "/proc/keys"
masked_paths: "/proc/latency_stats"
masked_paths: "/proc/timer_list"
masked_paths: "/proc/timer_stats"
masked_paths: "/proc/sched_debug"
masked_paths: "/proc/scsi"
masked_paths: "/sys/firmware"
masked_paths: "/sys/devices/virtual/powercap"
readonly_paths: "/proc/bus"
readonly_paths: "/proc/fs"
readonly_paths: "/proc/irq"
readonly_paths: "/proc/sys"
readonly_paths: "/proc/sysrq-trigger"
etc_files {
  key: "hostname"
  value: "abababababab\\n"
}
etc_files {
  key: "hosts"
  value: "127.0.0.1\\tlocalhost\\n::1\\tlocalhost ip6-localhost ip6-loopback\\nfe00::\\tip6-localnet\\n\
ff00::\\tip6-mcastprefix\\nff02::1\\tip6-allnodes\\nff02::2\\tip6-allrouters\\n192.0.2.7\\tdb\\n10.86.0.2\\tabababababab\\nfd00:86::2\\tabababababab\\n"
}
etc_files {
  key: "resolv.conf"
  value: "nameserver 10.86.0.1\\nsearch corp\\noptions ndots:2\\n"
}
shm_bytes: 1073741824
"""
PROCESS = """\
args: "sh"
args: "-c"
args: "echo é"
env: "PATH=/bin"
env: "A=b=c"
cwd: "/srv"
user: "www:staff"
tty: true
window {
  rows: 33
  columns: 77
}
stdin: true
capabilities: "CAP_CHOWN"
capabilities: "CAP_KILL"
rlimits {
  type: "nofile"
  soft: 99
  hard: 18446744073709551615
}
init: true
"""


class Made:
    """A supervisor that holds its container, as after a fork, and the launcher's end of its lifeline."""

    def __init__(self, store: Store, spec: ContainerSpec) -> None:
        self.spec = spec
        self.launcher, self._theirs = socket.socketpair()
        self.launcher.settimeout(5)
        self.lock = lifecycle.reserve(store, spec)
        self.supervisor = Supervisor(store.paths, store, spec, PLAN, Lifeline(self._theirs))

    async def close(self) -> None:
        await self.supervisor.life.session.finish()
        self.launcher.close()
        self._theirs.close()
        os.close(self.lock)


def join(made: Made) -> Supervisor:
    """As if the switch of the network had answered."""
    lease = Lease(
        network="default",
        mac="52:54:00:27:1a:41",
        ip="10.86.0.2",
        prefix_length=24,
        gateway="10.86.0.1",
        host="10.86.0.254",
        mtu=1500,
        internal=False,
        ip_v6="fd00:86::2",
        prefix_length_v6=64,
        gateway_v6="fd00:86::1",
    )
    links = made.supervisor.life._machine.links
    links._attachments.append(cast("Attachment", SimpleNamespace(lease=lease)))
    links._links.append(cast("Link", SimpleNamespace(fd=20)))
    return made.supervisor


Make = Callable[[ContainerSpec], Made]


@pytest.fixture
async def make(store: Store) -> AsyncGenerator[Make]:
    made: list[Made] = []

    def make(spec: ContainerSpec) -> Made:
        made.append(Made(store, spec))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def text(message: Message) -> str:
    return text_format.MessageToString(message, as_utf8=True)


async def test_configure_request(make: Make) -> None:
    supervisor = join(make(WEB))
    before = time.time_ns()
    request, second = supervisor.life._configure_request(), supervisor.life._configure_request()
    assert before <= request.time_unix_nanos <= second.time_unix_nanos <= time.time_ns()
    assert len(request.entropy) == len(second.entropy) == 64
    assert request.entropy != second.entropy
    request.ClearField("time_unix_nanos")
    request.ClearField("entropy")
    assert text(request) == CONFIGURE


async def test_a_restored_guest_finds_its_card_by_the_templates_address(make: Make) -> None:
    supervisor = join(make(WEB))
    supervisor.life._machine._template = Template(id="t", directory=Path("/t"), description={})
    [card] = supervisor.life._configure_request().interfaces
    assert (card.mac, card.device_mac) == ("52:54:00:27:1a:41", "02:00:00:00:00:01")


async def test_create_request(make: Make) -> None:
    assert text(join(make(WEB)).life._create_request()) == CREATE


async def test_a_socket_is_mounted_after_what_it_lies_in(make: Make, store: Store) -> None:
    path = store.paths.runtime / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        mount = Mount(type="socket", source=str(path), destination="/a/b/s")
        relaying = make(dataclasses.replace(ALONE, mounts=(mount,))).supervisor
        with relaying.life._relays.open():
            mounts = relaying.life._create_request().mounts
    assert [(one.type, one.destination) for one in mounts] == [
        ("tmpfs", "/a"),
        ("tmpfs", "/a/b"),
        ("socket", "/a/b/s"),
    ]


def test_process_request() -> None:
    assert text(process_request(WEB.process, 33, 77)) == PROCESS


async def test_without_network_there_is_neither_device_nor_nameserver(make: Make) -> None:
    spec = dataclasses.replace(WEB, networks=(), dns=DnsSpec())
    supervisor = make(spec).supervisor
    assert list(supervisor.life._configure_request().interfaces) == []
    files = supervisor.life._create_request().etc_files
    assert files["resolv.conf"] == b""
    assert b"abababababab" not in files["hosts"]
    assert supervisor.life._machine._build_spec(Path("/run/x")).networks == ()


def test_a_process_of_defaults() -> None:
    assert (
        text(process_request(ProcessSpec(args=("true",))))
        == 'args: "true"\ncwd: "/"\nwindow {\n}\n'
    )


@pytest.mark.parametrize(
    ("cpus", "vcpus", "millis"), [(0.01, 1, 10), (1.0, 1, 1000), (1.001, 2, 1001), (4.0, 4, 4000)]
)
async def test_parts_of_cpus(make: Make, cpus: float, vcpus: int, millis: int) -> None:
    supervisor = make(dataclasses.replace(WEB, cpus=cpus)).supervisor
    assert supervisor.life._machine._build_spec(Path("/run/x")).vcpus == vcpus
    assert supervisor.life._create_request().resources.cpu_millis == millis


async def test_machine(make: Make, store: Store) -> None:
    directory = store.paths.container(WEB.id)
    assert join(make(WEB)).life._machine._build_spec(Path("/run/x")) == VmSpec(
        name="web",
        arch=Arch.AMD64,
        accelerator=Accelerator.TCG,
        vcpus=2,
        # The guest's own share comes on top of what the container may use, in whole steps.
        memory_bytes=384 * MIB,
        kernel=Path("/k/vmlinuz"),
        initramfs=Path("/k/init.cpio"),
        kernel_cmdline=("plan", "debug"),
        disks=(
            Disk(path=Path("/data/rootfs/1.erofs"), serial="image", read_only=True),
            Disk(path=directory / "upper.ext4", serial="upper"),
        ),
        networks=(StreamNetwork(mac="52:54:00:27:1a:41", socket_fd=20),),
        control_socket=Path("/run/x/a.sock"),
        console_log=directory / "console.log",
        vmm_log=directory / "vmm.log",
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ExecutionError("no such file"), 127),
        (ExecutionError("no such file", code=ErrorCode.NOT_FOUND), 127),
        (ExecutionError("permission denied", code=ErrorCode.NOT_EXECUTABLE), 126),
        (NotFoundError("no QEMU"), 125),
        (ConfigError("no such user"), 125),
        (GuestError("gone"), 125),
        (WoodlotError("else"), 125),
    ],
)
def test_exit_codes_are_dockers(error: WoodlotError, status: int) -> None:
    assert exit_code(error) == status


class Target:
    """A process, and its VM, that only the signals named end."""

    def __init__(self, supervisor: Supervisor, deadly: set[int | str]) -> None:
        self.got: list[int | str] = []
        self._supervisor = supervisor
        self._deadly = deadly

    async def signal(self, number: int) -> None:
        self._take(number)

    def kill(self) -> None:
        self._take("plug")

    def _take(self, what: int | str) -> None:
        self.got.append(what)
        if what in self._deadly:
            self._supervisor.life.processes.over.set()
            self._supervisor._over.set_result(End(code=1))


@pytest.mark.parametrize(
    ("asked", "deadly", "got"),
    [
        (0, {37, 9}, [37]),
        (3, {3, 9}, [3]),
        (0, {9}, [37, 9]),
        (0, {"plug"}, [37, 9, "plug"]),
    ],
)
async def test_stop_becomes_harder(
    make: Make,
    asked: int,
    deadly: set[int | str],
    got: list[int | str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(life_module, "_KILL_TIMEOUT_S", 0.05)
    # As systemd's images have it.
    supervisor = make(dataclasses.replace(WEB, stop_signal="SIGRTMIN+3")).supervisor
    target = Target(supervisor, deadly)
    supervisor.life.processes.first, supervisor.life._vm = (
        cast("Process", target),
        cast("VirtualMachine", target),
    )
    async with asyncio.timeout(10):
        assert await supervisor.stop(signal_number=asked, grace_s=0.05) == End(code=1)
    assert target.got == got


class Guest:
    """An agent that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.refusal: GuestError | None = None
        self.stands = asyncio.Event()
        self.stands.set()

    async def pause(self, *, timeout_s: float) -> None:
        self._note("pause", timeout_s)
        await self.stands.wait()

    async def unpause(self, *, timeout_s: float) -> None:
        self._note("unpause", timeout_s)

    async def update(self, resources: Message, *, timeout_s: float) -> None:
        self._note(text(resources), timeout_s)

    def _note(self, what: str, timeout_s: float) -> None:
        assert timeout_s > 0
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(what)


def run_in(supervisor: Supervisor) -> Guest:
    """As if its process ran."""
    guest, life = Guest(), supervisor.life
    life.processes.open(cast("Agent", guest))
    life._vm = cast("VirtualMachine", SimpleNamespace(pid=7))
    life._on_change = supervisor._write_running
    life.started.add_done_callback(life._process_started)
    life.started.set_result(None)
    return guest


async def test_paused(make: Make, store: Store) -> None:
    supervisor = make(ALONE).supervisor
    life = supervisor.life
    with pytest.raises(StateError, match="container web is not running"):
        await life.processes.pause()
    guest = run_in(supervisor)
    await asyncio.sleep(0)
    with pytest.raises(StateError, match="container web is not paused"):
        await life.processes.unpause()
    guest.refusal = GuestError("it waits")
    with pytest.raises(GuestError):
        await life.processes.pause()
    assert state.label(lifecycle.find(store, "web").state) == "running"
    guest.refusal = None
    await life.processes.pause()
    assert state.label(lifecycle.find(store, "web").state) == "paused"
    assert lifecycle.find(store, "web").is_live
    with pytest.raises(StateError, match="container web is paused") as caught:
        async with life.processes.exec(ExecSpec(id="1", args=("true",))):
            pass
    assert caught.value.hint == "container unpause web"
    with pytest.raises(StateError, match="paused already"):
        await life.processes.pause()
    await life.processes.unpause()
    assert state.label(lifecycle.find(store, "web").state) == "running"
    assert guest.asked == ["pause", "unpause"]


async def test_whoever_pauses_it_may_leave(make: Make, store: Store) -> None:
    supervisor = make(ALONE).supervisor
    guest = run_in(supervisor)
    guest.stands.clear()
    pausing = asyncio.create_task(supervisor.life.processes.pause())
    while not guest.asked:
        await asyncio.sleep(0)
    pausing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pausing
    guest.stands.set()
    async with asyncio.timeout(10):
        # The next one waits for what was begun.
        with pytest.raises(StateError, match="paused already"):
            await supervisor.life.processes.pause()
    assert state.label(lifecycle.find(store, "web").state) == "paused"
    assert guest.asked == ["pause"]


async def test_one_that_is_paused_goes_on_to_be_stopped(make: Make) -> None:
    supervisor = make(ALONE).supervisor
    guest = run_in(supervisor)
    await asyncio.sleep(0)
    await supervisor.life.processes.pause()
    target = Target(supervisor, {9})
    supervisor.life.processes.first = cast("Process", target)
    async with asyncio.timeout(10):
        await supervisor.stop(signal_number=3, grace_s=0.05)
    assert target.got == [3, 9]
    assert guest.asked == ["pause", "unpause"]


async def test_update(make: Make, store: Store) -> None:
    supervisor = make(ALONE).supervisor
    with pytest.raises(StateError, match="container web is not running"):
        await supervisor.update(Update(cpus=1))
    guest = run_in(supervisor)
    await asyncio.sleep(0)
    # Of 200 MiB a machine is made with 384 MiB, for the guest itself 128.
    policy = parse_policy("always")
    await supervisor.update(Update(cpus=2, memory_bytes=256 * MIB, restart=policy))
    await supervisor.update(Update(memory_bytes=100 * MIB))
    assert guest.asked == [
        "cpu_millis: 2000\nmemory_bytes: 268435456\n",
        "cpu_millis: 2000\nmemory_bytes: 104857600\n",
    ]
    guest.refusal = GuestError("its processes use more")
    with pytest.raises(GuestError):
        await supervisor.update(Update(memory_bytes=10 * MIB))
    guest.refusal = None
    for wanted, message in (
        (Update(cpus=2.1), "--cpus 2.1 is more than the 2 "),
        (Update(memory_bytes=257 * MIB), "--memory 257m is more than the 256m "),
    ):
        with pytest.raises(LimitError, match=message) as caught:
            await supervisor.update(wanted)
        assert "start it again" in (caught.value.hint or "")
    spec = lifecycle.find(store, "web").spec
    assert spec == dataclasses.replace(ALONE, cpus=2, memory_bytes=100 * MIB, restart=policy)
    # The next life's machine is made as it is now.
    following = supervisor._make_life()
    assert following.machine.max_memory_bytes == 128 * MIB
    await following.session.finish()


# A life without a VM: there is no mkfs.ext4 and no QEMU.


@pytest.fixture
def bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.usefixtures("bare_host")
async def test_no_vm_is_told_to_the_launcher_and_recorded(make: Make, store: Store) -> None:
    made = make(ALONE)
    before = time.time()
    async with asyncio.timeout(30):
        await made.supervisor.run()
    with pytest.raises(WoodlotError) as caught:
        wait_ready(made.launcher)
    assert caught.value.code is ErrorCode.NOT_FOUND
    # What the command makes of it is 125, not 127.
    assert exit_code(caught.value) == 125
    recorded = lifecycle.find(store, "web").state
    assert isinstance(recorded, state.Stopped)
    assert (recorded.exit_code, recorded.started_at) == (125, 0.0)
    assert recorded.finished_at >= before
    assert recorded.reason == caught.value.message
    assert not store.paths.sockets(WEB.id).exists()


@pytest.mark.usefixtures("bare_host")
async def test_clients_of_one_without_vm_are_told(make: Make) -> None:
    made = make(ALONE)
    starting = asyncio.create_task(made.supervisor.start_process(owned=False))
    stopping = asyncio.create_task(made.supervisor.stop())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await made.supervisor.run()
        with pytest.raises(NotFoundError):
            await starting
        assert (await stopping).code == 125
    with pytest.raises(StateError, match="container web is not running"):
        _ = made.supervisor.life.processes.own
    subscriber = await made.supervisor.life.session.subscribe()
    assert await subscriber.get() is None


@pytest.mark.usefixtures("bare_host")
async def test_one_to_remove_leaves_nothing(make: Make, store: Store) -> None:
    spec = dataclasses.replace(ALONE, remove=True)
    made = make(spec)
    async with asyncio.timeout(30):
        await made.supervisor.run()
    assert store.containers.list() == []
    assert not store.paths.container(spec.id).exists()


class DyingVm:
    """A VM that has been killed and is not gone yet."""

    pid = 7

    def __init__(self) -> None:
        self.killed = False
        self.gone = asyncio.Event()

    def kill(self) -> None:
        self.killed = True

    async def wait(self) -> VmExit:
        await self.gone.wait()
        return VmExit(reason="ended by signal SIGKILL", orderly=False)


VOLUME = Mount(type="volume", source="data", destination="/data")


@pytest.mark.parametrize(
    ("remove", "mounts", "waits"),
    [(True, (), False), (False, (), True), (True, (VOLUME,), True)],
)
async def test_what_is_thrown_away_is_not_waited_for(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    remove: bool,
    mounts: tuple[Mount, ...],
    waits: bool,
) -> None:
    vm = DyingVm()

    @asynccontextmanager
    async def start(_: Machine) -> AsyncGenerator[tuple[DyingVm, None]]:
        yield vm, None

    async def live(*_: object) -> End:
        return End(code=3)

    async def up() -> None:
        pass

    monkeypatch.setattr(Machine, "start", start)
    monkeypatch.setattr(Life, "_live", live)
    spec = dataclasses.replace(ALONE, remove=remove, mounts=mounts)
    life = make(spec).supervisor.life
    entered = asyncio.Event()

    async def lead() -> None:
        async with life.lived(up=up, on_change=lambda: None) as end:
            assert (end, vm.killed) == (End(code=3), True)
            entered.set()

    leading = asyncio.create_task(lead())
    for _ in range(10):
        await asyncio.sleep(0)
    assert entered.is_set() is not waits
    vm.gone.set()
    async with asyncio.timeout(10):
        await leading
    assert entered.is_set()


# Lives one after the other, of a guest whose process ends at once.


@pytest.fixture
def short_lives(monkeypatch: pytest.MonkeyPatch) -> list[End]:
    """How each life is to end; a life that is not in the list lasts until it is stopped."""
    ends: list[End] = []

    @asynccontextmanager
    async def lived(
        self: Life, *, up: Callable[[], Awaitable[None]], on_change: Callable[[], None]
    ) -> AsyncGenerator[End]:
        del on_change
        await up()
        await self._wanted
        self.processes.started_at = time.time()
        self.started.set_result(None)
        if not ends:
            await self._abandoned.wait()
        await self.session.finish()
        yield ends.pop(0) if ends else End(code=143)

    monkeypatch.setattr(Life, "lived", lived)
    return ends


def restarted(policy: str) -> ContainerSpec:
    return dataclasses.replace(ALONE, restart=parse_policy(policy))


async def test_it_is_started_again_as_often_as_its_policy_says(
    make: Make, store: Store, short_lives: list[End]
) -> None:
    made = make(restarted("on-failure:2"))
    short_lives += [End(code=3), End(code=4, reason="gone"), End(code=5)]
    running = asyncio.create_task(made.supervisor.run())
    first = made.supervisor.life
    async with asyncio.timeout(30):
        await made.supervisor.start_process(owned=True)
        assert await first.ended == End(code=3)
        assert made.supervisor.life is not first
        found = lifecycle.find(store, WEB.id)
        assert found.is_live
        assert found.state == dataclasses.replace(
            cast("state.Restarting", found.state), exit_code=3, restart_count=1
        )
        # The client that started it leaves, as it does after the first end.
        made.launcher.close()
        await running
    recorded = lifecycle.find(store, WEB.id).state
    assert isinstance(recorded, state.Stopped)
    assert (recorded.exit_code, recorded.restart_count, recorded.by_user) == (5, 2, False)


async def test_stopped_while_it_waits_it_stays_so(
    make: Make, store: Store, short_lives: list[End], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "_FIRST_DELAY_S", 3600.0)
    made = make(restarted("always"))
    short_lives += [End(code=3)]
    running = asyncio.create_task(made.supervisor.run())
    first = made.supervisor.life
    async with asyncio.timeout(30):
        await made.supervisor.start_process(owned=False)
        await first.ended
        # Somebody waits for the next start, and another for its output.
        waiting = asyncio.create_task(made.supervisor.start_process(owned=False))
        subscriber = await made.supervisor.life.session.subscribe()
        await asyncio.sleep(0)
        assert await made.supervisor.stop() == End(code=3)
        with pytest.raises(StateError, match="container web was stopped"):
            await waiting
        assert await subscriber.get() is None
        await running
    recorded = lifecycle.find(store, WEB.id).state
    assert isinstance(recorded, state.Stopped)
    assert (recorded.exit_code, recorded.by_user) == (3, True)


@pytest.mark.parametrize(("by_user", "recorded"), [(True, True), (False, False)])
async def test_stopped_while_it_runs_it_stays_so(
    make: Make, store: Store, short_lives: list[End], *, by_user: bool, recorded: bool
) -> None:
    assert not short_lives
    made = make(restarted("always"))
    running = asyncio.create_task(made.supervisor.run())
    async with asyncio.timeout(30):
        await made.supervisor.start_process(owned=True)
        # What has a policy does not belong to the client that started it.
        made.supervisor.owner_left()
        assert await made.supervisor.stop(by_user=by_user) == End(code=143)
        await running
    stopped = lifecycle.find(store, WEB.id).state
    assert isinstance(stopped, state.Stopped)
    assert stopped.by_user is recorded
