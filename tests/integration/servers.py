"""Which Redis server the tests run on: the machine's own, or the one that MDVP_REDIS says.

MDVP_REDIS is the path of one, or a name: of a command, or of a server that `scripts/servers.sh` has
fetched.
"""

import os
import shutil
from pathlib import Path

_FETCHED = Path(__file__).parents[2] / "build" / "servers"


def redis_program() -> str:
    """Return the program of the server, which takes the options of `redis-server`."""
    given = os.environ.get("MDVP_REDIS", "redis-server")
    fetched = _FETCHED / given / "redis-server"
    program = str(fetched) if fetched.exists() else shutil.which(given)
    assert program, (
        f"MDVP_REDIS is {given!r}: use the path of a server, or a name of those below {_FETCHED}"
    )
    return program
