"""Keys that can be no files, whatever is on disk: they are named, and looked up in Redis alone."""

from collections.abc import Callable, Iterable, Mapping

from sync.core.errors import CannotBeError
from sync.disk.files import Directory
from sync.redis.neighbours import Neighbours, is_like_epoch, is_like_own
from sync.redis.target import Target
from sync.service.skipped import Skipped

_AT_ONCE = 1000  # names
_THEIRS = "is called like a key of another mdvp-sync's own: it is left alone"


class Misfits:
    """Tells such keys from the others, and has them listed as long as they are there."""

    def __init__(
        self,
        directory: Directory,
        target: Target,
        skipped: Skipped,
        check: Callable[[bytes], None],
    ) -> None:
        """List them in `skipped`; `check` raises CannotBeError, and says why, for most of them."""
        self._directory = directory
        self._target = target
        self._skipped = skipped
        self._check = check
        self._neighbours = Neighbours(target, directory.has)

    def without(self, names: Iterable[bytes]) -> list[bytes]:
        """Return those of some names that files may have; note the keys of the others.

        What was listed comes with them if it is a misfit no more.
        Raises RedisAwayError, which it also is when another service works on the same keys.
        """
        names, can_have = tuple(names), self._directory.can_have
        fit = [
            name
            for name in names
            if can_have(name) and not name.endswith(b"/") and not is_like_own(name)
        ]
        if len(fit) < len(names):
            known = set(fit)
            others = [name for name in names if name not in known]
            if any(map(is_like_epoch, others)):
                others += filter(is_like_own, self._skipped.of_keys.keys() - set(others))
            reasons = self._reasons(others)
            self._note(reasons)
            fit += [name for name in others if name not in reasons]
        self._skipped.clear_of_keys(fit)
        return fit

    def look_again(self) -> list[bytes]:
        """Look for those that are listed; return those of the names that files may have by now."""
        return self.without(list(self._skipped.of_keys))

    def _reasons(self, names: Iterable[bytes]) -> dict[bytes, str]:
        reasons = {name: why for name in names if (why := self._why(name))}
        rest = [name for name in names if name not in reasons]
        return reasons | dict.fromkeys(self._neighbours.keys(rest), _THEIRS)

    def _why(self, name: bytes) -> str:
        """Say why a name can be no file's; "" if it is to be looked at."""
        if self._directory.can_have(name) and not name.endswith(b"/"):
            return ""
        try:
            self._check(name)
        except CannotBeError as error:
            return f"{error}: the key stays without a file"
        return ""

    def _note(self, reasons: Mapping[bytes, str]) -> None:
        """List those of the keys that are there, and no others of them."""
        names = list(reasons)
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            for name, is_there in zip(some, self._target.are_there(some), strict=True):
                if is_there:
                    self._skipped.note_key(name, reasons[name])
                else:
                    self._skipped.clear_of_keys([name])
