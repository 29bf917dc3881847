"""A release goes through a real registry, from the engine that built it to one that has nothing.

Each engine's machine has its own loopback, and no way to the other's. So each has a registry there,
at the same address, and both keep what they have in one directory, as several registries behind one
name do: https://distribution.github.io/distribution/about/deploying/#load-balancing-considerations.

The tests of the second engine stand on those before them: it is installed, upgraded, and removed.
They give the very commands of docs/install.md.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pexpect
import pytest
from e2e.conftest import REPOSITORY, Docker
from e2e.engine import PrivateEngine
from e2e.pages import script
from support import eventually, running

REGISTRY = "127.0.0.1:5000/team"
TAG = "next"
IMAGES = ("redis-sync", "sync", "mdvp-command")
OLD_VERSION = "0.0.1"
INSTALL = REPOSITORY / "docs" / "install.md"
CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:5000", secret: of all of them}}
"""

# A docker command that ends the script which calls it, at one push, and then hangs.
ENDING = """#!/bin/sh
case "$1 $2 $3" in
    "{push}"*) kill -{signal} $PPID; exec sleep 98764 ;;
    *) exec {docker} "$@" ;;
esac
"""


class Released(NamedTuple):
    """What has been released: what the script printed, and where the version before is."""

    printed: str
    before: str
    architecture: str


@contextmanager
def registry(docker: Docker, directory: Path) -> Iterator[None]:
    """Have a registry at the loopback of the engine's machine, which keeps all in `directory`."""
    config = directory / "config.yml"
    config.write_text(CONFIG.format(directory=directory))
    command = [
        *("sh", "-c", 'exec "$@" >"$0" 2>&1', f"{directory}/registry.log"),
        *("setpriv", "--pdeathsig=KILL", "nsenter", f"--target={docker.engine.pid}", "--net"),
        *("docker-registry", "serve", str(config)),
    ]
    with running(command, os.environ):
        eventually(lambda: answers(docker), expected=True)
        yield


def answers(docker: Docker) -> bool:
    done = docker.engine.docker("pull", f"{REGISTRY}/none", check=False)
    return "manifest unknown" in done.stderr


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of all registries."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def second(storage: Path) -> Iterator[Docker]:
    """Yield a prompt on another machine, whose engine has nothing."""
    with PrivateEngine() as engine:
        docker = Docker(engine)
        with registry(docker, storage):
            yield docker


def release(
    docker: Docker, *arguments: str, check: bool = True, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the script on the machine of the engine, as its client asks the registry, too."""
    settings = [client(docker), *(f"{name}={value}" for name, value in environ.items())]
    return docker.engine.run("env", *settings, "scripts/release.sh", *arguments, check=check)


def client(docker: Docker) -> str:
    """Return the setting by which the client keeps nothing in the home directory of who tests."""
    return f"DOCKER_CONFIG={docker.engine.environ['DOCKER_CONFIG']}"


def release_cut_off(docker: Docker, push: str, signal: str) -> None:
    """Have a release end by a signal, at a push that hangs; that ends with it."""
    # The machine has a /tmp of its own, so it sees the file by way of the engine's directory.
    path = docker.engine.tmp.with_name("path")
    path.mkdir(exist_ok=True)
    command = path / "docker"
    command.write_text(ENDING.format(push=push, signal=signal, docker=shutil.which("docker")))
    command.chmod(0o755)
    release(docker, REGISTRY, TAG, check=False, PATH=f"{path}:{os.environ['PATH']}")
    hanging = ("pgrep", "--full", "--exact", "sleep 98764")
    eventually(lambda: docker.engine.run(*hanging, check=False).stdout, "")


def tags(storage: Path) -> set[str]:
    """Return what the registry has, as NAME:TAG."""
    found = (storage / "docker/registry/v2/repositories/team").glob("*/_manifests/tags/*")
    return {f"{path.parts[-4]}:{path.name}" for path in found}


def plugins(docker: Docker) -> str:
    """Return all that the engine says of its plugins."""
    ids = docker("plugin", "ls", "--quiet").split()
    return docker("plugin", "inspect", *ids) if ids else ""


def images(docker: Docker) -> dict[str, str]:
    listed = docker("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    return dict(line.split() for line in listed.splitlines() if not line.startswith("<none>"))


@pytest.fixture(scope="module")
def architecture(docker: Docker) -> str:
    return docker("version", "--format", "{{.Server.Arch}}")


@pytest.fixture(scope="module")
def before(docker: Docker, tmp_path_factory: pytest.TempPathFactory, architecture: str) -> str:
    """Return the name of the version before, a plugin of the first engine, with a setting."""
    name = f"{REGISTRY}/mdvp:{OLD_VERSION}-{architecture}"
    directory = tmp_path_factory.mktemp("before")
    parts = '. scripts/lib.sh; . scripts/parts.sh; build plugin/rootfs-Dockerfile "$ROOTFS_IMAGE"'
    docker.script("base_image.sh")
    subprocess.run(
        ["bash", "-euc", f'{parts}; fill_plugin "$0" {OLD_VERSION}', directory],
        env=docker.engine.environ,
        cwd=REPOSITORY,
        check=True,
    )
    (source,) = directory.glob("rootfs/opt/mdvp/lib/python*/site-packages/mdvp/__init__.py")
    changed = re.sub(r'(__version__ = ").*"', rf'\g<1>{OLD_VERSION}"', source.read_text())
    source.write_text(changed)
    for bytecode in source.parent.glob("__pycache__/__init__.*"):  # of which no source is asked
        bytecode.unlink()
    leave_out_what_came_later(directory / "config.json")
    docker("plugin", "create", name, str(directory))
    docker("plugin", "set", name, "LOG_LEVEL=DEBUG")
    return name


def leave_out_what_came_later(config: Path) -> None:
    """Have a plugin ask for what it did before there were metrics and LOG_FORMAT."""
    plugin = json.loads(config.read_text())
    plugin["entrypoint"].remove("--metrics-dir=/run/mdvp/metrics")
    plugin["mounts"] = [mount for mount in plugin["mounts"] if mount["name"] == "data"]
    plugin["env"] = [setting for setting in plugin["env"] if setting["name"] != "LOG_FORMAT"]
    config.write_text(json.dumps(plugin))


@pytest.fixture(scope="module")
def released(
    docker: Docker,
    storage: Path,
    before: str,
    architecture: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Released]:
    """Release this tree and the version before, after a try that was ended, and one killed."""
    was = plugins(docker), images(docker)
    other = tmp_path_factory.mktemp("other")
    with registry(docker, storage):
        docker("plugin", "push", before)
        other_architecture(docker, other, f"{REGISTRY}/sync:{TAG}-s390x")
        there = tags(storage)
        release_cut_off(docker, "plugin push ", "TERM")
        assert (plugins(docker), tags(storage)) == (was[0], there)
        release_cut_off(docker, f"image push {REGISTRY}/sync:{TAG}", "KILL")
        assert f"mdvp:{TAG}-{architecture}" in tags(storage)
        assert not {f"sync:{TAG}-{architecture}", f"sync:{TAG}"} & tags(storage)
        assert plugins(docker) != was[0]
        given = commands("release.sh", ("registry.example/team", REGISTRY), ("0.1.0", TAG))
        printed = release(docker, *given.removeprefix("scripts/release.sh ").split()).stdout
        assert plugins(docker) == was[0]
        ours = [f"{REGISTRY}/{name}:{TAG}-{architecture}" for name in IMAGES]
        now = images(docker)
        assert {name: now.pop(name) for name in ours}
        assert now == {name: image for name, image in was[1].items() if name not in ours}
        yield Released(printed, before, architecture)
    docker("plugin", "rm", before)
    docker("image", "rm", *ours)


def other_architecture(docker: Docker, directory: Path, name: str) -> None:
    """Push an empty image that says it is for another kind of machine, s390x."""
    config = {"architecture": "s390x", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": []}]
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(directory / "image.tar", "w") as archive:
        for path in ("config.json", "manifest.json"):
            archive.add(directory / path, path)
    docker("load", "--input", str(directory / "image.tar"))
    docker("image", "push", name)
    docker("image", "rm", name)


def test_a_release_that_was_killed_is_made_good_by_the_next(
    released: Released, storage: Path
) -> None:
    printed, _, architecture = released
    each = {f"{name}:{TAG}-{architecture}" for name in ("mdvp", *IMAGES)}
    whole = {f"{name}:{TAG}" for name in IMAGES}
    older = {f"mdvp:{OLD_VERSION}-{architecture}", f"sync:{TAG}-s390x"}
    assert tags(storage) == each | whole | older
    assert f"docker plugin install --alias mdvp {REGISTRY}/mdvp:{TAG}-{architecture}\n" in printed
    assert f"the tag is {TAG}" in printed


def test_an_image_is_for_each_architecture_that_is_there(
    docker: Docker, released: Released
) -> None:
    def architectures(image: str) -> set[str]:
        inspect = ("docker", "manifest", "inspect", "--insecure", f"{REGISTRY}/{image}:{TAG}")
        manifests = json.loads(docker.engine.run("env", client(docker), *inspect).stdout)[
            "manifests"
        ]
        return {manifest["platform"]["architecture"] for manifest in manifests}

    assert architectures("redis-sync") == {released.architecture}
    assert architectures("sync") == {released.architecture, "s390x"}


def test_the_plugin_with_more_rights_is_released_by_itself(
    docker: Docker, released: Released, storage: Path
) -> None:
    had = plugins(docker), images(docker), tags(storage)
    name = f"mdvp:{TAG}-sys-admin-{released.architecture}"
    printed = release(docker, "--sys-admin", REGISTRY, TAG).stdout
    assert (plugins(docker), images(docker), tags(storage)) == (*had[:2], had[2] | {name})
    assert printed.endswith(f"\n  docker plugin install --alias mdvp {REGISTRY}/{name}\n")
    install = ("plugin", "install", "--grant-all-permissions", "--disable", "--alias=admin")
    docker(*install, f"{REGISTRY}/{name}")
    given = docker("plugin", "inspect", "--format", "{{.Config.Linux.Capabilities}}", "admin")
    docker("plugin", "rm", "admin")
    assert sorted(given.strip("[]").split()) == ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]


def test_what_a_tag_names_does_not_change(
    docker: Docker, released: Released, storage: Path
) -> None:
    image = f"{REGISTRY}/redis-sync:taken-{released.architecture}"
    whole = f"{REGISTRY}/redis-sync:whole"
    for name in (image, whole):
        docker("tag", "debian:trixie-slim", name)
        docker("image", "push", name)
    had = plugins(docker), tags(storage)
    done = release(docker, REGISTRY, "taken", check=False)
    assert done.returncode == 1
    assert f"{image} is in the registry already, with other content" in done.stderr
    done = release(docker, REGISTRY, "whole", check=False)
    assert done.returncode == 1
    assert f"{whole} is in the registry already, and is more than {whole}-ARCH" in done.stderr
    done = release(docker, REGISTRY, OLD_VERSION, check=False)
    assert done.returncode == 1
    assert f"this engine has a plugin named {released.before} already" in done.stderr
    assert (plugins(docker), tags(storage)) == had


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "it takes a registry and a tag, not 0 arguments"),
        (("--fresh", "registry.example"), "it takes a registry and a tag, not 1 arguments"),
        (("registry.example", "a/b"), "'a/b' cannot be a tag"),
        (("registry.example", "-x"), "'-x' cannot be a tag"),
        (("registry.example", ""), "'' cannot be a tag"),
        (("registry.example", "1" * 111), "cannot be a tag"),
        (("-x", "1"), "'-x' is no place in a registry"),
        (("https://registry.example", "1"), "'https://registry.example' is no place in a registry"),
        (("registry.example/a:b", "1"), "'registry.example/a:b' is no place in a registry"),
    ],
)
def test_arguments_that_cannot_be_are_answered_with_the_usage(
    arguments: tuple[str, ...], message: str
) -> None:
    script = REPOSITORY / "scripts" / "release.sh"
    done = subprocess.run([script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    usage = "usage: scripts/release.sh [--fresh] [--sys-admin] REGISTRY TAG"
    assert done.stderr.splitlines()[0] == usage
    assert message in done.stderr.splitlines()[1]


def test_a_registry_that_is_away_is_said_before_anything_is_built(docker: Docker) -> None:
    done = release(docker, "127.0.0.1:5999", TAG, check=False)
    assert done.returncode == 1
    assert "the registry does not say whether it has 127.0.0.1:5999/mdvp:" in done.stderr
    assert "connection refused" in done.stderr
    assert "built" not in done.stdout


@pytest.fixture(scope="module")
def volumes(second: Docker) -> Path:
    """Return the directory on the second machine that is /srv/volumes in docs/install.md."""
    directory = second.engine.tmp.with_name("volumes")
    directory.mkdir()
    return directory


def commands(words: str, *changes: tuple[str, str]) -> str:
    """Return the commands of that block of docs/install.md which has these words."""
    text = script(INSTALL, words)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def give(second: Docker, text: str) -> None:
    """Give commands to a shell that ends at the first that fails."""
    subprocess.run(["sh", "-ec", text], env=second.engine.environ, check=True)


def asked(second: Docker, command: str, answer: str) -> str:
    """Give a command that asks something; return what it showed up to the question's end."""
    terminal = pexpect.spawn(
        "sh", ["-c", command], env=second.engine.environ, encoding="utf-8", timeout=60
    )
    terminal.expect(re.escape("[y/N] "))
    question = str(terminal.before)
    terminal.sendline(answer)
    terminal.expect(pexpect.EOF)
    terminal.close()
    return question


@pytest.fixture(scope="module")
def older(released: Released, second: Docker, volumes: Path) -> str:
    """Return the name of the version before, that the second engine has installed as `mdvp`."""
    assert not images(second)
    assert not plugins(second)
    changes = (("REGISTRY", REGISTRY), ("TAG", OLD_VERSION), ("/srv/volumes", str(volumes)))
    install = commands("docker plugin install", *changes)
    assert " - mount: [/tmp]\r\n - capabilities: " in asked(second, install, "n")
    assert not plugins(second)
    asked(second, install, "y")
    return released.before


def serves(second: Docker) -> list[str]:
    """Return which versions of mdvp have said that they serve volumes, in the order of time."""
    return re.findall(r"mdvp ([\d.]+) serves the volumes", second.engine.log.read_text())


def test_the_plugin_is_installed_by_answering_what_the_page_says_it_asks(
    older: str, second: Docker, volumes: Path
) -> None:
    assert second("plugin", "ls", "--format", "{{.Name}} {{.Enabled}}") == "mdvp:latest true"
    assert second("plugin", "inspect", "--format", "{{.PluginReference}}", "mdvp") == older
    assert serves(second) == [OLD_VERSION]
    assert second("volume", "create", "-d", "mdvp", "vol") == "vol"
    assert (volumes / "vol").is_dir()
    assert not second.in_tmp()


@pytest.mark.usefixtures("released")
def test_the_image_is_pulled_and_says_what_it_is(second: Docker) -> None:
    give(second, commands("docker pull", ("REGISTRY", REGISTRY), ("TAG", TAG)))
    form = "{{json .Config.Labels}}"
    assert json.loads(second("inspect", "--format", form, "mdvp/sync"))
    labels = json.loads(second("inspect", "--format", form, "mdvp/redis-sync"))
    version = re.findall(r'__version__ = "(.*)"', (REPOSITORY / "mdvp/__init__.py").read_text())
    assert [labels["org.opencontainers.image.version"]] == version
    assert re.fullmatch(
        "unknown|[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"]
    )
    assert labels["org.opencontainers.image.title"] == "mdvp/redis-sync"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert second("run", "--rm", "mdvp/mdvp", "--version") == f"mdvp {version[0]}"


@pytest.mark.usefixtures("older")
def test_a_file_is_a_key_on_an_engine_that_has_built_nothing(second: Docker, volumes: Path) -> None:
    second(
        *("run", "--detach", "--volume", "vol:/foo", "--name", "mirror"),
        f"{REGISTRY}/redis-sync:{TAG}",
    )
    second.wait_healthy("mirror", 30)
    (volumes / "vol" / "key").write_text("value")
    eventually(lambda: second("exec", "mirror", "redis-cli", "get", "key"), "value")


def privileges(text: str) -> list[str]:
    return re.findall(r"^ - .*: \[.*\]$", text.replace("\r", ""), re.MULTILINE)


@pytest.mark.usefixtures("older")
def test_an_upgrade_asks_for_what_the_page_says_if_it_is_not_granted(
    second: Docker, upgrade: str
) -> None:
    was = plugins(second)
    second("plugin", "disable", "--force", "mdvp")
    (line,) = (line for line in upgrade.splitlines() if " upgrade " in line)
    question = asked(second, line.replace("--grant-all-permissions ", ""), "n")
    assert privileges(question) == privileges(INSTALL.read_text())
    second("plugin", "enable", "mdvp")
    assert plugins(second) == was


@pytest.fixture(scope="module")
def upgrade(architecture: str) -> str:
    """Return the commands of the page for an upgrade to what has been released."""
    changes = (("REGISTRY", REGISTRY), ("TAG-amd64", f"{TAG}-{architecture}"))
    return commands("docker plugin upgrade", *changes)


@pytest.mark.usefixtures("older")
def test_an_upgrade_leaves_volumes_settings_and_running_containers_as_they_are(
    second: Docker, volumes: Path, architecture: str, upgrade: str
) -> None:
    second("plugin", "disable", "--force", "mdvp")
    second("plugin", "set", "mdvp", "LOG_LEVEL=DEBUG", "GRACE=7")
    second("plugin", "enable", "mdvp")
    second("volume", "create", "-d", "mdvp", "-o", "access=shared", "-o", "mode=0750", "shared")
    (volumes / "shared" / "file").write_text("stays")
    was = second("volume", "inspect", "vol", "shared"), settings(second)

    give(second, upgrade)

    new = f"{REGISTRY}/mdvp:{TAG}-{architecture}"
    assert second("plugin", "inspect", "--format", "{{.PluginReference}}", "mdvp") == new
    assert serves(second)[-1] != OLD_VERSION
    assert (second("volume", "inspect", "vol", "shared"), settings(second)) == was
    assert (volumes / "shared" / "file").read_text() == "stays"
    sockets = "/run/docker/plugins:/run/docker/plugins"
    listed = second("run", "--rm", "--volume", sockets, "mdvp/mdvp", "ls", "--json")
    assert [each["name"] for each in json.loads(listed)] == ["shared", "vol"]
    (volumes / "vol" / "key").write_text("through")
    eventually(lambda: second("exec", "mirror", "redis-cli", "get", "key"), "through")
    assert "is in use: container" in second.refused(
        "run", "--rm", "--volume", "vol:/foo", f"{REGISTRY}/redis-sync:{TAG}"
    )
    second("restart", "mirror")
    second.wait_healthy("mirror", 30)
    eventually(lambda: second("exec", "mirror", "redis-cli", "get", "key"), "through")


def settings(second: Docker) -> str:
    """Return the settings that were given: the engine makes a mount as Config has it."""
    data = '{{range .Config.Mounts}}{{if eq .Name "data"}}{{.Source}}{{end}}{{end}}'
    return second("plugin", "inspect", "--format", "{{json .Settings.Env}} " + data, "mdvp")


@pytest.mark.usefixtures("older")
def test_what_a_new_version_brings_can_be_set_after_an_upgrade(
    second: Docker, volumes: Path
) -> None:
    metrics = volumes.with_name("metrics")
    metrics.mkdir()
    second("plugin", "disable", "--force", "mdvp")
    second("plugin", "set", "mdvp", f"metrics.source={metrics}", "LOG_FORMAT=json")
    second("plugin", "enable", "mdvp")
    eventually((metrics / "mdvp.prom").exists, expected=True)
    eventually(lambda: r"\"event\":" in second.engine.log.read_text(), expected=True)


@pytest.mark.usefixtures("older")
def test_what_is_removed_leaves_the_volumes_directories(second: Docker, volumes: Path) -> None:
    give(second, commands("docker plugin rm"))
    assert not plugins(second)
    assert (volumes / "vol" / "key").read_text()
    assert (volumes / ".mdvp").is_dir()
