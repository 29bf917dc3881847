"""What a server tells of itself (INFO: redis.io)."""

from collections.abc import Mapping, Sequence


def lines_of(answers: Sequence[object]) -> dict[bytes, bytes]:
    """Return what some sections say, by name; nothing of one that this user may not see."""
    found: dict[bytes, bytes] = {}
    for section in answers:
        if isinstance(section, bytes):
            lines = (line.partition(b":") for line in section.splitlines())
            found |= {name: value for name, _, value in lines}
    return found


def run_of(told: Mapping[bytes, bytes]) -> bytes:
    """Return what tells this run of a server, and its data, from others; b"" if it is unknown.

    It takes the sections `server` and `replication`. A replica that becomes a master gets another
    replication ID, though it runs on: what it counts, and holds, may not be what it was.
    """
    run = told.get(b"run_id", b"")
    return run and run + b" " + told.get(b"master_replid", b"")
