"""The walk-through of docs/first-steps.md, step by step. Each test stands on those before it.

The engine's machine has a `/tmp` of its own, which is the host's `/tmp` as far as the engine goes.
"""

import json
from itertools import takewhile
from pathlib import Path

import pytest
from e2e.conftest import Docker
from support import eventually, running

CONTAINER = "test-redis1"
NIL = "(nil)"
SECOND = 1.0


class Redis:
    """`redis-cli` in the container, as someone with a shell there has it."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker

    def get(self, key: str) -> str:
        """Return the value that `redis-cli get` prints; `(nil)`, as on a terminal, for none."""
        command = f"redis-cli exists {key}; redis-cli get {key}"
        exists, value = self._docker("exec", CONTAINER, "sh", "-c", command).split("\n", 1)
        return value if exists == "1" else NIL

    def becomes(self, key: str, value: str) -> None:
        eventually(lambda: self.get(key), value, SECOND)


@pytest.fixture(scope="module")
def redis(docker: Docker) -> Redis:
    return Redis(docker)


@pytest.fixture(scope="module")
def tmp(docker: Docker) -> Path:
    """Return the host's /tmp, as the engine has it."""
    return docker.engine.tmp


def test_the_plugin_and_the_image_are_built_and_the_plugin_is_enabled(docker: Docker) -> None:
    docker.script("build_plugin.sh")
    docker("plugin", "enable", "mdvp")
    docker.script("build_image.sh")
    assert docker("plugin", "ls", "--format", "{{.Name}} {{.Enabled}}") == "mdvp:latest true"


def test_a_container_with_the_volume_is_healthy_within_10_seconds(docker: Docker) -> None:
    assert docker("volume", "create", "-d", "mdvp", "redis-vol") == "redis-vol"
    docker(
        *("run", "--detach", "--volume", "redis-vol:/foo", "--volume-driver=mdvp"),
        *("--name", CONTAINER, "mdvp/redis-sync"),
    )
    docker.wait_healthy(CONTAINER, 10)


def test_there_is_no_key_before_there_is_a_file(redis: Redis) -> None:
    assert redis.get("key1") == NIL


def test_files_made_in_the_container_and_on_the_host_are_keys_within_a_second(
    docker: Docker, redis: Redis, tmp: Path
) -> None:
    docker.inside(CONTAINER, "cd /foo && echo value1 > key1")
    redis.becomes("key1", "value1\n")
    (tmp / "redis-vol" / "key2").write_text("value2\n")
    redis.becomes("key2", "value2\n")
    assert docker.inside(CONTAINER, "ls /foo") == "key1\nkey2"
    assert docker.inside(CONTAINER, "cat /foo/key1") == "value1"
    assert (tmp / "redis-vol" / "key1").read_text() == "value1\n"


def test_a_removed_file_is_no_key(docker: Docker, redis: Redis) -> None:
    docker.inside(CONTAINER, "rm /foo/key1")
    redis.becomes("key1", NIL)


def test_a_renamed_file_is_a_renamed_key(docker: Docker, redis: Redis) -> None:
    command = ["docker", "exec", CONTAINER, "redis-cli", "monitor"]
    with running(command, docker.engine.environ) as monitor:
        assert monitor.stdout is not None
        assert monitor.stdout.readline() == "OK\n"
        docker.inside(CONTAINER, "mv /foo/key2 /foo/new_key")
        redis.becomes("new_key", "value2\n")
        docker.inside(CONTAINER, "redis-cli echo the-end")
        seen = "".join(takewhile(lambda line: "the-end" not in line, monitor.stdout))
    assert '"RENAME" "key2" "new_key"' in seen
    assert redis.get("key2") == NIL


def test_a_rewritten_file_is_a_changed_key(docker: Docker, redis: Redis) -> None:
    docker.inside(CONTAINER, "echo hi > /foo/new_key")
    redis.becomes("new_key", "hi\n")


@pytest.mark.parametrize("where", ["docker logs", "supervisord.log"])
def test_a_directory_is_an_error_in_the_log_and_the_service_goes_on(
    docker: Docker, redis: Redis, where: str
) -> None:
    name = f"X-{where.replace(' ', '-')}"

    def log() -> str:
        if where == "docker logs":
            return docker("logs", CONTAINER)
        return docker.inside(CONTAINER, "cat /var/log/supervisor/supervisord.log")

    docker.inside(CONTAINER, f"mkdir /foo/{name}")
    eventually(lambda: f"ERROR sync: {name} is a directory: not mirrored" in log(), True)
    docker.inside(CONTAINER, "echo on > /foo/afterwards")
    redis.becomes("afterwards", "on\n")
    docker.inside(CONTAINER, f"rmdir /foo/{name}; rm /foo/afterwards")


def test_a_second_container_is_refused_with_the_reason(docker: Docker) -> None:
    error = docker.refused("run", "--rm", "-v", "redis-vol:/foo", "mdvp/redis-sync", "true")
    holder = docker("inspect", "--format", "{{.Id}}", CONTAINER)
    assert f"volume 'redis-vol' is in use: container {holder[:12]} has had it since" in error
    assert "one container at a time may have a volume" in error


def test_inspect_shows_where_the_volume_is_and_that_it_is_mounted(docker: Docker) -> None:
    (volume,) = json.loads(docker("volume", "inspect", "redis-vol"))
    assert volume["Mountpoint"] == "/tmp/redis-vol"  # noqa: S108
    assert volume["CreatedAt"].endswith("Z")
    assert volume["Status"]["mounted"] is True
    assert volume["Status"]["mounted_by"] == [docker("inspect", "--format", "{{.Id}}", CONTAINER)]


def test_files_and_keys_are_as_before_when_the_engine_was_stopped_and_started(
    docker: Docker, redis: Redis, tmp: Path
) -> None:
    docker.engine.stop()
    docker.engine.start()
    docker("start", CONTAINER)
    docker.wait_healthy(CONTAINER)
    assert docker.inside(CONTAINER, "ls /foo") == "new_key"
    assert (tmp / "redis-vol" / "new_key").read_text() == "hi\n"
    assert redis.get("new_key") == "hi\n"


def test_at_the_end_nothing_is_left(docker: Docker, tmp: Path) -> None:
    docker("stop", CONTAINER)
    docker("rm", CONTAINER)
    docker("volume", "rm", "redis-vol")
    assert not (tmp / "redis-vol").exists()
    assert docker("volume", "ls", "--quiet") == ""
