import asyncio
import multiprocessing
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from woodlot.errors import (
    AlreadyExistsError,
    ConfigError,
    IntegrityError,
    NotFoundError,
    StateError,
    UnsupportedError,
)
from woodlot.oci.digest import digest_bytes
from woodlot.paths import Paths
from woodlot.store import db
from woodlot.store.locks import hold, hold_sync, try_hold
from woodlot.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Paths(data=tmp_path / "data", runtime=tmp_path))


@pytest.fixture(autouse=True)
def closed(store: Store) -> object:
    yield
    store.close()


def test_images(store: Store) -> None:
    assert store.images.list() == []
    for reference in ("b", "a"):
        store.images.put(
            reference=reference, digest=digest_bytes(b"1"), media_type="x", size=1 << 40
        )
    store.images.put(reference="a", digest=digest_bytes(b"2"), media_type="y", size=2)
    assert [record.reference for record in store.images.list()] == ["a", "b"]
    found = store.images.get("a")
    assert found is not None
    assert (found.digest, found.size) == (digest_bytes(b"2"), 2)
    assert store.images.delete("a")
    assert not store.images.delete("a")
    assert store.images.get("a") is None


def test_parts_of_a_containers_spec_change(store: Store) -> None:
    table = store.containers
    table.insert("aaaa1", "web", {"n": 1, "name": "web", "in": {"a": 1}}, {"state": "created"})
    table.rename("aaaa1", "api")
    table.change_spec("aaaa1", {"n": 2, "in": {"a": 0}})
    assert table.get("api").spec == {"n": 2, "name": "api", "in": {"a": 0}}
    with pytest.raises(NotFoundError):
        table.change_spec("b", {"n": 2})


def test_containers(store: Store) -> None:
    table = store.containers
    table.insert("aaaa1", "web", {"n": 1}, {"state": "created"})
    table.insert("aaab2", "db_1", {}, {})
    assert table.get("web").spec == {"n": 1}
    assert table.get("aaaa1") == table.get("aaaa") == table.get("web")
    assert table.get("db_1").id == "aaab2"
    for missing in ("x", "", "aaaa1x", "%", "db%1", "a_a"):
        with pytest.raises(NotFoundError, match="no such container"):
            table.get(missing)
    with pytest.raises(ConfigError, match=r"several container ids: aaaa1 \(web\), aaab2 \(db_1\)"):
        table.get("aaa")
    with pytest.raises(AlreadyExistsError, match="'web' is taken by container aaaa1") as caught:
        table.insert("cccc3", "web", {}, {})
    assert "container rm web" in (caught.value.hint or "")
    with pytest.raises(AlreadyExistsError, match="id aaaa1 is taken"):
        table.insert("aaaa1", "other", {}, {})
    with pytest.raises(AlreadyExistsError):
        table.insert("dddd4", "aaaa1", {}, {})
    table.update_state("aaaa1", {"state": "running"})
    assert table.get("web").state == {"state": "running"}
    with pytest.raises(NotFoundError):
        table.update_state("nope", {})
    assert table.name_taken("web")
    assert not table.name_taken("we")
    assert [record.name for record in table.list()] == ["web", "db_1"]
    assert table.delete("aaaa1")
    assert not table.delete("aaaa1")
    assert not table.name_taken("web")


def test_a_name_equal_to_a_prefix_wins(store: Store) -> None:
    store.containers.insert("abcd", "x", {}, {})
    store.containers.insert("ffff", "ab", {}, {})
    assert store.containers.get("ab").id == "ffff"


def test_transaction_is_all_or_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.database.transaction():  # noqa: PT012
        store.images.put(reference="a", digest=digest_bytes(b""), media_type="", size=0)
        raise ZeroDivisionError
    assert store.images.list() == []


def test_database_is_private_and_versioned(store: Store) -> None:
    store.images.list()
    assert store.paths.database.stat().st_mode & 0o777 == 0o600
    assert store.database.query("PRAGMA journal_mode") == [("wal",)]
    assert store.database.query("PRAGMA user_version") == [(len(db.MIGRATIONS),)]
    store.database.query("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(UnsupportedError, match="newer woodlot"):
        store.images.list()


def test_damaged_database(store: Store) -> None:
    store.paths.data.mkdir()
    store.paths.database.write_bytes(b"nonsense" * 1000)
    with pytest.raises(IntegrityError, match="is damaged"):
        store.images.list()


def test_busy_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.images.list()
    store.close()
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.1)
    other = sqlite3.connect(store.paths.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match="kept busy"):
        store.images.delete("x")
    other.close()
    assert not store.images.delete("x")


def _insert_many(data: Path, who: int) -> None:
    store = Store(Paths(data=data, runtime=data))
    for number in range(20):
        store.containers.insert(f"{who}-{number}", f"n{who}-{number}", {}, {})
    store.close()


def test_many_processes_open_and_write_at_once(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_insert_many, args=(store.paths.data, who)) for who in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(store.containers.list()) == 80


def test_threads_share_a_store(store: Store) -> None:
    def work(who: int) -> None:
        for number in range(20):
            store.containers.insert(f"{who}-{number}", f"n{who}-{number}", {}, {})

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.containers.list()) == 80


def test_fork(store: Store) -> None:
    store.containers.insert("a", "parent", {}, {})
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.containers.insert("b", "child", {}, {})
            store.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [record.name for record in store.containers.list()] == ["parent", "child"]


async def test_locks(tmp_path: Path) -> None:
    path = tmp_path / "deep/lock"
    async with hold(path, shared=True), hold(path, shared=True):
        with try_hold(path) as alone:
            assert not alone
        with try_hold(path, shared=True) as held:
            assert held
        waiting = asyncio.create_task(_hold_once(path))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert await waiting
    with try_hold(path) as alone, try_hold(path) as second:
        assert (alone, second) == (True, False)
    with hold_sync(path):
        pass


async def _hold_once(path: Path) -> bool:
    async with hold(path):
        return True


async def test_cancelled_wait_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    async with hold(path):
        waiting = [asyncio.create_task(_hold_once(path)) for _ in range(3)]
        await asyncio.sleep(0.05)
        waiting[0].cancel()
        await asyncio.sleep(0)
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [True, True]
    for _ in range(100):
        with try_hold(path) as alone:
            if alone:
                return
        time.sleep(0.01)
    pytest.fail("the abandoned waiter kept the lock")


async def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    read, write = os.pipe()
    async with hold(path):
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    with try_hold(path) as alone:
        assert alone
    os.close(write)
    os.close(read)
    os.waitpid(pid, 0)


async def test_using_keeps_sweepers_away(store: Store) -> None:
    async with store.using():
        with store.using_sync(), store.try_sweeping() as alone:
            assert not alone
    with store.try_sweeping() as alone:
        assert alone
