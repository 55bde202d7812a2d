"""Containers on disk: made, found, mended and deleted.

A container is a record and a directory. The file ``lock`` in the directory is held (flock) by whoever makes the container
and then by its supervisor, from before the record exists until the container has ended; the kernel lets go of it when they
die, however they die. So a record that says "running" beside a free lock is the trace of a killed supervisor, and is mended
by the next command that sees it.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Generator
from pathlib import Path

from woodlot.container import options, sockets, state
from woodlot.container.events import tell
from woodlot.container.spec import ContainerSpec
from woodlot.errors import AlreadyExistsError, LimitError, StateError, UnsupportedError
from woodlot.paths import Paths
from woodlot.store.containers import ContainerRecord
from woodlot.store.disk import disk_errors
from woodlot.store.locks import hold, open_lock, try_flock, unlock_and_close
from woodlot.store.store import Store
from woodlot.values import dataclass

log = logging.getLogger(__name__)

_INSTANT_MS = 100

_LOST = "its supervisor was killed, or could not record the end; the virtual machine is gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as its record tells, and the record tells the truth."""

    spec: ContainerSpec
    state: state.State

    @property
    def is_live(self) -> bool:
        """Whether a supervisor stands behind it."""
        return isinstance(self.state, state.Starting | state.Running | state.Restarting)


def new_id() -> str:
    """An id that no other container has: 64 hexadecimal digits."""
    return os.urandom(32).hex()


def reserve(store: Store, spec: ContainerSpec, *, starts: bool = True) -> int:
    """Record a new container and make its directory.

    Args:
        store: The store.
        spec: The container.
        starts: It is about to be started; else it is as one that has ended.

    Returns:
        A descriptor that holds the container's lock; it goes to the supervisor.

    Raises:
        AlreadyExistsError: The name is taken. Nothing is left behind.
        LimitError: The disk is full. Nothing is left behind.
    """
    directory = store.paths.container(spec.id)
    with disk_errors(directory, f"container {spec.name}"):
        directory.mkdir(mode=0o700, parents=True)
        lock = _lock_unrecorded(directory / "lock")
    try:
        os.set_inheritable(lock, True)  # noqa: FBT003
        with _volumes_prepared(store, spec):
            first = state.Starting() if starts else state.Created()
            store.containers.insert(spec.id, spec.name, spec.to_json(), state.to_json(first))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
        raise
    return lock


@contextlib.contextmanager
def _volumes_prepared(store: Store, spec: ContainerSpec) -> Generator[None]:
    volumes = [(m.source, m.anonymous) for m in spec.mounts if m.type == "volume"]
    if not volumes:
        yield
        return
    from woodlot.volume import volume

    with volume.prepared(store, volumes):
        yield


async def until_ended(paths: Paths, container_id: str) -> None:
    """Return when the supervisor has let go of the container's lock, the last thing it does."""
    directory = paths.container(container_id)
    if directory.is_dir():
        async with hold(directory / "lock"):
            pass


def reopen(store: Store, container: Container) -> int:
    """Record that a stopped container starts again.

    Returns:
        A descriptor that holds the container's lock; it goes to the supervisor.

    Raises:
        StateError: It is not stopped any more.
    """
    lock = keep_stopped(store, container)
    try:
        store.containers.update_state(container.spec.id, state.to_json(state.Starting()))
    except BaseException:
        os.close(lock)
        raise
    return lock


def keep_stopped(store: Store, container: Container) -> int:
    """See that nobody starts or removes a stopped container, without a trace in its record.

    Returns:
        A descriptor that holds the container's lock; it goes to the supervisor.

    Raises:
        StateError: It is not stopped any more, or somebody else sees to that already.
    """
    path = store.paths.container(container.spec.id) / "lock"
    with contextlib.ExitStack() as undo:
        lock = open_lock(path)
        undo.callback(os.close, lock)
        if not (_take(lock) and _is_at(lock, path)):
            raise _busy(container)
        if find(store, container.spec.id).is_live:
            raise StateError(f"container {container.spec.name} has been started meanwhile")
        os.set_inheritable(lock, True)  # noqa: FBT003
        undo.pop_all()
    return lock


def _take(lock: int) -> bool:
    """Lock it, unless somebody holds it for longer than an instant, as those do who wait in `until_ended`."""
    for _ in range(_INSTANT_MS):
        if try_flock(lock):
            return True
        time.sleep(0.001)
    return False


def _busy(container: Container) -> StateError:
    return StateError(
        f"container {container.spec.name} is being started or removed, or its files are being copied",
        hint="try again when that is done",
    )


def _lock_unrecorded(path: Path) -> int:
    """The held lock of a container without a record, whose directory a sweep may be about to take away."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            lock = open_lock(path)
            if try_flock(lock) and _is_at(lock, path):
                return lock
            os.close(lock)
        # The sweep holds it, or has removed the file: either is over in a moment.
        time.sleep(0.001)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def check_name_is_free(store: Store, name: str) -> None:
    """See that no container has the name; one that a killed supervisor left to be removed is removed here.

    Raises:
        AlreadyExistsError: One has it.
    """
    if not store.containers.name_taken(name):
        return
    for container in find_all(store):
        if name in {container.spec.name, container.spec.id}:
            raise AlreadyExistsError(
                f"the name {name!r} is taken by container {container.spec.id[:12]}",
                hint=f"remove it with `container rm {name}`, or choose another --name",
            )


def find(store: Store, key: str) -> Container:
    """The container with that id, name or unique start of an id.

    Raises:
        NotFoundError: There is none.
        ConfigError: Several ids start so.
    """
    record = store.containers.get(key)
    container = _mend(store, record)
    # An auto-removed one whose supervisor was killed is gone now.
    return container if container is not None else _mend_again(store, key)


def find_all(store: Store) -> list[Container]:
    """Every container, oldest first; what killed processes left behind is cleaned up.

    One whose record another version of woodlot has written is left out, and told in the log.
    """
    records = store.containers.list()
    _sweep(store, {record.id for record in records})
    found: list[Container] = []
    for record in records:
        try:
            container = _mend(store, record)
        except UnsupportedError as error:
            log.warning("%s", error.message)
            continue
        if container is not None:
            found.append(container)
    return found


def delete(store: Store, container: Container) -> None:
    """Remove a stopped container and all it wrote.

    Raises:
        StateError: It runs.
    """
    directory = store.paths.container(container.spec.id)
    lock = open_lock(directory / "lock") if directory.is_dir() else None
    try:
        if lock is not None and not _take(lock):
            if not container.is_live:
                raise _busy(container)
            raise StateError(
                f"container {container.spec.name} is running",
                hint="stop it first, or delete it with --force",
            )
        _remove(store, container.spec.id)
    finally:
        if lock is not None:
            unlock_and_close(lock)


def rename(store: Store, container: Container, name: str) -> None:
    """Give a container another name; in its networks it has it from its next start on.

    Raises:
        ConfigError: It is no name for a container.
        AlreadyExistsError: The name is taken.
    """
    options.check_name(name, what="a container's name")
    check_name_is_free(store, name)
    store.containers.rename(container.spec.id, name)


def erase(store: Store, container_id: str) -> None:
    """Delete the record, then the directory of a container whose lock is held or that nobody holds.

    Raises:
        LimitError: The disk is so full that even without the directory no record can be changed.
    """
    directory = store.paths.container(container_id)
    anonymous = _volumes_of_its_own(store, container_id)
    try:
        store.containers.delete(container_id)
    except LimitError:
        # Deleting a record takes a little room, which on a full disk the directory has to give first.
        shutil.rmtree(directory, ignore_errors=True)
        store.close()
        store.containers.delete(container_id)
    shutil.rmtree(directory, ignore_errors=True)
    if anonymous:
        from woodlot.volume import volume

        volume.delete_anonymous(store, anonymous)


def _volumes_of_its_own(store: Store, container_id: str) -> list[str]:
    """The volumes that go with a container: those made for it, if it was to go at its end or never ran."""
    record = next((row for row in store.containers.list() if row.id == container_id), None)
    if record is None:
        return []
    with contextlib.suppress(TypeError, KeyError):
        spec, current = ContainerSpec.from_json(record.spec), state.from_json(record.state)
        if (
            spec.remove
            or isinstance(current, state.Starting | state.Created)
            or not getattr(current, "started_at", 1.0)
        ):
            return [mount.source for mount in spec.mounts if mount.anonymous]
    return []


def _remove(store: Store, container_id: str) -> None:
    erase(store, container_id)
    shutil.rmtree(store.paths.sockets(container_id), ignore_errors=True)


def _remove_if_possible(store: Store, container_id: str) -> None:
    """For those who only look: a disk too full to remove anything must not keep them from looking."""
    with contextlib.suppress(LimitError):
        _remove(store, container_id)


def _mend_again(store: Store, key: str) -> Container:
    container = _mend(store, store.containers.get(key))
    if container is None:
        raise StateError(f"container {key} is being removed")
    return container


def _mend(store: Store, record: ContainerRecord) -> Container | None:
    """The container of a record, or None if it was one to remove at its end and has ended."""
    try:
        spec = ContainerSpec.from_json(record.spec)
        current = state.from_json(record.state)
    except (TypeError, KeyError) as error:
        raise UnsupportedError(
            f"the record of container {record.name} was written by another version of woodlot",
            details=str(error),
            hint="use it with that version, or remove it with that",
        ) from error
    if isinstance(current, state.Stopped | state.Created):
        return Container(spec=spec, state=current)
    lock_path = store.paths.container(spec.id) / "lock"
    lock = open_lock(lock_path) if lock_path.parent.is_dir() else None
    try:
        if lock is not None and not try_flock(lock):
            return Container(spec=spec, state=current)
        sockets.remove_left(store.paths, spec.sockets)
        # Nobody holds it: read again, for a supervisor that ended in between has written the truth.
        latest = next((row for row in store.containers.list() if row.id == spec.id), None)
        if latest is None:
            _remove_if_possible(store, spec.id)
            return None
        current = state.from_json(latest.state)
        if isinstance(current, state.Stopped | state.Created):
            return Container(spec=spec, state=current)
        if spec.remove:
            _remove_if_possible(store, spec.id)
            return None
        stopped = state.Stopped(
            exit_code=state.KILLED_EXIT_CODE,
            started_at=0.0 if isinstance(current, state.Starting) else current.started_at,
            restart_count=0 if isinstance(current, state.Starting) else current.restart_count,
            finished_at=time.time(),
            reason=_LOST,
        )
        # On a full disk it is found out again next time.
        with contextlib.suppress(LimitError):
            store.containers.update_state(spec.id, state.to_json(stopped))
        tell(store, spec, "die", exitCode=str(stopped.exit_code), reason=_LOST)
        shutil.rmtree(store.paths.sockets(spec.id), ignore_errors=True)
        return Container(spec=spec, state=stopped)
    finally:
        if lock is not None:
            unlock_and_close(lock)


def _sweep(store: Store, known: set[str]) -> None:
    """Remove directories that have no record and no holder: what a killed `reserve` or removal left."""
    with contextlib.suppress(FileNotFoundError):
        for directory in store.paths.containers.iterdir():
            if directory.name in known:
                continue
            with contextlib.suppress(OSError):
                path = directory / "lock"
                lock = open_lock(path)
                try:
                    # Not the lock of a file that another sweep has removed: a new container may be there by now.
                    if (
                        try_flock(lock)
                        and _is_at(lock, path)
                        and not store.containers.name_taken(directory.name)
                    ):
                        _remove(store, directory.name)
                finally:
                    unlock_and_close(lock)
