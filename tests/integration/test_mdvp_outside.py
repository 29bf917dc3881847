"""mdvp as a plain service: over TCP with a spec file, and under systemd."""

import json
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from integration.plugin import Plugin, connected, serving

from mdvp.wire.listener import TcpAddress, listening_on_socket, listening_on_tcp

REPOSITORY = Path(__file__).parents[2]
LOOPBACK = ["127.0.0.1", "::1"]


@pytest.fixture
def root(short_path: Path) -> Path:
    path = short_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def specs(short_path: Path) -> Path:
    """Return the directory for the spec file; it is not there yet."""
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


def test_what_a_killed_run_left_is_taken_over(root: Path, specs: Path) -> None:
    address = ("127.0.0.1", free_port("127.0.0.1"))
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        plugin.call("Create", Name="vol")
        with connected(address):  # which the kernel remembers after its end, with the port
            plugin.kill()
    assert (specs / "mdvp.json").exists()
    with serving(root, address, f"--spec-dir={specs}") as plugin:
        assert plugin.volumes() == ["vol"]
        plugin.stop()
    assert list(specs.iterdir()) == []


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


@pytest.mark.parametrize("drop_ins", [[], ["tcp.conf"]])
def test_systemd_knows_every_word_of_the_unit(short_path: Path, drop_ins: list[str]) -> None:
    # Where the unit has mdvp is a matter of the installation; systemd wants it to be there.
    mdvp = shutil.which("mdvp", path=str(Path(sys.executable).parent))
    assert mdvp

    def install(name: str, to: Path) -> None:
        to.parent.mkdir(exist_ok=True)
        text = (REPOSITORY / "systemd" / name).read_text()
        assert "=/opt/mdvp/bin/mdvp serve " in text
        to.write_text(text.replace("/opt/mdvp/bin/mdvp", mdvp))

    unit = short_path / "mdvp.service"
    install("mdvp.service", unit)
    for name in drop_ins:
        install(name, short_path / "mdvp.service.d" / name)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
