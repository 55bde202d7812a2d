"""``container system df``, and the commands that prune."""

import io
import json
import os
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.unit.cli.conftest import Command, add
from tests.unit.container.images import add_image
from woodlot import aio, sync
from woodlot.container import disk_usage, lifecycle, prune, state
from woodlot.container.spec import NetworkSpec
from woodlot.errors import ConfigError
from woodlot.network import network, remove
from woodlot.paths import Paths
from woodlot.store.locks import try_hold
from woodlot.store.store import Store
from woodlot.template import template
from woodlot.volume import volume


def fill(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_usage_counts_what_is_shared_once(world: Store) -> None:
    record = world.images.get("docker.io/library/busybox:1.35")
    assert record is not None
    alone = disk_usage.measure(world).images
    world.images.put(
        reference="docker.io/library/again:1", digest=record.digest, media_type="x", size=1
    )
    measured = disk_usage.measure(world)
    assert (measured.images.total, measured.images.active) == (3, 2)
    assert measured.images.size_bytes == alone.size_bytes
    assert 0 < measured.images.reclaimable_bytes < measured.images.size_bytes
    assert (measured.containers.total, measured.containers.active) == (3, 1)
    assert (measured.volumes.total, measured.volumes.active) == (2, 1)
    fill(world.paths.volume("spare") / "data" / "file", 1 << 20)
    fill(world.paths.container("b" * 64) / "upper.ext4", 2 << 20)
    after = disk_usage.measure(world)
    assert after.volumes.reclaimable_bytes - measured.volumes.reclaimable_bytes >= 1 << 20
    assert after.containers.reclaimable_bytes - measured.containers.reclaimable_bytes >= 2 << 20


def test_df(world: Store, run: Command) -> None:
    lines = run.ok("system", "df")
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "Images",
        "Containers",
        "Local Volumes",
        "Templates",
        "Kernels",
        "Caches",
    ]
    as_json = json.loads(run("system", "df", "--format", "json").out)
    assert as_json["containers"] | {"sizeInBytes": 0, "reclaimable": 0} == {
        "total": 3,
        "active": 1,
        "sizeInBytes": 0,
        "reclaimable": 0,
    }
    assert yaml.safe_load(run("system", "df", "--format", "yaml").out) == as_json
    template = r"table {{.Type}}\t{{.TotalCount}}\t{{.Active}}"
    assert run.ok("system", "df", "--format", template)[:3] == [
        "TYPE           TOTAL  ACTIVE",
        "Images         2      1",
        "Containers     3      1",
    ]
    verbose = run.ok("system", "df", "-v")
    assert any(line.startswith("docker.io/library/busybox:1.35") for line in verbose)
    items = json.loads(run("system", "df", "-v", "--format", "json").out)["volumes"]["items"]
    assert [(item["name"], item["active"]) for item in items] == [("data", True), ("spare", False)]


async def test_pruning_everything_keeps_what_is_used(world: Store) -> None:
    network.create(world, "empty")
    volume.create(world, "anon", anonymous=True)
    fill(world.paths.container("b" * 64) / "upper.ext4", 1 << 20)
    pruned = await prune.prune_everything(world)
    assert pruned.containers == ("b" * 64, "c" * 64)
    assert pruned.networks == ("empty",)
    assert (pruned.volumes, pruned.images, pruned.swept) == ((), (), True)
    assert pruned.freed_bytes >= 1 << 20
    assert [one.spec.name for one in lifecycle.find_all(world)] == ["web"]
    assert [one.name for one in network.find_all(world)] == ["default", "back"]

    pruned = await prune.prune_everything(world, every_image=True, volumes=True)
    assert (pruned.containers, pruned.networks, pruned.volumes) == ((), (), ("anon",))
    assert pruned.images == ("reg.example:5000/team/app:2",)
    assert [record.name for record in world.volumes.list()] == ["data", "spare"]
    assert [record.reference for record in world.images.list()] == [
        "docker.io/library/busybox:1.35"
    ]


async def test_what_is_being_used_stays(world: Store) -> None:
    # Its files are being copied, or it is being started: somebody holds its lock.
    with try_hold(world.paths.container("b" * 64) / "lock") as held:
        assert held
        assert prune.prune_containers(world, {}).containers == ("c" * 64,)
    # Named by a container that was recorded after the candidates were chosen.
    late = network.create(world, "late")
    networks = (NetworkSpec(network="late"),)
    add(world, "d", "newcomer", state.Created(), networks=networks)
    assert await remove.prune(world, [late]) == []
    assert network.find(world, "late") == late
    with world.using_sync():
        assert not prune.prune_images(world, {}).swept


def test_conditions(world: Store, run: Command) -> None:
    assert run.ok("prune", "--filter", "until=1h", "--filter", "label!=tier") == []
    assert run.ok("prune", "--filter", "until=1h") == ["b" * 64]
    assert run.ok("network", "prune", "--filter", "label=no") == []
    assert run.ok("volume", "prune", "-a", "--filter", "label=keep") == ["data"]
    assert run.ok("volume", "prune", "--all", "--filter", "until=1h") == []
    assert run.ok("volume", "prune", "-a", "-f") == ["spare"]
    assert run.ok("image", "prune", "-a", "--filter", "label=tier") == []
    assert run.ok("image", "prune", "-a", "-f") == ["reg.example:5000/team/app:2"]
    ran = run("system", "prune", "--filter", "colour=red")
    assert (ran.status, "filters are label, until" in ran.err) == (64, True)
    assert run("system", "prune", "--volumes", "--filter", "until=1h").status == 64


def test_it_prints_what_it_removed(world: Store, run: Command) -> None:
    ran = run("system", "prune", "--all")
    assert ran.out == (
        f"Deleted containers:\n{'b' * 64}\n{'c' * 64}\n\n"
        "Deleted images:\nreg.example:5000/team/app:2\n\n"
    )
    assert ran.err.startswith("Reclaimed ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", [["prune"], ["system", "prune"]])
def test_on_a_terminal_it_asks(
    world: Store, run: Command, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    for answer, removed in (("n\n", False), ("\n", False), ("y\n", True)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        ran = run(*command)
        assert "Go on? [y/N]" in ran.err
        assert ("nothing was deleted" in ran.err) is not removed
        assert ran.status == (0 if removed else 1)
        assert ("b" * 64 in ran.out) is removed
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert run(*command, "--force").status == 0


def test_pruning_templates_asks_too(
    world: Store, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[int | None] = []

    def remove(paths: Paths, *, max_bytes: int | None) -> list[template.Template]:
        removed.append(max_bytes)
        return [template.Template(id="a" * 64, directory=paths.templates / "a", description={})]

    monkeypatch.setattr(template, "prune", remove)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    ran = run("system", "template", "prune")
    assert (ran.status, ran.out, removed) == (1, "", [])
    assert "templates that nobody used for long" in ran.err
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run.ok("system", "template", "prune") == ["a" * 64]
    assert run.ok("system", "template", "prune", "-f", "--all") == ["a" * 64]
    assert removed == [None, 0]


def test_old_templates(world: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = template.Template(id="a" * 64, directory=world.paths.templates / "kept", description={})
    manifest = kept.directory / "manifest.json"
    fill(manifest, 10)
    assert not template.is_old(kept)
    os.utime(manifest, times=(0, time.time() - 15 * 86400))
    assert template.is_old(kept)
    monkeypatch.setenv("WOODLOT_VM_TEMPLATE_AGE", "20")
    assert not template.is_old(kept)


async def test_the_sdk_selects_measures_and_prunes(world: Store) -> None:
    async with aio.Client() as client:
        assert [one.name for one in client.containers.list()] == ["web", "db", "web-2"]
        assert [one.name for one in client.containers.list(all=False)] == ["web"]
        found = client.containers.list(filters={"label": ["tier", "empty"], "status": ["created"]})
        assert [one.name for one in found] == ["web-2"]
        assert len(client.images.list(filters={"reference": "busybox"})) == 1
        assert (await client.system.df()).containers.total == 3
        with pytest.raises(ConfigError, match="cannot be filtered by 'colour'"):
            client.containers.list(filters={"colour": "red"})
        assert (await client.system.prune()).containers == ("b" * 64, "c" * 64)


def test_the_sdk_without_asyncio(world: Store) -> None:
    add_image(world, "new:1")
    with sync.Client() as client:
        found = client.containers.list(all=False, filters={"name": "web"})
        assert [one.name for one in found] == ["web"]
        assert len(client.images.list()) == 3
        assert client.system.df().images.total == 3
        assert client.system.prune(images=True).images[0] == "docker.io/library/new:1"
