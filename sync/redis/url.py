"""REDIS_URL: one server, or the hosts that know where it is.

No refusal quotes any of it: a password whose signs are not written as a URL wants them is taken for
something else, a port, say, and would be in the log.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

SENTINEL, CLUSTER = "sentinel", "cluster"
_PORTS = {SENTINEL: 26379, CLUSTER: 6379}
_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<by>sentinel|cluster)://"
    r"(?P<user>[^/?]*@)?(?P<hosts>[^/?@]*)(?:/(?P<path>[^?]*))?(?P<query>\?.*)?"
)
_UNREADABLE = (
    "a host or a port in it cannot be read; in a user's name and a password write signs such as "
    "/ : @ ? [ as %2F %3A %40 %3F %5B"
)


class Host(NamedTuple):
    """A host by its name or number, and a port there."""

    name: str
    port: int

    def __str__(self) -> str:
        """Write it as in a URL."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Url(NamedTuple):
    """What REDIS_URL says.

    plain  the URL of one server; its host means nothing if others are to be asked for that
    by     who is asked where the server is: SENTINEL or CLUSTER; "" for nobody
    hosts  where these are
    name   of the master, for Sentinels
    """

    plain: str
    by: str = ""
    hosts: tuple[Host, ...] = ()
    name: str = ""


def parse(url: str) -> Url:
    """Take a URL apart. Raises ValueError."""
    found = _SEVERAL.fullmatch(url)
    if not found:
        return Url(_known(url))
    by, path = found["by"], (found["path"] or "").strip("/")
    if "@" in path:
        raise ValueError(_UNREADABLE)
    hosts = tuple(_host(each, _PORTS[by]) for each in found["hosts"].split(","))
    name, database = "", path
    if by == SENTINEL:
        name, _, database = path.partition("/")
        if not name:
            raise ValueError(
                "after the Sentinels it needs the master's name, as in "
                "redis+sentinel://host1:26379,host2:26379/mymaster"
            )
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("what is behind the last slash is no number of a database")
    if by == CLUSTER and database.strip("0"):
        raise ValueError("a cluster has no other database than 0: leave the number out")
    plain = f"{found['scheme']}://{found['user'] or ''}/{database or '0'}{found['query'] or ''}"
    return Url(plain, by, hosts, unquote(name))


def _known(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(
            "it must begin with redis://, rediss:// or unix://, or with redis+sentinel:// or "
            "redis+cluster:// (rediss+... for TLS)"
        )
    _split(url)
    return url


def _host(written: str, port: int) -> Host:
    name, given = _split(f"//{written}")
    if not name:
        raise ValueError("it needs the names of hosts, with commas between them")
    return Host(unquote(name), given or port)


def _split(url: str) -> tuple[str | None, int | None]:
    """Return the host and the port in a URL."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:
        raise ValueError(_UNREADABLE) from None
