"""Every command of the docs does what the page says, or is marked as one that is not run, and why.

Each page has the machine as the page First steps leaves it: the plugin is enabled, the images are
built, and `test-redis1` has the volume `redis-vol`.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.conftest import REPOSITORY, Docker
from e2e.pages import Block, Prompt, Step, blocks, is_as_shown, only_looks

# But for the examples, which have tests of their own.
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PATIENCE = 20.0  # seconds for what takes a moment: a container's health, a key
CONTAINER = "test-redis1"


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.reason is None]


@pytest.fixture(scope="module")
def machine(docker: Docker) -> Docker:
    docker.script("build_plugin.sh", "--enable")
    docker.script("build_image.sh")
    return docker


@pytest.fixture
def as_after_first_steps(machine: Docker) -> Iterator[Docker]:
    machine("volume", "create", "-d", "mdvp", "redis-vol")
    machine(
        *("run", "--detach", "--volume", "redis-vol:/foo", "--volume-driver=mdvp"),
        *("--name", CONTAINER, "mdvp/redis-sync"),
    )
    machine.wait_healthy(CONTAINER)
    yield machine
    for kind, remove in (("container ls --all", "rm --force"), ("volume ls", "volume rm")):
        if names := machine(*kind.split(), "--quiet").split():
            machine(*remove.split(), *names)


@pytest.fixture
def prompt(as_after_first_steps: Docker) -> Iterator[Callable[[str | None], Prompt]]:
    """Return what gives the shell in a container, or on the host; each is one for the page."""
    engine = as_after_first_steps.engine
    prompts: dict[str | None, Prompt] = {}

    def given(container: str | None) -> Prompt:
        if container not in prompts:
            bash = ["bash", "--norc", "--noprofile", "--noediting"]
            if container is None:
                command = engine.inside("env", "--chdir=/run/repository", *bash)
                environ = {k: v for k, v in engine.environ.items() if not k.startswith("DOCKER_")}
            else:
                command = ["docker", "exec", "-it", container, *bash]
                environ = engine.environ
            prompts[container] = Prompt(command, environ)
        return prompts[container]

    yield given
    for each in prompts.values():
        each.close()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if runnable(page)],
    ids=lambda page: str(page.relative_to(REPOSITORY)),
)
def test_what_a_page_shows_is_what_happens(
    page: Path, prompt: Callable[[str | None], Prompt]
) -> None:
    for block in runnable(page):
        shell = prompt(block.container)
        if block.directory:
            shell.type(f"pushd {block.directory}")
        for step in block.steps:
            check(page, block, step, shell)
        if block.directory:
            shell.type("popd")


def check(page: Path, block: Block, step: Step, shell: Prompt) -> None:
    deadline = time.monotonic() + (PATIENCE if only_looks(step.command) else 0)
    while True:
        printed, status = shell.type(step.command)
        is_right = status == 0 if step.printed is None else is_as_shown(printed, step.printed)
        if is_right or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    where = f"{page.relative_to(REPOSITORY)}, in the block at line {block.line}"
    shown = "success" if step.printed is None else step.printed
    assert is_right, (
        f"{where}\n$ {step.command}\nprinted (status {status}):\n{printed}\nand not:\n{shown}"
    )
