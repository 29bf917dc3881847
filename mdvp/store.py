"""The record of volumes and leases: one SQLite database, and the only owner of that state.

Failure model. Each method is one transaction, so a crash at any instant leaves the state from
before the call or from after it. WAL with synchronous=FULL makes a commit durable before the method
returns, at the cost of one fsync. The database is opened with an exclusive lock: two processes
never share it. Nothing here looks at the volumes' directories; `mdvp.driver` makes disk and record
agree.
"""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from mdvp.errors import StorageError
from mdvp.volume import Identity, Lease, Volume

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    inode INTEGER NOT NULL,
    born INTEGER NOT NULL
) STRICT;
CREATE INDEX volumes_by_identity ON volumes (inode, born);
CREATE TABLE leases (
    volume TEXT NOT NULL REFERENCES volumes (name),
    mount_id TEXT NOT NULL,
    mounts INTEGER NOT NULL CHECK (mounts > 0),
    since TEXT NOT NULL,
    PRIMARY KEY (volume, mount_id)
) STRICT;
"""


class Store:
    """Volumes and leases on record. Not thread-safe: the driver serialises its calls."""

    def __init__(self, path: Path) -> None:
        """Open the database at `path`, made if missing; raise StorageError if it cannot be used."""
        # The driver calls from the server's threads, one at a time.
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise StorageError(f"the state database cannot be used: {error}") from error

    def _open(self) -> None:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("PRAGMA foreign_keys = ON")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            # DDL is transactional in SQLite: a crash here leaves an empty database, not half a one.
            self._db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
            )
        elif version != _SCHEMA_VERSION:
            raise StorageError(
                f"the state database is of schema {version}, this mdvp knows {_SCHEMA_VERSION}: "
                "use the version of mdvp that wrote it, or a newer one"
            )

    def close(self) -> None:
        """Close the database; the store cannot be used afterwards."""
        self._db.close()

    def volume(self, name: str) -> Volume | None:
        """Return the volume `name`, None when there is none."""
        return next(self._volumes("WHERE name = ?", name), None)

    def volume_of(self, identity: Identity) -> Volume | None:
        """Return the volume whose directory has this identity, None when there is none."""
        return next(self._volumes("WHERE inode = ? AND born = ?", *identity), None)

    def volumes(self) -> list[Volume]:
        """Return all volumes, by name."""
        return list(self._volumes("ORDER BY name"))

    def _volumes(self, where: str, *values: object) -> Iterator[Volume]:
        # `where` is always one of the constants above.
        query = f"SELECT name, created_at, inode, born FROM volumes {where}"  # noqa: S608
        rows = self._db.execute(query, values)
        for name, created_at, *identity in rows:
            yield Volume(name, datetime.fromisoformat(created_at), Identity(*identity))

    def add(self, volume: Volume) -> None:
        """Record a new volume."""
        self._db.execute(
            "INSERT INTO volumes (name, created_at, inode, born) VALUES (?, ?, ?, ?)",
            (volume.name, volume.created_at.isoformat(), *volume.identity),
        )

    def set_identity(self, name: str, identity: Identity) -> None:
        """Record that the volume `name` has another directory from now on."""
        self._db.execute("UPDATE volumes SET inode = ?, born = ? WHERE name = ?", (*identity, name))

    def delete(self, name: str) -> None:
        """Forget the volume `name`, which has no lease."""
        self._db.execute("DELETE FROM volumes WHERE name = ?", (name,))

    def leases(self, name: str) -> list[Lease]:
        """Return the leases on volume `name`, the oldest first."""
        rows = self._db.execute(
            "SELECT mount_id, mounts, since FROM leases WHERE volume = ? ORDER BY since", (name,)
        )
        return [_lease(*row) for row in rows]

    def all_leases(self) -> dict[str, list[Lease]]:
        """Return the leases of all volumes that have any, by volume name, the oldest first."""
        leases: dict[str, list[Lease]] = {}
        for volume, *row in self._db.execute(
            "SELECT volume, mount_id, mounts, since FROM leases ORDER BY since"
        ):
            leases.setdefault(volume, []).append(_lease(*row))
        return leases

    def put_lease(self, name: str, lease: Lease) -> None:
        """Record `lease` on volume `name`, in place of an older one of its mount ID."""
        self._db.execute(
            "INSERT OR REPLACE INTO leases (volume, mount_id, mounts, since) VALUES (?, ?, ?, ?)",
            (name, lease.mount_id, lease.mounts, lease.since.isoformat()),
        )

    def end_lease(self, name: str, mount_id: str) -> None:
        """Forget the lease of `mount_id` on volume `name`."""
        self._db.execute("DELETE FROM leases WHERE volume = ? AND mount_id = ?", (name, mount_id))


def _lease(mount_id: str, mounts: int, since: str) -> Lease:
    return Lease(mount_id, mounts, datetime.fromisoformat(since))
