"""TLS: what is shown to a server and believed of it, and what its failures mean in words."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis.connection import SSLConnection

from sync.core.access import Access
from sync.core.errors import SettingsError

_REFUSED = (
    "it ends the connection at once: it may want a certificate of its clients, and one that it "
    "trusts (REDIS_TLS_CERT_FILE, REDIS_TLS_KEY_FILE)"
)


def options(access: Access, given: Mapping[str, Any]) -> dict[str, str]:
    """Return what redis-py is to be told for it beside what REDIS_URL has `given`.

    Raises SettingsError if that cannot be used, which is tried out.
    """
    if not (access.ca or access.cert or access.key):
        return {}
    if given.get("connection_class") is not SSLConnection:
        raise SettingsError(
            "REDIS_TLS_CA_FILE, REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE are for connections "
            "with TLS: have REDIS_URL begin with rediss, or leave them out"
        )
    context = ssl.create_default_context()
    found: dict[str, str] = {}
    if access.ca:
        with _in_words("REDIS_TLS_CA_FILE", access.ca):
            context.load_verify_locations(access.ca)
        found["ssl_ca_certs"] = str(access.ca)
    if access.cert or access.key:
        if not (access.cert and access.key):
            raise SettingsError(
                "REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE go together: set both, or none"
            )
        password = given.get("ssl_password", "")  # else it would be asked for at a terminal
        with _in_words("REDIS_TLS_CERT_FILE, REDIS_TLS_KEY_FILE", access.cert):
            context.load_cert_chain(access.cert, access.key, password=lambda: password)
        found |= {"ssl_certfile": str(access.cert), "ssl_keyfile": str(access.key)}
    return found


@contextmanager
def _in_words(names: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # as all errors of TLS are
        why = getattr(error, "reason", "") or error
        raise SettingsError(f"{names}: {path} cannot be used: {why}") from error


def words(error: BaseException) -> str:
    """Say what a failure of TLS means, by the way that an error came about; "" if it is none."""
    found: BaseException | None = error
    while found and not isinstance(found, ssl.SSLError):
        if isinstance(found, TimeoutError) and "handshake" in str(found):
            return "it does not answer as one with TLS does: see whether REDIS_URL is to be redis:"
        found = found.__cause__ or found.__context__
    if isinstance(found, ssl.SSLCertVerificationError):
        return _distrust(found.verify_message)
    if isinstance(found, ssl.SSLError):
        is_refused = isinstance(found, ssl.SSLEOFError) or "ALERT" in (found.reason or "")
        return _REFUSED if is_refused else ""
    return ""


def _distrust(why: str) -> str:
    why = why.rstrip(".")
    if "mismatch" in why:
        return f"its certificate is another's ({why}): use a name in REDIS_URL that it has"
    if "expired" in why or "not yet valid" in why:
        return (
            f"its certificate is not valid now ({why}): give the server another, or see the clock"
        )
    return (
        f"its certificate is signed by nobody who is trusted ({why}): set REDIS_TLS_CA_FILE to the "
        "certificate of the CA that has signed it"
    )


def refused(error: BaseException) -> str:
    """Say what it means that a server ends a connection with TLS before it has said anything."""
    found: BaseException | None = error
    while found and not isinstance(found, ssl.SSLError | ConnectionError):
        found = found.__cause__ or found.__context__
    return _REFUSED if found else ""
