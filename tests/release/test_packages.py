"""The wheel and the sdist: what is in them, and that they work where there is no repository.

The commands that docs/install.md and share/package.md show for pipx are given here, in a home of
their own, and of the packages that are built here.
"""

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from e2e.pages import script
from release.conftest import REPOSITORY, Packages, packages_in
from support import eventually, running

from mdvp import __version__

DATA = {
    **{f"share/man/man1/{name}.1": f"share/man/man1/{name}.1" for name in ("mdvp", "mdvp-sync")},
    **{f"share/mdvp/{path}": path for path in ("systemd/mdvp.service", "systemd/mdvp.socket")},
    **{f"share/mdvp/{path}": path for path in ("systemd/tcp.conf", "systemd/tcp-socket.conf")},
    **{f"share/mdvp/{path}": path for path in ("systemd/readers.conf", "systemd/limits.conf")},
    **{
        path: path
        for name in ("mdvp", "mdvp-sync")
        for path in (
            f"share/bash-completion/completions/{name}",
            f"share/zsh/site-functions/_{name}",
            f"share/fish/vendor_completions.d/{name}.fish",
        )
    },
}
INSTALL = REPOSITORY / "docs" / "install.md"
RECORDS = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}


def modules() -> set[str]:
    found = [path for part in ("mdvp", "sync") for path in (REPOSITORY / part).rglob("*.py")]
    names = {str(path.relative_to(REPOSITORY)) for path in found}
    return {name for name in names if not name.startswith("sync/image/")}


def test_an_index_would_take_them(packages: Packages) -> None:
    assert packages.said.count("PASSED") == 2
    assert packages.wheel.name == f"mdvp-{__version__}-py3-none-any.whl"
    assert packages.sdist.name == f"mdvp-{__version__}.tar.gz"


def test_the_wheel_has_all_modules_and_data_as_they_are_and_nothing_else(
    packages: Packages,
) -> None:
    before, data = f"mdvp-{__version__}.dist-info/", f"mdvp-{__version__}.data/data/"
    sources = {name: name for name in modules()}
    sources |= {data + name: path for name, path in DATA.items()}
    with ZipFile(packages.wheel) as wheel:
        assert set(wheel.namelist()) == {*sources, *(before + name for name in RECORDS)}
        for name, path in sources.items():
            assert wheel.read(name) == (REPOSITORY / path).read_bytes(), name


def test_the_sdist_has_what_it_takes_to_build_and_nothing_else(packages: Packages) -> None:
    with tarfile.open(packages.sdist) as sdist:
        files = [member.name for member in sdist if member.isfile()]
        names = {name.partition("/")[2] for name in files}
    made = {"PKG-INFO", "setup.cfg"}
    made |= {name for name in names if name.startswith("mdvp.egg-info/")}
    given = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "share/package.md"}
    assert names == {*modules(), *DATA.values(), *made, *given}


def test_the_same_sources_give_the_same_wheel(packages: Packages, tmp_path: Path) -> None:
    assert packages_in(tmp_path).wheel.read_bytes() == packages.wheel.read_bytes()


def test_what_an_index_shows_leads_nowhere_else(packages: Packages) -> None:
    with ZipFile(packages.wheel) as wheel:
        metadata = wheel.read(f"mdvp-{__version__}.dist-info/METADATA").decode()
    shown = Parser().parsestr(metadata)
    assert shown["License-Expression"] == "MIT"
    assert {"Operating System :: POSIX :: Linux", "Programming Language :: Python :: 3.11"} < set(
        shown.get_all("Classifier", [])
    )
    page = str(shown.get_payload())
    assert page == (REPOSITORY / "share/package.md").read_text()
    # There are only relative ones, and an index does not have what they lead to.
    assert re.findall(r"\]\([^)]*\)|<(?:img|a) |^ *\[[^]]+\]:", page, re.MULTILINE) == []


@pytest.fixture(scope="module")
def pipx_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where pipx has what it needs itself, once it has made it."""
    return tmp_path_factory.mktemp("pipx")


@pytest.fixture
def pipx(pipx_home: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a user for whom pipx has installed nothing yet."""
    places = {f"PIPX_{each}": str(pipx_home / each) for each in ("HOME", "BIN_DIR", "MAN_DIR")}
    path = f"{pipx_home}/BIN_DIR:/usr/local/bin:/usr/bin:/bin"
    python = os.environ.get("MDVP_PIPX_PYTHON", "/usr/bin/python3")
    # What says where packages come from stays.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environ = {**kept, **places, "PATH": path, "PIPX_DEFAULT_PYTHON": python, "LC_ALL": "C.UTF-8"}
    yield environ
    ran(environ, "pipx", "uninstall", "mdvp")


def ran(environ: Mapping[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command where there is no repository."""
    return subprocess.run(
        command,
        env=environ,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def install(environ: Mapping[str, str], what: str) -> None:
    give(environ, f"pipx install '{what}'")


def give(environ: Mapping[str, str], commands: str) -> str:
    """Give commands to a shell that ends at the first that fails; return what they print."""
    done = ran(environ, "sh", "-ec", commands)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", ["mdvp serve", "mdvp --help", "sync run", "sync verify"])
def test_without_its_libraries_a_command_says_in_one_line_what_brings_them(
    arguments: str, packages: Packages
) -> None:
    part, argument = arguments.split()
    program = (
        f"import sys; sys.path.insert(0, {str(packages.wheel)!r}); sys.argv[1:] = [{argument!r}]; "
        f"from {part}.__main__ import main; sys.exit(main())"
    )
    # Isolated, and without the directory of what is installed.
    done = ran(dict(os.environ), sys.executable, "-I", "-S", "-c", program)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    extra = {"mdvp": "plugin", "sync": "sync"}[part]
    assert f"pip install 'mdvp[{extra}]'" in done.stderr


@pytest.mark.timeout(300)  # it downloads, and builds what is published as source alone
def test_pipx_installs_the_sync_service_from_source(
    packages: Packages, pipx: dict[str, str], tmp_path: Path, short_path: Path
) -> None:
    told = give(pipx, script(INSTALL, "pipx install").replace("mdvp[", f"{packages.sdist}["))
    assert told.endswith(f"mdvp-sync {__version__}\n")
    assert "usage: mdvp-sync" in ran(pipx, "mdvp-sync", "--help").stdout
    assert "pip install 'mdvp[plugin]'" in ran(pipx, "mdvp", "--version").stderr
    mirrors(pipx, tmp_path / "foo", short_path / "redis.sock")
    environment = Path(pipx["PIPX_HOME"], "venvs/mdvp")
    assert [name for name in DATA if not (environment / name).is_file()] == []
    give({**pipx, "HOME": str(tmp_path)}, script(INSTALL, "bash-completion"))
    for place in (".local/share/bash-completion/completions", ".config/fish/completions"):
        for name in (tmp_path / place).iterdir():
            assert name.resolve().is_relative_to(environment)
            assert name.is_file()
    assert f"{environment}/share/zsh/site-functions" in (tmp_path / ".zshenv").read_text()
    if has_pages(pipx):
        assert "NAME\n" in ran(pipx, "man", f"{pipx['PIPX_MAN_DIR']}/man1/mdvp-sync.1").stdout


@pytest.mark.timeout(300)
def test_pipx_installs_the_plugin(
    packages: Packages, pipx: dict[str, str], short_path: Path
) -> None:
    install(pipx, f"{packages.wheel}[plugin]")
    assert ran(pipx, "mdvp", "--version").stdout == f"mdvp {__version__}\n"
    serves(pipx, short_path)


def has_pages(environ: Mapping[str, str]) -> bool:
    version = ran(environ, "pipx", "--version").stdout.split(".")
    return [int(part) for part in version[:2]] >= [1, 3]


def mirrors(environ: Mapping[str, str], root: Path, at: Path) -> None:
    """See a file become a key."""
    root.mkdir()
    (root / "key").write_text("value")
    server = ("redis-server", "--port", "0", "--unixsocket", str(at), "--save", "")
    told = {**environ, "SYNC_ROOT": str(root), "REDIS_URL": f"unix://{at}"}
    told["SYNC_STATUS"] = str(at.parent / "status.json")
    with running(server, environ):
        eventually(at.exists, True)
        with running(("mdvp-sync", "run"), told):
            eventually(lambda: ran(told, "mdvp-sync", "status").returncode, 0, deadline=30)
            assert ran(told, "redis-cli", "-s", at, "get", "key").stdout == "value\n"


def serves(environ: Mapping[str, str], directory: Path) -> None:
    """See the engine's first question answered."""
    root, at = directory / "volumes", directory / "mdvp.sock"
    root.mkdir()
    with running(("mdvp", "serve", "--root", str(root), "--socket", str(at)), environ):
        eventually(at.exists, True, deadline=30)
        asked = ("curl", "--silent", "--unix-socket", at, "--data", "", "http://d/Plugin.Activate")
        assert ran(environ, *asked).stdout == '{"Implements": ["VolumeDriver"]}'
