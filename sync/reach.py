"""How the service, and each command beside it, gets at Redis for the settings in force."""

from sync.core.manifest import Entries
from sync.redis.address import Address
from sync.redis.feed import Feed
from sync.redis.target import Target
from sync.settings import Settings


def reached(settings: Settings) -> tuple[Address, Target]:
    """Return where Redis is, and what it holds of the directory; connect nowhere yet.

    Raises SettingsError.
    """
    prefix = settings.prefix
    address = Address(settings.access, prefix)
    entries = Entries(trimmed=settings.trim, digests=settings.digests)
    feed = Feed.of(settings.stream, settings.stream_max, prefix)
    return address, Target(address.dial, entries, prefix, place=address, feed=feed)
