"""Volumes on disk: made, found, filled and deleted.

    volumes/
      .lock                 held (flock) while volumes are made or deleted, and until the container that is to use
                            what was made is recorded
      NAME/
        data/               a directory volume: what containers see, owners and modes as they made them
        disk.ext4           a block volume: a sparse disk; containers see its directory ``data``
        filling             there until the image's files are whole in it: what is there without them is thrown away
        lock                held (flock) from looking whether it must be filled until it is

The record comes first and goes last, so a directory without a record is nobody's and is made again or removed.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from woodlot import settings
from woodlot.errors import (
    AlreadyExistsError,
    ConfigError,
    NotFoundError,
    StateError,
)
from woodlot.files.share import remove_tree
from woodlot.rootfs.upper import MIN_DISK_BYTES, clone_disk, ensure_upper_template
from woodlot.store.disk import disk_errors, used_bytes
from woodlot.store.locks import hold_sync
from woodlot.store.store import Store
from woodlot.store.volumes import NAME, VolumeKind, VolumeRecord, new_record
from woodlot.units import format_size, format_time, parse_size
from woodlot.values import dataclass

DRIVER = "local"
"""Docker's name for volumes that are files of the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume and where it is."""

    record: VolumeRecord
    directory: Path

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def driver(self) -> str:
        """What keeps it."""
        return DRIVER

    @property
    def used_bytes(self) -> int:
        """Room on the disk of what is in it; walks all of it."""
        return used_bytes(self.directory)

    @property
    def data(self) -> Path:
        """Files of a directory volume, for virtio-fs and for people."""
        return self.directory / "data"

    @property
    def disk(self) -> Path:
        """Disk of a block volume."""
        return self.directory / "disk.ext4"

    @property
    def source(self) -> Path:
        """Where what is in it is."""
        return self.disk if self.record.kind == "block" else self.data

    @property
    def lock(self) -> Path:
        """See the drawing above."""
        return self.directory / "lock"

    @property
    def filling(self) -> Path:
        """See the drawing above."""
        return self.directory / "filling"

    def needs_filling(self) -> bool:
        """Whether the image's files are to be copied into it; ask with the lock held to be sure."""
        if self.filling.exists():
            return True
        if self.record.kind == "block":
            return False
        try:
            with os.scandir(self.data) as entries:
                return next(entries, None) is None
        except PermissionError:
            # A container has given it to another of its users: it has been filled.
            return False


def check_name(name: str, *, what: str = "a volume") -> str:
    """A volume's name: 2 to 128 letters, digits, ``_``, ``.`` and ``-``, the first a letter or digit.

    Raises:
        ConfigError: It is no such name.
    """
    if NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{what} cannot be named {name!r}",
            hint="use 2 to 128 letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
    return name


def choose_size(kind: VolumeKind, text: str | None) -> int | None:
    """The size of a new volume in bytes; None for one that has none of its own.

    Raises:
        ConfigError: It is no size, or too small, or a directory is given one.
    """
    if kind == "directory":
        if text is not None:
            raise ConfigError(
                "a directory volume has no size of its own", hint="add --opt type=block"
            )
        return None
    size = _default_size() if text is None else parse_size(text, what="--opt size")
    if size < MIN_DISK_BYTES:
        raise ConfigError(f"--opt size must be at least {format_size(MIN_DISK_BYTES)}")
    return size


def _default_size() -> int:
    return settings.get_int("container.disk")


def create(
    store: Store,
    name: str,
    *,
    kind: VolumeKind = "directory",
    size: int | None = None,
    labels: Mapping[str, str] | None = None,
    anonymous: bool = False,
) -> Volume:
    """Make a volume; blocking.

    Raises:
        AlreadyExistsError: There is one of that name.
        ConfigError: It is no name, or the size is too small.
        LimitError: The disk is full. Nothing is left behind.
    """
    check_name(name)
    if kind == "block" and size is None:
        size = _default_size()
    with hold_sync(_lock(store)):
        volume = _make(store, new_record(name, kind, size, labels or {}, anonymous=anonymous))
    if volume is None:
        raise AlreadyExistsError(
            f"there is a volume {name} already",
            hint=f"remove it with `container volume rm {name}`, or choose another name",
        )
    return volume


def find(store: Store, name: str) -> Volume:
    """The volume of that name.

    Raises:
        NotFoundError: There is none.
    """
    record = store.volumes.get(name)
    if record is None:
        raise NotFoundError(
            f"no such volume: {name}", hint="list them with `container volume list`"
        )
    return _volume(store, record)


def list_volumes(store: Store) -> list[Volume]:
    """All volumes, by name."""
    return [_volume(store, record) for record in store.volumes.list()]


@contextlib.contextmanager
def prepared(store: Store, names: Iterable[tuple[str, bool]]) -> Generator[None]:
    """Every volume is there, and stays until the block is left: record in it who uses them.

    After an error in the block the anonymous ones are gone again.

    Args:
        store: Where.
        names: Of volumes that are made if they are missing, each with whether it is anonymous. Those are block volumes:
            they have one user, whatever their owners are, and need no file server.
    """
    with hold_sync(_lock(store)):
        made: list[VolumeRecord] = []
        try:
            for name, anonymous in names:
                kind: VolumeKind = "block" if anonymous else "directory"
                size = _default_size() if anonymous else None
                if store.volumes.get(name) is None:
                    record = new_record(name, kind, size, {}, anonymous=anonymous)
                    if _make(store, record) is not None and anonymous:
                        made.append(record)
            yield
        except BaseException:
            for record in made:
                _remove(store, record)
            raise


def _make(store: Store, record: VolumeRecord) -> Volume | None:
    if not store.volumes.insert(record):
        return None
    volume = _volume(store, record)
    try:
        with disk_errors(volume.directory, f"volume {record.name}"):
            shutil.rmtree(volume.directory, ignore_errors=True)
            volume.directory.mkdir(mode=0o700, parents=True)
            if record.kind == "block":
                volume.filling.touch()
                _make_disk(store, volume)
            else:
                _make_data(volume)
    except BaseException:
        _remove(store, record)
        raise
    return volume


def reset(store: Store, volume: Volume) -> None:
    """Make a volume whose lock is held as empty as a new one; what is in it is not whole, and nobody's.

    Raises:
        LimitError: The disk is full.
    """
    with disk_errors(volume.directory, f"volume {volume.name}"):
        if volume.record.kind == "block":
            _make_disk(store, volume)
        else:
            remove_tree(volume.data)
            _make_data(volume)
    # Only now: whoever is killed before leaves it to be done again.
    volume.filling.unlink(missing_ok=True)


def _make_disk(store: Store, volume: Volume) -> None:
    assert volume.record.size is not None  # noqa: S101 - `create` and `prepared` see to it
    new = volume.disk.with_suffix(".new")
    new.unlink(missing_ok=True)
    clone_disk(ensure_upper_template(store.paths.disks, volume.record.size), new)
    new.replace(volume.disk)


def _make_data(volume: Volume) -> None:
    volume.data.mkdir()
    volume.data.chmod(0o755)


def users(store: Store, name: str) -> list[str]:
    """Names of the containers that mount the volume, also of those that are stopped."""
    return _users(store).get(name, [])


def used_names(store: Store) -> Collection[str]:
    """Names of the volumes that containers mount, also those that are stopped."""
    return _users(store).keys()


def _users(store: Store) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for container in store.containers.list():
        for name in _volume_names(container.spec):
            found.setdefault(name, []).append(container.name)
    return found


def _volume_names(spec: Mapping[str, object]) -> Iterator[str]:
    # Any version's record: what it does not tell, it does not use.
    for mount in cast("Sequence[Mapping[str, object]]", spec.get("mounts", ())):
        if mount.get("type") == "volume":
            yield str(mount.get("source"))


def delete(store: Store, name: str) -> None:
    """Remove a volume and its files.

    Raises:
        NotFoundError: There is none.
        StateError: A container uses it.
    """
    with hold_sync(_lock(store)):
        volume = find(store, name)
        holders = users(store, name)
        if holders:
            raise StateError(
                f"volume {name} is used by container {', '.join(holders)}",
                hint=f"container rm {' '.join(holders)}",
            )
        _remove(store, volume.record)


def delete_anonymous(store: Store, names: Iterable[str]) -> None:
    """Remove those volumes that nobody uses any more, and that were made for a container that is gone."""
    with hold_sync(_lock(store)):
        used = _users(store)
        for name in names:
            record = store.volumes.get(name)
            if record is not None and record.anonymous and name not in used:
                _remove(store, record)


def prune(
    store: Store, *, every: bool = False, meets: Callable[[Volume], bool] | None = None
) -> tuple[list[str], int]:
    """Remove the volumes that no container uses: the anonymous ones, or all; of these, those that meet a condition.

    Returns:
        Their names, and the bytes that were freed.
    """
    removed: list[str] = []
    freed = 0
    with hold_sync(_lock(store)):
        used = _users(store)
        for record in store.volumes.list():
            if record.name in used or not (every or record.anonymous):
                continue
            if meets is None or meets(_volume(store, record)):
                freed += _volume(store, record).used_bytes
                _remove(store, record)
                removed.append(record.name)
    return removed, freed


def inspect(store: Store, volume: Volume) -> dict[str, object]:
    """Everything about a volume as JSON types."""
    record = volume.record
    return {
        "name": record.name,
        "type": record.kind,
        "source": str(volume.source),
        "sizeInBytes": record.size,
        "usedInBytes": volume.used_bytes,
        "labels": dict(record.labels),
        "anonymous": record.anonymous,
        "creationDate": format_time(record.created_at.timestamp()),
        "containers": users(store, record.name),
    }


def _remove(store: Store, record: VolumeRecord) -> None:
    remove_tree(store.paths.volume(record.name))
    store.volumes.delete(record.name)


def _volume(store: Store, record: VolumeRecord) -> Volume:
    return Volume(record=record, directory=store.paths.volume(record.name))


def _lock(store: Store) -> Path:
    return store.paths.volumes / ".lock"
