"""Containers on disk, and what is left of one whose processes were killed."""

import contextlib
import dataclasses
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.unit.container.specs import WEB, held_files
from woodlot.container import lifecycle, state
from woodlot.container.spec import ContainerSpec, SocketSpec
from woodlot.errors import (
    AlreadyExistsError,
    ConfigError,
    NotFoundError,
    StateError,
    UnsupportedError,
    WoodlotError,
)
from woodlot.paths import Paths
from woodlot.store.locks import open_lock, try_flock, try_hold
from woodlot.store.store import Store

RUNNING = state.Running(started_at=1.25, vm_pid=77, accelerator="tcg", ip="10.0.2.15")
STOPPED = state.Stopped(exit_code=3, finished_at=2.5, started_at=1.25)

SPAWN = multiprocessing.get_context("spawn")


def make_spec(name: str, *, remove: bool = False, container_id: str | None = None) -> ContainerSpec:
    return dataclasses.replace(WEB, id=container_id or lifecycle.new_id(), name=name, remove=remove)


@contextlib.contextmanager
def live(store: Store, spec: ContainerSpec) -> Iterator[None]:
    """A container whose supervisor lives for the block."""
    lock = lifecycle.reserve(store, spec)
    try:
        yield
    finally:
        os.close(lock)


def stopped(store: Store, name: str) -> lifecycle.Container:
    spec = make_spec(name)
    with live(store, spec):
        store.containers.update_state(spec.id, state.to_json(STOPPED))
    return lifecycle.find(store, name)


def test_a_stopped_container_is_kept_so_without_a_trace(store: Store) -> None:
    container = stopped(store, "web")
    lock = lifecycle.keep_stopped(store, container)
    try:
        for attempt in (lifecycle.keep_stopped, lifecycle.reopen, lifecycle.delete):
            with pytest.raises(StateError, match="files are being copied"):
                attempt(store, container)
        assert lifecycle.find(store, "web") == container
    finally:
        os.close(lock)
    assert lifecycle.find(store, "web") == container
    os.close(lifecycle.reopen(store, container))


def left_of(store: Store, spec: ContainerSpec) -> list[Path]:
    paths = store.paths
    places = (paths.container(spec.id), paths.sockets(spec.id))
    return [place for place in places if place.exists()]


def test_ids_are_64_digits() -> None:
    ids = {lifecycle.new_id() for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch("[0-9a-f]{64}", container_id) for container_id in ids)


def test_reserved(store: Store) -> None:
    spec = make_spec("web")
    lock = lifecycle.reserve(store, spec)
    directory = store.paths.container(spec.id)
    assert directory.stat().st_mode & 0o777 == 0o700
    # The supervisor inherits it.
    assert os.get_inheritable(lock)
    with try_hold(directory / "lock") as free:
        assert not free
    found = lifecycle.find(store, "web")
    assert found == lifecycle.Container(spec=spec, state=state.Starting())
    assert found.is_live
    os.close(lock)


@pytest.mark.parametrize("taken", ["name", "id"])
def test_a_taken_name_leaves_nothing_behind(store: Store, taken: str) -> None:
    first = stopped(store, "web").spec
    second = make_spec(first.name if taken == "name" else first.id)
    with pytest.raises(AlreadyExistsError, match="is taken"):
        lifecycle.reserve(store, second)
    assert left_of(store, second) == []
    assert held_files(store.paths.containers) == []
    assert [container.spec for container in lifecycle.find_all(store)] == [first]


def test_names_are_free_or_not(store: Store) -> None:
    lifecycle.check_name_is_free(store, "web")
    container = stopped(store, "web")
    for name in ("web", container.spec.id):
        with pytest.raises(
            AlreadyExistsError, match=f"taken by container {container.spec.id[:12]}"
        ):
            lifecycle.check_name_is_free(store, name)
    # The start of an id is a name like any other.
    lifecycle.check_name_is_free(store, container.spec.id[:12])
    lifecycle.delete(store, container)
    lifecycle.check_name_is_free(store, "web")


def test_found_by_name_id_and_start_of_an_id(store: Store) -> None:
    one = make_spec("one", container_id="aa" * 32)
    two = make_spec("two", container_id="ab" * 32)
    with live(store, one), live(store, two):
        for key in ("two", "ab" * 32, "ab", "abab"):
            assert lifecycle.find(store, key).spec == two
        with pytest.raises(ConfigError, match="start of several"):
            lifecycle.find(store, "a")
        for key in ("three", "", "b", "ab" * 33):
            with pytest.raises(NotFoundError, match="no such container"):
                lifecycle.find(store, key)


def test_all_oldest_first(store: Store) -> None:
    assert lifecycle.find_all(store) == []
    names = ["c", "a", "b"]
    specs = [stopped(store, name).spec for name in names]
    assert [container.spec for container in lifecycle.find_all(store)] == specs
    with live(store, make_spec("live")):
        assert [container.is_live for container in lifecycle.find_all(store)] == [False] * 3 + [
            True
        ]


def test_deleted(store: Store) -> None:
    container = stopped(store, "web")
    other = stopped(store, "other")
    (store.paths.container(container.spec.id) / "upper.ext4").write_bytes(b"x")
    sockets = store.paths.sockets(container.spec.id)
    sockets.mkdir(parents=True)
    (sockets / "s.sock").touch()
    lifecycle.delete(store, container)
    assert left_of(store, container.spec) == []
    assert lifecycle.find_all(store) == [other]
    assert left_of(store, other.spec) != []


def test_one_that_runs_is_not_deleted(store: Store) -> None:
    spec = make_spec("web")
    with live(store, spec):
        store.containers.update_state(spec.id, state.to_json(RUNNING))
        container = lifecycle.find(store, "web")
        with pytest.raises(StateError, match="container web is running"):
            lifecycle.delete(store, container)
        assert lifecycle.find(store, "web") == lifecycle.Container(spec=spec, state=RUNNING)


def test_one_without_a_directory_is_deleted(store: Store) -> None:
    spec = make_spec("web")
    store.containers.insert(spec.id, spec.name, spec.to_json(), state.to_json(STOPPED))
    lifecycle.delete(store, lifecycle.find(store, "web"))
    assert lifecycle.find_all(store) == []


@pytest.mark.parametrize("last", [state.Starting(), RUNNING], ids=["starting", "running"])
def test_a_record_beside_a_free_lock_is_mended(
    store: Store, last: state.State, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = store.paths.runtime / "published.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(published))
    made = SocketSpec(host_path=str(published), container_path="/x")
    spec = dataclasses.replace(make_spec("web"), sockets=(made,))
    before = time.time()
    with live(store, spec):
        store.containers.update_state(spec.id, state.to_json(last))
        store.paths.sockets(spec.id).mkdir(parents=True)
    found = lifecycle.find(store, "web").state
    assert isinstance(found, state.Stopped)
    assert (found.exit_code, found.oom_killed) == (137, False)
    assert found.started_at == (1.25 if last is RUNNING else 0.0)
    assert before <= found.finished_at <= time.time()
    assert "supervisor was killed" in found.reason
    assert not published.exists()
    # Its log and its disk stay, its sockets go.
    assert left_of(store, spec) == [store.paths.container(spec.id)]
    # For good, and once.
    assert state.from_json(store.containers.get("web").state) == found
    assert lifecycle.find(store, "web").state == found


def test_one_to_remove_at_its_end_is_removed(store: Store) -> None:
    spec = make_spec("web", remove=True)
    with live(store, spec):
        store.containers.update_state(spec.id, state.to_json(RUNNING))
        assert lifecycle.find(store, "web").is_live
    with pytest.raises(NotFoundError):
        lifecycle.find(store, "web")
    assert left_of(store, spec) == []
    lifecycle.check_name_is_free(store, "web")


def test_a_name_is_free_once_its_holder_was_to_be_removed(store: Store) -> None:
    spec = make_spec("web", remove=True)
    with live(store, spec):
        with pytest.raises(AlreadyExistsError):
            lifecycle.check_name_is_free(store, "web")
    lifecycle.check_name_is_free(store, "web")
    assert left_of(store, spec) == []


def test_an_end_that_was_recorded_meanwhile_is_the_truth(store: Store) -> None:
    spec = make_spec("web", remove=True)
    record = None
    with live(store, spec):
        record = store.containers.get("web")
        store.containers.update_state(spec.id, state.to_json(STOPPED))
    # A reader that saw the record before the end, and the lock after it.
    with mock.patch.object(store.containers, "get", return_value=record):
        assert lifecycle.find(store, "web").state == STOPPED


def test_a_record_of_another_version_is_told(store: Store) -> None:
    spec = make_spec("web")
    changes: list[dict[str, object]] = [{"later": 1}, {"process": None}]
    for number, change in enumerate(changes):
        store.containers.insert(
            f"{number}" * 64, f"n{number}", {**spec.to_json(), **change}, {"state": "starting"}
        )
        with pytest.raises(
            WoodlotError, match=f"record of container n{number} was written by another"
        ):
            lifecycle.find(store, f"n{number}")


# Killed processes.


def _reserve_and_die(paths: Paths, spec: dict[str, Any], step: str) -> None:
    store = Store(paths)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    patch: contextlib.AbstractContextManager[object]
    match step:
        case "directory":
            patch = mock.patch.object(lifecycle, "open_lock", die)
        case "lock":
            patch = mock.patch.object(lifecycle, "try_flock", die)
        case "record":
            patch = mock.patch.object(store.containers, "insert", die)
        case _:
            patch = contextlib.nullcontext()
    with patch:
        lifecycle.reserve(store, ContainerSpec.from_json(spec))
    die()


def _reserve_and_wait(paths: Paths, spec: dict[str, Any], tell: Connection) -> None:
    lock = lifecycle.reserve(Store(paths), ContainerSpec.from_json(spec))
    tell.send(lock)
    time.sleep(60)


def killed(target: Callable[..., None], *arguments: object) -> None:
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("step", ["directory", "lock", "record"])
def test_killed_before_there_is_a_record_nothing_is_left(store: Store, step: str) -> None:
    spec = make_spec("web")
    killed(_reserve_and_die, store.paths, spec.to_json(), step)
    assert left_of(store, spec) == [store.paths.container(spec.id)]
    assert lifecycle.find_all(store) == []
    assert left_of(store, spec) == []
    lifecycle.check_name_is_free(store, "web")


@pytest.mark.parametrize("remove", [False, True])
def test_killed_once_there_is_a_record_it_is_mended(store: Store, remove: bool) -> None:
    spec = make_spec("web", remove=remove)
    killed(_reserve_and_die, store.paths, spec.to_json(), "after")
    found = lifecycle.find_all(store)
    assert [container.is_live for container in found] == ([] if remove else [False])
    assert bool(left_of(store, spec)) is not remove


def test_the_lock_says_whether_its_holder_lives(store: Store) -> None:
    spec = make_spec("web")
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=_reserve_and_wait, args=(store.paths, spec.to_json(), theirs))
    holder.start()
    assert ours.poll(30)
    assert lifecycle.find(store, "web").is_live
    with pytest.raises(StateError):
        lifecycle.delete(store, lifecycle.find(store, "web"))
    holder.kill()
    holder.join(30)
    found = lifecycle.find(store, "web")
    assert not found.is_live
    lifecycle.delete(store, found)
    assert left_of(store, spec) == []


def test_a_directory_that_somebody_holds_is_not_swept(store: Store) -> None:
    directory = store.paths.container("cd" * 32)
    lock = open_lock(directory / "lock")
    assert try_flock(lock)
    assert lifecycle.find_all(store) == []
    assert directory.is_dir()
    os.close(lock)
    assert lifecycle.find_all(store) == []
    assert not directory.exists()


@pytest.mark.parametrize("moment", ["open_lock", "try_flock"])
def test_a_sweep_in_the_midst_of_a_reservation_does_no_harm(
    store: Store, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(lifecycle, moment)

    def swept_first(*arguments: Any) -> Any:
        monkeypatch.setattr(lifecycle, moment, real)
        assert lifecycle.find_all(store) == []
        return real(*arguments)

    monkeypatch.setattr(lifecycle, moment, swept_first)
    spec = make_spec("web")
    with live(store, spec):
        assert lifecycle.find_all(store) == [lifecycle.Container(spec=spec, state=state.Starting())]
        assert (store.paths.container(spec.id) / "lock").exists()


def test_a_reservation_holds_its_lock_also_after_a_sweep_that_held_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("web")
    path = store.paths.container(spec.id) / "lock"
    real = try_flock
    sweep = contextlib.ExitStack()

    def taken_once(fd: int) -> bool:
        monkeypatch.setattr(lifecycle, "try_flock", released)
        assert sweep.enter_context(try_hold(path))
        return real(fd)

    def released(fd: int) -> bool:
        sweep.close()
        return real(fd)

    monkeypatch.setattr(lifecycle, "try_flock", taken_once)
    with live(store, spec):
        sweep.close()
        monkeypatch.setattr(lifecycle, "try_flock", real)
        assert lifecycle.find(store, "web").is_live


def created(store: Store, name: str) -> lifecycle.Container:
    os.close(lifecycle.reserve(store, make_spec(name, remove=True), starts=False))
    return lifecycle.find(store, name)


def test_a_created_container_waits_to_be_started(store: Store) -> None:
    container = created(store, "later")
    # Nobody holds it, and it is no trace of a killed supervisor.
    assert container.state == state.Created()
    assert [one.state for one in lifecycle.find_all(store)] == [state.Created()]
    assert not container.is_live
    lock = lifecycle.reopen(store, container)
    assert lifecycle.find(store, "later").state == state.Starting()
    os.close(lock)


def test_a_created_container_is_deleted(store: Store) -> None:
    container = created(store, "later")
    lifecycle.delete(store, container)
    assert lifecycle.find_all(store) == []
    assert not store.paths.container(container.spec.id).exists()


def test_a_container_is_renamed(store: Store) -> None:
    container = stopped(store, "web")
    lifecycle.rename(store, container, "api")
    found = lifecycle.find(store, "api")
    assert found == dataclasses.replace(
        container, spec=dataclasses.replace(container.spec, name="api")
    )
    with pytest.raises(NotFoundError):
        lifecycle.find(store, "web")
    stopped(store, "web")


def test_a_running_container_is_renamed(store: Store) -> None:
    spec = make_spec("web")
    with live(store, spec):
        lifecycle.rename(store, lifecycle.find(store, "web"), "api")
        # Its supervisor finds its record by the id.
        store.containers.update_state(spec.id, state.to_json(RUNNING))
        assert lifecycle.find(store, "api").state == RUNNING


@pytest.mark.parametrize("name", ["", "-a", "a b", "../x", "a" * 300])
def test_a_name_that_is_none_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError):
        lifecycle.rename(store, stopped(store, "web"), name)
    assert [one.spec.name for one in lifecycle.find_all(store)] == ["web"]


def test_a_name_that_is_taken_is_refused(store: Store) -> None:
    one, _ = stopped(store, "one"), stopped(store, "two")
    for taken in ("two", "one"):
        with pytest.raises(AlreadyExistsError, match="is taken"):
            lifecycle.rename(store, one, taken)
    with pytest.raises(AlreadyExistsError, match="is taken"):
        # Taken between the look and the change.
        store.containers.rename(one.spec.id, "two")
    assert lifecycle.find(store, "one") == one


def test_a_record_of_another_version_hides_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    os.close(lifecycle.reserve(store, WEB))
    other = {**WEB.to_json(), "id": "c" * 64, "name": "odd", "of_tomorrow": 1}
    store.containers.insert("c" * 64, "odd", other, {"state": "created"})
    assert [found.spec.name for found in lifecycle.find_all(store)] == ["web"]
    assert "container odd was written by another version" in caplog.text
    with pytest.raises(UnsupportedError, match="odd"):
        lifecycle.find(store, "odd")


def test_who_waited_for_its_end_is_not_in_the_way(store: Store) -> None:
    os.close(lifecycle.reserve(store, WEB, starts=False))
    waiting = open_lock(store.paths.container(WEB.id) / "lock")
    assert try_flock(waiting)
    release = threading.Timer(0.02, os.close, (waiting,))
    release.start()
    lifecycle.delete(store, lifecycle.find(store, "web"))
    release.join()
    assert store.containers.list() == []
