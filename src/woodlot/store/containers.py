"""Records of containers: what each is to be, and what it was last known to be."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from woodlot.errors import AlreadyExistsError, ConfigError, IntegrityError, NotFoundError
from woodlot.store.db import Database
from woodlot.store.events import EventLog
from woodlot.values import dataclass

_COLUMNS = "id, name, created_at, spec, state"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """One container."""

    id: str
    name: str
    created_at: datetime
    spec: Mapping[str, object]
    """Given when it was made; `ContainerRecords.rename` and `change_spec` change parts of it."""
    state: Mapping[str, object]
    """Replaced as a whole by `ContainerRecords.update_state`."""


class ContainerRecords:
    """The table ``containers``; every call is a transaction."""

    def __init__(self, database: Database, events: EventLog) -> None:
        self._database = database
        self._events = events

    def insert(
        self,
        container_id: str,
        name: str,
        spec: Mapping[str, object],
        state: Mapping[str, object],
    ) -> None:
        """Add a container.

        Args:
            container_id: Its id.
            name: Its name, unique.
            spec: JSON object.
            state: JSON object.

        Raises:
            AlreadyExistsError: The name or the id is taken, by a container or as the id of one.
        """
        with self._database.transaction():
            # A name that is also an id would make one of the two unreachable.
            rows = self._database.query(
                "SELECT id, name FROM containers WHERE name IN (?, ?) OR id IN (?, ?)",
                (name, container_id, name, container_id),
            )
            for holder, held in rows:
                if container_id in {holder, held}:
                    raise AlreadyExistsError(f"the container id {container_id} is taken")
                raise AlreadyExistsError(
                    f"the name {name!r} is taken by container {str(holder)[:12]}",
                    hint=f"remove it with `container rm {name}`, or choose another --name",
                )
            self._database.change(
                "INSERT INTO containers (id, name, created_at, spec, state) VALUES (?, ?, ?, ?, ?)",
                (
                    container_id,
                    name,
                    datetime.now(UTC).isoformat(),
                    json.dumps(spec),
                    json.dumps(state),
                ),
            )
        self.tell("create", container_id, name, spec)

    def get(self, key: str) -> ContainerRecord:
        """The container that ``key`` names: its id, its name, or the start of one id only.

        Raises:
            NotFoundError: There is none.
            ConfigError: Several ids start so.
        """
        exact = self._database.query(
            f"SELECT {_COLUMNS} FROM containers WHERE id = ?1 OR name = ?1"  # noqa: S608 - a constant
            " ORDER BY id <> ?1 LIMIT 1",
            (key,),
        )
        if exact:
            return _record(exact[0])
        # substr rather than LIKE: a key may hold % and _.
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM containers WHERE substr(id, 1, length(?1)) = ?1"  # noqa: S608
            " ORDER BY id LIMIT 6",
            (key,),
        )
        if not key or not rows:
            raise NotFoundError(
                f"no such container: {key}", hint="list them with `container list --all`"
            )
        if len(rows) > 1:
            names = ", ".join(f"{str(row[0])[:12]} ({row[1]})" for row in rows[:5])
            more = ", …" if len(rows) > 5 else ""
            raise ConfigError(
                f"{key!r} is the start of several container ids: {names}{more}",
                hint="give more of the id, or the name",
            )
        return _record(rows[0])

    def list(self) -> list[ContainerRecord]:
        """All containers, oldest first."""
        return [
            _record(row)
            for row in self._database.query(
                f"SELECT {_COLUMNS} FROM containers ORDER BY created_at, id"  # noqa: S608
            )
        ]

    def rename(self, container_id: str, name: str) -> None:
        """Change the name of a container, in its spec, too.

        Raises:
            NotFoundError: There is none with this id.
            AlreadyExistsError: The name is taken, by a container or as the id of one.
        """
        with self._database.transaction():
            holders = self._database.query(
                "SELECT id FROM containers WHERE (name = ?1 OR id = ?1) AND id <> ?2",
                (name, container_id),
            )
            if holders:
                raise AlreadyExistsError(
                    f"the name {name!r} is taken by container {str(holders[0][0])[:12]}"
                )
            former = self._database.query(
                f"SELECT {_COLUMNS} FROM containers WHERE id = ?",  # noqa: S608
                (container_id,),
            )
            if not self._database.change(
                "UPDATE containers SET name = ?1, spec = json_set(spec, '$.name', ?1) WHERE id = ?2",
                (name, container_id),
            ):
                raise NotFoundError(f"no such container: {container_id}")
        record = _record(former[0])
        self.tell("rename", container_id, name, record.spec, oldName=record.name)

    def tell(
        self,
        action: str,
        container_id: str,
        name: str,
        spec: Mapping[str, object],
        **attributes: str,
    ) -> None:
        """Tell of an event; with what Docker says of every container: its image, its name, its labels.

        Args:
            action: What happened.
            container_id: Id of the container.
            name: Its name.
            spec: Its JSON object.
            **attributes: More about it.
        """
        labels = spec.get("labels")
        of_all = (
            {
                str(name): str(value)
                for name, value in cast("Mapping[object, object]", labels).items()
            }
            if isinstance(labels, Mapping)
            else {}
        )
        own = {"image": str(spec.get("image", "")), "name": name, **attributes}
        self._events.add("container", action, container_id, {**own, **of_all, **own})

    def change_spec(self, container_id: str, changes: Mapping[str, object]) -> None:
        """Replace some members of a container's spec, as a JSON merge patch (RFC 7396) does.

        Raises:
            NotFoundError: There is none with this id.
        """
        if not self._database.change(
            "UPDATE containers SET spec = json_patch(spec, ?) WHERE id = ?",
            (json.dumps(changes), container_id),
        ):
            raise NotFoundError(f"no such container: {container_id}")
        record = self.get(container_id)
        self.tell("update", container_id, record.name, record.spec)

    def update_state(self, container_id: str, state: Mapping[str, object]) -> None:
        """Replace the state of a container.

        Raises:
            NotFoundError: There is none with this id.
        """
        if not self._database.change(
            "UPDATE containers SET state = ? WHERE id = ?", (json.dumps(state), container_id)
        ):
            raise NotFoundError(f"no such container: {container_id}")

    def delete(self, container_id: str) -> bool:
        """Remove a record; whether there was one."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM containers WHERE id = ?",  # noqa: S608
            (container_id,),
        )
        deleted = self._database.change("DELETE FROM containers WHERE id = ?", (container_id,)) > 0
        if deleted and rows:
            self.tell("destroy", container_id, str(rows[0][1]), _spec_of(rows[0]))
        return deleted

    def name_taken(self, name: str) -> bool:
        """Whether a container has this name, or this id."""
        rows = self._database.query(
            "SELECT 1 FROM containers WHERE name = ?1 OR id = ?1 LIMIT 1", (name,)
        )
        return bool(rows)


def _spec_of(row: tuple[object, ...]) -> Mapping[str, object]:
    """Also of a damaged record, which can be removed like any other."""
    try:
        return _record(row).spec
    except IntegrityError:
        return {}


def _record(row: tuple[object, ...]) -> ContainerRecord:
    container_id, name, created_at, spec, state = row
    what = f"record of container {container_id}"
    return ContainerRecord(
        id=str(container_id),
        name=str(name),
        created_at=datetime.fromisoformat(str(created_at)),
        spec=_object(spec, what),
        state=_object(state, what),
    )


def _object(text: object, what: str) -> dict[str, object]:
    try:
        value: object = json.loads(str(text))
    except ValueError as error:
        raise IntegrityError(f"{what} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{what} is damaged: not an object")
    return cast("dict[str, object]", value)
