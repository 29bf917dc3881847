"""Hostile clients of a real mdvp process: no bytes and no behaviour of theirs does any harm.

Whatever is sent, each example ends with the same questions: did the client get answers of the
protocol or a clean end, does the process serve the next call, is the disk as the volumes say?
"""

import fcntl
import http.client
import io
import json
import os
import re
import resource
import socket
import struct
import sys
import termios
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from integration.plugin import Plugin, connected, serving
from support import eventually

GOOD_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", re.ASCII)
GOOD = b"POST /VolumeDriver.List HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
ENDPOINTS = ("Create", "Remove", "Mount", "Unmount", "Path", "Get", "List", "Capabilities")
PATHS = ("/Plugin.Activate", *(f"/VolumeDriver.{endpoint}" for endpoint in ENDPOINTS))

hostile = settings(
    max_examples=150,
    deadline=None,
    database=None,
    # The process is the same for all examples, and each leaves it as it was.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Target:
    """A plugin, and the directory in which it, and what it must not touch, is."""

    plugin: Plugin
    place: Path
    around: object

    def check(self) -> None:
        """Raise AssertionError unless it serves, and the disk is as the volumes say."""
        volumes = self.plugin.volumes()
        assert all(GOOD_NAME.fullmatch(name) for name in volumes)
        assert sorted(os.listdir(self.plugin.root)) == sorted([".mdvp", *volumes])
        assert surroundings(self.place) == self.around

    def empty(self) -> None:
        """Remove all volumes."""
        for name in self.plugin.volumes():
            volume = self.plugin.call("Get", Name=name).message["Volume"]
            for mount_id in volume["Status"].get("mount_ids", ()):
                assert self.plugin.call("Unmount", Name=name, ID=mount_id).status == 200
            assert self.plugin.call("Remove", Name=name).status == 200


def surroundings(place: Path) -> object:
    """What is in `place`, the root of the volumes apart."""
    found = []
    for folder, folders, files in os.walk(place):
        found.append((folder, sorted(folders), sorted(files)))
        if "root" in folders:
            folders.remove("root")
    return found, (place / "canary").read_text()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    place = tmp_path_factory.mktemp("hostile")
    for folder in ("root", "b", "a/b"):
        (place / folder).mkdir(parents=True)
    (place / "canary").write_text("stays")
    with ExitStack() as stack:
        # By a path of its own, as that of a Unix socket has at most 107 bytes.
        descriptor = os.open(place, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        address = Path(f"/proc/{os.getpid()}/fd/{descriptor}/mdvp.sock")
        plugin = stack.enter_context(serving(place / "root", address, LOG_LEVEL="ERROR"))
        yield Target(plugin, place, surroundings(place))
        # No client's doing is an error of ours, and no client makes the log grow.
        assert plugin.stop() == ""
        assert plugin.process.returncode == 0


@dataclass
class _Stream:
    """What http.client needs of a socket, to read answers that have come already."""

    bytes: io.BytesIO

    def makefile(self, _mode: str) -> io.BytesIO:
        return self.bytes


class _Kept(io.BytesIO):
    def close(self) -> None:
        """Stay open: the next answer is in the same stream."""


def statuses(got: bytes) -> list[int]:
    """Check that these are whole answers of the protocol, or nothing; return their statuses."""
    assert b"Traceback" not in got
    assert b"a defect" not in got
    stream = _Kept(got)
    found = []
    while stream.tell() < len(got):
        answer = http.client.HTTPResponse(_Stream(stream))  # type: ignore[arg-type]
        answer.begin()  # skips "100 Continue"
        message = json.loads(answer.read())
        assert isinstance(message, dict)
        assert (answer.status >= 400) == ("Err" in message), message
        assert answer.status != 500, message
        found.append(answer.status)
    return found


def send(client: socket.socket, request: bytes) -> None:
    """Send all of it, or as much as the server takes."""
    with suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(request)


def receive(client: socket.socket) -> bytes:
    """Read to the end, be it clean or, as not all of ours has been read, a reset."""
    got = []
    with suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            got.append(data)
    return b"".join(got)


def ask(target: Target, request: bytes, *, half_close: bool = True) -> bytes:
    with connected(target.plugin.address) as client:
        send(client, request)
        if half_close:
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)
        return receive(client)


# What is sent: bytes, requests that are nearly right, JSON of any kind, and hostile values in it.

LOOK_ALIKES = ("v\u043el", "\uff56\uff4f\uff4c", "vol\u200b", "v\u00f6l", "vo\u0308l", "\u202evol")
BAD_NAMES = (
    *("..", ".", "", "/", "a/../../b", "../b", "/etc", "a\0b", "vol\0", "vol\n", "\n", " vol"),
    *("x" * 256, "x" * 300, "x" * 100_000, ".mdvp", ".mdvp/state.db", "-rf", "a\\b", "vol/"),
    *("\ud800", "%2e%2e", "$(id)", "a b", *LOOK_ALIKES),
)
names = st.sampled_from(("vol", "VOL", "x" * 255, "a..b", "A", "CON", *BAD_NAMES)) | st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
messages = st.fixed_dictionaries(
    {}, optional={"Name": names | values, "ID": names | values, "Opts": values, "name": names}
)
# Not HEAD, whose answer has no body.
METHODS = ("POST", "GET", "PUT", "OPTIONS", "TRACE", "CONNECT", "BREW", "post", "P@ST", "P ST", "")
token = st.sampled_from(METHODS)
HEADERS = {
    "Content-Length": ("0", "2", "-1", "+2", "2, 2", "1e3", "9" * 20, "9" * 5000, "", "x", "\xb2"),
    "Transfer-Encoding": ("chunked", "gzip", "chunked, chunked", "gzip, chunked", "\x0bchunked"),
    "Expect": ("100-continue", "200-maybe"),
    "Connection": ("close", "keep-alive", "upgrade", ""),
    "Host": ("", "x", "..", "a b", "[::1", "\xff"),
    "Content-Type": ("application/json", "text/plain; charset=\xff", "a/b; ;", ""),
    "Accept": ("*/*", "text/html", ";;;", "a/b;q=x"),
    "Range": ("bytes=0-1", "bytes=-", "x"),
    "If-None-Match": ("*", '"', "W/"),
    "Cookie": ("a=b; c", "=", "\xff=\xff"),
    "Date": ("never", ""),
    "X-Forwarded-For": ("1.2.3.4", "\xff"),
    "Forwarded": ("for=[::1]", ";;="),
    "X Y": ("z",),
    "Y_Z": ("z",),
    "": ("z",),
}
header = st.sampled_from(sorted(HEADERS)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(HEADERS[name]))
)
url = st.one_of(
    st.sampled_from(PATHS),
    st.sampled_from(
        (
            *(
                "",
                "/",
                "*",
                "//[",
                "http://[x",
                "http://[::1]:99999/",
                "/%ff%00",
                "/%",
                "/..//.",
                "?",
            ),
            *("/VolumeDriver.List/", "/VolumeDriver.List?a=%zz&b[]=1;;&a", "/VolumeDriver.List#x"),
            *("/VolumeDriver.List/../../etc/passwd", "/x\xff", "http://\xff/", "/" + "x" * 20_000),
        )
    ),
    st.text().map(lambda text: "/" + urllib.parse.quote(text, errors="surrogatepass")),
    st.text(st.characters(max_codepoint=255)).map(lambda text: "/" + text),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is right in most of its parts, and may have its body's true length."""
    version = draw(st.sampled_from((*[" HTTP/1.1"] * 4, " HTTP/1.0", " HTTP/9.9", "", " HTTP/x")))
    body = draw(
        st.sampled_from((b"", b"{}", b'{"Name": "vol"}', b"2\r\n{}\r\n0\r\n\r\n")) | st.binary()
    )
    headers = draw(st.lists(header, max_size=3))
    if draw(st.booleans()):
        headers.append(("Content-Length", str(len(body))))
    end = draw(st.sampled_from((*["\r\n"] * 6, "\n", "\r")))
    head = [f"{draw(token)} {draw(url)}{version}", *(f"{name}: {value}" for name, value in headers)]
    return "".join(line + end for line in (*head, "")).encode("latin-1") + body


@hostile
@given(st.binary(max_size=300))
@example(b"")
@example(b"\r\n" * 100)
@example(b"\0" * 20_000)
@example(b"GET " + b"/" * 300_000)
def test_any_bytes_are_answered_or_end_the_connection(target: Target, request_: bytes) -> None:
    statuses(ask(target, request_))
    target.check()


@settings(hostile, max_examples=400)
@given(requests())
@example(b"POST http://[x HTTP/1.1\r\n\r\n")
@example(b"POST /x HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
def test_any_request_is_answered_or_ends_the_connection(target: Target, request_: bytes) -> None:
    statuses(ask(target, request_))
    target.check()
    target.empty()


@pytest.mark.parametrize("path", PATHS)
def test_a_request_for_the_head_alone_gets_one(target: Target, path: str) -> None:
    got = ask(target, f"HEAD {path} HTTP/1.1\r\n\r\n".encode())
    assert got.startswith(b"HTTP/1.1 405 ")
    assert got.index(b"\r\n\r\n") == len(got) - 4


@hostile
@given(st.sampled_from(PATHS), values)
def test_any_json_is_answered(target: Target, path: str, value: object) -> None:
    answer = target.plugin.post(path, json.dumps(value).encode())
    assert answer.status in (200, 400, 404)
    assert ("Err" in answer.message) == (answer.status != 200)
    target.check()
    target.empty()


@settings(hostile, max_examples=300)
@given(st.sampled_from(ENDPOINTS), messages, st.booleans())
@example("Mount", {"Name": "vol", "ID": "x\nERROR a line of the log"}, True)
@example("Mount", {"Name": "vol", "ID": "x" * 500_000}, True)
def test_any_message_is_answered(
    target: Target, endpoint: str, message: dict[str, object], there: bool
) -> None:
    if there:
        assert target.plugin.call("Create", Name="vol").status == 200
    answer = target.plugin.call(endpoint, **message)
    assert answer.status in (200, 400, 404, 409)
    assert ("Err" in answer.message) == (answer.status != 200)
    assert len(json.dumps(answer.message)) < 2000
    target.check()
    target.empty()


@pytest.mark.parametrize("endpoint", ["Create", "Remove", "Mount", "Unmount", "Path", "Get"])
def test_a_bad_name_is_refused(target: Target, endpoint: str) -> None:
    target.plugin.call("Create", Name="vol")
    for name in BAD_NAMES:
        answer = target.plugin.call(endpoint, Name=name, ID="id")
        assert answer.status == 400, name
        assert len(answer.error) < 500
        target.check()
    assert target.plugin.volumes() == ["vol"]
    target.empty()


def test_names_that_differ_in_case_are_two_volumes(target: Target) -> None:
    for name in ("vol", "VOL"):
        assert target.plugin.call("Create", Name=name).status == 200
        (target.plugin.root / name / "file").write_text(name)
    assert target.plugin.call("Mount", Name="vol", ID="one").status == 200
    assert target.plugin.call("Mount", Name="VOL", ID="two").status == 200
    assert (target.plugin.root / "vol" / "file").read_text() == "vol"
    target.check()
    target.empty()


@pytest.mark.parametrize("text", ["a\nERROR b", "a\x1b[2J", "\u202ea", "x" * 2000, "\ud800"])
def test_a_mount_id_cannot_write_lines_of_the_log(target: Target, text: str) -> None:
    target.plugin.call("Create", Name="vol")
    for endpoint in ("Mount", "Unmount"):
        answer = target.plugin.call(endpoint, Name="vol", ID=text)
        assert answer.status == 400
        assert "'ID'" in answer.error
    target.empty()


# How it is sent: in pieces, in part, without an end, out of band, and by many at once.


def wait_read(client: socket.socket) -> None:
    """Wait until the server has read all that was sent, so that the next piece comes alone."""

    def unread() -> int:
        answer = fcntl.ioctl(client, termios.TIOCOUTQ, b"\0" * 4)
        return int(struct.unpack("i", answer)[0])

    eventually(unread, 0)


def send_in_pieces(target: Target, pieces: Sequence[bytes]) -> bytes:
    with connected(target.plugin.address) as client:
        for piece in pieces:
            send(client, piece)
            wait_read(client)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        return receive(client)


def test_a_request_may_come_byte_by_byte(target: Target) -> None:
    got = send_in_pieces(target, [GOOD[i : i + 1] for i in range(len(GOOD))])
    assert statuses(got) == [200]


@settings(hostile, max_examples=50)
@given(requests(), st.lists(st.integers(0, 400), max_size=5).map(sorted))
def test_a_request_may_come_in_pieces(target: Target, request_: bytes, cuts: list[int]) -> None:
    pieces = [
        request_[start:end] for start, end in zip([0, *cuts], [*cuts, len(request_)], strict=True)
    ]
    statuses(send_in_pieces(target, [piece for piece in pieces if piece]))
    target.check()
    target.empty()


@settings(hostile, max_examples=50)
@given(st.integers(0, len(GOOD)), st.booleans())
def test_a_client_may_leave_at_any_byte(target: Target, length: int, wait: bool) -> None:
    with connected(target.plugin.address) as client:
        client.sendall(GOOD[:length])
        if wait:
            wait_read(client)
    target.check()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /VolumeDriver.List HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 999999999\r\n\r\n", 413),
        (b"POST http://[x HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    ],
)
def test_a_whole_request_is_answered_though_the_client_goes_on_to_wait(
    target: Target, request_: bytes, status: int
) -> None:
    with connected(target.plugin.address) as client:
        client.sendall(request_)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == status


def test_a_body_that_is_waited_for_comes_after_it_was_asked_for(target: Target) -> None:
    head, body = GOOD.split(b"\r\n\r\n")
    with connected(target.plugin.address) as client:
        client.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        client.shutdown(socket.SHUT_WR)
        assert statuses(receive(client)) == [200]


def test_connections_are_kept_for_the_next_request(target: Target) -> None:
    with connected(target.plugin.address) as client:
        for _ in range(3):
            client.sendall(GOOD)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, json.loads(answer.read())) == (200, {"Volumes": []})


@pytest.mark.parametrize(
    "start",
    [
        b"POST /" + b"x" * 100_000,
        b"POST / HTTP/1.1\r\nX: " + b"x" * 100_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"x" * 100_000,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 100_000,
    ],
)
def test_a_line_without_an_end_is_refused(target: Target, start: bytes) -> None:
    with connected(target.plugin.address) as client:
        send(client, start)
        (status,) = statuses(receive(client))
    assert status in (400, 431)


def test_who_does_not_wait_for_answers_gets_one(target: Target) -> None:
    assert statuses(ask(target, GOOD * 20, half_close=False)) == [200]


def test_who_does_not_read_its_answers_holds_up_nobody(target: Target) -> None:
    # More clients than threads that answer. Each asks for more than Waitress keeps for a client
    # that does not read, 16 MB, with what fits into one read of its, 8 KB.
    for number in range(200):
        target.plugin.call("Create", Name=f"{number:03}".ljust(255, "x"))
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(connected(target.plugin.address))
            send(client, b"POST /VolumeDriver.List HTTP/1.1\r\n\r\n" * 5000)
        # The threads take requests in turn: by the end, all of the above have had theirs.
        for _ in range(250):
            assert target.plugin.call("Capabilities").status == 200
    target.empty()


def test_urgent_data_ends_the_connection(short_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    root = short_path / "root"
    root.mkdir()
    with serving(root, address, f"--spec-dir={short_path}") as plugin:
        with connected(address) as client:
            client.send(b"x", socket.MSG_OOB)
            assert receive(client) == b""
        assert plugin.call("List").status == 200


@pytest.mark.parametrize("start", [b"", GOOD[:20], GOOD[:-1]], ids=["silent", "head", "body"])
def test_200_that_begin_and_wait_are_all_served_in_the_end(target: Target, start: bytes) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(target.plugin.address)) for _ in range(200)]
        for client in clients:
            client.sendall(start)
        target.check()
        for client in clients:
            client.sendall(GOOD[len(start) :])
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            assert statuses(receive(client)) == [200]


def test_200_at_once_are_all_served(target: Target) -> None:
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: target.plugin.call("List").status, range(400)))
    assert answers == [200] * 400


def test_of_too_many_the_one_silent_for_longest_gives_way(target: Target) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(connected(target.plugin.address))
        first.sendall(GOOD[:20])
        wait_read(first)
        for _ in range(700):
            stack.enter_context(connected(target.plugin.address))
        target.check()
        assert receive(first) == b""
    target.check()


def test_without_descriptors_left_the_silent_give_way_too(short_path: Path) -> None:
    root = short_path / "root"
    root.mkdir()
    with ExitStack() as stack:
        plugin = stack.enter_context(serving(root, short_path / "mdvp.sock"))
        resource.prlimit(plugin.process.pid, resource.RLIMIT_NOFILE, (40, 40))
        for _ in range(100):
            stack.enter_context(connected(plugin.address))
        assert plugin.call("List").status == 200
        assert "Traceback" not in plugin.stop()


def test_without_descriptors_at_all_it_waits_for_some(short_path: Path) -> None:
    root = short_path / "root"
    root.mkdir()
    with serving(root, short_path / "mdvp.sock", LOG_LEVEL="ERROR") as plugin:
        soft, hard = resource.prlimit(plugin.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(plugin.process.pid, resource.RLIMIT_NOFILE, (3, hard))
        with connected(plugin.address) as client:
            client.sendall(GOOD)
            client.shutdown(socket.SHUT_WR)
            assert plugin.process.stdout
            assert "ERROR cannot take another" in plugin.process.stdout.readline()
            first = time.monotonic()
            assert "ERROR cannot take another" in plugin.process.stdout.readline()
            assert time.monotonic() - first > 0.5  # no busy loop that fills the log
            resource.prlimit(plugin.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
            assert statuses(receive(client)) == [200]


def test_descriptors_may_have_large_numbers(short_path: Path) -> None:
    # As with a descriptor for each of many volumes. select(2) knows none above 1023.
    many = (
        "import os, sys\n"
        "for _ in range(1100): os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    root = short_path / "root"
    root.mkdir()
    prefix = ("prlimit", "--nofile=2000", sys.executable, "-c", many)
    with serving(root, short_path / "mdvp.sock", prefix=prefix) as plugin:
        assert plugin.call("List").status == 200
        assert "Traceback" not in plugin.stop()
