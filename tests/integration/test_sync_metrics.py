"""The metrics of a service as it runs: to Prometheus, and to those who mean no good."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from integration.conftest import SYNC
from integration.prometheus import SLOW, promtool, scraping
from integration.topology import free_port
from prometheus_client.parser import text_string_to_metric_families
from support import eventually

from mdvp import __version__
from sync.report.exporter import CONNECTIONS, HEAD_MAX, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.conftest import RedisServer, Service, Start

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: it\r\n\r\n"
AT_ONCE = 2.0  # seconds; far above what an answer takes


def said(port: int, host: str = "127.0.0.1") -> str:
    """Return what the service says of itself."""
    url = f"http://{host}:{port}/metrics"
    with urllib.request.urlopen(url, timeout=AT_ONCE) as answer:  # it is HTTP
        return str(answer.read().decode())


def figure(port: int, name: str, **labels: str) -> float:
    """Return one figure of what the service says of itself."""
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(said(port))
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=AT_ONCE)


def answer(port: int, request: bytes) -> bytes:
    """Return what is answered to these bytes until the connection is closed."""
    answered = b""
    with connected(port) as client, suppress(OSError):  # it may be closed on the way
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)  # or it might wait for more
        while piece := client.recv(1 << 16):
            answered += piece
    return answered


def is_answered(port: int) -> bool:
    try:
        return "mdvp_sync_healthy" in said(port)
    except OSError:
        return False


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def service(redis_server: RedisServer, start: Start, port: int) -> Service:  # noqa: ARG001
    """Return a service in step that tells its metrics at `port`, and has no status file."""
    service = start(in_step=True, SYNC_METRICS=f"127.0.0.1:{port}", SYNC_STATUS="")
    eventually(lambda: figure(port, "mdvp_sync_healthy"), 1)  # it is said a moment later
    return service


@pytest.fixture
def mirrors(service: Service) -> Callable[[], None]:
    """Return what checks that the service still mirrors, and soon."""
    numbers = iter(range(1_000_000))

    def mirrors() -> None:
        value = b"%d" % next(numbers)
        (service.root / "probe").write_bytes(value)
        eventually(lambda: service.get("probe"), value, AT_ONCE)

    return mirrors


class TestWhatIsSaid:
    def test_is_what_promtool_takes_without_a_word(self, service: Service, port: int) -> None:
        (service.root / "a").write_bytes(b"1")
        service.catches_up()
        assert promtool("check", "metrics", given=said(port)) == (0, "")

    @pytest.mark.usefixtures("service")
    def test_promtool_would_have_found_something(self, port: int) -> None:
        broken = said(port).replace("mdvp_sync_undone_changes_total", "mdvp_sync_undone_changes")
        status, words = promtool("check", "metrics", given=broken)
        assert status != 0
        assert "mdvp_sync_undone_changes" in words

    @pytest.mark.usefixtures("service")
    def test_names_the_version(self, port: int) -> None:
        assert figure(port, "mdvp_sync_build_info", version=__version__) == 1

    def test_follows_what_is_done(self, service: Service, port: int) -> None:
        for name, content in (("a", b"12345"), ("b", b"123"), ("c", b"")):
            (service.root / name).write_bytes(content)
        eventually(lambda: figure(port, "mdvp_sync_files"), 3)
        assert figure(port, "mdvp_sync_bytes") == 8
        (service.root / "a").rename(service.root / "d")
        eventually(lambda: figure(port, "mdvp_sync_operations_total", operation="rename"), 1)
        (service.root / "b").unlink()
        eventually(lambda: figure(port, "mdvp_sync_operations_total", operation="delete"), 1)
        assert figure(port, "mdvp_sync_files") == 2
        assert figure(port, "mdvp_sync_moved_bytes_total") >= 8
        assert figure(port, "mdvp_sync_lag_seconds_count") >= 1
        assert figure(port, "mdvp_sync_reconciles_total", cause="start") == 1
        assert figure(port, "mdvp_sync_state", state="live") == 1
        assert figure(port, "mdvp_sync_start_time_seconds") == pytest.approx(time.time(), abs=60)
        assert figure(port, "process_resident_memory_bytes") > 1e6

    def test_tells_that_redis_was_away(
        self, service: Service, port: int, redis_server: RedisServer
    ) -> None:
        redis_server.kill()
        eventually(lambda: figure(port, "mdvp_sync_healthy"), 0)
        assert figure(port, "mdvp_sync_state", state="waiting") == 1
        redis_server.start()
        eventually(lambda: figure(port, "mdvp_sync_healthy"), 1)
        assert figure(port, "mdvp_sync_reconciles_total", cause="redis_away") == 1
        assert service.process.poll() is None

    def test_has_the_mode_before_there_is_a_redis(self, start: Start, port: int) -> None:
        start(SYNC_METRICS=str(port), SYNC_MODE="two-way-safe")
        eventually(lambda: is_answered(port), True)
        assert figure(port, "mdvp_sync_mode_info", mode="two-way-safe") == 1
        assert figure(port, "mdvp_sync_healthy") == 0

    def test_of_one_that_stands_by_is_that_it_is_well(self, service: Service, start: Start) -> None:
        port = free_port()
        start(
            prefix=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            SYNC_METRICS=f"127.0.0.1:{port}",
        )
        eventually(lambda: is_answered(port), True)
        eventually(lambda: figure(port, "mdvp_sync_state", state="standby"), 1)
        assert figure(port, "mdvp_sync_healthy") == 1
        assert service.process.poll() is None

    def test_is_the_judgement_of_the_command(
        self, redis_server: RedisServer, start: Start, port: int
    ) -> None:
        service = start(in_step=True, SYNC_METRICS=str(port))
        eventually(lambda: figure(port, "mdvp_sync_healthy"), 1)
        assert service.health()[0] == 0
        redis_server.kill()
        eventually(lambda: figure(port, "mdvp_sync_healthy"), 0)
        assert service.health()[0] == 1
        redis_server.start()

    @pytest.mark.waits
    def test_tells_that_redis_hangs(
        self, service: Service, port: int, redis_server: RedisServer
    ) -> None:
        with redis_server.paused():
            eventually(lambda: figure(port, "mdvp_sync_healthy"), 0, SLOW)
            assert figure(port, "mdvp_sync_status_age_seconds") > 5
        eventually(lambda: figure(port, "mdvp_sync_healthy"), 1)
        assert service.process.poll() is None


class TestPrometheus:
    def test_scrapes_it_and_sees_it_follow_the_directory(
        self, service: Service, port: int, place: Path
    ) -> None:
        with scraping(place, {"mdvp-sync": f"127.0.0.1:{port}"}) as prometheus:
            eventually(prometheus.up, {"mdvp-sync": "up"}, SLOW)
            eventually(lambda: prometheus.value("mdvp_sync_files"), 0)
            for number in range(7):
                (service.root / str(number)).write_bytes(b"x" * 100)
            eventually(lambda: prometheus.value("mdvp_sync_files"), 7)
            eventually(lambda: prometheus.value("mdvp_sync_bytes"), 700)
            sets = 'mdvp_sync_operations_total{operation="set"}'
            eventually(lambda: prometheus.value(sets), 7)
            eventually(lambda: prometheus.value("mdvp_sync_healthy"), 1)
            lag = "histogram_quantile(0.99, rate(mdvp_sync_lag_seconds_bucket[1m]))"
            eventually(lambda: 0 < (prometheus.value(lag) or 0) < 10, True)
            (service.root / "0").unlink()
            eventually(lambda: prometheus.value("mdvp_sync_files"), 6)
            service.stop(signal.SIGTERM)
            eventually(prometheus.up, {"mdvp-sync": "down"}, SLOW)


class TestWhereItListens:
    @pytest.mark.usefixtures("redis_server")
    def test_is_nowhere_unless_it_was_told(self, start: Start) -> None:
        service = start(in_step=True)
        sockets = Path(f"/proc/{service.process.pid}/fd").iterdir()
        inodes = {str(each.readlink()) for each in sockets}
        tables = "".join(Path(f"/proc/net/{each}").read_text() for each in ("tcp", "tcp6"))
        listening = {
            f"socket:[{line.split()[9]}]"
            for line in tables.splitlines()
            if line.split()[3] == "0A"  # TCP_LISTEN
        }
        assert listening
        assert inodes & listening == set()

    @pytest.mark.parametrize(
        ("given", "places"),  # where it is, and where it is not
        [
            ("{port}", (("127.0.0.1", "[::1]", "127.0.0.2"), ())),
            ("0.0.0.0:{port}", (("127.0.0.1", "127.0.0.2"), ("[::1]",))),
            ("127.0.0.1:{port}", (("127.0.0.1",), ("[::1]", "127.0.0.2"))),
            ("[::1]:{port}", (("[::1]",), ("127.0.0.1",))),
            ("localhost:{port}", (("127.0.0.1", "[::1]"), ("127.0.0.2",))),
        ],
    )
    @pytest.mark.usefixtures("redis_server")
    def test_is_where_it_was_told(
        self, start: Start, port: int, given: str, places: tuple[tuple[str, ...], ...]
    ) -> None:
        service = start(in_step=True, SYNC_METRICS=given.format(port=port))
        for host in places[0]:
            assert "mdvp_sync_healthy" in said(port, host)
        for host in places[1]:
            with pytest.raises(OSError, match="refused"):
                said(port, host)
        assert service.says("metrics are at http://", f":{port}/metrics")

    @pytest.mark.parametrize("given", ["{port}", "127.0.0.1:{port}", "localhost:{port}"])
    @pytest.mark.usefixtures("redis_server")
    def test_that_somebody_has_ends_it_with_a_reason(
        self, start: Start, port: int, given: str
    ) -> None:
        with socket.create_server(("127.0.0.1", port)):
            service = start(SYNC_METRICS=given.format(port=port))
            assert service.process.wait(10) == 2
        assert service.says(
            "SYNC_METRICS is ",
            f":{port}, where the service cannot listen: another program does, use another port",
        )

    @pytest.mark.usefixtures("redis_server")
    def test_that_this_machine_does_not_have_ends_it_with_a_reason(
        self, start: Start, port: int
    ) -> None:
        service = start(SYNC_METRICS=f"192.0.2.1:{port}")  # TEST-NET-1, RFC 5737
        assert service.process.wait(10) == 2
        assert service.says("this machine has no such address, use the port alone for all")

    @pytest.mark.usefixtures("redis_server")
    def test_that_takes_a_right_ends_it_with_a_reason(self, start: Start) -> None:
        if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1023:
            pytest.skip("anybody may listen at any port here")
        prefix = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
        service = start(prefix=prefix, SYNC_METRICS="127.0.0.1:1023")
        assert service.process.wait(10) == 2
        assert service.says("it lacks the right to ports below 1024, use a higher one")

    @pytest.mark.usefixtures("redis_server")
    def test_that_is_none_ends_it_with_the_way_out(self, start: Start) -> None:
        service = start(SYNC_METRICS="shop.example:9121")
        assert service.process.wait(10) == 2
        assert service.says("names no IP address: use a port, such as 9121")

    def test_can_be_had_again_at_once_by_the_next_one(
        self, service: Service, start: Start, port: int
    ) -> None:
        with connected(port) as client:
            client.sendall(REQUEST)
            assert client.recv(1 << 16)
            service.process.kill()
            service.process.wait()
            again = start(SYNC_METRICS=f"127.0.0.1:{port}")
            eventually(lambda: is_answered(port), True, SLOW)
        assert again.process.poll() is None


def resident(service: Service) -> int:
    """Return how much memory the service has (bytes)."""
    for line in Path(f"/proc/{service.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError


def descriptors(service: Service) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


class TestNeighboursWhoMeanNoGood:
    """The mirror goes on, the memory is bounded, and the next one who asks is answered."""

    @pytest.fixture(autouse=True)
    def unmoved(self, service: Service, port: int, mirrors: Callable[[], None]) -> Iterator[None]:
        said(port)
        memory, opened = resident(service), descriptors(service)
        yield
        mirrors()
        assert figure(port, "mdvp_sync_healthy") == 1
        assert resident(service) - memory < 8 << 20
        eventually(lambda: descriptors(service) - opened < 3, True, PATIENCE + SLOW)
        assert service.lines() == [line for line in service.lines() if " INFO sync: " in line], (
            "it has logged what others did"
        )

    @staticmethod
    def crowd(stack: ExitStack, port: int, number: int) -> list[socket.socket]:
        return [stack.enter_context(connected(port)) for _ in range(number)]

    def test_a_thousand_who_say_nothing(
        self, service: Service, port: int, mirrors: Callable[[], None]
    ) -> None:
        with ExitStack() as stack:
            opened = descriptors(service)
            self.crowd(stack, port, 1000)
            assert figure(port, "mdvp_sync_healthy") == 1
            mirrors()
            assert descriptors(service) <= opened + CONNECTIONS + 2

    def test_hundreds_who_say_half_of_what_they_want(
        self, port: int, mirrors: Callable[[], None]
    ) -> None:
        with ExitStack() as stack:
            for client in self.crowd(stack, port, 300):
                with suppress(ConnectionError):
                    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: i")
            assert figure(port, "mdvp_sync_healthy") == 1
            mirrors()

    def test_hundreds_who_never_read_their_answers(
        self, port: int, mirrors: Callable[[], None]
    ) -> None:
        with ExitStack() as stack:
            for client in self.crowd(stack, port, 300):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                with suppress(ConnectionError):
                    client.sendall(REQUEST * 200)
            assert figure(port, "mdvp_sync_healthy") == 1
            mirrors()

    def test_one_who_asks_a_thousand_times_at_once_and_never_reads(self, port: int) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.connect(("127.0.0.1", port))
            client.settimeout(AT_ONCE)
            with suppress(OSError):
                for _ in range(1000):
                    client.sendall(REQUEST * 100)
            assert figure(port, "mdvp_sync_healthy") == 1

    def test_one_connection_has_one_answer(self, port: int) -> None:
        answered = answer(port, REQUEST * 3)
        assert answered.count(b"HTTP/1.1 200 OK") == 1
        assert b"Connection: close" in answered

    def test_one_who_keeps_alive_has_one_answer(self, port: int) -> None:
        asked = b"GET /metrics HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        assert answer(port, asked).count(b"Connection: close") == 1

    @pytest.mark.parametrize(
        "head",
        [b"GET /metrics HTTP/1.1\r\nX: " + b"x" * HEAD_MAX, b"X: x\r\n" * HEAD_MAX],
        ids=["one line", "many lines"],
    )
    def test_a_head_that_is_too_long(self, port: int, head: bytes) -> None:
        assert answer(port, head[:HEAD_MAX]).startswith(b"HTTP/1.0 431 ")

    def test_a_head_without_an_end(self, port: int) -> None:
        with connected(port) as client, pytest.raises(ConnectionError):
            client.sendall(b"x" * (64 << 20))

    @pytest.mark.parametrize(
        "body",
        [
            b"Content-Length: 5\r\n\r\nhello",
            b"Content-Length: 99999999999\r\n\r\n",
            b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
            b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n" + b"x" * (8 << 20),
            b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
        ],
        ids=["short", "long", "endless", "waits", "chunks", "waits with chunks"],
    )
    @pytest.mark.parametrize("method", [b"GET", b"POST"])
    def test_a_body_is_not_read(self, port: int, method: bytes, body: bytes) -> None:
        answered = answer(port, method + b" /metrics HTTP/1.1\r\n" + body)
        assert not answered or answered.startswith(b"HTTP/1.1 400 Bad Request")

    def test_what_is_no_request(self, port: int) -> None:
        noise = random.Random(1)  # noqa: S311  # it is to be the same each time
        pieces = [
            *(b"GET ", b"/metrics", b" HTTP/1.1", b"\r\n", b"\n", b"\0", b"http://[::1", b":"),
            *(b"Host: a", b"Content-Length: x", b"\xff", b" ", b"HTTP/9.9", b"?", b"%", b"//"),
        ]
        for _ in range(300):
            request = b"".join(noise.choices(pieces, k=noise.randint(1, 12)))
            answer(port, request + b"\r\n\r\n")
        assert answer(port, b"GET http://[::1 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400")

    def test_urgent_data(self, service: Service, port: int) -> None:
        with connected(port) as client:
            client.send(b"x", socket.MSG_OOB)
            with suppress(ConnectionError):
                assert client.recv(1) == b""
        assert service.process.poll() is None

    @pytest.mark.waits
    def test_one_who_is_slow_is_not_waited_for_forever(self, port: int) -> None:
        began = time.monotonic()
        with connected(port) as client:
            client.settimeout(1)
            closed = False
            while not closed and time.monotonic() < began + PATIENCE + SLOW:
                try:
                    client.send(b"x")
                    closed = client.recv(1) == b""
                except TimeoutError:
                    continue
                except ConnectionError:
                    closed = True
        assert closed
        assert time.monotonic() - began > PATIENCE - 1


def cpu(service: Service) -> float:
    """Return for how long the service has worked (s)."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_other_commands_do_not_listen(service: Service, port: int) -> None:
    done = subprocess.run(
        (*SYNC, "verify"), env=service.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert figure(port, "mdvp_sync_healthy") == 1


def test_where_descriptors_are_lacking_it_waits_for_some_without_work(
    service: Service, port: int, mirrors: Callable[[], None]
) -> None:
    limit = f"--nofile={descriptors(service) + 8}:"
    subprocess.run(("prlimit", f"--pid={service.process.pid}", limit), check=True)
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(connected(port))
        before = cpu(service)
        with pytest.raises(OSError, match="timed out"):
            said(port)
        assert cpu(service) - before < AT_ONCE / 20
    eventually(lambda: is_answered(port), True, SLOW)
    eventually(lambda: figure(port, "mdvp_sync_healthy"), 1)
    mirrors()
