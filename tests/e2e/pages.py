"""The commands that are in the pages of the docs, and a prompt to type them at.

What a page shows as `console` has prompts, `# ` or `$ `, and below each command what it prints.
What is `sh` is a script. A comment before it is for here, and a reader never sees it:

    <!-- not run: REASON -->        it is not run
    <!-- in the container NAME -->  it is typed at a shell in that container, one for the page
    <!-- in the directory PATH -->  it is typed in that directory of the host
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pexpect

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>console|sh)$")
_NOT_RUN = re.compile("<!-- not run: (.+) -->")
_CONTAINER = re.compile("<!-- in the container (.+) -->")
_DIRECTORY = re.compile("<!-- in the directory (.+) -->")
_PROMPTS = ("# ", "$ ")
_DONE = "\x01"
# What is another one each time, and what is written for it here.
_VARIABLE = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"sha256:[0-9a-f]+"), "DIGEST"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(,\d+|\.\d+)?(Z|\+00:00)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\b(About (a|an)|\d[\d.,]*) (ms|s|min|seconds?|minutes?|hours?)\b"), "SO LONG"),
    (re.compile(r"\b(process|pid|PID) \d+"), r"\1 NUMBER"),
)
# A command that only looks is asked again until it prints what it should: health and keys take a
# moment. Of all others the first answer counts.
_LOOKS = re.compile(
    r"^(docker (ps|logs|inspect|volume (ls|inspect)|plugin ls|exec (-\S+ )*\S+ "
    r"(redis-cli|cat|ls|mdvp-sync (status|conflicts|verify)))"
    r"|redis-cli|cat|ls|tail|curl|mdvp-sync)\b"
)


@dataclass(frozen=True)
class Step:
    """A command, and the words that it prints; None where the page does not say what it prints."""

    command: str
    printed: str | None


@dataclass(frozen=True)
class Block:
    """Commands that stand together in a page, from `line` on; `reason` is why they are not run."""

    line: int
    steps: Sequence[Step]
    reason: str | None
    container: str | None
    directory: str | None


def blocks(page: Path) -> Iterator[Block]:
    """Yield what a page has of commands."""
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        opened = _FENCE.match(lines[number])
        number += 1
        if opened is None:
            continue
        indent, began = len(opened["indent"]), number
        while lines[number].strip() != "```":
            number += 1
        body = [line[indent:] for line in lines[began:number]]
        said = _said_before(lines, began - 1)
        yield Block(
            began,
            tuple(_typed(body) if opened["kind"] == "console" else _script(body)),
            *(_first(pattern, said) for pattern in (_NOT_RUN, _CONTAINER, _DIRECTORY)),
        )
        number += 1


def _said_before(lines: Sequence[str], fence: int) -> str:
    """Return the comments right before a fence."""
    said = []
    while fence and lines[fence - 1].strip().startswith("<!--"):
        fence -= 1
        said.append(lines[fence])
    return "\n".join(said)


def _first(pattern: re.Pattern[str], said: str) -> str | None:
    found = pattern.search(said)
    return found[1] if found else None


def _typed(body: Sequence[str]) -> Iterator[Step]:
    command, printed = "", list[str]()
    for line in body:
        if command.endswith("\\") and not printed:
            command += "\n" + line
        elif line.startswith(_PROMPTS):
            if command:
                yield Step(command, "\n".join(printed).strip() or None)
            command, printed = line[2:], []
        else:
            assert command, f"output before any command: {line}"
            printed.append(line)
    assert command, "a console block without a prompt"
    yield Step(command, "\n".join(printed).strip() or None)


def _script(body: Sequence[str]) -> Iterator[Step]:
    yield Step("(set -e\n" + "\n".join(body) + "\n)", None)


class Prompt:
    """A shell on a terminal, as a reader has one."""

    def __init__(self, command: Sequence[str], environ: dict[str, str]) -> None:
        """Start the shell, which is bash, by `command`."""
        self._child: pexpect.spawn[str] = pexpect.spawn(
            command[0],
            list(command[1:]),
            env={**environ, "TERM": "xterm"},
            dimensions=(50, 250),
            encoding="utf-8",
            codec_errors="replace",
            echo=False,
            timeout=60,
        )
        self._child.delaybeforesend = None
        self.type("PS1= PS2=; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null")

    def type(self, command: str, patience: float = 300.0) -> tuple[str, int]:
        """Return what a command prints, and its exit status."""
        # It has no input but what it says itself, or it would read what is typed next.
        mark = f"printf '{_DONE}%s{_DONE}' $?"
        self._child.send(f"{{ {command}\n}} </dev/null; {mark.replace(_DONE, chr(92) + '001')}\n")
        self._child.expect(f"{_DONE}(\\d+){_DONE}", timeout=patience)
        assert isinstance(self._child.before, str)
        assert self._child.match is not None
        assert not isinstance(self._child.match, type)
        status = int(self._child.match[1])
        return self._child.before.replace("\r\n", "\n"), status

    def close(self) -> None:
        """End the shell."""
        self._child.close(force=True)


def only_looks(command: str) -> bool:
    """Say whether a command can be typed again without harm."""
    return _LOOKS.match(command) is not None


def is_as_shown(printed: str, shown: str) -> bool:
    """Say whether a command has printed what a page shows.

    White space, and what is another one each time, does not count; `...` and `…` are for anything.
    """
    return re.fullmatch(_pattern(shown), _plain(printed), re.DOTALL) is not None


def _pattern(shown: str) -> str:
    words = []
    for word in _plain(shown).split(" "):
        if word in {"...", "…"}:
            words.append(".*?")
        else:
            parts = (re.escape(part) for part in re.split("…", word))
            words.append(r"\S*".join(parts))
    return " ?".join(words)


def _plain(text: str) -> str:
    for pattern, word in _VARIABLE:
        text = pattern.sub(word, text)
    return " ".join(text.split())
