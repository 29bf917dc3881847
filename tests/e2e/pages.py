"""The commands that the pages of the docs show, and whether what is printed is what they show.

What a page shows as `console` has prompts, `# ` or `$ `, and below each command what it prints: all
of it, or nothing where it prints nothing. What is `sh` is a script. Comments right before a block
are for here, and a reader never sees them:

    <!-- not run: REASON -->     it is not run; a test that does the same is named by its file
    <!-- ends with: STATUS -->   the last command fails, with that exit status; all others succeed

White space between words does not count, nor what is another one each time (`_VARIABLE`). A line
`...` stands for any lines, a word `...` for anything in its line, and `…` for anything in its word.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# Those whose commands are run here; the examples have tests of their own.
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\S*)")
_COMMENT = re.compile("<!--.*-->")
_MARK = re.compile("<!-- (?P<key>not run|ends with): (?P<value>.+) -->")
_BEGINS_AS_MARK = re.compile("<!-- *(not|run|ends)", re.IGNORECASE)
_PROMPTS = ("# ", "$ ")
_ANYTHING = "..."
_LOOKS_LIKE_COMMAND = re.compile(
    r"^ {0,2}([#$] +\S|([A-Z_]+=\S+ +)*"
    r"(docker|docker-compose|mdvp|mdvp-sync|redis-cli|redis-server|scripts/\S+|systemctl|journalctl"
    r"|apt(-get)?|pip|pipx|python3|curl|promtool|git|mkdir|echo|cat|cd|export)( |$))"
)
# What is another one each time, and what is written for it here.
_VARIABLE = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([,.]\d+)?(Z|\+00:00)?"), "TIME"),
    (re.compile(r"\b(About (a|an)|\d[\d.,]*) (ms|s|min|seconds?|minutes?|hours?)\b"), "SO LONG"),
    (re.compile(r'(?<="seconds": )[\d.]+'), "SO LONG"),
    (re.compile(r"\bprocess \d+"), "process NUMBER"),
)


class PageError(ValueError):
    """A page is written in a way that leaves open what is a command; the message says where."""


@dataclass(frozen=True)
class Step:
    """A command in `line` of a page, the lines that it prints, and its exit status."""

    line: int
    command: str
    shown: Sequence[str]
    status: int = 0


@dataclass(frozen=True)
class Block:
    """Commands that stand together from `line` of a page on; `reason` is why they are not run."""

    line: int
    steps: Sequence[Step]
    reason: str | None


@dataclass(frozen=True)
class _Fence:
    """What is between two fences; `line` is that of the first, `marks` are the comments above."""

    line: int
    kind: str
    body: Sequence[str]
    marks: dict[str, str]


def blocks(page: Path) -> list[Block]:
    """Return what a page has of commands.

    Raises:
        PageError: it has something of which nobody could tell whether it is to be run.
    """
    try:
        return _blocks(page.read_text())
    except PageError as error:
        raise PageError(f"{page.name}, {error}") from None


def script(page: Path, words: str) -> str:
    """Return the commands of that block of a page, run or not, which has these words in one."""
    (found,) = [
        block for block in blocks(page) if any(words in step.command for step in block.steps)
    ]
    return "\n".join(step.command for step in found.steps)


def _blocks(text: str) -> list[Block]:
    found = []
    for fence in _fences(text):
        if fence.kind in ("console", "sh"):
            found.append(_block(fence))
        elif "not run" not in fence.marks:
            for number, line in enumerate(fence.body, fence.line + 1):
                if _LOOKS_LIKE_COMMAND.match(line):
                    raise PageError(
                        f"line {number}: {line!r} is a command, and neither run nor marked"
                    )
    return found


def _fences(text: str) -> Iterator[_Fence]:
    lines = text.splitlines()
    marks: dict[str, str] = {}
    rest = iter(enumerate(lines, 1))
    for number, line in rest:
        if opened := _FENCE.match(line):
            yield _Fence(number, opened["kind"], _body(rest, number, opened["indent"]), marks)
            marks = {}
        elif mark := _MARK.fullmatch(line.strip()):
            marks[mark["key"]] = mark["value"]
            if not _is_above_fence(lines, number):
                raise PageError(f"line {number}: {line.strip()} is not right before a block")
        elif _BEGINS_AS_MARK.match(line.strip()):
            raise PageError(f"line {number}: {line.strip()} is no comment that is known here")


def _is_above_fence(lines: Sequence[str], number: int) -> bool:
    """Say whether a line is followed by a fence, or by comments and then one."""
    for line in lines[number:]:
        if not _COMMENT.fullmatch(line.strip()):
            return _FENCE.match(line) is not None
    return False


def _body(rest: Iterator[tuple[int, str]], began: int, indent: str) -> list[str]:
    body = list[str]()
    for _, line in rest:
        if line.strip() == "```":
            return body
        body.append(line.removeprefix(indent))
    raise PageError(f"line {began}: the block has no end")


def _block(fence: _Fence) -> Block:
    if fence.kind == "console":
        steps = list(_typed(fence))
    else:
        script = "\n".join(("(set -e", *fence.body, ")"))
        steps = [Step(fence.line + 1, script, (_ANYTHING,))]
    if status := fence.marks.get("ends with"):
        last = steps.pop()
        steps.append(Step(last.line, last.command, last.shown, int(status)))
    return Block(fence.line, steps, fence.marks.get("not run"))


def _typed(fence: _Fence) -> Iterator[Step]:
    lines = list(enumerate(fence.body, fence.line + 1))
    if not lines or not lines[0][1].startswith(_PROMPTS):
        raise PageError(f"line {fence.line}: a console block that does not begin with a prompt")
    while lines:
        number, line = lines.pop(0)
        command = line[2:]
        while command.endswith("\\") and lines:
            command += "\n" + lines.pop(0)[1]
        shown = []
        while lines and not lines[0][1].startswith(_PROMPTS):
            shown.append(lines.pop(0)[1])
        yield Step(number, command, shown)


def is_as_shown(printed: str, shown: Sequence[str]) -> bool:
    """Say whether a command has printed what a page shows."""
    pattern = "".join(_pattern(_plain(line)) for line in shown)
    lines = "".join(f"{_plain(line)}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, lines) is not None


def _pattern(line: str) -> str:
    if line == _ANYTHING:
        return r"(?:.*\n)*?"
    words = re.split(r"(?<!\S)\.\.\.(?!\S)", line)
    return ".*".join(r"\S*".join(map(re.escape, word.split("…"))) for word in words) + "\n"


def _plain(line: str) -> str:
    for pattern, word in _VARIABLE:
        line = pattern.sub(word, line)
    return re.sub(r"(?<=\S)\s+", " ", line).rstrip()
