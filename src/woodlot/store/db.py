"""The records: one SQLite database, shared by all processes of one installation.

    images(reference, digest, media_type, size, created_at)
    containers(id, name, created_at, spec, state)        spec and state are JSON objects
    networks(id, name, created_at, spec)                 spec is a JSON object
    volumes(name, kind, size, labels, anonymous, created_at)     labels is a JSON object

Beside it lies ``woodlot.db-reserve``: room that a full disk gets back, for without a little even reading is impossible,
and what fills the disk could not be removed.

Write-ahead log, so readers never wait; writers wait for each other up to `BUSY_TIMEOUT_S`. The version of the
schema is ``PRAGMA user_version``: the number of `MIGRATIONS` applied.
"""

import contextlib
import os
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from woodlot.errors import IntegrityError, LimitError, StateError, UnsupportedError, WoodlotError
from woodlot.store.disk import full_disk

if TYPE_CHECKING:
    import sqlite3

BUSY_TIMEOUT_S = 10.0
# The index of the write-ahead log takes 32 KiB, and a change some pages.
RESERVE_BYTES = 256 << 10

# Only ever appended to: each brings the database of every earlier version forward.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE images (
            reference TEXT PRIMARY KEY,
            digest TEXT NOT NULL,
            media_type TEXT NOT NULL,
            size INTEGER NOT NULL,
            created_at TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE containers (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            created_at TEXT NOT NULL,
            spec TEXT NOT NULL,
            state TEXT NOT NULL
        ) STRICT""",
    ),
    (
        """CREATE TABLE networks (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            created_at TEXT NOT NULL,
            spec TEXT NOT NULL
        ) STRICT""",
    ),
    (
        """CREATE TABLE volumes (
            name TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            size INTEGER,
            labels TEXT NOT NULL,
            anonymous INTEGER NOT NULL,
            created_at TEXT NOT NULL
        ) STRICT""",
    ),
)

# Connections that a parent process opened. Closing one here could disturb the parent's files, so they are
# kept, unused, until this process ends.
_inherited: list["sqlite3.Connection"] = []


class Database:
    """A database that is opened when first used, again in each process after a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """The rows of one statement, which is its own transaction unless inside `transaction`.

        Raises:
            StateError: Another process kept the database busy for `BUSY_TIMEOUT_S`.
            LimitError: The disk is full.
            IntegrityError: The file is damaged.
            UnsupportedError: A newer woodlot made it.
        """
        with self._use() as connection:
            return connection.execute(sql, tuple(parameters)).fetchall()

    def change(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run one statement that changes rows, and count them; raises as `query`."""
        with self._use() as connection:
            return connection.execute(sql, tuple(parameters)).rowcount

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """All statements of the block, or none; no other writer comes between them.

        Do not fork inside. Raises as `query`.
        """
        with self._use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # A full disk has already undone it.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection of this process; the next use opens another."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _use(self) -> Generator["sqlite3.Connection"]:
        if self._pid != os.getpid():
            if self._connection is not None:
                _inherited.append(self._connection)
            # Another thread of the parent may have held the lock when it forked.
            self._lock = threading.RLock()
            self._connection, self._pid = None, os.getpid()
        with self._lock, self._translated():
            if self._connection is None:
                self._connection = _open(self.path)
            yield self._connection

    @contextlib.contextmanager
    def _translated(self) -> Generator[None]:
        import sqlite3

        try:
            yield
        except sqlite3.IntegrityError:
            # A constraint: the caller knows what it means.
            raise
        except sqlite3.Error as error:
            raise _translate(error, self.path) from error


def _open(path: Path) -> "sqlite3.Connection":
    import sqlite3

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _keep_reserve(path)
    # Records hold environments, and so secrets. SQLite gives its other files the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        _set_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_reserve(path: Path) -> None:
    """Put room aside beside the database, or give it back if the disk is full."""
    reserve = path.with_name(f"{path.name}-reserve")
    with contextlib.suppress(OSError):
        free = _free_bytes(path)
        if free < RESERVE_BYTES:
            reserve.unlink(missing_ok=True)
        elif free > 4 * RESERVE_BYTES and not reserve.exists():
            # Written, not allocated: not every file system can, and none must share or compress it away.
            reserve.touch(mode=0o600)
            reserve.write_bytes(os.urandom(RESERVE_BYTES))


def _free_bytes(path: Path) -> int:
    status = os.statvfs(path.parent)
    return status.f_bavail * status.f_frsize


def _set_wal(connection: "sqlite3.Connection") -> None:
    import sqlite3

    # The change of mode does not wait for other processes as statements do.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _migrate(connection: "sqlite3.Connection", path: Path) -> None:
    def version() -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    if version() == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while we waited.
        current = version()
        _refuse_newer(current, path)
        for statements in MIGRATIONS[current:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _refuse_newer(version: int, path: Path) -> None:
    if version > len(MIGRATIONS):
        raise UnsupportedError(
            f"{path} was made by a newer woodlot (schema {version}, known up to {len(MIGRATIONS)})",
            hint="use that version, or another place with --root or WOODLOT_ROOT",
        )


def _translate(error: "sqlite3.Error", path: Path) -> WoodlotError:
    import sqlite3

    # The low byte is the primary code.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return full_disk(path, "records")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN if _free_bytes(path) < RESERVE_BYTES:
            # So it calls a file beside the database that found no room.
            return full_disk(path, "records")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StateError(
                f"{path} is kept busy by another process for more than {BUSY_TIMEOUT_S:g} s"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return IntegrityError(
                f"{path} is damaged: {error}", hint="restore it, or move it away and pull again"
            )
        case sqlite3.SQLITE_TOOBIG:
            return LimitError(f"a record is too large for {path}")
        case _:
            return WoodlotError(f"{path}: {error}")
