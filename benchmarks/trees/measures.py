"""How each thing is measured that trees alone have. Times are in seconds."""

from __future__ import annotations

import time

import redis

from benchmarks.mirror import measures
from benchmarks.mirror.contenders import Contender
from benchmarks.mirror.results import Followed
from benchmarks.mirror.server import until
from benchmarks.trees.contenders import LSYNCD, mirrored
from benchmarks.trees.results import Tree

_SETTLE = 0.5  # after which all has been sent that belongs to what is visible
_QUIET = 3.0  # without a change after which none is to come ...
_QUIET_RSYNC = 60.0  # ... and while rsync looks for what it has to copy, in a long list
# As in server.py, of the files of `load.write` in one directory.
_NAMED = """
for number = tonumber(ARGV[2]) - 1, 0, -1 do
  local key = string.format("%s/%07d", ARGV[1], number)
  if redis.call("STRLEN", key) ~= tonumber(ARGV[3]) then return false end
end
return redis.call("TIME")
"""


def follow_burst(contender: Contender, tree: Tree) -> Followed:
    """Write a tree; return when it was mirrored, or the contender at rest."""
    copy = mirrored(contender)
    return measures.follow(
        ("tree", contender.root, tree.files, tree.each),
        lambda: copy.holds(tree.files, tree.each),
        copy.changes,
        _QUIET_RSYNC if contender.kind == LSYNCD else _QUIET,
    )


def rename(contender: Contender, old: str, new: str, files: int, size: int) -> tuple[float, int]:
    """Rename a directory; return how long it was until the last file had its new key.

    And how many bytes the server got meanwhile, without those of our looks at whether all is there.
    """
    server, root = contender.server, contender.root
    look = ("EVALSHA", server.client.script_load(_NAMED), 0, new, files, size)
    answers: list[list[bytes] | None] = []

    def came() -> bool:
        answers.append(server.client.execute_command(*look))  # type: ignore[no-untyped-call]
        return answers[-1] is not None

    before, began = server.received(), time.time()
    (root / old).rename(root / new)
    until(came, what="a renamed directory's files by their new names")
    time.sleep(_SETTLE)
    received = server.received() - before - len(answers) * _length(*look)
    seconds, microseconds = map(int, answers[-1] or ())
    return seconds + microseconds / 1e6 - began, received


def _length(*command: object) -> int:
    """Return how many bytes a client sends for a command."""
    packed = redis.Connection().pack_command(*command)  # type: ignore[no-untyped-call]
    return sum(len(part) for part in packed)
