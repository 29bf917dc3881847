"""Both images where containers may do little, and the image without a server; see docs/image.md."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from e2e.conftest import Docker
from support import eventually
from terminal import Terminal

PASSWORD = 'it\'s "secret" '  # noqa: S105  # what a shell could lose of it
TMPFS = ("--read-only", "--tmpfs=/run", "--tmpfs=/tmp")
USER = "--user=1234:2345"
NONE = "--cap-drop=ALL"
ALL = (*TMPFS, USER, NONE, "--security-opt=no-new-privileges")
RESTRICTIONS = {
    "read-only": TMPFS,
    "user": (USER,),
    "no-capabilities": (NONE,),
    "all": ALL,  # Kubernetes' "restricted"
}
IMAGES = ["mdvp/redis-sync", "mdvp/sync"]


class Place(NamedTuple):
    """What the containers of this module share.

    root    their directory, as we see it
    secret  the file with the password
    """

    docker: Docker
    root: Path
    secret: Path

    def run(self, name: str, image: str, *options: str) -> str:
        """Start a container of an image, with what it needs; return its name."""
        if image == "mdvp/sync":
            options += ("--link=elsewhere", f"--env=SYNC_PREFIX={name}:")
            options += ("--env=REDIS_URL=redis://elsewhere", *self.password())
        self.docker(
            "run", "--detach", f"--name={name}", "--volume=restricted:/foo:ro", *options, image
        )
        return name

    def password(self) -> tuple[str, str]:
        """Return the options by which a container has it as a secret of Docker's or compose's."""
        at = "/run/secrets/redis_password"
        return f"--volume={self.secret}:{at}:ro", f"--env=REDIS_PASSWORD_FILE={at}"

    def get(self, name: str, key: str) -> str:
        """Return the value of a key that a container has brought."""
        of_its_own = self.docker("inspect", "--format={{.Config.Image}}", name) == "mdvp/redis-sync"
        box, key = (name, key) if of_its_own else ("elsewhere", f"{name}:{key}")
        return self.docker("exec", box, "redis-cli", "get", key)


@pytest.fixture(scope="module")
def place(docker: Docker) -> Iterator[Place]:
    docker.script("build_image.sh")
    docker("volume", "create", "restricted")
    root = Path(docker("volume", "inspect", "--format={{.Mountpoint}}", "restricted"))
    (root / "open").write_text("value")
    (root / "closed").write_text("value")
    (root / "closed").chmod(0o400)
    os.chown(root / "closed", 99, 99)
    secret = docker.engine.tmp.with_name("password")
    secret.write_text(f"{PASSWORD}\n")
    place = Place(docker, root, secret)
    names = ["elsewhere"]
    try:
        # Without a prefix its own service would have all keys, and the others wait.
        own = ("--env=SYNC_PREFIX=own:", *place.password())
        docker("run", "--detach", "--name=elsewhere", *own, "mdvp/redis-sync")
        for image in IMAGES:
            for restriction, options in RESTRICTIONS.items():
                names.append(place.run(named(image, restriction), image, *options))
        yield place
    finally:
        docker("rm", "--force", "--volumes", *names)
        docker("volume", "rm", "restricted")


def named(image: str, restriction: str) -> str:
    return f"{image.removeprefix('mdvp/')}-{restriction}"


def logs(docker: Docker, name: str) -> str:
    return docker.output("logs", name)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_what_can_be_read_is_mirrored_and_what_cannot_is_listed(
    place: Place, image: str, restriction: str
) -> None:
    docker, name = place.docker, named(image, restriction)
    docker.wait_healthy(name, 60)
    (place.root / name).write_text("new")
    eventually(lambda: place.get(name, name), "new")
    assert place.get(name, "open") == "value"
    uid, capabilities = (0, 2) if restriction == "read-only" else (0, 0)
    if "user" in restriction or restriction == "all":
        uid = 1234
    status = docker("exec", name, "mdvp-sync", "status")
    if capabilities:
        assert place.get(name, "closed") == "value"
        assert "entrypoint: " not in logs(docker, name)
    else:
        assert f"closed cannot be read (Permission denied for user {uid}): its key stays" in status
        assert place.get(name, "closed") == ""
        way_out = "add --group-add GROUP" if uid else "for all files add --cap-add DAC_OVERRIDE"
        assert way_out in logs(docker, name)
    services = docker("top", name, "-eo", "pid,args").splitlines()
    (pid,) = [line.split()[0] for line in services if "/mdvp-sync run" in line]
    rights = Path(f"/proc/{docker.engine.pid}/root/proc/{pid}/status").read_text()
    assert re.findall(r"^Uid:\t(\d+)|^CapEff:\t(\w+)|^NoNewPrivs:\t(\d)", rights, re.MULTILINE) == [
        (str(uid), "", ""),
        ("", f"{capabilities:016x}", ""),
        ("", "", "1"),
    ]


@pytest.mark.parametrize("image", IMAGES)
def test_with_what_the_log_says_to_add_all_is_mirrored(place: Place, image: str) -> None:
    docker, name = place.docker, named(image, "no-capabilities")
    docker.wait_healthy(name, 60)
    added = re.findall(r"--cap-add \w+", logs(docker, name))
    assert added
    options = [word for each in added for word in each.split()]
    box = place.run("added", image, NONE, *options)
    try:
        docker.wait_healthy(box, 60)
        assert place.get(box, "closed") == "value"
        if image == "mdvp/redis-sync":
            processes = docker("top", box, "-eo", "pid,user:20,args")
            server = next(line for line in processes.splitlines() if "redis-server" in line)
            assert server.split()[1] != "root"
        assert "entrypoint: " not in logs(docker, box)
    finally:
        docker("rm", "--force", "--volumes", box)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("options", [("--read-only",), ("--read-only", USER)])
def test_without_a_place_for_its_files_it_says_what_to_add(
    place: Place, image: str, options: tuple[str, ...]
) -> None:
    said = place.docker.refused(
        *("run", "--rm", "--env=REDIS_URL=redis://elsewhere", *options, image)
    )
    assert "add --tmpfs /run (in Kubernetes an emptyDir at /run)" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("image", IMAGES)
def test_every_line_of_the_log_is_json_on_request(place: Place, image: str) -> None:
    docker = place.docker
    box = place.run("json", image, *ALL, "--env=LOG_FORMAT=json")
    try:
        docker.wait_healthy(box, 60)
        lines = [json.loads(line) for line in logs(docker, box).splitlines()]
        assert {"entrypoint", "started", "reconciled"} <= {line["event"] for line in lines}
    finally:
        docker("rm", "--force", "--volumes", box)
    options = ("--rm", "--env=LOG_FORMAT=json", "--env=REDIS_URL=redis://elsewhere", "--read-only")
    said = json.loads(docker.refused("run", *options, image))
    assert (said["level"], said["event"]) == ("ERROR", "entrypoint")
    assert "add --tmpfs /run" in said["message"]


def test_with_all_restrictions_keys_become_files_of_its_user_and_a_command_is_told(
    place: Place,
) -> None:
    docker = place.docker
    docker("volume", "create", "of-a-user")
    root = Path(docker("volume", "inspect", "--format={{.Mountpoint}}", "of-a-user"))
    os.chown(root, 1234, 2345)
    options = ("--volume=of-a-user:/foo", "--env=SYNC_MODE=two-way-safe", *ALL)
    told = "--env=SYNC_ON_CHANGE=xargs -0 -n 1 echo told >>/tmp/told"
    try:
        docker("run", "--detach", "--name=writes", told, *options, "mdvp/redis-sync")
        docker.wait_healthy("writes", 60)
        docker.inside("writes", "redis-cli set key value")
        eventually((root / "key").exists, True)
        assert (root / "key").stat().st_uid == 1234
        eventually(lambda: docker.inside("writes", "cat /tmp/told || true"), "told key")
        docker.inside("writes", "echo >/foo/new && mdvp-sync wait new")
        assert docker.inside("writes", "redis-cli exists new") == "1"
        docker("kill", "writes")  # and what that leaves is in nobody's way
        docker("start", "writes")
        docker.wait_healthy("writes", 60)
    finally:
        docker("rm", "--force", "--volumes", "writes")
        docker("volume", "rm", "of-a-user")


def test_a_password_in_a_file_is_the_servers(place: Place) -> None:
    docker = place.docker
    docker.wait_healthy("elsewhere", 60)

    def asked(*options: str) -> str:
        command = ("redis-cli", "-h", "elsewhere", "ping")
        return docker("run", "--rm", "--link=elsewhere", *options, "mdvp/redis-sync", *command)

    assert "NOAUTH" in asked()
    assert asked(*place.password()) == "PONG"
    assert asked(f"--env=REDIS_PASSWORD={PASSWORD}") == "PONG"
    assert "secret" not in logs(docker, "elsewhere")
    assert '"secret' not in docker("inspect", "elsewhere").replace("\\", "")


def test_a_password_that_cannot_be_had_is_named(place: Place) -> None:
    run = ("run", "--rm", *place.password())
    both = place.docker.refused(*run, "--env=REDIS_PASSWORD=x", "mdvp/redis-sync")
    assert "REDIS_PASSWORD and REDIS_PASSWORD_FILE are both set: leave one of the two out" in both
    none = place.docker.refused(*run, "--env=REDIS_PASSWORD_FILE=/none", "mdvp/redis-sync")
    assert "REDIS_PASSWORD_FILE cannot be read by user 0: /none" in none


@pytest.mark.parametrize("image", IMAGES)
def test_the_live_view_is_there_on_the_terminal_of_docker_exec(place: Place, image: str) -> None:
    docker, name = place.docker, named(image, "all")
    docker.wait_healthy(name, 60)
    command = ("docker", "exec", "--interactive", "--tty", name, "mdvp-sync", "top")
    with Terminal(command, docker.engine.environ, columns=100, rows=30) as terminal:
        terminal.until_shows("live: Redis equals the directory", "/foo -> ", "master", "─" * 100)
        (place.root / f"漢-{name}").write_text("seen")
        terminal.until_shows("SET  4 B  ", f"漢-{name}")
        terminal.resize(columns=60, rows=20)
        terminal.until_shows("\n" + "─" * 60 + "\n")
        terminal.press("q")
        assert terminal.is_as_before_at_the_end(0)
    assert "live: Redis" in docker("exec", name, "mdvp-sync", "top", "--once")


def test_the_image_without_a_server_asks_where_redis_is(place: Place) -> None:
    said = place.docker.refused("run", "--rm", "mdvp/sync")
    assert "REDIS_URL is not set: say where Redis is, as with -e REDIS_URL=redis://HOST" in said
    assert len(said.splitlines()) == 1
    assert "usage: mdvp-sync" in place.docker("run", "--rm", "mdvp/sync", "--help")


def test_the_image_without_a_server_is_small_and_names_what_is_in_it(place: Place) -> None:
    docker = place.docker
    assert int(docker("image", "inspect", "--format={{.Size}}", "mdvp/sync")) < 90_000_000
    unwanted = "/usr/bin/redis-server /usr/bin/supervisord /usr/bin/apt /usr/bin/perl"
    name = named("mdvp/sync", "read-only")
    assert docker.inside(name, f"ls {unwanted} 2>/dev/null || true") == ""
    packages = docker.inside(name, "sed -n 's/^Package: //p' /var/lib/dpkg/status").split()
    assert {"busybox", "libc6", "libssl3t64", "python3.13-minimal"} <= set(packages)
    licences = " ".join(f"/usr/share/doc/{package}/copyright" for package in packages)
    assert docker.inside(name, f"cat {licences} >/dev/null && echo all") == "all"


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_is_left_of_what_a_command_has_started(place: Place, image: str) -> None:
    docker, name = place.docker, named(image, "user")
    docker.inside(name, "sleep 0.1 &")  # which is a child of the container's first process by then

    left = "grep -lE '^(Name:.sleep|State:.Z)' /proc/[0-9]*/status 2>/dev/null || true"
    eventually(lambda: docker.inside(name, left), "")


def test_the_image_without_a_server_runs_commands_beside_the_service(place: Place) -> None:
    name = named("mdvp/sync", "user")
    place.docker.wait_healthy(name, 60)
    beside = ["run", "--rm", "--volume=restricted:/foo", "--link=elsewhere", *place.password()]
    beside += ["--env=REDIS_URL=redis://elsewhere", f"--env=SYNC_PREFIX={name}:"]
    (place.root / "waited").write_text("for")
    place.docker(*beside, "mdvp/sync", "wait", "waited")
    assert place.get(name, "waited") == "for"
    assert "equals /foo/open: 1 file" in place.docker(*beside, "mdvp/sync", "verify", "open")
    as_user = (*beside, USER, "mdvp/sync", "verify", "closed")
    done = place.docker.engine.docker(*as_user, check=False)
    assert done.returncode == 2
    assert "closed cannot be read (Permission denied for user 1234)" in done.stdout
    no_volume = (*(word for word in beside if "restricted" not in word), "mdvp/sync", "verify")
    assert "cannot open the directory /foo" in place.docker.refused(*no_volume)


def test_the_image_without_a_server_is_unhealthy_while_redis_is_away(place: Place) -> None:
    name = named("mdvp/sync", "all")
    place.docker.wait_healthy(name, 60)

    def is_well() -> bool:
        check = ("exec", name, "mdvp-sync", "status")
        return place.docker.engine.docker(*check, check=False).returncode == 0

    place.docker("pause", "elsewhere")
    try:
        eventually(is_well, False, 20)
    finally:
        place.docker("unpause", "elsewhere")
    eventually(is_well, True, 30)
    began = time.monotonic()
    place.docker("stop", name)
    assert time.monotonic() - began < 3
    assert place.docker("inspect", "--format={{.State.ExitCode}}", name) == "0"
