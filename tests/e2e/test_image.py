"""The image mdvp/redis-sync on a real engine: supervision, health, logs, who reaches Redis."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from e2e.conftest import Docker
from support import eventually

SYNC_PID = "supervisorctl -c /etc/mdvp/supervisord.conf pid mirror:sync"
REDIS_PID = "supervisorctl -c /etc/mdvp/supervisord.conf pid mirror:redis"


_NUMBERS = count()


@contextmanager
def container(docker: Docker, image: str, *options: str) -> Iterator[str]:
    """Run a container of the image for the time of the block; yield its name once it is healthy."""
    name = f"redis-sync-{next(_NUMBERS)}"
    docker("run", "--detach", "--name", name, *options, image)
    try:
        docker.wait_healthy(name)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


@pytest.fixture(scope="module")
def box(docker: Docker, image: str) -> Iterator[str]:
    with container(docker, image) as name:
        yield name


@pytest.mark.parametrize("pid", [REDIS_PID, SYNC_PID], ids=["redis", "sync"])
def test_a_process_that_is_killed_comes_back_and_every_key_with_it(
    docker: Docker, box: str, pid: str
) -> None:
    docker.inside(box, "echo before > /foo/one")
    eventually(lambda: docker.inside(box, "redis-cli get one"), "before\n")
    old = docker.inside(box, pid)
    docker.inside(box, f"kill -9 {old}; echo after > /foo/two")
    eventually(lambda: docker.inside(box, f"{pid}") not in ("0", old), True)
    eventually(lambda: docker.inside(box, "redis-cli mget one two || true"), "before\n\nafter\n")
    docker.wait_healthy(box)


@pytest.mark.parametrize("pid", [REDIS_PID, SYNC_PID], ids=["redis", "sync"])
def test_the_health_check_is_red_while_a_process_hangs(docker: Docker, box: str, pid: str) -> None:
    number = docker.inside(box, pid)
    docker.inside(box, f"kill -STOP {number}")
    eventually(lambda: docker.health(box), "unhealthy", 40)
    docker.inside(box, f"kill -CONT {number}")
    docker.wait_healthy(box, 20)


def test_the_health_check_says_what_the_service_does(docker: Docker, box: str) -> None:
    docker.wait_healthy(box, 20)
    outputs = "{{range .State.Health.Log}}{{.Output}}{{end}}"
    assert "live: Redis equals the directory\nmode " in docker("inspect", "-f", outputs, box)


def test_the_comparison_runs_in_the_container(docker: Docker, image: str) -> None:
    with container(docker, image, "--env", "SYNC_GUARD=0") as box:  # which would mend it at once
        docker.inside(box, "echo value > /foo/compared; touch /foo/left-out~")
        eventually(lambda: docker.inside(box, "redis-cli get compared"), "value\n")
        assert "equals /foo" in docker.inside(box, "mdvp-sync verify")
        # As long as the file is: a rescan looks at lengths, and would mend it.
        docker.inside(box, "redis-cli set compared other.")
        differs = docker.inside(box, "mdvp-sync verify || [ $? -eq 1 ]")
        assert "compared differs from byte 1 on" in differs
        assert "1 mended" in docker.inside(box, "mdvp-sync verify --repair")
        assert docker.inside(box, "redis-cli get compared") == "value\n"


def test_what_others_do_to_a_files_key_is_undone(docker: Docker, box: str) -> None:
    docker.inside(box, "echo value > /foo/guarded")
    eventually(lambda: docker.inside(box, "redis-cli get guarded"), "value\n")
    docker.inside(box, "redis-cli set guarded other.")
    eventually(lambda: docker.inside(box, "redis-cli get guarded"), "value\n")


def test_keys_become_files_with_the_rights_of_their_directory(docker: Docker, image: str) -> None:
    with container(docker, image, "--env", "SYNC_MODE=two-way-safe") as box:
        docker.inside(box, "chown 1234:2345 /foo; redis-cli set key value")
        eventually(lambda: docker.inside(box, "cat /foo/key || true"), "value")
        assert docker.inside(box, "stat -c '%u %g %a' /foo/key") == "1234 2345 644"
        docker.inside(box, "chmod 600 /foo/key; redis-cli set key other")
        eventually(lambda: docker.inside(box, "cat /foo/key"), "other")
        assert docker.inside(box, "stat -c '%u %g %a' /foo/key") == "1234 2345 600"
        # CHOWN, DAC_OVERRIDE and FOWNER: capabilities(7).
        assert f"{0b1011:016x}" in docker.inside(box, f"grep CapEff /proc/$({SYNC_PID})/status")
        docker("restart", box)  # Redis keeps nothing; the directory does
        docker.wait_healthy(box)
        assert docker.inside(box, "redis-cli get key") == "other"


def test_docker_stop_takes_less_than_3_seconds(docker: Docker, image: str) -> None:
    with container(docker, image) as box:
        began = time.monotonic()
        docker("stop", box)
        assert time.monotonic() - began < 3
        assert docker("inspect", "--format", "{{.State.ExitCode}}", box) == "0"
        assert "sync: stopped" in docker("logs", box)


def test_the_log_of_the_service_is_in_the_file_that_operators_follow(
    docker: Docker, box: str
) -> None:
    docker.inside(box, "echo value > /foo/key")
    line = "INFO sync: SET key (6 B, "

    def logs() -> tuple[bool, bool]:
        file = docker.inside(box, "cat /var/log/supervisor/supervisord.log")
        return line in docker("logs", box), line in file

    eventually(logs, (True, True))


def test_the_processes_have_no_more_rights_than_they_use(docker: Docker, box: str) -> None:
    def rights(pid: str) -> list[str]:
        fields = "^(Uid|CapEff|NoNewPrivs):"
        return docker.inside(box, f"grep -E '{fields}' /proc/$({pid})/status").split()

    # DAC_OVERRIDE alone, bit 1: capabilities(7).
    assert rights(SYNC_PID) == [
        "Uid:",
        "0",
        "0",
        "0",
        "0",
        "CapEff:",
        f"{2:016x}",
        "NoNewPrivs:",
        "1",
    ]
    uid, effective = rights(REDIS_PID)[1], rights(REDIS_PID)[6]
    assert uid != "0"
    assert int(effective, 16) == 0


def test_the_image_has_nothing_to_build_or_install_with(docker: Docker, box: str) -> None:
    packages = "/opt/mdvp/lib/python3*/site-packages"
    unwanted = f"/usr/bin/*gcc* /var/lib/apt/lists/* {packages}/pip {packages}/falcon"
    assert docker.inside(box, f"ls -d {unwanted} 2>/dev/null || true") == ""
    assert docker.inside(box, f"ls -d {packages}/redis") != ""


def reach(docker: Docker, name: str, *options: str) -> str:
    """Ask the Redis of container `name` for a key, from another container."""
    address = docker(
        "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name
    )
    command = ("redis-cli", "-h", address, *options, "get", "key")
    done = docker.engine.docker(
        "run", "--rm", "--entrypoint", "", "mdvp/redis-sync", *command, check=False
    )
    return done.stdout + done.stderr


def test_without_a_password_no_other_container_reaches_redis(docker: Docker, box: str) -> None:
    docker.inside(box, "echo value > /foo/key")
    eventually(lambda: docker.inside(box, "redis-cli get key"), "value\n")
    assert "Connection refused" in reach(docker, box)


@pytest.mark.parametrize("password", ["secret", 'it\'s "quoted" $HOME \\ é\n!'])
def test_with_a_password_other_containers_reach_redis_that_know_it(
    docker: Docker, image: str, password: str
) -> None:
    with container(docker, image, "--env", f"REDIS_PASSWORD={password}") as box:
        docker.inside(box, "echo value > /foo/key")
        eventually(lambda: docker.inside(box, "redis-cli get key"), "value\n")
        assert "NOAUTH" in reach(docker, box)
        assert "WRONGPASS" in reach(docker, box, "--no-auth-warning", "-a", "wrong")
        assert reach(docker, box, "--no-auth-warning", "-a", password) == "value\n\n"
        assert password not in docker("logs", box)


def test_a_final_newline_can_be_dropped(docker: Docker, image: str) -> None:
    with container(docker, image, "--env", "SYNC_TRIM_NEWLINE=1") as box:
        docker.inside(box, "echo value1 > /foo/key1")
        eventually(lambda: docker.inside(box, "redis-cli get key1"), "value1")


def test_a_bad_setting_is_named_in_the_log(docker: Docker, image: str) -> None:
    docker("run", "--detach", "--name", "bad", "--env", "SYNC_TRIM_NEWLINE=yes", image)
    try:
        eventually(lambda: "SYNC_TRIM_NEWLINE is 'yes'" in docker.output("logs", "bad"), True)
    finally:
        docker("rm", "--force", "bad")


def test_keys_and_files_survive_a_restart_of_the_container(docker: Docker, image: str) -> None:
    with container(docker, image) as box:
        docker.inside(box, "echo value > /foo/key")
        docker("restart", box)
        docker.wait_healthy(box)
        assert docker.inside(box, "redis-cli get key") == "value\n"


def test_every_line_of_the_log_is_json_on_request(docker: Docker, image: str) -> None:
    options = ("--env", "LOG_FORMAT=json", "--env", "LOG_LEVEL=DEBUG")
    with container(docker, image, *options) as box:
        docker.inside(box, "echo value > /foo/one; mv /foo/one '/foo/a \"b\"'")
        docker.inside(box, f"kill -9 $({REDIS_PID})")
        eventually(lambda: docker.inside(box, "redis-cli get 'a \"b\"' || true"), "value\n")
        docker.wait_healthy(box)
        docker("stop", box)
        lines = [json.loads(line) for line in docker.output("logs", box).splitlines()]
        docker("start", box)
        file = docker.inside(box, "cat /var/log/supervisor/supervisord.log")
    events = {line["event"] for line in lines}
    assert {"started", "reconciled", "waiting", "supervisord", "stopped"} <= events
    assert any("exited: redis" in line["message"] for line in lines)
    assert 'a "b"' in {name for line in lines for name in (line.get("key"), line.get("new_key"))}
    written = [json.loads(line) for line in file.splitlines()]
    assert [line for line in written if line in lines] == lines


def test_so_it_is_where_the_container_is_restricted(docker: Docker, image: str) -> None:
    options = ("--read-only", "--tmpfs=/run", "--tmpfs=/foo", "--cap-drop=ALL")
    with container(docker, image, *options, "--env=LOG_FORMAT=json") as box:
        docker.inside(box, f"kill -9 $({REDIS_PID})")
        eventually(lambda: "exited: redis" in docker.output("logs", box), True)
        lines = [json.loads(line) for line in docker.output("logs", box).splitlines()]
        assert "Ready to accept connections" in docker.inside(box, "cat /run/redis/redis.log")
    said = [line for line in lines if line["event"] == "entrypoint"]
    assert {line["level"] for line in said} == {"WARNING"}
    assert any("--cap-add" in line["message"] for line in said)


def test_so_it_is_where_the_entrypoint_ends(docker: Docker, image: str) -> None:
    options = ("--env", "LOG_FORMAT=json", "--env", "REDIS_PASSWORD_FILE=/no \"such\"\n'file'")
    refused = docker.refused("run", "--rm", *options, image).splitlines()
    said = [json.loads(line) for line in refused if line.startswith("{")]
    assert [line["level"] for line in said] == ["ERROR"]
    assert "cannot be read by user 0: /no \"such\"\n'file'" in said[0]["message"]
