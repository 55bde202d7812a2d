"""Volumes on disk: made, used, filled and deleted."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from woodlot.cli.volume import parse_options
from woodlot.errors import AlreadyExistsError, ConfigError, NotFoundError, StateError
from woodlot.paths import Paths
from woodlot.store.disk import used_bytes
from woodlot.store.store import Store
from woodlot.units import GIB, MIB
from woodlot.volume import volume


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(Paths(data=tmp_path / "data", runtime=tmp_path / "run"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_mkfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def template(disks: Path, size_bytes: int) -> Path:
        disks.mkdir(parents=True, exist_ok=True)
        path = disks / str(size_bytes)
        path.touch()
        os.truncate(path, size_bytes)
        return path

    monkeypatch.setattr(volume, "ensure_upper_template", template)


def use(store: Store, name: str, by: str) -> None:
    mounts = [{"type": "volume", "source": name, "destination": "/d"}]
    store.containers.insert(by * 32, by, {"mounts": mounts}, {"state": "stopped"})


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], ("directory", None)),
        (["type=directory"], ("directory", None)),
        (["type=block,size=1g"], ("block", GIB)),
        (["size=64m", "type=block"], ("block", 64 * MIB)),
    ],
)
def test_options(texts: list[str], expected: tuple[str, int | None]) -> None:
    kind, size = parse_options(texts)
    assert (kind, volume.choose_size(kind, size)) == expected


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["size=1g"], "no size of its own"),
        (["type=tmpfs"], "cannot be 'tmpfs'"),
        (["type=block", "type=block"], "given twice"),
        (["type=block,size=1m"], "at least"),
        (["device=/x"], "cannot be 'device=/x'"),
    ],
)
def test_wrong_options(texts: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        volume.choose_size(*parse_options(texts))


@pytest.mark.parametrize("name", ["", "x", "-x", "a/b", "..", "a b", "é" * 3, "a" * 129])
def test_wrong_names(store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be named"):
        volume.create(store, name)
    assert volume.list_volumes(store) == []


def test_a_directory_is_made_and_deleted(store: Store) -> None:
    made = volume.create(store, "data", labels={"a": "b"})
    assert made.data.stat().st_mode & 0o777 == 0o755
    assert made.directory.stat().st_mode & 0o777 == 0o700
    assert volume.find(store, "data") == made
    shown = volume.inspect(store, made)
    assert (shown["name"], shown["type"], shown["labels"]) == ("data", "directory", {"a": "b"})
    with pytest.raises(AlreadyExistsError, match="a volume data already"):
        volume.create(store, "data")
    volume.delete(store, "data")
    assert not made.directory.exists()
    with pytest.raises(NotFoundError, match="no such volume: data"):
        volume.delete(store, "data")


def test_a_disk_is_sparse_and_begins_unfilled(store: Store) -> None:
    made = volume.create(store, "db", kind="block", size=GIB)
    assert made.disk.stat().st_size == GIB
    assert used_bytes(made.directory) < MIB
    assert made.needs_filling()


def test_a_directory_is_filled_while_it_is_empty_or_half_filled(store: Store) -> None:
    made = volume.create(store, "data")
    assert made.needs_filling()
    (made.data / "file").touch()
    assert not made.needs_filling()
    made.filling.touch()
    assert made.needs_filling()


def test_one_in_use_is_not_deleted(store: Store) -> None:
    volume.create(store, "data")
    use(store, "data", "a")
    use(store, "data", "b")
    with pytest.raises(StateError, match="volume data is used by container a, b") as caught:
        volume.delete(store, "data")
    assert caught.value.hint == "container rm a b"
    assert volume.prune(store, every=True)[0] == []


def test_prune_takes_the_anonymous_unless_told_otherwise(store: Store) -> None:
    volume.create(store, "named")
    volume.create(store, "anon", kind="block", size=64 * MIB, anonymous=True)
    volume.create(store, "used", anonymous=True)
    use(store, "used", "a")
    assert volume.prune(store)[0] == ["anon"]
    assert volume.prune(store, every=True)[0] == ["named"]
    assert [one.name for one in volume.list_volumes(store)] == ["used"]


def test_what_a_container_needs_is_made(store: Store) -> None:
    volume.create(store, "there")
    with volume.prepared(store, [("there", False), ("new", False), ("anon", True)]):
        kinds = {one.name: one.record.kind for one in volume.list_volumes(store)}
    assert kinds == {"there": "directory", "new": "directory", "anon": "block"}


def test_after_a_failure_only_what_has_a_name_stays(store: Store) -> None:
    with pytest.raises(RuntimeError), volume.prepared(store, [("new", False), ("anon", True)]):
        raise RuntimeError
    assert [one.name for one in volume.list_volumes(store)] == ["new"]


def test_only_unused_anonymous_ones_go_with_their_container(store: Store) -> None:
    for name in ("mine", "shared", "named"):
        volume.create(store, name, anonymous=name != "named")
    use(store, "shared", "b")
    volume.delete_anonymous(store, ["mine", "shared", "named", "missing"])
    assert [one.name for one in volume.list_volumes(store)] == ["named", "shared"]


def test_what_a_killed_deletion_left_is_no_volume(store: Store) -> None:
    made = volume.create(store, "data")
    (made.data / "old").touch()
    store.volumes.delete("data")
    assert volume.list_volumes(store) == []
    assert not (volume.create(store, "data").data / "old").exists()
