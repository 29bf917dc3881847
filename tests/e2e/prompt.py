"""A prompt on a real terminal, to type at what the pages show."""

from collections.abc import Mapping, Sequence

import pexpect

_DONE = "\x01"


class Prompt:
    """A shell on a terminal, as a reader has one."""

    def __init__(self, shell: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start `shell`, the command of a bash."""
        self._child: pexpect.spawn[str] = pexpect.spawn(
            shell[0],
            list(shell[1:]),
            env={**environ, "TERM": "xterm"},
            dimensions=(50, 250),
            encoding="utf-8",
            codec_errors="replace",
            echo=False,
        )
        self._child.delaybeforesend = None
        self.type("PS1= PS2=; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null")

    def type(self, command: str, patience: float = 300.0) -> tuple[str, int]:
        """Return what a command prints, and its exit status.

        Raises:
            pexpect.TIMEOUT: it has not ended in `patience` seconds.
        """
        # It has no input but what it says itself, or it would read what is typed next.
        mark = r"printf '\001%s\001' $?"
        self._child.send(f"{{ {command}\n}} </dev/null; {mark}\n")
        self._child.expect(f"{_DONE}(\\d+){_DONE}", timeout=patience)
        assert isinstance(self._child.before, str)
        assert self._child.match is not None
        assert not isinstance(self._child.match, type)
        return self._child.before.replace("\r\n", "\n"), int(self._child.match[1])

    def close(self) -> None:
        """End the shell."""
        self._child.close(force=True)
