"""Every command of the docs does what the page says, or is marked as one that is not run, and why.

First steps begins where it says, on an engine that has nothing of ours. All other pages begin where
it ends: the plugin is enabled, and the images are built.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import Docker
from e2e.pages import PAGES, REPOSITORY, Block, blocks
from e2e.prompt import Prompt, check

FIRST_STEPS = REPOSITORY / "docs" / "first-steps.md"
IMAGES = ("mdvp/mdvp", "mdvp/redis-sync", "mdvp/sync")


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.reason is None]


def in_order() -> list[Path]:
    """Return the pages that have something to run; what First steps builds, the others use."""
    pages = [page for page in PAGES if runnable(page)]
    return sorted(pages, key=lambda page: page != FIRST_STEPS)


@pytest.fixture(scope="module", autouse=True)
def plugin_removed_in_the_end(docker: Docker) -> Iterator[None]:
    yield
    remove_plugin(docker)


@pytest.fixture
def machine(docker: Docker, page: Path) -> Iterator[Docker]:
    """Yield the machine in the state in which a page begins."""
    if page == FIRST_STEPS:
        docker.script("base_image.sh")
        remove_what_is_built(docker)
    elif "mdvp:latest true" not in docker("plugin", "ls", "--format", "{{.Name}} {{.Enabled}}"):
        docker.script("build_plugin.sh", "--enable")
        docker.script("build_image.sh")
    had = settings(docker) if page != FIRST_STEPS else None
    yield docker
    remove(docker, "container ls --all", "container rm --force")
    remove(docker, "volume ls", "volume rm")
    remove(docker, "network ls --filter type=custom", "network rm")
    if had is not None and settings(docker) != had:
        remove_plugin(docker)


def remove(docker: Docker, listing: str, command: str) -> None:
    if names := docker(*listing.split(), "--quiet").split():
        docker(*command.split(), *names)


def remove_plugin(docker: Docker) -> None:
    docker.engine.docker("plugin", "rm", "--force", "mdvp", check=False)


def settings(docker: Docker) -> str:
    """Return the plugin's; a page may change them, and the next one has the plugin as before."""
    form = "{{.Settings.Env}} {{range .Config.Mounts}}{{.Source}} {{end}}"
    return docker("plugin", "inspect", "--format", form, "mdvp")


def remove_what_is_built(docker: Docker) -> None:
    remove_plugin(docker)
    for image in IMAGES:
        docker.engine.docker("image", "rm", "--force", image, check=False)


@pytest.fixture
def prompt(machine: Docker) -> Iterator[Prompt]:
    """Yield root's shell on the machine, in a clone of the repository."""
    bash = ("bash", "--norc", "--noprofile", "--noediting")
    command = machine.engine.inside("env", "--chdir=/run/repository", *bash)
    environ = {k: v for k, v in machine.engine.environ.items() if not k.startswith("DOCKER_")}
    shell = Prompt(command, environ)
    yield shell
    shell.close()


@pytest.mark.parametrize("page", in_order(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_shows_is_what_happens(page: Path, prompt: Prompt) -> None:
    name = str(page.relative_to(REPOSITORY))
    for block in runnable(page):
        for step in block.steps:
            check(name, step, prompt)
