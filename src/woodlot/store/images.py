"""Records of images: which name stands for which index or manifest."""

from datetime import UTC, datetime

from woodlot.oci.digest import Digest
from woodlot.store.db import Database
from woodlot.store.events import EventLog
from woodlot.values import dataclass

_COLUMNS = "reference, digest, media_type, size, created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One name of an image."""

    reference: str
    """Canonical."""
    digest: Digest
    """Of the index or manifest that the name stands for."""
    media_type: str
    size: int
    """Bytes of that index or manifest."""
    created_at: datetime


class ImageRecords:
    """The table ``images``; every call is a transaction."""

    def __init__(self, database: Database, events: EventLog) -> None:
        self._database = database
        self._events = events

    def get(self, reference: str) -> ImageRecord | None:
        """The record of a canonical reference, or None."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM images WHERE reference = ?",  # noqa: S608 - a constant
            (reference,),
        )
        return _record(rows[0]) if rows else None

    def put(
        self,
        *,
        reference: str,
        digest: Digest,
        media_type: str,
        size: int,
        event: str | None = "pull",
    ) -> None:
        """Add or replace a record; ``event`` is what is told of it, if anything."""
        self._database.change(
            "INSERT INTO images (reference, digest, media_type, size, created_at)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (reference) DO UPDATE SET"
            " digest = excluded.digest, media_type = excluded.media_type,"
            " size = excluded.size, created_at = excluded.created_at",
            (reference, digest, media_type, size, datetime.now(UTC).isoformat()),
        )
        if event is not None:
            self._events.add("image", event, str(digest), {"name": reference})

    def list(self) -> list[ImageRecord]:
        """All records, by reference."""
        return [
            _record(row)
            for row in self._database.query(f"SELECT {_COLUMNS} FROM images ORDER BY reference")  # noqa: S608
        ]

    def delete(self, reference: str) -> bool:
        """Remove a record; whether there was one."""
        record = self.get(reference)
        deleted = self._database.change("DELETE FROM images WHERE reference = ?", (reference,)) > 0
        if deleted and record is not None:
            self._events.add("image", "delete", str(record.digest), {"name": reference})
        return deleted


def _record(row: tuple[object, ...]) -> ImageRecord:
    reference, digest, media_type, size, created_at = row
    return ImageRecord(
        reference=str(reference),
        digest=Digest(str(digest)),
        media_type=str(media_type),
        size=int(str(size)),
        created_at=datetime.fromisoformat(str(created_at)),
    )
