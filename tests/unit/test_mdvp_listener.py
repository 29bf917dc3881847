"""Which TCP addresses are taken, and how they are spelled."""

import pytest

from mdvp.core.errors import ListenError
from mdvp.wire.listener import TcpAddress


@pytest.mark.parametrize(
    ("text", "loopback", "url"),
    [
        ("127.0.0.1:3004", True, "tcp://127.0.0.1:3004"),
        ("127.9.9.9:1", True, "tcp://127.9.9.9:1"),
        ("[::1]:65535", True, "tcp://[::1]:65535"),
        ("192.0.2.7:3004", False, "tcp://192.0.2.7:3004"),
        ("[2001:db8::7]:3004", False, "tcp://[2001:db8::7]:3004"),
        ("0.0.0.0:3004", False, "tcp://127.0.0.1:3004"),
        ("[::]:3004", False, "tcp://[::1]:3004"),
    ],
)
def test_an_address_is_read_and_told_to_the_engine(text: str, loopback: bool, url: str) -> None:
    address = TcpAddress.parse(text)
    assert (str(address), address.is_loopback, address.url) == (text, loopback, url)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no port"),
        ("3004", "'' is no IP address"),
        ("127.0.0.1", "no port"),
        ("127.0.0.1:", "no port"),
        ("127.0.0.1:http", "no port"),
        ("127.0.0.1:0", "no port"),
        ("127.0.0.1:65536", "no port"),
        ("127.0.0.1:-1", "no port"),
        ("127.0.0.1:３００４", "no port"),  # noqa: RUF001  # digits, but not those of a port
        ("127.0.0.1:" + "9" * 5000, "no port"),
        (":3004", "'' is no IP address"),
        ("localhost:3004", "'localhost' is no IP address"),
        ("127.1:3004", "'127.1' is no IP address"),
        ("[127.0.0.1]:3004", "is no IP address"),
        ("::1:3004", "in brackets"),
        ("[fe80::1%eth0]:3004", "without an interface"),
        ("[::ffff:127.0.0.1]:3004", "an IPv4 address as is"),
        ("tcp://127.0.0.1:3004", "is no IP address"),
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ListenError, match=r"write|brackets") as refusal:
        TcpAddress.parse(text)
    assert words in str(refusal.value)
