"""The quickstart on an engine that answers: from nothing to a key, again, and all of it away.

Its commands are those that README.md and docs/first-steps.md show.
"""

import os
import re
import shutil

from e2e.conftest import Docker


def quickstart(docker: Docker, *arguments: str) -> str:
    # A record of its own: /var/lib is the host's on the engine's machine, /run is not.
    environ = ("env", "MDVP_QUICKSTART_STATE=/run/record")
    return docker.engine.run(*environ, "scripts/quickstart.sh", *arguments).stdout


def things(docker: Docker) -> list[str]:
    """Return all that an engine can have of ours, by name or id."""
    commands = [
        ("ps", "--all", "--quiet"),
        ("volume", "ls", "--quiet"),
        ("plugin", "ls", "--quiet"),
        ("image", "ls", "--quiet", "--no-trunc"),
    ]
    return [thing for command in commands for thing in docker(*command).split()]


def test_a_file_is_a_key_after_one_command_and_nothing_is_left_after_clean(docker: Docker) -> None:
    docker.script("base_image.sh")
    for image in ("mdvp/redis-sync", "mdvp/mdvp"):  # of other tests, perhaps
        docker.engine.docker("image", "rm", "--force", image, check=False)
    before = things(docker)
    others = docker.engine.tmp / ".mdvp"  # somebody else's, so the plugin takes another name
    shutil.rmtree(others, ignore_errors=True)
    others.mkdir()
    os.chown(others, 65534, 65534)

    first = quickstart(docker)
    value = (docker.engine.tmp / "redis-vol" / "hello").read_text()
    assert value.strip() in first
    assert re.findall(r"^== (\d)/7 .+ \d+\.\d s$", first, re.MULTILINE) == list("1234567")
    assert docker("exec", "test-redis1", "redis-cli", "get", "hello") == value

    docker("pause", "test-redis1")
    second = quickstart(docker)
    assert "unpausing the container test-redis1, which was there already ... healthy" in second
    assert "the image mdvp/redis-sync ... there already" in second
    docker.wait_healthy("test-redis1")

    in_trash = ("create", "--driver", "mdvp", "--opt", "on-remove=trash", "precious")
    docker("volume", *in_trash)
    docker("volume", "rm", "precious")
    kept = docker.engine.run(
        *("env", "MDVP_QUICKSTART_STATE=/run/record", "scripts/quickstart.sh", "--clean"),
        check=False,
    )
    assert kept.returncode != 0
    assert "kept    the plugin mdvp: what was removed as precious is in its trash" in kept.stdout
    restored = ("--opt", "restore=precious", "--opt", "on-remove=delete", "precious")
    docker("volume", "create", "--driver", "mdvp", *restored)
    docker("volume", "rm", "precious")

    quickstart(docker, "--clean")
    assert things(docker) == before
    assert docker.in_tmp() == [".mdvp"]
    others.rmdir()
    assert "nothing to remove" in quickstart(docker, "--clean")


# $PID is that of the run; what it has started goes on for a while, and holds its lock.
_KILL_WHILE_IT_BUILDS = """
export MDVP_QUICKSTART_STATE=/run/record
scripts/quickstart.sh >/run/output & PID=$!
until grep -q '^== 3/7 building' /run/output; do sleep 0.1; done
kill -KILL $PID
until scripts/quickstart.sh --clean; do sleep 0.5; done
"""


def test_a_run_that_was_killed_is_cleaned(docker: Docker) -> None:
    docker.script("base_image.sh")
    before = things(docker)
    docker.engine.run("sh", "-c", _KILL_WHILE_IT_BUILDS)
    assert things(docker) == before
    assert docker.in_tmp() == []


# What a run has noted that was killed before it made them; the base image has another id since.
_NOTES = """
cat >>/run/record/made <<END
remove image debian:trixie-slim
remove image mdvp/redis-sync
remove volume redis-vol
END
echo sha256:0 >/run/record/image-id
"""


def test_what_others_made_of_our_names_stays(docker: Docker) -> None:
    docker.script("base_image.sh")
    docker("tag", "debian:trixie-slim", "mdvp/redis-sync")
    docker("volume", "create", "--label", "mdvp.quickstart=image", "redis-vol")
    before = things(docker)
    done = docker.engine.run(
        *("env", "MDVP_QUICKSTART_STATE=/run/record", "scripts/quickstart.sh"), check=False
    )
    assert "there is a volume redis-vol of the driver local" in done.stderr
    docker.engine.run("sh", "-c", _NOTES)
    quickstart(docker, "--clean")
    assert things(docker) == before
    assert "nothing to remove" in quickstart(docker, "--clean")
    docker("volume", "rm", "redis-vol")
    docker("image", "rm", "mdvp/redis-sync")


def test_an_unknown_argument_is_answered_with_the_usage(docker: Docker) -> None:
    done = docker.engine.run("scripts/quickstart.sh", "--frob", check=False)
    assert done.returncode != 0
    assert "usage: scripts/quickstart.sh [--clean]" in done.stderr


def test_an_engine_elsewhere_is_refused_in_one_line(docker: Docker) -> None:
    done = docker.engine.run(
        *("env", "DOCKER_HOST=tcp://192.0.2.1:2375", "scripts/quickstart.sh"), check=False
    )
    assert done.returncode != 0
    assert "the volume must be on this machine" in done.stderr
    assert len(done.stderr.splitlines()) == 1
