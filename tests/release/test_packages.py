"""The wheel and the sdist: what is in them, and that they work where there is no repository."""

import os
import re
import subprocess
import tarfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from release.conftest import REPOSITORY, Packages, packages_in
from support import eventually, running

from mdvp import __version__

DATA = {
    **{f"share/man/man1/{name}.1": f"share/man/man1/{name}.1" for name in ("mdvp", "mdvp-sync")},
    **{f"share/mdvp/{path}": path for path in ("systemd/mdvp.service", "systemd/mdvp.socket")},
    **{f"share/mdvp/{path}": path for path in ("systemd/tcp.conf", "systemd/tcp-socket.conf")},
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
RECORDS = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}


def modules() -> set[str]:
    found = [path for part in ("mdvp", "sync") for path in (REPOSITORY / part).rglob("*.py")]
    return {str(path.relative_to(REPOSITORY)) for path in found}


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
        names = {
            name.partition("/")[2] for name in sdist.getnames() if sdist.getmember(name).isfile()
        }
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
    assert re.findall(r"\]\([^)]*\)|<(?:img|a) ", page) == []


@pytest.fixture
def pipx(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user who has nothing but pipx."""
    places = {f"PIPX_{each}": str(tmp_path / each) for each in ("HOME", "BIN_DIR", "MAN_DIR")}
    path = f"{tmp_path}/BIN_DIR:/usr/local/bin:/usr/bin:/bin"
    python = os.environ.get("MDVP_PIPX_PYTHON", "/usr/bin/python3")
    settings = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    home = {"HOME": str(tmp_path), "PATH": path, "PIPX_DEFAULT_PYTHON": python}
    return {**settings, **places, **home, "LC_ALL": "C.UTF-8"}


def ran(environ: Mapping[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environ, cwd=environ["HOME"], capture_output=True, text=True, check=False
    )


def install(environ: Mapping[str, str], what: str) -> None:
    done = ran(environ, "pipx", "install", "--force", what)
    assert done.returncode == 0, done.stdout + done.stderr


def refusal(environ: Mapping[str, str], *command: str) -> str:
    done = ran(environ, *command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    return done.stderr


@pytest.mark.timeout(300)  # it downloads, and builds what is published as source alone
def test_pipx_installs_either_part_and_the_other_says_what_it_lacks(
    packages: Packages, pipx: dict[str, str], tmp_path: Path, short_path: Path
) -> None:
    # Neither, from the sdist, which is built in an environment of its own.
    install(pipx, str(packages.sdist))
    assert "pip install 'mdvp[plugin]'" in refusal(pipx, "mdvp", "serve")
    assert "pip install 'mdvp[sync]'" in refusal(pipx, "mdvp-sync", "run")
    assert "pip install 'mdvp[sync]'" in refusal(pipx, "mdvp-sync", "verify")

    install(pipx, f"{packages.wheel}[sync]")
    assert ran(pipx, "mdvp-sync", "--version").stdout == f"mdvp-sync {__version__}\n"
    assert "usage: mdvp-sync" in ran(pipx, "mdvp-sync", "--help").stdout
    assert "pip install 'mdvp[plugin]'" in refusal(pipx, "mdvp", "--version")
    mirrors(pipx, tmp_path / "foo", short_path / "redis.sock")
    share = tmp_path / "HOME/venvs/mdvp/share"
    assert {name: (share.parent / name).is_file() for name in DATA} == dict.fromkeys(DATA, True)
    if has_pages(pipx):
        assert "NAME\n" in ran(pipx, "man", tmp_path / "MAN_DIR/man1/mdvp-sync.1").stdout

    install(pipx, f"{packages.wheel}[plugin]")
    assert ran(pipx, "mdvp", "--version").stdout == f"mdvp {__version__}\n"
    assert "pip install 'mdvp[sync]'" in refusal(pipx, "mdvp-sync", "run")
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
