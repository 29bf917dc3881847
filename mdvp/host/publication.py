"""The directory of volumes as the engine has it, and what to do when the engine loses it.

The engine gives containers a copy of what a managed plugin has mounted. A restart of the engine
with live-restore, or its end by SIGKILL, can take that copy away from a plugin that runs on: the
engine would go on to mount volumes, and no container with one could start. The next start of the
plugin brings it back. So the plugin ends when that happens, and the engine starts it again.
"""

import logging
import select
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mdvp import threads

log = logging.getLogger(__name__)


class Host(Protocol):
    """Who sees the host's mounts; `mdvp.host.kernel.Kernel` is the real one."""

    def published(self) -> bool | None:
        """Say whether the engine has the directory of volumes; None if that does not matter."""

    def mounts(self) -> Path:
        """Return where the host's mounts are read."""


def watch(host: Host, start_again: Callable[[], object]) -> None:
    """Have a thread call `start_again` when the engine loses the directory of volumes.

    Does nothing where there is nothing to lose: outside a managed plugin.
    """
    match host.published():
        case True:
            threads.start("publication", lambda: _wait(host, start_again), start_again)
        case False:
            # It might be an engine that does it in another way; to end could be for ever.
            log.error(
                "the engine does not have the directory of volumes; if no container with a volume "
                "starts: docker plugin disable --force, then docker plugin enable",
                {"event": "not_published"},
            )


def _wait(host: Host, start_again: Callable[[], object]) -> None:
    # A change of the mounts wakes whoever polls this file: proc_pid_mounts(5).
    with host.mounts().open("rb") as mounts:
        changes = select.poll()
        changes.register(mounts, select.POLLPRI)
        while host.published():
            changes.poll()
    log.error(
        "the engine has lost the directory of volumes: mdvp ends, and starts again with it",
        {"event": "publication_lost"},
    )
    start_again()
