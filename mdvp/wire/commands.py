"""The wire of mdvp's own commands: endpoints beside the protocol, on the same socket.

They are asked by `mdvp ls`, `mdvp change` and `mdvp rename` (`mdvp.commands`), and have the form of
the protocol: a POST with a JSON object, answered by one, or by `{"Err": "..."}`.

| path | request | answer |
|---|---|---|
| `/Mdvp.List` | | `Volumes`, as `listed` has them |
| `/Mdvp.Removed` | | `Volumes`: those that were removed and are kept, as `removed` has them |
| `/Mdvp.Change` | `Name`, `Opts`: the options to change; one that is empty is taken off | |
| `/Mdvp.Rename` | `Name`, `NewName` | |
"""

from collections.abc import Mapping
from threading import BoundedSemaphore

from mdvp.core import options
from mdvp.core.errors import BusyError
from mdvp.core.lease import Claims
from mdvp.core.volume import timestamp
from mdvp.disk.trash import Entry
from mdvp.driver import Driver
from mdvp.overview import Listed, Overview
from mdvp.sizes import Measured, Sizes
from mdvp.turns import Client
from mdvp.wire.api import Message, Operation, given_options, text

# Lists that are made at once. Where there are many volumes one takes a second, and a thread of the
# server's four.
_LISTS_AT_ONCE = 2


def commands(driver: Driver, overview: Overview, sizes: Sizes) -> Mapping[str, Operation]:
    """Return what each path does with a request's message."""
    free = BoundedSemaphore(_LISTS_AT_ONCE)

    def list_all(_message: Message, _client: Client) -> Message:
        if not free.acquire(blocking=False):
            raise BusyError("others are being shown all volumes: ask again")
        try:
            return {"Volumes": [listed(it, sizes.of(it.volume)) for it in overview.volumes()]}
        finally:
            free.release()

    def list_removed(_message: Message, _client: Client) -> Message:
        return {"Volumes": [removed(each) for each in overview.removed()]}

    def change(message: Message, _client: Client) -> Message:
        driver.change(text(message, "Name"), options.changes(given_options(message)))
        return {}

    def rename(message: Message, _client: Client) -> Message:
        driver.rename(text(message, "Name"), text(message, "NewName"))
        return {}

    return {
        "/Mdvp.List": list_all,
        "/Mdvp.Removed": list_removed,
        "/Mdvp.Change": change,
        "/Mdvp.Rename": rename,
    }


def listed(each: Listed, measured: Measured | None) -> Message:
    """Return a volume as `mdvp ls --json` shows it; docs/life.md has what each field says."""
    volume = each.volume
    return {
        "name": volume.name,
        "mountpoint": each.mountpoint,
        "created_at": timestamp(volume.created_at),
        "access": volume.access.value,
        **_users(each.claims),
        "waiting": each.waiting,
        "size": measured and measured.bytes,
        "files": measured and measured.files,
        "measured_at": measured and timestamp(measured.taken.utc),
        "limit": volume.size,
        "filling": each.filling,
        "options": options.written(volume),
    }


def removed(entry: Entry) -> Message:
    """Return a removed volume as `mdvp ls --trash --json` shows it; docs/life.md has the fields."""
    return {
        "name": entry.name,
        "removed_at": timestamp(entry.removed_at),
        "until": entry.until and timestamp(entry.until),
        "kept": entry.kept,
        "restore": None if entry.kept else entry.label,
        "options": options.written(entry.volume),
    }


def _users(claims: Claims | None) -> Message:
    """Return who has a volume, and since when."""
    if claims is None or claims.free:
        return {"mounted": False, "used_by": [], "since": None}
    if claims.holders:
        since = min(holder.since for holder in claims.holders)
        who = [holder.container or str(holder) for holder in claims.holders]
    else:
        # Its container is not to be seen: it is starting, or we cannot see at all.
        since = claims.living[0].since.utc
        who = [f"mount {lease.mount_id}" for lease in claims.living]
    return {"mounted": True, "used_by": who, "since": timestamp(since)}
