"""A machine that starts from a template, or boots when that does not work."""

import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Self, cast

import pytest

from tests.unit.container.specs import WEB
from woodlot.container.boot import MachinePlan
from woodlot.container.links import Links
from woodlot.container.machine import Machine
from woodlot.container.spec import ContainerSpec, Mount, NetworkSpec
from woodlot.errors import ConfigError, GuestTimeoutError, VmmError, WoodlotError
from woodlot.network.link import Link
from woodlot.paths import Paths
from woodlot.store.store import Store
from woodlot.template import template
from woodlot.template.template import Template
from woodlot.vmm.base import Accelerator, Arch, SavedMachine, VmSpec

if TYPE_CHECKING:
    from woodlot.container.warm import WarmMachine

PLAN = MachinePlan(
    arch=Arch.AMD64,
    accelerator=Accelerator.TCG,
    kernel=Path("/k/vmlinuz"),
    initramfs=Path("/k/init.cpio"),
    guest="kernel agent",
)
SPEC = dataclasses.replace(WEB, networks=(), mounts=(), kernel_args=())


class World:
    """Stands for QEMU, the guest and the templates; `starts` tells what each VM began from."""

    def __init__(self, directory: Path) -> None:
        self.starts: list[str] = []
        self.running = 0
        self.refuses: dict[str, WoodlotError] = {}
        self.silent: set[str] = set()
        self.template = Template(id="t", directory=directory, description={})
        self.kept = True
        self.asked: list[VmSpec] = []
        directory.mkdir()
        (directory / "console.log").write_text("booted once\n")

    def __call__(self, arch: Arch) -> Self:
        return self

    @contextlib.asynccontextmanager
    async def start(
        self, spec: VmSpec, saved: SavedMachine | None
    ) -> AsyncGenerator[SimpleNamespace]:
        how = "template" if saved else "boot"
        self.starts.append(how)
        if how in self.refuses:
            raise self.refuses[how]
        self.running += 1
        try:
            yield SimpleNamespace(control_target=how)
        finally:
            self.running -= 1

    def agent(self, target: str) -> "Agent":
        return Agent(target, self)

    async def ensure(self, paths: Paths, spec: VmSpec, guest: str) -> Template:
        self.asked.append(spec)
        if "ensure" in self.refuses:
            raise self.refuses["ensure"]
        return self.template

    def discard(self, one: Template) -> None:
        assert one is self.template
        self.kept = False


class Agent:
    def __init__(self, target: str, world: World) -> None:
        self.target = target
        self._world = world

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None: ...

    async def hello(self, *, timeout_s: float) -> None:
        if self.target in self._world.silent:
            raise GuestTimeoutError("the guest agent did not answer")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path / "template")
    monkeypatch.setattr("woodlot.vmm.qemu.machine.QemuVmm", made)
    monkeypatch.setattr("woodlot.guest.client.Agent", made.agent)
    monkeypatch.setattr(template, "ensure", made.ensure)
    monkeypatch.setattr(template, "discard", made.discard)
    return made


@pytest.fixture
def machine(store: Store) -> Machine:
    store.paths.container(SPEC.id).mkdir(parents=True)
    return Machine(store.paths, store, SPEC, PLAN)


async def test_it_goes_on_from_a_template(world: World, machine: Machine, store: Store) -> None:
    async with machine.start() as (_, agent):
        assert agent.target == "template"  # type: ignore[attr-defined]
        assert machine.restored
    assert world.starts == ["template"]
    assert world.running == 0
    # What its kernel said when it booted, for `logs --boot`.
    log = store.paths.container(SPEC.id) / "console.log"
    assert log.read_text() == "booted once\n"


@pytest.mark.parametrize("fault", ["refused", "silent"])
async def test_a_template_that_does_not_work_goes_and_it_boots(
    world: World, machine: Machine, fault: str
) -> None:
    if fault == "refused":
        world.refuses["template"] = VmmError("it does not fit")
    else:
        world.silent.add("template")
    async with machine.start() as (_, agent):
        assert agent.target == "boot"  # type: ignore[attr-defined]
        assert not machine.restored
        assert world.running == 1
    assert world.starts == ["template", "boot"]
    assert not world.kept


async def test_it_boots_where_none_can_be_made(world: World, machine: Machine) -> None:
    world.refuses["ensure"] = VmmError("no space")
    async with machine.start():
        assert world.starts == ["boot"]
    assert world.kept


async def test_what_booting_cannot_mend_is_told(world: World, machine: Machine) -> None:
    world.refuses = {"template": VmmError("no memory"), "boot": VmmError("no memory")}
    with pytest.raises(VmmError, match="no memory"):
        async with machine.start():
            pytest.fail("it did not start")
    assert world.running == 0


@pytest.mark.parametrize(
    "case",
    [
        (SPEC, PLAN, "template", "template"),
        (SPEC, PLAN, "cold", "boot"),
        (dataclasses.replace(SPEC, kernel_args=("loglevel=7",)), PLAN, "template", "boot"),
        (SPEC, dataclasses.replace(PLAN, arch=Arch.ARM64), "template", "template"),
        (
            dataclasses.replace(SPEC, mounts=(Mount(type="bind", source="/x", destination="/x"),)),
            dataclasses.replace(PLAN, arch=Arch.ARM64),
            "template",
            "boot",
        ),
    ],
)
async def test_who_boots(
    world: World,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[ContainerSpec, MachinePlan, str, str],
) -> None:
    spec, plan, how, expected = case
    monkeypatch.setenv("WOODLOT_VM_BOOT", how)
    monkeypatch.setattr("woodlot.container.sharing.Sharing.open", nothing_shared)
    store.paths.container(spec.id).mkdir(parents=True)
    async with Machine(store.paths, store, spec, plan).start():
        assert world.starts == [expected]


@contextlib.asynccontextmanager
async def nothing_shared(*args: object) -> AsyncGenerator[None]:
    yield


async def test_an_unknown_way_to_start_is_told(
    world: World, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOODLOT_VM_BOOT", "warm")
    with pytest.raises(ConfigError, match=r"vm\.boot cannot be 'warm'"):
        async with machine.start():
            pytest.fail("it did not start")


async def test_memory_comes_in_steps_and_the_disk_is_made(world: World, store: Store) -> None:
    store.paths.container(SPEC.id).mkdir(parents=True)
    async with Machine(store.paths, store, SPEC, PLAN).start():
        [spec] = world.asked
        assert spec.memory_bytes % (128 << 20) == 0
        assert spec.disks[1].path is not None
        assert spec.disks[1].path.exists()


class Warm:
    """A machine that waited."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.vm = SimpleNamespace(control_target="warm")
        self.agent = Agent("warm", world)
        self.links: list[Link] = [Link()]
        self.template = world.template
        self.hello = "answered"
        self.became: list[VmSpec] = []

    async def __aenter__(self) -> Self:
        self._world.running += 1
        return self

    async def __aexit__(self, *args: object) -> None:
        self._world.running -= 1

    async def become(self, spec: VmSpec) -> None:
        if "warm" in self._world.refuses:
            raise self._world.refuses["warm"]
        self.became.append(spec)


@contextlib.asynccontextmanager
async def joined(links: Links, paths: Paths) -> AsyncGenerator[None]:
    yield


ONE_NETWORK = dataclasses.replace(SPEC, networks=(NetworkSpec(network="default"),))


async def test_it_goes_on_with_a_machine_that_waited(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Links, "joined", joined)
    store.paths.container(SPEC.id).mkdir(parents=True)
    warm = Warm(world)
    machine = Machine(store.paths, store, ONE_NETWORK, PLAN, warm=cast("WarmMachine", warm))
    async with machine.start() as (_, agent):
        assert agent.target == "warm"  # type: ignore[attr-defined]
        assert machine.restored
        # It has said so already.
        assert str(await machine.hello(agent)) == "answered"
        [spec] = warm.became
        assert [disk.path for disk in spec.disks] == [
            Path(SPEC.rootfs),
            store.paths.container(SPEC.id) / "upper.ext4",
        ]
        assert warm.links[0]._switchs.fileno() >= 0
    assert world.starts == []
    assert world.running == 0
    assert warm.links[0]._switchs.fileno() < 0


@pytest.mark.parametrize("fault", ["refused", "bridge"])
async def test_one_that_is_of_no_use_is_ended_and_a_template_is_taken(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(Links, "joined", joined)
    store.paths.container(SPEC.id).mkdir(parents=True)
    warm = Warm(world)
    spec = ONE_NETWORK
    if fault == "refused":
        world.refuses["warm"] = VmmError("it died")
    else:
        monkeypatch.setattr(
            Links, "come_first", property(lambda links: warm.links[0] in links._links)
        )
    machine = Machine(store.paths, store, spec, PLAN, warm=cast("WarmMachine", warm))
    async with machine.start() as (_, agent):
        assert agent.target == "template"  # type: ignore[attr-defined]
        assert world.running == 1
    assert world.starts == ["template"]
    # It is not the template's fault.
    assert world.kept
    assert warm.links[0]._switchs.fileno() < 0
