"""The record of volumes and leases: one SQLite database, and the only owner of that state.

Failure model. Each method is one transaction, so a crash at any instant leaves the state from
before the call or from after it. What it recorded survives the end of the process at once, and that
of the machine from the next `sync` on (WAL with synchronous=NORMAL): that is for what must be on
disk before something else is done. A lease need not outlive the machine.

The database is opened with an exclusive lock: two processes never share it. One that is damaged is
kept under another name, and a new one is made. What a new one lacks, or one that was not closed and
may have lost its end, is what the caller finds elsewhere: it is added in one transaction. Nothing
here looks at the volumes' directories; `mdvp.driver` makes disk and record agree.
"""

import logging
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from mdvp.core import options
from mdvp.core.clock import Moment
from mdvp.core.errors import StorageError
from mdvp.core.lease import Engine, Lease
from mdvp.core.options import Options
from mdvp.core.volume import Access, Identity, Means, Volume

log = logging.getLogger(__name__)

# What brings a database from each version of the schema to the next; its version is their number.
_MIGRATIONS = (
    """
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
    """,
    # No boot has the empty id, so an older lease is one from before the last boot: it counts while
    # the kernel shows a container.
    """
    ALTER TABLE volumes ADD COLUMN access TEXT NOT NULL DEFAULT 'exclusive';
    ALTER TABLE volumes ADD COLUMN uid INTEGER;
    ALTER TABLE volumes ADD COLUMN gid INTEGER;
    ALTER TABLE volumes ADD COLUMN mode INTEGER;
    ALTER TABLE leases ADD COLUMN boot TEXT NOT NULL DEFAULT '';
    ALTER TABLE leases ADD COLUMN uptime REAL NOT NULL DEFAULT 0;
    ALTER TABLE leases ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
    """,
    # Of a lease that had been seen nobody knows any more who had it: while that container is there,
    # it is found again. A lease can be left with no Mounts, and SQLite cannot change a CHECK.
    """
    CREATE TABLE new_leases (
        volume TEXT NOT NULL REFERENCES volumes (name),
        mount_id TEXT NOT NULL,
        mounts INTEGER NOT NULL CHECK (mounts >= 0),
        since TEXT NOT NULL,
        boot TEXT NOT NULL,
        uptime REAL NOT NULL,
        engine INTEGER,
        engine_started INTEGER,
        holder TEXT,
        PRIMARY KEY (volume, mount_id)
    ) STRICT;
    INSERT INTO new_leases (volume, mount_id, mounts, since, boot, uptime)
        SELECT volume, mount_id, mounts, since, boot, uptime FROM leases;
    DROP TABLE leases;
    ALTER TABLE new_leases RENAME TO leases;
    CREATE TABLE seen (
        volume TEXT NOT NULL REFERENCES volumes (name),
        holder TEXT NOT NULL,
        boot TEXT NOT NULL,
        PRIMARY KEY (volume, holder)
    ) STRICT;
    """,
    # Texts are as `mdvp.core.options` writes them. With an origin and no means, a volume is being
    # filled.
    """
    ALTER TABLE volumes ADD COLUMN on_remove TEXT;
    ALTER TABLE volumes ADD COLUMN protect INTEGER;
    ALTER TABLE volumes ADD COLUMN wait INTEGER;
    ALTER TABLE volumes ADD COLUMN size INTEGER;
    ALTER TABLE volumes ADD COLUMN reader_of TEXT;
    ALTER TABLE volumes ADD COLUMN origin TEXT;
    ALTER TABLE volumes ADD COLUMN live INTEGER;
    ALTER TABLE volumes ADD COLUMN means TEXT;
    CREATE INDEX readers ON volumes (reader_of) WHERE reader_of IS NOT NULL;
    """,
    # What a directory is yet to be given, of a change that is on record.
    """
    CREATE TABLE due (
        volume TEXT PRIMARY KEY REFERENCES volumes (name),
        uid INTEGER,
        gid INTEGER,
        mode INTEGER
    ) STRICT;
    """,
)
_VERSION = len(_MIGRATIONS)
_VOLUME = (
    "name, created_at, inode, born, access, uid, gid, mode, on_remove, protect, wait, size, "
    "reader_of, origin, live, means"
)
_VOLUME_VALUES = ", ".join("?" * len(_VOLUME.split(",")))
_LEASE = "mount_id, mounts, since, boot, uptime, engine, engine_started, holder"
_RESERVED = 8 << 20  # bytes
# Seconds for looking for what a database that was not closed may lack. What it has recorded of a
# volume is on disk before the volume is there, so only a disk that lies, or a hand, has taken that.
_PATIENCE = 5.0
_NOTHING_DUE = Options()
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


# What finds volumes elsewhere, in so many seconds at most.
Finder: TypeAlias = Callable[[float], Iterable[Volume]]


def is_damage(error: BaseException) -> bool:
    """Say whether `error` means that the database is damaged; the next `Store` makes a new one."""
    return getattr(error, "sqlite_errorcode", None) in _DAMAGED


class Store:
    """Volumes and leases on record. Not thread-safe: the driver serialises its calls.

    Attributes:
        new: whether there was no database, or none that could be used.

    """

    def __init__(self, path: Path, found: Finder = lambda _: ()) -> None:
        """Open the database at `path`; one that may lack volumes gets those that `found` finds.

        Raises StorageError if it cannot be used.
        """
        try:
            try:
                self._db, self.new = _open(path, found)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                _put_away(path, error)
                self._db, self.new = _open(path, found)
            # There is one: to open a database here includes a write.
            self._wal = os.open(_wal(path), os.O_RDWR | os.O_CLOEXEC)
            self._reserve()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"the state database cannot be used: {error}") from error

    def close(self) -> None:
        """Close the database; the store cannot be used afterwards."""
        os.close(self._wal)
        self._db.close()

    def _reserve(self) -> None:
        """Take the room for changes while there is some: volumes may fill the disk.

        It must be possible then to unmount and to remove them. SQLite starts its log again from the
        beginning when that has some 4 MB, and what it has not written there is no part of it.
        """
        self._db.execute("PRAGMA wal_checkpoint")  # so that the next change is at the beginning
        try:
            os.posix_fallocate(self._wal, 0, _RESERVED)
        except OSError as error:
            log.warning(
                "cannot reserve room on disk for the state database: %(error)s",
                {"event": "no_room_reserved", "error": error},
            )

    def sync(self) -> None:
        """Return when all that was recorded is on disk. Any thread may call this."""
        os.fdatasync(self._wal)

    def volume(self, name: str) -> Volume | None:
        """Return the volume `name`, None when there is none."""
        return next(self._volumes("WHERE name = ?", name), None)

    def volume_of(self, identity: Identity) -> Volume | None:
        """Return the volume whose directory has this identity, None when there is none."""
        return next(self._volumes("WHERE inode = ? AND born = ?", *identity), None)

    def volumes(self) -> list[Volume]:
        """Return all volumes, by name."""
        return list(self._volumes("ORDER BY name"))

    def readers_of(self, name: str) -> list[Volume]:
        """Return the volumes that show the directory of volume `name`."""
        return list(self._volumes("WHERE reader_of = ?", name))

    def page(self, after: str, size: int) -> list[tuple[Volume, bool]]:
        """Return the first volumes whose names come after `after`, by name, `size` at most.

        With each, whether it has leases, or holders that were seen.
        """
        volumes = list(self._volumes("WHERE name > ? ORDER BY name LIMIT ?", after, size))
        last = volumes[-1].name if volumes else after
        used = self._db.execute(
            "SELECT volume FROM leases WHERE volume > ? AND volume <= ? "
            "UNION SELECT volume FROM seen WHERE volume > ? AND volume <= ?",
            (after, last, after, last),
        )
        names = {name for (name,) in used}
        return [(volume, volume.name in names) for volume in volumes]

    def _volumes(self, where: str, *values: object) -> Iterator[Volume]:
        # `where` is always one of the constants above.
        rows = self._db.execute(f"SELECT {_VOLUME} FROM volumes {where}", values)  # noqa: S608
        for row in rows:
            yield _volume(*row)

    def add(self, volume: Volume, due: Options = _NOTHING_DUE) -> None:
        """Record a new volume, and what its directory is yet to be given, as `change` does."""
        with self._db:
            self._db.execute("BEGIN")
            _add(self._db, volume)
            self._put_due(volume.name, due)

    def replace(self, volume: Volume) -> None:
        """Record that the volume of this name is from now on as `volume` is."""
        self._db.execute(
            f"UPDATE volumes SET ({_VOLUME}) = ({_VOLUME_VALUES}) WHERE name = ?",  # noqa: S608
            (*_volume_columns(volume), volume.name),
        )

    def change(self, volume: Volume, due: Options) -> None:
        """Record that the volume of this name is from now on as `volume` is.

        And what its directory is yet to be given: the owner, group and permissions of `due`.
        """
        with self._db:
            self._db.execute("BEGIN")
            self.replace(volume)
            self._put_due(volume.name, due)

    def _put_due(self, name: str, due: Options) -> None:
        if (due.uid, due.gid, due.mode) != (None, None, None):
            self._db.execute(
                "INSERT OR REPLACE INTO due VALUES (?, ?, ?, ?)",
                (name, due.uid, due.gid, due.mode),
            )

    def due(self, name: str) -> Options | None:
        """Return what the directory of volume `name` is yet to be given; None: nothing."""
        row = self._db.execute(
            "SELECT uid, gid, mode FROM due WHERE volume = ?", (name,)
        ).fetchone()
        return None if row is None else Options(uid=row[0], gid=row[1], mode=row[2])

    def all_due(self) -> list[str]:
        """Return the names of the volumes whose directories are yet to be given something."""
        return [name for (name,) in self._db.execute("SELECT volume FROM due ORDER BY volume")]

    def settle(self, name: str) -> None:
        """Record that the directory of volume `name` has been given all that it was to be given."""
        self._db.execute("DELETE FROM due WHERE volume = ?", (name,))

    def rename(self, name: str, new: str) -> None:
        """Record that volume `name`, which nobody has, is called `new`; its readers follow."""
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute("PRAGMA defer_foreign_keys = ON")  # until the end of this
            self._db.execute("DELETE FROM leases WHERE volume = ?", (name,))
            self._db.execute("DELETE FROM seen WHERE volume = ?", (name,))
            self._db.execute("UPDATE due SET volume = ? WHERE volume = ?", (new, name))
            self._db.execute("UPDATE volumes SET reader_of = ? WHERE reader_of = ?", (new, name))
            # Of one that is full already it is the name of then.
            self._db.execute(
                "UPDATE volumes SET origin = ? WHERE origin = ? AND means IS NULL", (new, name)
            )
            self._db.execute("UPDATE volumes SET name = ? WHERE name = ?", (new, name))

    def delete(self, name: str) -> None:
        """Forget the volume `name` and all leases on it."""
        with self._db:
            self._db.execute("BEGIN")
            _delete(self._db, name)

    def leases(self, name: str) -> list[Lease]:
        """Return the leases on volume `name`, the oldest first."""
        rows = self._db.execute(
            f"SELECT {_LEASE} FROM leases WHERE volume = ? ORDER BY since",  # noqa: S608
            (name,),
        )
        return [_lease(*row) for row in rows]

    def used(self) -> list[str]:
        """Return the names of the volumes that have leases, or holders that were seen."""
        rows = self._db.execute("SELECT volume FROM leases UNION SELECT volume FROM seen")
        return [name for (name,) in rows]

    def seen(self, name: str, boot: str) -> set[str]:
        """Return who (`Holder.who`) was seen to have volume `name`; `boot` is the present one."""
        rows = self._db.execute(
            "SELECT holder FROM seen WHERE volume = ? AND boot = ?", (name, boot)
        )
        return {holder for (holder,) in rows}

    def put_seen(self, name: str, holders: Iterable[str], boot: str) -> None:
        """Record that these have volume `name`, and that nobody else has it any more."""
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute("DELETE FROM seen WHERE volume = ?", (name,))
            rows = [(name, holder, boot) for holder in holders]
            self._db.executemany("INSERT INTO seen VALUES (?, ?, ?)", rows)

    def put_leases(self, name: str, leases: Iterable[Lease], ended: Iterable[Lease] = ()) -> None:
        """Record `leases` on volume `name`, for what their mount IDs had, and end those `ended`."""
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "DELETE FROM leases WHERE volume = ? AND mount_id = ?",
                [(name, lease.mount_id) for lease in ended],
            )
            self._db.executemany(
                f"INSERT OR REPLACE INTO leases (volume, {_LEASE}) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(name, *_columns(lease)) for lease in leases],
            )


def _open(path: Path, found: Finder) -> tuple[sqlite3.Connection, bool]:
    """Return the open database, and whether it is new."""
    # SQLite removes this file, with the latest changes, when it closes the database.
    closed = not _wal(path).exists()
    # The driver calls from the server's threads, one at a time.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("PRAGMA foreign_keys = ON")
        _check(db)
        # DDL is transactional in SQLite: a crash here leaves the database as it was.
        db.execute("BEGIN IMMEDIATE")
        new = _migrate(db)
        if new or not closed:
            _add_missing(db, found(math.inf if new else _PATIENCE))
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db, new


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _check(db: sqlite3.Connection) -> None:
    (result,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        damage = sqlite3.DatabaseError(result)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def _migrate(db: sqlite3.Connection) -> bool:
    """Bring the schema up to date; return whether there was none."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise StorageError(
            f"the state database is of schema {version}, this mdvp knows {_VERSION}: "
            "use the version of mdvp that wrote it, or a newer one"
        )
    for migration in _MIGRATIONS[version:]:
        for statement in migration.split(";"):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {_VERSION}")  # a write, be it the same
    return not version


def _add_missing(db: sqlite3.Connection, found: Iterable[Volume]) -> None:
    known = {Identity(*row) for row in db.execute("SELECT inode, born FROM volumes")}
    missing = [volume for volume in found if volume.identity not in known]
    for volume in missing:
        # One that has lost its end may have an older volume of that name, whose directory is gone.
        _delete(db, volume.name)
        _add(db, volume)
    if missing:
        log.warning(
            "the state database did not have %(count)d of the volumes; they were found again by "
            "what their directories say of themselves: %(_names)s",
            {
                "event": "found_again",
                "count": len(missing),
                "_names": ", ".join(volume.name for volume in missing),
                "volumes": [volume.name for volume in missing],
            },
        )


def _put_away(path: Path, damage: sqlite3.Error) -> None:
    kept = path.with_name(f"{path.name}.damaged")
    log.error(
        "the state database is damaged (%(error)s): it is kept as %(kept)s, and a new one is made "
        "from what the volumes' directories say of themselves",
        {"event": "state_damaged", "error": damage, "kept": kept.name},
    )
    path.replace(kept)
    # What was not yet in the database belongs to it, and would be nonsense in the new one.
    with suppress(FileNotFoundError):
        _wal(path).replace(_wal(kept))


def _add(db: sqlite3.Connection, volume: Volume) -> None:
    db.execute(
        f"INSERT INTO volumes ({_VOLUME}) VALUES ({_VOLUME_VALUES})",  # noqa: S608
        _volume_columns(volume),
    )


def _delete(db: sqlite3.Connection, name: str) -> None:
    db.execute("DELETE FROM leases WHERE volume = ?", (name,))
    db.execute("DELETE FROM seen WHERE volume = ?", (name,))
    db.execute("DELETE FROM due WHERE volume = ?", (name,))
    db.execute("DELETE FROM volumes WHERE name = ?", (name,))


def _volume(  # noqa: PLR0913, PLR0917  # a row
    name: str,
    created_at: str,
    inode: int,
    born: int,
    access: str,
    uid: int | None,
    gid: int | None,
    mode: int | None,
    on_remove: str | None,
    protect: int | None,
    wait: int | None,
    size: int | None,
    reader_of: str | None,
    origin: str | None,
    live: int | None,
    means: str | None,
) -> Volume:
    return Volume(
        name,
        datetime.fromisoformat(created_at),
        Identity(inode, born),
        Access(access),
        uid,
        gid,
        mode,
        None if on_remove is None else options.on_remove(on_remove),
        None if protect is None else bool(protect),
        wait,
        size,
        reader_of,
        origin,
        None if live is None else bool(live),
        None if means is None else Means(means),
    )


def _volume_columns(volume: Volume) -> tuple[object, ...]:
    return (
        volume.name,
        volume.created_at.isoformat(),
        *volume.identity,
        volume.access.value,
        volume.uid,
        volume.gid,
        volume.mode,
        volume.on_remove and options.in_on_remove(volume.on_remove),
        volume.protect,
        volume.wait,
        volume.size,
        volume.reader_of,
        volume.origin,
        volume.live,
        volume.means and volume.means.value,
    )


def _lease(  # noqa: PLR0913, PLR0917  # a row
    mount_id: str,
    mounts: int,
    since: str,
    boot: str,
    uptime: float,
    pid: int | None,
    started: int | None,
    holder: str | None,
) -> Lease:
    engine = None if pid is None or started is None else Engine(pid, started)
    moment = Moment(datetime.fromisoformat(since), boot, uptime)
    return Lease(mount_id, mounts, moment, engine, holder)


def _columns(lease: Lease) -> tuple[object, ...]:
    since = lease.since
    return (
        lease.mount_id,
        lease.mounts,
        since.utc.isoformat(),
        since.boot,
        since.uptime,
        lease.engine and lease.engine.pid,
        lease.engine and lease.engine.started,
        lease.holder,
    )
