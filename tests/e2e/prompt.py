"""A prompt on a real terminal, to type at what the pages show."""

import re
import time
from collections.abc import Mapping, Sequence

import pexpect
from e2e.pages import Step, is_as_shown

_DONE = "\x01"
# A command that only looks is typed again until it prints what it should: health and keys take a
# moment. Of all others the first answer counts.
_LOOKS = re.compile(
    r"(docker (ps|logs|inspect|volume (ls|inspect)|plugin ls"
    r"|exec \S+ (redis-cli( [-/\d]\S*)* (get|exists|strlen|--scan)|cat|ls|tail"
    r"|mdvp-sync (status|conflicts)))"
    r"|cat|ls|curl)\b"
)
_PATIENCE = 20.0  # seconds


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


def check(page: str, step: Step, prompt: Prompt, patience: float = _PATIENCE) -> None:
    """See that a command of a page does what the page shows; `patience` is for those that look."""
    deadline = time.monotonic() + (patience if _LOOKS.match(step.command) else 0)
    while True:
        printed, status = prompt.type(step.command)
        is_right = status == step.status and is_as_shown(printed, step.shown)
        if is_right or time.monotonic() > deadline:
            break
        time.sleep(0.1)  # what is looked at costs something, too
    shown = "\n".join(step.shown)
    assert is_right, (
        f"{page}, line {step.line}:\n# {step.command}\n"
        f"--- printed, with exit status {status}:\n{printed}\n"
        f"--- and the page shows, with exit status {step.status}:\n{shown}"
    )
