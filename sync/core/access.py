"""How one gets at a Redis server: plain values, as the settings have them."""

from pathlib import Path
from typing import NamedTuple


class Access(NamedTuple):
    """Where a server is, and what one shows there.

    url                where it is, in the words of REDIS_URL; a user and a password in it go first
    username           of the user at the server; None for the default one
    password           None for none
    sentinel_username  of the user at the Sentinels, where there are some; None for the default one
    sentinel_password  None for none
    ca                 file of the certificates that the server's may be signed by; None for those
                       that the machine trusts
    cert               file of the certificate that is shown to the server; None for none
    key                file of the private key of that; None for none
    """

    url: str
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
