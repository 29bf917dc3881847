"""TLS: what the service shows and believes, and what it says when that does not do."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from integration.files import make, write
from integration.topology import free_port
from integration.ways import RESOLVED, beat
from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from integration.conftest import RedisServer, Service, Start

pytestmark = pytest.mark.waits

LARGE = b"large" * 600_000


class Authority:
    """A CA of the test's own.

    Attributes:
        certificate: the file that one needs to believe in it.

    """

    def __init__(self, place: Path, name: str = "ca") -> None:
        self._place = place
        self.certificate, self._key = place / f"{name}.crt", place / f"{name}.key"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.certificate),
            *("-subj", f"/CN={name}", "-days", "2"),
        )

    def issue(self, name: str, names: str = "DNS:nobody", days: int = 2) -> tuple[Path, Path]:
        """Return the files of a certificate for some names, and of its key."""
        certificate, key = self._place / f"{name}.crt", self._place / f"{name}.key"
        request, more = self._place / "request", self._place / "more"
        more.write_text(f"subjectAltName={names}")
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", str(days), "-extfile", more, "-out", certificate),
        )
        return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(("openssl", *arguments), check=True, capture_output=True)


@pytest.fixture
def authority(place: Path) -> Authority:
    return Authority(place)


def serve(
    server: RedisServer, authority: Authority, files: tuple[Path, Path], *, clients: str = "no"
) -> str:
    """Have a server speak TLS; return where."""
    port = free_port()
    server.start(
        *("--tls-port", str(port), "--tls-auth-clients", clients),
        *("--tls-ca-cert-file", str(authority.certificate)),
        *("--tls-cert-file", str(files[0]), "--tls-key-file", str(files[1])),
    )
    return f"rediss://127.0.0.1:{port}"


@pytest.mark.parametrize("mode", ["one-way-replica", RESOLVED])
def test_is_spoken_with_a_ca_and_a_certificate_of_ones_own(
    idle_redis: RedisServer, authority: Authority, root: Path, start: Start, mode: str
) -> None:
    server = authority.issue("server", "IP:127.0.0.1")
    certificate, key = authority.issue("client")
    url = serve(idle_redis, authority, server, clients="yes")
    make(root, "a")
    (root / "large").write_bytes(LARGE)
    service = start(
        in_step=True,
        SYNC_MODE=mode,
        SYNC_RESCAN="0",
        REDIS_URL=url,
        REDIS_TLS_CA_FILE=str(authority.certificate),
        REDIS_TLS_CERT_FILE=str(certificate),
        REDIS_TLS_KEY_FILE=str(key),
    )
    for number in range(300):
        write(root / f"f{number}")
    service.catches_up()
    # What others change is heard over TLS, too.
    idle_redis.client.mset({f"f{number}": "theirs" for number in range(300)})
    expected = b"one" if mode == "one-way-replica" else b"theirs"
    wanted = {f"f{number}".encode(): expected for number in range(300)}
    eventually(lambda: wanted.items() <= idle_redis.keys().items(), True)
    service.catches_up()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("another CA's", ("signed by nobody who is trusted", "REDIS_TLS_CA_FILE")),
        ("expired", ("not valid now", "has expired")),
        ("another host's", ("another's", "use a name in REDIS_URL that it has")),
    ],
)
def test_a_certificate_that_does_not_do_is_told_of_in_one_line(
    idle_redis: RedisServer, authority: Authority, start: Start, how: str, words: tuple[str, str]
) -> None:
    names = "IP:127.0.0.9" if how == "another host's" else "IP:127.0.0.1"
    server = authority.issue("server", names, -1 if how == "expired" else 2)
    url = serve(idle_redis, authority, server)
    trusted = Authority(idle_redis.socket.parent, "other") if how == "another CA's" else authority
    service = start(REDIS_URL=url, REDIS_TLS_CA_FILE=str(trusted.certificate))
    says_it_once(service, *words)


@pytest.mark.parametrize("shown", [False, True], ids=["none", "another CA's"])
def test_a_certificate_that_the_server_wants_is_told_of_in_one_line(
    idle_redis: RedisServer, authority: Authority, place: Path, start: Start, *, shown: bool
) -> None:
    url = serve(idle_redis, authority, authority.issue("server", "IP:127.0.0.1"), clients="yes")
    certificate, key = ("", "")
    if shown:
        certificate, key = (str(path) for path in Authority(place, "other").issue("client"))
    service = start(
        REDIS_URL=url,
        REDIS_TLS_CA_FILE=str(authority.certificate),
        REDIS_TLS_CERT_FILE=certificate,
        REDIS_TLS_KEY_FILE=key,
    )
    says_it_once(service, "a certificate of its clients", "REDIS_TLS_CERT_FILE")


def says_it_once(service: Service, *words: str) -> None:
    """Wait until it says in one line what it waits for, and tries again and again."""
    eventually(lambda: service.says("waiting for", *words), True)
    for _ in range(3):
        beat(service)
    assert len(service.lines("waiting for")) == 1


def test_files_that_cannot_be_used_end_it_at_once(
    authority: Authority, place: Path, start: Start
) -> None:
    certificate = str(authority.issue("client")[0])
    no_certificate = str(write_to(place / "none", "no certificate"))
    other = str(Authority(place, "other").issue("client2")[1])
    tls = "rediss://127.0.0.1:1"
    for url, ca, cert, key, words in (
        (tls, str(place / "gone"), "", "", "No such file"),
        (tls, no_certificate, "", "", "REDIS_TLS_CA_FILE"),
        (tls, "", certificate, "", "go together"),
        (tls, "", certificate, other, "MISMATCH"),
        ("redis://127.0.0.1:1", certificate, "", "", "begin with rediss"),
    ):
        names = ("CA", "CERT", "KEY")
        files = dict(zip(names, (ca, cert, key), strict=True))
        told = {f"REDIS_TLS_{name}_FILE": path for name, path in files.items()}
        service = start(REDIS_URL=url, prefix=("env", *(f"{a}={b}" for a, b in told.items())))
        assert service.process.wait(10) == 2
        assert service.says(words), service.lines()


def write_to(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
