"""REDIS_URL: one server, or the hosts that know where it is."""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

SENTINEL, CLUSTER = "sentinel", "cluster"
_PORTS = {SENTINEL: 26379, CLUSTER: 6379}
_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<by>sentinel|cluster)://"
    r"(?P<user>[^/?]*@)?(?P<hosts>[^/?@]*)(?:/(?P<path>[^?]*))?(?P<query>\?.*)?"
)
# What ends the part with the hosts, before the @ that ends the password.
_SPLIT_PASSWORD = re.compile(r"(?!unix:)[^/?#]*://[^/?#@]*[/?#].*@", re.DOTALL)
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
    if _SPLIT_PASSWORD.match(url):  # whose parts no message may show
        raise ValueError(
            "write /, ?, # and @ in a password as %2F, %3F, %23 and %40, or "
            "set REDIS_PASSWORD instead"
        )
    found = _SEVERAL.fullmatch(url)
    if not found:
        return Url(_known(url))
    by, path = found["by"], (found["path"] or "").rstrip("/")
    hosts = tuple(_host(each, _PORTS[by]) for each in found["hosts"].split(","))
    name, database = "", path
    if by == SENTINEL:
        name, _, database = path.partition("/")
        if not name:
            raise ValueError(
                "after the Sentinels it needs the master's name, as in "
                "redis+sentinel://host1:26379,host2:26379/mymaster"
            )
    _check_database(database)
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
    parts = _split(url)
    if parts.scheme != "unix":
        _check_host(parts.netloc.rpartition("@")[2])
        _check_database(parts.path.strip("/"))
    for number in parse_qs(parts.query).get("db", ()):
        _check_database(number)
    return url


def _check_database(number: str) -> None:
    """Refuse what is no number: redis-py would take it for database 0, which may be another's."""
    if number and not (number.isascii() and number.isdigit()):
        raise ValueError(f"{number!r} is no number of a database")


def _check_host(written: str) -> None:
    """Refuse a host that could not be meant, in the words of who wrote it."""
    name, _, port = written.rpartition(":") if ":" in written else (written, "", "")
    if ":" in name and not (name.startswith("[") and name.endswith("]")) and written[-1] != "]":
        raise ValueError(f"{written!r}: write an IPv6 address in brackets, as in [::1]:6379")
    if port and written[-1] != "]" and not (port.isascii() and port.isdigit()):
        raise ValueError(f"{port!r} is no number of a port")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # whose words have a part of what may be a password
        raise ValueError(_UNREADABLE) from None


def _host(written: str, port: int) -> Host:
    _check_host(written)
    parts = _split(f"//{written}")
    if not parts.hostname:
        raise ValueError("it needs the names of hosts, with commas between them")
    return Host(unquote(parts.hostname), parts.port or port)
