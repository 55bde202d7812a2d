"""A container being made while others delete, prune and sweep."""

import asyncio
import gc
from pathlib import Path

import pytest

from tests.unit.container.images import add_image
from woodlot.container import begin, lifecycle
from woodlot.container.boot import MachinePlan
from woodlot.container.create import Request
from woodlot.container.prune import prune_everything, prune_images
from woodlot.errors import ConfigError, NotFoundError, StateError, VmmError
from woodlot.image import pull
from woodlot.image.collect import delete, sweep
from woodlot.paths import Paths
from woodlot.store.store import Store
from woodlot.vmm.base import Accelerator, Arch

NAME = "docker.io/library/busybox:1.35"


@pytest.fixture(autouse=True)
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    async def plan(
        paths: Paths, *, arch: Arch, kernel_file: Path | None, progress: object
    ) -> MachinePlan:
        del kernel_file, progress
        return MachinePlan(
            arch=arch, accelerator=Accelerator.TCG, kernel=paths.kernels, initramfs=paths.initramfs, guest="g",
        )  # fmt: skip

    monkeypatch.setattr(begin, "plan_machine", plan)


async def test_an_image_that_a_container_is_being_made_of_stays(store: Store, paths: Paths) -> None:
    add_image(store, "busybox:1.35")
    prepared = await begin.prepare(store, "busybox:1.35", Request())
    # Another process's.
    other = Store(paths)
    assert prune_images(other, {}, every=True).images == ()
    pruned = await prune_everything(other, every_image=True)
    assert (pruned.images, pruned.swept) == ((), False)
    for force in (False, True):
        with pytest.raises(StateError, match="a container that is being made"):
            delete(other, "busybox:1.35", force=force)
    spec = begin.create(store, prepared)
    # Then it is the container that keeps it, and nothing is held any more.
    assert Path(spec.rootfs).exists()
    with pytest.raises(StateError, match=f"used by container {spec.name}"):
        delete(other, "busybox:1.35")
    swept = sweep(other)
    assert swept is not None
    assert not (paths.data / "leases").exists()
    lifecycle.delete(other, lifecycle.find(other, spec.id))
    assert prune_images(other, {}, every=True).images == (NAME,)


async def test_a_name_that_moves_on_meanwhile_takes_no_part_away(
    store: Store, paths: Paths
) -> None:
    add_image(store, "busybox:1.35")
    prepared = await begin.prepare(store, "busybox:1.35", Request())
    other = Store(paths)
    add_image(other, "busybox:1.35", {"Cmd": ["new"]})
    assert sweep(other) is None
    spec = begin.create(store, prepared)
    sweep(other)
    assert Path(spec.rootfs).exists()
    assert other.content.has(prepared.image.manifest_digest)


async def test_nothing_stays_held_when_no_container_comes_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(store, "busybox:1.35")
    wrong = Request(workdir="not/absolute")
    prepared = await begin.prepare(store, "busybox:1.35", wrong)
    with pytest.raises(ConfigError, match="workdir"):
        begin.create(store, prepared)
    assert sweep(store) is not None

    async def refuse(*arguments: object, **options: object) -> MachinePlan:
        raise VmmError("no QEMU")

    monkeypatch.setattr(begin, "plan_machine", refuse)
    with pytest.raises(VmmError):
        await begin.prepare(store, "busybox:1.35", Request())
    gc.collect()
    assert prune_images(store, {}, every=True).images == (NAME,)


async def test_one_deleted_just_when_it_was_fetched_is_fetched_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulls: list[str] = []

    async def fetch(store: Store, reference: str, **options: object) -> None:
        pulls.append(reference)
        add_image(store, reference)
        if len(pulls) == 1:
            delete(store, reference)
        await asyncio.sleep(0)

    monkeypatch.setattr(pull, "pull", fetch)
    prepared = await begin.prepare(store, "busybox:1.35", Request())
    assert str(prepared.image.reference) == NAME
    assert pulls == ["busybox:1.35"] * 2
    prepared.kept.close()

    async def in_vain(*arguments: object, **options: object) -> None:
        pulls.append("in vain")

    monkeypatch.setattr(pull, "pull", in_vain)
    with pytest.raises(NotFoundError, match="no such image"):
        await begin.prepare(store, "other:1", Request())
    assert pulls[2:] == ["in vain"] * 2
