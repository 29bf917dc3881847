"""Draws docs/pictures/top.svg anew: what `mdvp-sync top` shows of a service that runs for a while.

.venv/bin/python scripts/picture.py     takes half a minute, and needs a redis-server

The service, its Redis and what happens to the directory are real. The directory and the socket are
shown by the names that they have in the image, and the picture has no fonts from elsewhere.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from sync.redis.address import Address
from sync.redis.vitals import Pulse, Server
from sync.report.health import Health, health
from sync.report.pace import Pace
from sync.report.top import View, picture
from sync.settings import Settings

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "top.svg"
ROOT, SOCKET = "/foo", "/run/redis/redis.sock"
WIDTH = 92
SECONDS = 36
WAVE = 5  # seconds, from little work to much
FONTS = 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace'


@contextmanager
def running(*command: str, **environ: str) -> Iterator[None]:
    """Run a command for the time of the block."""
    with subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def work(root: Path, numbers: Iterator[int], until: float) -> None:
    """Do to the directory what an application may do, more of it at times."""
    while (now := time.monotonic()) < until:
        number = next(numbers)
        (root / "sessions" / f"{number * 7919 % 65536:04x}.json").write_bytes(bytes(number % 997))
        if number % 3 == 0:
            (root / "queue" / f"job-{number}.new").write_bytes(bytes(4000))
            (root / "queue" / f"job-{number}.new").rename(root / "queue" / f"job-{number}")
        if number % 3 == 1:
            (root / "queue" / f"job-{number - 31}").unlink(missing_ok=True)
        if number % 7 == 0:
            (root / "thumbnails" / f"{number}.webp").write_bytes(bytes(31_000 + number))
        time.sleep(0.001 + 0.01 * abs(now / WAVE % 2 - 1) ** 2)


def watched(environ: dict[str, str], root: Path) -> View:
    """Look at the service while there is work, and return what is known in the end."""
    settings, status = Settings.read(environ), Path(environ["SYNC_STATUS"])
    address, pace, numbers = Address(settings.access), Pace(), count()
    with closing(Pulse(Server(address).ask, 1.0)) as pulse:
        end = time.monotonic() + SECONDS
        while (now := time.monotonic()) < end:
            work(root, numbers, now + 0.3)
            found = health(status, time.monotonic())
            pace.take(found)
        said = found.status
        if said is None or pace.rates(now) is None:
            sys.exit(f"the service says nothing: {found}")
        skipped = {name: why.replace(str(root), ROOT) for name, why in said.skipped.items()}
        said = replace(said, root=ROOT, server=SOCKET, skipped=skipped)
        found = Health(found.problem, said, found.at)
        known = (pace.rates(now), pace.course, pace.lags, pulse.last)
        return View(found, *known, root=ROOT, server=SOCKET, now=time.time())


def drawn(view: View) -> str:
    """Return the picture as SVG."""
    console = Console(width=WIDTH, record=True, file=Path(os.devnull).open("w"))  # noqa: SIM115
    console.print(picture(view, WIDTH, 24))
    svg = console.export_svg(title="mdvp-sync top", theme=MONOKAI, unique_id="top")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", FONTS)


def main() -> None:
    """Draw it."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        root, socket = place / "root", place / "redis.sock"
        for name in ("sessions", "queue", "thumbnails"):
            (root / name).mkdir(parents=True)
        (root / "latest").symlink_to("sessions")
        environ = {
            "SYNC_ROOT": str(root),
            "SYNC_TREE": "1",
            "SYNC_STATUS": str(place / "status.json"),
            "REDIS_URL": f"unix://{socket}",
        }
        redis = ("redis-server", "--port", "0", "--save", "", "--unixsocket", str(socket))
        with (
            running(*redis, "--maxmemory", "64mb"),
            running(sys.executable, "-m", "sync", "run", **environ),
        ):
            PICTURE.parent.mkdir(exist_ok=True)
            PICTURE.write_text(drawn(watched(environ, root)))


if __name__ == "__main__":
    main()
