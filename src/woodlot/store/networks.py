"""Records of networks that were made with a name."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from woodlot.errors import AlreadyExistsError, ConfigError, IntegrityError
from woodlot.store.db import Database
from woodlot.store.events import EventLog
from woodlot.values import dataclass

_COLUMNS = "id, name, created_at, spec"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecord:
    """One network."""

    id: str
    name: str
    created_at: datetime
    spec: Mapping[str, object]
    """Given when it was made, and never changed."""


class NetworkRecords:
    """The table ``networks``; every call is a transaction."""

    def __init__(self, database: Database, events: EventLog) -> None:
        self._database = database
        self._events = events

    def insert(self, network_id: str, name: str, spec: Mapping[str, object]) -> None:
        """Add a network.

        Raises:
            AlreadyExistsError: The name is taken.
        """
        with self._database.transaction():
            if self._database.query("SELECT 1 FROM networks WHERE name = ?", (name,)):
                raise AlreadyExistsError(
                    f"there is a network {name} already",
                    hint=f"delete it with `container network delete {name}`, or choose another name",
                )
            self._database.change(
                "INSERT INTO networks (id, name, created_at, spec) VALUES (?, ?, ?, ?)",
                (network_id, name, datetime.now(UTC).isoformat(), json.dumps(spec)),
            )
        self._events.add("network", "create", network_id, {"name": name})

    def get(self, name: str) -> NetworkRecord | None:
        """The network of that name, or None."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM networks WHERE name = ?",  # noqa: S608 - a constant
            (name,),
        )
        return _record(rows[0]) if rows else None

    def find(self, key: str) -> NetworkRecord | None:
        """The network with that name, that id or the start of one id only; None if there is none.

        Raises:
            ConfigError: Several ids start so.
        """
        named = self.get(key)
        if named is not None or not key:
            return named
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM networks WHERE substr(id, 1, length(?1)) = ?1"  # noqa: S608
            " ORDER BY id LIMIT 6",
            (key,),
        )
        if len(rows) > 1:
            names = ", ".join(f"{str(row[0])[:12]} ({row[1]})" for row in rows[:5])
            raise ConfigError(
                f"{key!r} is the start of several network ids: {names}{', …' if rows[5:] else ''}",
                hint="give more of the id, or the name",
            )
        return _record(rows[0]) if rows else None

    def list(self) -> list[NetworkRecord]:
        """All networks, oldest first."""
        return [
            _record(row)
            for row in self._database.query(
                f"SELECT {_COLUMNS} FROM networks ORDER BY created_at, id"  # noqa: S608
            )
        ]

    def delete(self, network_id: str) -> bool:
        """Remove a record; whether there was one."""
        names = self._database.query("SELECT name FROM networks WHERE id = ?", (network_id,))
        deleted = self._database.change("DELETE FROM networks WHERE id = ?", (network_id,)) > 0
        if deleted and names:
            self._events.add("network", "destroy", network_id, {"name": str(names[0][0])})
        return deleted


def _record(row: tuple[object, ...]) -> NetworkRecord:
    network_id, name, created_at, spec = row
    try:
        value: object = json.loads(str(spec))
    except ValueError as error:
        raise IntegrityError(f"the record of network {name} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"the record of network {name} is damaged: not an object")
    return NetworkRecord(
        id=str(network_id),
        name=str(name),
        created_at=datetime.fromisoformat(str(created_at)),
        spec={str(key): item for key, item in value.items()},  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    )
