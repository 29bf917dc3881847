"""mdvp as a plain service: over TCP with a spec file, and under systemd."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Timer

import pytest
from integration.plugin import Address, Plugin, connected, serving
from support import eventually

from mdvp.wire.listener import TcpAddress, listening_on_socket, listening_on_tcp

REPOSITORY = Path(__file__).parents[2]
LOOPBACK = ["127.0.0.1", "::1"]
UNIX = "unix"
LIST = b"POST /VolumeDriver.List HTTP/1.0\r\n\r\n"
# Another user of the machine, with nothing but what every user has.
OTHER = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"),
    *("/usr/bin/env", "python3", "-c"),
)


@pytest.fixture
def root(short_path: Path) -> Path:
    path = short_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def specs(short_path: Path) -> Path:
    """Return the directory for the spec file; it is not there yet. Others can see what is in it."""
    short_path.chmod(0o711)
    return short_path / "etc" / "docker" / "plugins"


def free_port(ip: str) -> int:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


def log_of(plugin: Plugin) -> str:
    """Return the log of one that ends by itself."""
    log, _ = plugin.process.communicate(timeout=10)
    return log


@pytest.mark.parametrize("ip", LOOPBACK)
def test_it_serves_on_tcp_and_a_spec_file_says_so_while_it_runs(
    root: Path, specs: Path, ip: str
) -> None:
    port = free_port(ip)
    host = f"[{ip}]" if ":" in ip else ip
    with serving(root, (ip, port), f"--spec-dir={specs}") as plugin:
        assert plugin.call("Create", Name="vol").status == 200
        (spec,) = specs.iterdir()
        assert spec.name == "mdvp.json"
        assert stat.S_IMODE(spec.stat().st_mode) == 0o644
        assert json.loads(spec.read_text()) == {"Name": "mdvp", "Addr": f"tcp://{host}:{port}"}
        plugin.stop()
        assert plugin.process.returncode == 0
    assert list(specs.iterdir()) == []
    assert (root / "vol").is_dir()


def test_a_killed_run_leaves_nothing_in_the_way_of_the_next(root: Path, specs: Path) -> None:
    address = ("127.0.0.1", free_port("127.0.0.1"))
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        plugin.call("Create", Name="vol")
    for _ in range(5):
        with serving(root, address, f"--spec-dir={specs}") as plugin:
            assert plugin.volumes() == ["vol"]
            assert (specs / "mdvp.json").exists()
            with connected(address):  # which the kernel remembers after its end, with the port
                plugin.kill()
    eventually(lambda: list(specs.iterdir()), [])


def test_a_port_that_is_let_go_of_in_a_moment_is_waited_for() -> None:
    # As the guardian of a killed run does, when a supervisor starts the next at once.
    ip_and_port = ("127.0.0.1", free_port("127.0.0.1"))
    guardian = listening(ip_and_port)
    end = Timer(0.2, guardian.close)
    end.start()
    with listening_on_tcp(TcpAddress.parse(spelled(ip_and_port))):
        connected(ip_and_port).close()
    end.join()


def test_what_a_power_cut_left_is_taken_over(root: Path, specs: Path) -> None:
    port = free_port("127.0.0.1")
    specs.mkdir(parents=True)
    spec = specs / "mdvp.json"
    spec.write_text(f'{{"Name": "mdvp", "Addr": "tcp://127.0.0.1:{port}"}}\n')
    with serving(root, ("127.0.0.1", port), f"--spec-dir={specs}") as plugin:
        assert plugin.volumes() == []
        plugin.stop()
    assert list(specs.iterdir()) == []


# Tries to listen until it can, and then looks at once whether the engine would be led to it.
THIEF = """
import os, socket, sys
address, spec = (sys.argv[1], int(sys.argv[2])), sys.argv[3]
family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
def listens():
    with socket.socket(family, socket.SOCK_STREAM) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            thief.bind(address)
            thief.listen()
        except OSError:
            return False
        print("led" if os.path.exists(spec) else "free", flush=True)
        return True
print("tries", os.path.exists(spec), listens(), flush=True)
while not listens():
    pass
"""


@contextmanager
def thief(address: tuple[str, int], spec: Path) -> Iterator[Callable[[], str]]:
    """Have another user try for the port; yield what waits for it to succeed and says how."""
    ip, port = address
    with subprocess.Popen(
        [*OTHER, THIEF, ip, str(port), str(spec)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            # It sees the file, and does not get the port.
            assert process.stdout.readline() == "tries True False\n"
            yield process.stdout.readline
        finally:
            process.kill()


@pytest.mark.parametrize("ip", LOOPBACK * 5)
def test_a_spec_file_never_leads_to_a_port_that_others_can_have(
    root: Path, specs: Path, ip: str
) -> None:
    address = (ip, free_port(ip))
    with (
        serving(root, address, f"--spec-dir={specs}") as plugin,
        thief(address, specs / "mdvp.json") as outcome,
    ):
        plugin.kill()
        assert outcome() == "free\n"
    assert list(specs.iterdir()) == []


def children(process: subprocess.Popen[str]) -> list[int]:
    of_any = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for file in of_any for pid in file.read_text().split()]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process do nothing for the time of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def can_listen(address: tuple[str, int]) -> bool:
    """Say whether another user could."""
    script = (
        "import socket, sys; s = socket.socket(); s.setsockopt(1, socket.SO_REUSEADDR, 1); "
        "s.bind((sys.argv[1], int(sys.argv[2])))"
    )
    ip, port = address
    done = subprocess.run(
        [*OTHER, script, ip, str(port)], capture_output=True, text=True, timeout=10, check=False
    )
    assert done.returncode == 0 or "Address already in use" in done.stderr
    return done.returncode == 0


def test_the_guardian_keeps_the_port_and_nothing_else(
    root: Path, specs: Path, short_path: Path
) -> None:
    address = ("127.0.0.1", free_port("127.0.0.1"))
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        (guardian,) = children(plugin.process)
        with stopped(guardian):
            plugin.kill()
            assert "serves the volumes" in log_of(plugin)  # it ends, though the guardian lives
            assert (specs / "mdvp.json").exists()
            assert not can_listen(address)
            with serving(root, short_path / "mdvp.sock") as next_one:  # the root is free
                assert next_one.volumes() == []
        eventually(lambda: can_listen(address), True)
    assert list(specs.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_is_meant_for_mdvp_does_not_end_the_guardian(
    root: Path, specs: Path, number: signal.Signals
) -> None:
    address = ("127.0.0.1", free_port("127.0.0.1"))
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        (guardian,) = children(plugin.process)
        # Bit n - 1 of the mask is signal n: proc_pid_status(5).
        ignored = re.compile(r"^SigIgn:\s*(\w+)$", re.MULTILINE)
        status = Path(f"/proc/{guardian}/status")

        def ignores() -> bool:
            found = ignored.search(status.read_text())
            return bool(found and int(found[1], 16) >> (number - 1) & 1)

        eventually(ignores, True)
        os.kill(guardian, number)
        assert os.getpgid(guardian) != os.getpgid(plugin.process.pid)
        with thief(address, specs / "mdvp.json") as outcome:
            plugin.kill()
            assert outcome() == "free\n"


def test_in_the_end_there_is_no_guardian(root: Path, specs: Path) -> None:
    address = ("127.0.0.1", free_port("127.0.0.1"))
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        (guardian,) = children(plugin.process)
        plugin.stop()
        assert not is_there(guardian)
        assert can_listen(address)


def test_without_a_guardian_mdvp_ends(root: Path, specs: Path) -> None:
    address = ("127.0.0.1", free_port("127.0.0.1"))
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        (guardian,) = children(plugin.process)
        os.kill(guardian, signal.SIGKILL)
        log = log_of(plugin)
    assert "ERROR the process that would keep the port if mdvp were killed has ended" in log
    assert list(specs.iterdir()) == []


def test_a_guardian_removes_only_what_mdvp_wrote(root: Path, specs: Path) -> None:
    address = ("127.0.0.1", free_port("127.0.0.1"))
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        (guardian,) = children(plugin.process)
        (specs / "mdvp.json").write_text("somebody's")
        plugin.kill()
        eventually(lambda: is_there(guardian), False)
    assert (specs / "mdvp.json").read_text() == "somebody's"


def test_a_link_to_a_spec_file_is_not_replaced(root: Path, specs: Path) -> None:
    specs.mkdir(parents=True)
    link = specs / "mdvp.json"
    link.symlink_to("/nowhere/mdvp.json")
    with serving(root, ("127.0.0.1", free_port("127.0.0.1")), f"--spec-dir={specs}") as plugin:
        log = log_of(plugin)
    assert plugin.process.returncode == 1
    assert f"ERROR {link} is a link to /nowhere/mdvp.json: name the directory of that" in log
    assert link.is_symlink()


def test_somebody_elses_spec_file_is_left_alone(root: Path, specs: Path) -> None:
    specs.mkdir(parents=True)
    spec = specs / "mdvp.json"
    spec.write_text('{"Name": "mdvp", "Addr": "tcp://127.0.0.1:1"}')
    with serving(root, ("127.0.0.1", free_port("127.0.0.1")), f"--spec-dir={specs}") as plugin:
        log = log_of(plugin)
    assert plugin.process.returncode == 1
    assert f"ERROR {spec} is there and names another plugin or address: remove it" in log
    assert spec.read_text() == '{"Name": "mdvp", "Addr": "tcp://127.0.0.1:1"}'


def test_a_spec_file_that_somebody_changed_meanwhile_is_left_alone(root: Path, specs: Path) -> None:
    with serving(root, ("127.0.0.1", free_port("127.0.0.1")), f"--spec-dir={specs}") as plugin:
        (specs / "mdvp.json").write_text("somebody's")
        plugin.stop()
    assert (specs / "mdvp.json").read_text() == "somebody's"


@pytest.mark.parametrize("ip", LOOPBACK)
def test_a_port_in_use_is_named_and_its_holder_not_disturbed(
    root: Path, specs: Path, short_path: Path, ip: str
) -> None:
    address = (ip, free_port(ip))
    other = short_path / "other"
    other.mkdir()
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        with serving(other, address, f"--spec-dir={specs}") as second:
            log = log_of(second)
        assert second.process.returncode == 1
        assert f":{address[1]}: somebody does already; `ss " in log
        assert plugin.call("List").status == 200
        assert (specs / "mdvp.json").exists()


def test_remote_control_has_to_be_asked_for(root: Path, specs: Path) -> None:
    address = ("0.0.0.0", free_port("127.0.0.1"))  # noqa: S104  # that is what is refused
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        log = log_of(plugin)
    assert plugin.process.returncode == 2
    assert "can make and remove volumes as root" in log
    assert "--allow-remote-control" in log
    assert not specs.exists()

    with serving(root, address, f"--spec-dir={specs}", "--allow-remote-control") as plugin:
        spec = json.loads((specs / "mdvp.json").read_text())
        assert spec["Addr"] == f"tcp://127.0.0.1:{address[1]}"
        log = plugin.stop()
    assert f"WARNING whoever reaches 0.0.0.0:{address[1]} can make and remove volumes" in log


def complaint(root: Path, specs: Path, *arguments: str) -> tuple[int, str]:
    """Return the exit status and the words of one that does not even start."""
    command = [sys.executable, "-m", "mdvp", "serve", f"--root={root}", f"--spec-dir={specs}"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=10, check=False
    )
    assert not specs.exists()
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tcp=localhost:3004"], "'localhost' is no IP address"),
        (["--tcp=127.0.0.1:x"], "no port"),
        (["--tcp=127.0.0.1:3004", "--socket=s"], "not allowed with argument --tcp"),
    ],
)
def test_wrong_arguments_are_explained(
    root: Path, specs: Path, arguments: list[str], words: str
) -> None:
    status, said = complaint(root, specs, *arguments)
    assert status == 2
    assert words in said


def test_an_address_that_the_machine_does_not_have_is_named(root: Path, specs: Path) -> None:
    # Of the network that is there for documentation.
    status, said = complaint(root, specs, "--tcp=192.0.2.7:3004", "--allow-remote-control")
    assert status == 1
    assert "ERROR cannot listen on 192.0.2.7:3004: this machine has no such address" in said


def test_a_web_page_cannot_ask(root: Path, specs: Path) -> None:
    with serving(root, ("127.0.0.1", free_port("127.0.0.1")), f"--spec-dir={specs}") as plugin:
        body = b'{"Name": "vol"}'
        answer = plugin.post("/VolumeDriver.Create", body, Origin="https://example.org")
        assert answer.status == 403
        assert "a web page may not" in answer.error
        assert plugin.volumes() == []


def test_who_is_told_of_it_can_connect(short_path: Path) -> None:
    # A spec file and a service manager tell others while the server is yet to be made.
    address = TcpAddress.parse(f"127.0.0.1:{free_port('127.0.0.1')}")
    path = short_path / "mdvp.sock"
    with listening_on_tcp(address) as listener, listening_on_socket(path):
        connected(path).close()
        with connected(("127.0.0.1", address.port)), listener.accept()[0] as connection:
            # An answer is two packets; without this, the second comes 40 ms after the first.
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_directory_of_the_socket_is_made(root: Path, short_path: Path) -> None:
    with serving(root, short_path / "run" / "plugins" / "mdvp.sock") as plugin:
        assert plugin.call("List").status == 200
        plugin.stop()
    assert list((short_path / "run" / "plugins").iterdir()) == []


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told_when_it_listens(
    root: Path, short_path: Path, abstract: bool
) -> None:
    path = f"{short_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{path}" if abstract else path)
        manager.settimeout(10)
        address = f"@{path}" if abstract else path
        with serving(root, short_path / "mdvp.sock", NOTIFY_SOCKET=address) as plugin:
            assert manager.recv(64) == b"READY=1"
            assert plugin.call("List").status == 200


# Starts a program as a service manager does, with these descriptors as 3 and those after it.
MANAGER = """
import fcntl, os, sys
count = int(sys.argv[1])
# Out of the way first: one may have a number that another is to have.
passed = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[2 : 2 + count]]
os.closerange(3, 100)
for number, each in enumerate(passed, start=3):
    os.dup2(each, number)
os.closerange(100, 200)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ.setdefault("LISTEN_FDS", str(count))
os.execv(sys.argv[2 + count], sys.argv[2 + count :])
"""


@contextmanager
def activated(
    root: Path,
    address: Address,
    *arguments: str,
    passed: Sequence[socket.socket | int],
    prefix: Sequence[str] = (),
    **environ: str,
) -> Iterator[Plugin]:
    """Run mdvp with sockets that are passed to it. It may not be ready yet."""
    where = f"--socket={address}"
    if isinstance(address, tuple):
        where = f"--tcp={TcpAddress.parse(spelled(address))}"
    descriptors = [each if isinstance(each, int) else each.fileno() for each in passed]
    mdvp = (sys.executable, "-m", "mdvp", "serve", f"--root={root}", where, *arguments)
    manager = (sys.executable, "-c", MANAGER, str(len(descriptors)), *map(str, descriptors))
    with subprocess.Popen(
        [*prefix, *manager, *mdvp],
        env={**os.environ, **environ},
        pass_fds=descriptors,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Plugin(root, address, process)
        finally:
            process.kill()


def spelled(address: tuple[str, int]) -> str:
    ip, port = address
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def listening(address: Address, mode: int = 0o600) -> socket.socket:
    """Return a socket as a service manager makes it: this is who holds it all the time."""
    if isinstance(address, tuple):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        return socket.create_server(address, family=family)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(address))
    address.chmod(mode)
    listener.listen()
    return listener


def some_address(kind: str, directory: Path) -> Address:
    return directory / "mdvp.sock" if kind == UNIX else (kind, free_port(kind))


# Prints why another user can neither listen at an address nor, if it is a path, connect to it.
BARRED = """
import errno, os, socket, sys
def why(work, *arguments):
    try:
        work(*arguments)
    except OSError as error:
        print(errno.errorcode[error.errno])
    else:
        print("done")
if len(sys.argv) == 2:
    path = sys.argv[1]
    why(socket.socket(socket.AF_UNIX).bind, path)
    why(socket.socket(socket.AF_UNIX).connect, path)
    why(os.unlink, path)
else:
    address = (sys.argv[1], int(sys.argv[2]))
    thief = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    why(thief.bind, address)
"""


def barred(address: Address) -> list[str]:
    where = [str(each) for each in (address if isinstance(address, tuple) else [address])]
    done = subprocess.run(
        [*OTHER, BARRED, *where], stdout=subprocess.PIPE, text=True, timeout=10, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("kind", [*LOOPBACK, UNIX])
def test_while_the_service_is_away_its_socket_is_nobody_elses(
    root: Path, specs: Path, short_path: Path, kind: str
) -> None:
    address = some_address(kind, short_path)
    expected = ["EADDRINUSE", "EACCES", "EACCES"] if kind == UNIX else ["EADDRINUSE"]
    specs_here = f"--spec-dir={specs}"
    with closing(listening(address)) as held:
        with activated(root, address, specs_here, passed=[held]) as plugin:
            assert plugin.call("Create", Name="vol").status == 200
            assert (specs / "mdvp.json").exists() == (kind != UNIX)
            assert children(plugin.process) == []  # the socket is safe without a guardian
            assert barred(address) == expected
            plugin.kill()
        assert barred(address) == expected
        with connected(address) as early:
            early.sendall(LIST)
            with activated(root, address, specs_here, passed=[held]) as plugin:
                answer = b"".join(iter(lambda: early.recv(1 << 16), b""))
                assert b'"Name": "vol"' in answer
                assert "ERROR" not in plugin.stop()
                assert plugin.process.returncode == 0
        assert barred(address) == expected
        assert not (specs / "mdvp.json").exists()
        if isinstance(address, Path):
            assert address.is_socket()  # it is the service manager's, who may go on with it


def test_a_socket_is_left_to_no_child_and_does_not_delay(root: Path, specs: Path) -> None:
    address = ("127.0.0.1", free_port("127.0.0.1"))
    with (
        closing(listening(address)) as held,
        activated(root, address, f"--spec-dir={specs}", passed=[held]) as plugin,
    ):
        assert plugin.volumes() == []
        flags = Path(f"/proc/{plugin.process.pid}/fdinfo/3").read_text()
        assert int(re.findall(r"flags:\s*([0-7]+)", flags)[0], 8) & os.O_CLOEXEC
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_socket_for_tcp_works_without_a_network(root: Path, specs: Path) -> None:
    # So the unit has PrivateNetwork=yes for TCP, too.
    address = ("127.0.0.1", free_port("127.0.0.1"))
    alone = ("unshare", "--net")
    with (
        closing(listening(address)) as held,
        activated(root, address, f"--spec-dir={specs}", passed=[held], prefix=alone) as plugin,
    ):
        assert plugin.volumes() == []


def test_a_directory_of_the_socket_may_have_another_name(root: Path, short_path: Path) -> None:
    (short_path / "run").mkdir()
    (short_path / "var").symlink_to("run")
    with closing(listening(short_path / "run" / "mdvp.sock")) as held:
        address = short_path / "var" / "mdvp.sock"
        with activated(root, address, passed=[held]) as plugin:
            assert plugin.volumes() == []


def test_a_socket_for_another_process_is_not_taken(root: Path, short_path: Path) -> None:
    mine = short_path / "mdvp.sock"
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    with serving(root, mine, **environ) as plugin:
        assert plugin.volumes() == []


@pytest.mark.parametrize("count", ["x", "-1", "", "1 ", "9" * 5000])
def test_what_is_no_number_of_sockets_is_named(root: Path, short_path: Path, count: str) -> None:
    with activated(root, short_path / "mdvp.sock", passed=[], LISTEN_FDS=count) as plugin:
        assert "ERROR LISTEN_FDS is '" in log_of(plugin)
    assert plugin.process.returncode == 1
    assert list(root.iterdir()) == []  # it has not begun


def test_no_socket_at_all_is_no_error(root: Path, short_path: Path) -> None:
    with activated(root, short_path / "mdvp.sock", passed=[], LISTEN_FDS="0") as plugin:
        eventually((short_path / "mdvp.sock").exists, True)
        assert "ERROR" not in plugin.stop()


def refusal(root: Path, address: Address, *passed: socket.socket | int, **environ: str) -> str:
    with activated(root, address, passed=passed, **environ) as plugin:
        log = log_of(plugin)
    assert plugin.process.returncode == 1
    assert list(root.iterdir()) == []  # it has not begun
    (line,) = log.splitlines()
    return line


def test_sockets_that_are_not_what_was_asked_for_are_refused(root: Path, short_path: Path) -> None:
    path, other_path = short_path / "mdvp.sock", short_path / "other.sock"
    tcp = ("127.0.0.1", free_port("127.0.0.1"))
    with ExitStack() as stack:
        unix = stack.enter_context(listening(path))
        other = stack.enter_context(listening(other_path))
        port = stack.enter_context(listening(tcp))
        sockets = socket.socketpair()
        pair = stack.enter_context(sockets[0])
        stack.enter_context(sockets[1])

        assert "2 sockets were passed, and mdvp takes one" in refusal(root, path, unix, other)
        assert (
            f"a socket at {other_path} was passed, but mdvp was told to listen on {path}: "
            in refusal(root, path, other)
        )
        assert (
            f"a socket at {spelled(tcp)} was passed, but mdvp was told to listen on {path}: "
            in refusal(root, path, port)
        )
        assert (
            f"a socket at {path} was passed, but mdvp was told to listen on {spelled(tcp)}: "
            in refusal(root, tcp, unix)
        )
        assert "a socket at no path and no TCP address ('') was" in refusal(root, path, pair)
        file = stack.enter_context((short_path / "file").open("wb"))
        none = "descriptor 3 is a socket to listen on, but it is none: "
        assert none in refusal(root, path, file.fileno())
        assert none in refusal(root, path, LISTEN_FDS="1")


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])  # noqa: S104  # that is what is refused
def test_a_socket_for_more_addresses_than_asked_for_is_refused(root: Path, wildcard: str) -> None:
    port = free_port("127.0.0.1")
    with closing(listening((wildcard, port))) as held:
        assert f"a socket at {spelled((wildcard, port))} was passed" in refusal(
            root, ("127.0.0.1", port), held
        )


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_that_does_not_listen_for_streams_is_refused(
    root: Path, short_path: Path, kind: socket.SocketKind
) -> None:
    path = short_path / "mdvp.sock"
    with socket.socket(socket.AF_UNIX, kind) as bound:
        bound.bind(str(path))
        path.chmod(0o600)
        if kind == socket.SOCK_SEQPACKET:
            bound.listen()
        assert f"the socket at {path} that was passed is none that" in refusal(root, path, bound)


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_socket_that_others_can_connect_to_is_refused(
    root: Path, short_path: Path, mode: int
) -> None:
    path = short_path / "mdvp.sock"
    with closing(listening(path, mode)) as held:
        assert f"others can connect to {path} (owner 0, mode {mode:04o})" in refusal(
            root, path, held
        )


def test_a_socket_of_another_user_is_refused(root: Path, short_path: Path) -> None:
    path = short_path / "mdvp.sock"
    with closing(listening(path)) as held:
        os.chown(path, 65534, 0)
        assert f"others can connect to {path} (owner 65534, mode 0600)" in refusal(root, path, held)


def test_a_socket_whose_file_is_gone_is_refused(root: Path, short_path: Path) -> None:
    path = short_path / "mdvp.sock"
    with closing(listening(path)) as held:
        path.unlink()
        assert f"a socket at {path} was passed, but its file is gone" in refusal(root, path, held)


@pytest.mark.parametrize("kind", [*LOOPBACK, UNIX])
def test_systemds_own_activation_starts_it(
    root: Path, specs: Path, short_path: Path, kind: str
) -> None:
    address = some_address(kind, short_path)
    listen = spelled(address) if isinstance(address, tuple) else address
    prefix = ("systemd-socket-activate", f"--listen={listen}")
    # It runs the program when somebody connects, which is the first question that is asked.
    with serving(root, address, f"--spec-dir={specs}", prefix=prefix) as plugin:
        assert plugin.volumes() == []
        assert children(plugin.process) == []
        assert "ERROR" not in plugin.stop()


STARTING = ("mdvp.service", "tcp.conf")


@pytest.fixture(params=["socket", "tcp", "more"])
def units(request: pytest.FixtureRequest, short_path: Path) -> Path:
    """Return a directory with the units, and for TCP their drop-ins."""
    # Where the unit has mdvp is a matter of the installation; systemd wants it to be there.
    mdvp = shutil.which("mdvp", path=str(Path(sys.executable).parent))
    assert mdvp
    names = {"mdvp.service": "mdvp.service", "mdvp.socket": "mdvp.socket"}
    if request.param == "tcp":
        names["tcp.conf"] = "mdvp.service.d/tcp.conf"
        names["tcp-socket.conf"] = "mdvp.socket.d/tcp-socket.conf"
    if request.param == "more":
        for name in ("readers.conf", "limits.conf"):
            names[name] = f"mdvp.service.d/{name}"
    for name, place in names.items():
        text = (REPOSITORY / "systemd" / name).read_text()
        assert ("=/opt/mdvp/bin/mdvp serve " in text) == (name in STARTING)
        to = short_path / place
        to.parent.mkdir(exist_ok=True)
        to.write_text(text.replace("/opt/mdvp/bin/mdvp", mdvp))
    return short_path


def test_systemd_knows_every_word_of_the_units(units: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", units / "mdvp.service", units / "mdvp.socket"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_units_agree_on_the_address(units: Path) -> None:
    def last(pattern: str, unit: str) -> str:
        files = (units / unit, *(units / f"{unit}.d").glob("*"))
        words = "\n".join(file.read_text() for file in files)
        return str(re.findall(pattern, words, re.MULTILINE)[-1])

    asked = last(r"^ExecStart=.* --(?:socket|tcp) (\S+)", "mdvp.service")
    assert asked == last(r"^ListenStream=(.+)$", "mdvp.socket")
