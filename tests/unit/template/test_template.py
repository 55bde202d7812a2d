"""Which saved machine serves whom, and what becomes of those that do not."""

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Self

import pytest

from woodlot.errors import GuestError, VmmError, WoodlotError
from woodlot.paths import Paths
from woodlot.template import shape, template
from woodlot.units import MIB
from woodlot.vmm.base import (
    Accelerator,
    Arch,
    Disk,
    SharedFiles,
    StreamNetwork,
    UnconnectedNetwork,
    VmSpec,
)

SPEC = VmSpec(
    name="web",
    arch=Arch.AMD64,
    accelerator=Accelerator.TCG,
    vcpus=1,
    memory_bytes=256 * MIB,
    kernel=Path("/k/vmlinuz"),
    initramfs=Path("/k/init.cpio"),
    kernel_cmdline=("quiet",),
    disks=(
        Disk(path=Path("/d/image.erofs"), serial="image", read_only=True),
        Disk(path=Path("/d/upper.ext4"), serial="upper"),
    ),
    networks=(StreamNetwork(mac="52:54:00:01:02:03", socket_fd=20),),
    control_socket=Path("/r/a.sock"),
    console_log=Path("/d/console.log"),
    vmm_log=Path("/d/vmm.log"),
)


def build_id(spec: VmSpec, guest: str = "kernel agent") -> str:
    return shape.build_id(shape.describe(spec, Path("/bin/true"), guest))


@pytest.mark.parametrize(
    "other",
    [
        {"name": "db"},
        {"control_socket": Path("/r/b.sock"), "console_log": Path("/x"), "vmm_log": Path("/y")},
        {"disks": (Disk(path=Path("/x"), serial="i", read_only=True), Disk(path=Path("/y"), serial="u"))},
        {"networks": (StreamNetwork(mac="52:54:00:99:99:99", socket_fd=20),)},
        # Plugged in afterwards.
        {"shares": (SharedFiles(tag="fs0", socket_fd=9),)},
        # The files may move; what is in them is part of the guest.
        {"kernel": Path("/elsewhere/vmlinuz"), "initramfs": Path("/elsewhere/init.cpio")},
    ],
)  # fmt: skip
def test_what_is_a_containers_own_changes_no_template(other: dict[str, object]) -> None:
    assert build_id(dataclasses.replace(SPEC, **other)) == build_id(SPEC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        {"vcpus": 2},
        {"memory_bytes": 512 * MIB},
        {"accelerator": Accelerator.KVM},
        {"arch": Arch.ARM64},
        {"kernel_cmdline": ("debug",)},
        {"disks": SPEC.disks[:1]},
        {"disks": (SPEC.disks[1], SPEC.disks[0])},
        {"networks": ()},
    ],
)
def test_what_shapes_a_machine_changes_its_template(other: dict[str, object]) -> None:
    assert build_id(dataclasses.replace(SPEC, **other)) != build_id(SPEC)  # type: ignore[arg-type]


def test_another_guest_or_monitor_is_another_template() -> None:
    assert build_id(SPEC, "kernel other") != build_id(SPEC)
    assert shape.build_id(shape.describe(SPEC, Path("/bin/false"), "kernel agent")) != build_id(
        SPEC
    )


def test_what_is_booted_has_nothing_of_the_container() -> None:
    spec = dataclasses.replace(SPEC, shares=(SharedFiles(tag="fs0", socket_fd=9),))
    made = shape.to_be_saved(spec, Path("/t"), Path("/s"))
    assert [disk.path for disk in made.disks] == [None, None]
    assert [disk.read_only for disk in made.disks] == [True, False]
    assert made.networks == (UnconnectedNetwork(mac="02:00:00:00:00:01"),)
    assert made.shares == ()
    assert made.memory_file == Path("/t/memory")
    assert str(made.control_socket) == "/s/a.sock"
    assert "/d/" not in repr(made)
    assert "/r/" not in repr(made)


class Booted:
    """Stands for QEMU and the guest: counts boots, fails on demand."""

    def __init__(self) -> None:
        self.boots = 0
        self.problem: WoodlotError | None = None
        self.torn = False
        self.control_target = "unix:/nowhere"

    def __call__(self, arch: Arch) -> "Booted":
        return self

    @contextlib.asynccontextmanager
    async def start(self, spec: VmSpec) -> AsyncGenerator["Booted"]:
        self.boots += 1
        self.spec = spec
        assert spec.memory_file is not None
        spec.memory_file.write_bytes(b"memory" * 1000)
        spec.console_log.write_bytes(b"panic: none\n")
        await asyncio.sleep(0.01)
        if self.problem is not None:
            raise self.problem
        yield self

    async def save(self, state: Path) -> None:
        state.write_bytes(b"state")
        if self.torn:
            raise VmmError("QEMU went")

    def kill(self) -> None: ...

    async def wait(self) -> None: ...

    # The agent.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None: ...

    async def hello(self, *, timeout_s: float) -> None: ...

    async def settle(self, *, timeout_s: float) -> None: ...


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch) -> Booted:
    fake = Booted()
    monkeypatch.setattr(template, "QemuVmm", fake)
    monkeypatch.setattr("woodlot.guest.client.Agent", lambda _: fake)
    monkeypatch.setattr("woodlot.vmm.qemu.binary.find_qemu", lambda _: Path("/bin/true"))
    return fake


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "run").mkdir()
    return Paths(data=tmp_path / "data", runtime=tmp_path / "run")


async def ensure(paths: Paths, **changes: object) -> template.Template:
    spec = dataclasses.replace(SPEC, **changes)  # type: ignore[arg-type]
    return await template.ensure(paths, spec, "kernel agent")


async def test_it_is_made_once_and_found_again(paths: Paths, booted: Booted) -> None:
    made = await ensure(paths)
    assert made == await ensure(paths, name="other")
    assert booted.boots == 1
    assert made.machine.memory.read_bytes() == b"memory" * 1000
    assert made.console_log.read_bytes() == b"panic: none\n"
    assert made.description["memory_bytes"] == 256 * MIB
    assert await ensure(paths, vcpus=2) != made
    assert booted.boots == 2
    assert sorted(path.name for path in paths.runtime.iterdir()) == []


async def test_many_who_want_one_at_once_make_one(paths: Paths, booted: Booted) -> None:
    made = await asyncio.gather(*(ensure(paths, name=f"c{number}") for number in range(20)))
    assert booted.boots == 1
    assert len({one.id for one in made}) == 1


def change_memory(directory: Path) -> None:
    with (directory / "memory").open("r+b") as file:
        file.write(b"X")
    os.utime(directory / "memory", ns=(1, 1))


@pytest.mark.parametrize(
    "damage",
    [
        change_memory,
        lambda d: (d / "memory").unlink(),
        lambda d: (d / "memory").write_bytes(b"short"),
        lambda d: (d / "state").write_bytes(b"State"),
        lambda d: (d / "state").unlink(),
        lambda d: (d / "manifest.json").write_bytes(b"{"),
        lambda d: (d / "manifest.json").write_bytes(b"[]"),
        lambda d: (d / "manifest.json").write_bytes(b'{"description": {}}'),
        lambda d: (d / "manifest.json").unlink(),
        shutil.rmtree,
    ],
)
async def test_a_damaged_one_is_made_again(
    paths: Paths, booted: Booted, damage: Callable[[Path], object]
) -> None:
    made = await ensure(paths)
    damage(made.directory)
    again = await ensure(paths)
    assert booted.boots == 2
    assert again.id == made.id
    assert again.machine.memory.read_bytes() == b"memory" * 1000


async def test_one_of_another_machine_under_its_name_is_not_taken(
    paths: Paths, booted: Booted
) -> None:
    one, two = await ensure(paths), await ensure(paths, vcpus=2)
    shutil.rmtree(one.directory)
    two.directory.rename(one.directory)
    assert (await ensure(paths)).description["vcpus"] == 1
    assert booted.boots == 3


@pytest.mark.parametrize("torn", [False, True])
async def test_what_cannot_be_made_leaves_nothing(paths: Paths, booted: Booted, torn: bool) -> None:
    booted.torn = torn
    booted.problem = None if torn else GuestError("the guest agent did not answer")
    with pytest.raises(WoodlotError) as caught:
        await ensure(paths)
    assert caught.value.details == "panic: none"
    assert [path for path in paths.templates.iterdir() if path.is_dir()] == []
    booted.torn, booted.problem = False, None
    await ensure(paths)


async def test_leftovers_of_a_killed_maker_are_replaced(paths: Paths, booted: Booted) -> None:
    made = await ensure(paths)
    part = made.directory.with_suffix(".part")
    made.directory.rename(part)
    await ensure(paths)
    assert not part.exists()


async def test_the_unused_go_first(paths: Paths, booted: Booted) -> None:
    old, new, fresh = [await ensure(paths, vcpus=number) for number in (1, 2, 3)]
    now = time.time()
    for age, one in ((30 * 86400, old), (100, new), (1, fresh)):
        os.utime(one.directory / "manifest.json", (now - age, now - age))
    assert [one.id for one in template.list_templates(paths)] == [fresh.id, new.id, old.id]
    assert template.prune(paths) == [old]
    size = fresh.size_bytes
    assert template.prune(paths, max_bytes=size + 1) == [new]
    assert template.prune(paths, max_bytes=0, keep=fresh.id) == []
    assert template.prune(paths, max_bytes=0) == [fresh]


async def test_one_that_is_used_becomes_young(paths: Paths, booted: Booted) -> None:
    made = await ensure(paths)
    os.utime(made.directory / "manifest.json", (1, 1))
    await ensure(paths)
    assert template.prune(paths) == []


async def test_pruning_takes_what_is_of_no_use(paths: Paths, booted: Booted) -> None:
    made = await ensure(paths)
    manifest = made.directory / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "state": "0" * 64}))
    (paths.templates / "0123.part").mkdir()
    assert template.list_templates(paths) == []
    assert template.prune(paths) == []
    assert [path for path in paths.templates.iterdir() if path.is_dir()] == []
