"""Records of volumes: their names, and of which kind each is."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from woodlot.store.db import Database
from woodlot.store.events import EventLog
from woodlot.values import dataclass

_COLUMNS = "name, kind, size, labels, anonymous, created_at"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,127}")

VolumeKind = Literal["directory", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """One volume."""

    name: str
    kind: VolumeKind
    size: int | None
    """Most bytes a block volume can hold."""
    labels: Mapping[str, str]
    anonymous: bool
    """Made for one container."""
    created_at: datetime


class VolumeRecords:
    """The table ``volumes``; every call is a transaction."""

    def __init__(self, database: Database, events: EventLog) -> None:
        self._database = database
        self._events = events

    def get(self, name: str) -> VolumeRecord | None:
        """The volume of that name, or None."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM volumes WHERE name = ?",  # noqa: S608 - a constant
            (name,),
        )
        return _record(rows[0]) if rows else None

    def list(self) -> list[VolumeRecord]:
        """All volumes, by name."""
        return [
            _record(row)
            for row in self._database.query(f"SELECT {_COLUMNS} FROM volumes ORDER BY name")  # noqa: S608
        ]

    def insert(self, record: VolumeRecord) -> bool:
        """Add a volume; False if the name is taken."""
        inserted = (
            self._database.change(
                f"INSERT INTO volumes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608
                " ON CONFLICT (name) DO NOTHING",
                (
                    record.name,
                    record.kind,
                    record.size,
                    json.dumps(dict(record.labels)),
                    int(record.anonymous),
                    record.created_at.isoformat(),
                ),
            )
            > 0
        )
        if inserted:
            self._events.add("volume", "create", record.name, {"driver": "local"})
        return inserted

    def delete(self, name: str) -> bool:
        """Remove a record; whether there was one."""
        deleted = self._database.change("DELETE FROM volumes WHERE name = ?", (name,)) > 0
        if deleted:
            self._events.add("volume", "destroy", name, {"driver": "local"})
        return deleted


def new_record(
    name: str, kind: VolumeKind, size: int | None, labels: Mapping[str, str], *, anonymous: bool
) -> VolumeRecord:
    """A record that begins now."""
    return VolumeRecord(
        name=name,
        kind=kind,
        size=size,
        labels=labels,
        anonymous=anonymous,
        created_at=datetime.now(UTC),
    )


def _record(row: tuple[object, ...]) -> VolumeRecord:
    name, kind, size, labels, anonymous, created_at = row
    return VolumeRecord(
        name=str(name),
        kind="block" if kind == "block" else "directory",
        size=None if size is None else int(str(size)),
        labels=json.loads(str(labels)),
        anonymous=bool(anonymous),
        created_at=datetime.fromisoformat(str(created_at)),
    )
