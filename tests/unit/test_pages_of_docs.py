"""What is a command in a page, and whether what is printed is what the page shows."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.pages import PAGES, REPOSITORY, Block, PageError, Step, blocks, is_as_shown
from e2e.prompt import Prompt, check

STATUS = """\
live: Redis equals the directory
files       2 (9 B)
commands    31 sent to Redis
lag         0.8 ms (the last change)
reconciles  start: 1
"""
PS = """\
CONTAINER ID   IMAGE             COMMAND        CREATED          STATUS                   NAMES
0e9599f9eb30   mdvp/redis-sync   "entrypoint"   10 seconds ago   Up 9 seconds (healthy)   redis1
"""


def read(tmp_path: Path, *lines: str) -> list[Block]:
    page = tmp_path / "page.md"
    page.write_text("\n".join(lines) + "\n")
    return blocks(page)


def test_a_prompt_begins_a_command_and_what_follows_is_printed(tmp_path: Path) -> None:
    assert read(
        tmp_path,
        *("Words.", "", "```console", "# echo one; echo; echo two", "one", "", "two"),
        *("$ true", "# cat \\", "    file", "# of the file", "```"),
    ) == [
        Block(
            3,
            [
                Step(4, "echo one; echo; echo two", ["one", "", "two"]),
                Step(8, "true", []),
                Step(9, "cat \\\n    file", []),
                Step(11, "of the file", []),
            ],
            reason=None,
        )
    ]


def test_a_script_is_one_command_that_stops_at_the_first_failure(tmp_path: Path) -> None:
    (block,) = read(tmp_path, "- In a list:", "", "  ```sh", "  one", "    two", "  ```")
    assert block == Block(3, [Step(4, "(set -e\none\n  two\n)", ("...",))], reason=None)


def test_a_comment_says_why_a_block_is_not_run_or_how_it_ends(tmp_path: Path) -> None:
    marked = read(
        tmp_path,
        *("<!-- not run: It takes two. -->", "<!-- a remark -->", "```console", "# one", "```", ""),
        *("<!-- ends with: 2 -->", "```console", "# one", "# two", "no", "```"),
        *("```console", "# three", "```"),
    )
    assert [block.reason for block in marked] == ["It takes two.", None, None]
    assert [step.status for block in marked for step in block.steps] == [0, 0, 2, 0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("```console", "printed", "# echo", "```"), "line 1: a console block that does not begin"),
        (("```console", "```"), "line 1: a console block that does not begin"),
        (("```console", "# echo"), "line 1: the block has no end"),
        (("", "```text", "words", "docker ps", "```"), "line 4: 'docker ps' is a command"),
        (("```", "# systemctl restart docker", "```"), "line 2: '# systemctl restart docker' is"),
        (("```bash", "SYNC_TREE=1 mdvp-sync run", "```"), "line 2: 'SYNC_TREE=1 mdvp-sync run'"),
        (("```text", "scripts/test.sh", "```"), "line 2: 'scripts/test.sh' is a command"),
        (("<!-- not run: It is. -->", "", "```sh", "ls", "```"), "line 1: .* not right before"),
        (("<!-- not run: It is. -->",), "line 1: .* is not right before a block"),
        (("<!-- not run -->", "```sh", "ls", "```"), "line 1: .* is no comment that is known"),
        (("<!-- Not run: So. -->", "```sh", "ls", "```"), "line 1: .* is no comment that is known"),
        (("<!-- ends with 2 -->", "```sh", "ls", "```"), "line 1: .* is no comment that is known"),
    ],
)
def test_what_leaves_open_whether_it_is_run_is_an_error(
    tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(PageError, match=f"^page.md, {message}"):
        read(tmp_path, *lines)


def test_what_is_no_command_may_be_in_a_block_of_another_kind(tmp_path: Path) -> None:
    drawing = ("```", "            docker volume create", "   engine -> mdvp", "```")
    yaml = ("```yaml", "docker: {compose: 1}", "```")
    marked = ("<!-- not run: It is a pattern. -->", "```text", "docker run IMAGE", "```")
    assert read(tmp_path, *drawing, *yaml, *marked) == []


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (STATUS, STATUS),
        (STATUS, STATUS.replace("0.8 ms", "12.0 s").replace("31 sent", "… sent")),
        (STATUS, "live: Redis equals the directory\n..."),
        (STATUS, "...\nreconciles  start: 1"),
        (STATUS, "...\ncommands    ...\n..."),
        (PS, PS.replace("0e9599f9eb30", "5c2d0c5b1f3f").replace("10 seconds", "About a minute")),
        (PS, PS.replace("   ", "     ")),
        ("value2\n\n", "value2\n\n"),
        ("", ""),
        ("", "..."),
        ("no newline", "no newline\n"),
        ("2026-11-22 14:54:40,316 INFO a\n", "2027-01-01 01:00:00,000 INFO a"),
        ('"since": "2026-11-22T14:54:32Z"\n', '"since": "2027-01-01T01:00:00Z"'),
        ('{"seconds": 0.0004, "key": "a"}', '{"seconds": 0.2, "key": "a"}'),
        ("ACL SETUSER a +get +set\n", "ACL SETUSER a ..."),
    ],
)
def test_what_is_another_one_each_time_does_not_count(printed: str, shown: str) -> None:
    assert is_as_shown(printed, shown.splitlines())


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (STATUS, STATUS.replace("live", "waiting")),
        (STATUS, STATUS.replace("2 (9 B)", "3 (9 B)")),
        (STATUS, STATUS.replace("9 B", "10 B")),
        (STATUS, STATUS.replace("start: 1", "start: 2")),
        (STATUS, STATUS.replace("files", "file")),
        (STATUS, STATUS.replace("the last change", "the lastchange")),
        (STATUS, STATUS.replace("\nfiles", " files")),
        (STATUS, STATUS.replace("31", "…1…1")),
        (STATUS, STATUS + "\n"),
        (STATUS, STATUS + "skipped     1\n"),
        (STATUS + "skipped     1\n", STATUS),
        (STATUS, "live: Redis equals the directory"),
        (STATUS, "...\nfiles       2 (9 B)"),
        (STATUS, "... equals the directory"),
        (STATUS, "...\n1"),
        (PS, PS.replace("(healthy)", "(unhealthy)")),
        (PS, PS.replace("mdvp/redis-sync", "mdvp/sync")),
        (PS, PS.replace("redis1", "redis2")),
        ("value2\n\n", "value1\n\n"),
        ("value2\n\n", "value2"),
        ("value2\n", "value2\n\n"),
        ("value2\n", ""),
        ("", "value2"),
        ("a b\n", "ab"),
        ("  indented\n", "indented"),
        ('{"seconds": 0.0004, "bytes": 7}', '{"seconds": 0.0004, "bytes": 8}'),
        ("2026-11-22 14:54:40,316 INFO a\n", "2026-11-22 14:54:40,316 ERROR a"),
        ("(a|b)\n", "a"),
    ],
)
def test_all_else_counts(printed: str, shown: str) -> None:
    assert not is_as_shown(printed, shown.splitlines())


@pytest.fixture
def prompt() -> Iterator[Prompt]:
    prompt = Prompt(("bash", "--norc", "--noprofile", "--noediting"), os.environ)
    yield prompt
    prompt.close()


@pytest.mark.parametrize(
    ("command", "shown", "status"),
    [
        ("echo one; echo two >&2", ["one", "two"], 0),
        ("echo one; false", ["one"], 1),
        ("true", [], 0),
        ("exit_with() { return $1; }; exit_with 125", [], 125),
        ("(set -e\ntrue\necho of a script\n)", ["..."], 0),
        ("cat; echo no input", ["no input"], 0),
        ("echo one | \\\n  tr o O", ["One"], 0),
    ],
)
def test_a_command_that_does_what_is_shown_is_right(
    prompt: Prompt, command: str, shown: list[str], status: int
) -> None:
    check("page.md", Step(1, command, shown, status), prompt)


@pytest.mark.parametrize(
    ("command", "shown", "status"),
    [
        ("echo one", ["two"], 0),
        ("echo one", [], 0),
        ("true", ["one"], 0),
        ("echo one; false", ["one"], 0),
        ("echo one", ["one"], 1),
        ("(exit 2)", [], 1),
        ("(set -e\nfalse\necho on\n)", ["..."], 0),
    ],
)
def test_a_command_that_does_another_thing_is_told_with_all_there_is(
    prompt: Prompt, command: str, shown: list[str], status: int
) -> None:
    with pytest.raises(AssertionError) as failure:
        check("page.md", Step(7, command, shown, status), prompt)
    told = str(failure.value)
    printed, ended = prompt.type(command)
    assert told.startswith(f"page.md, line 7:\n# {command}\n")
    assert f"printed, with exit status {ended}:\n{printed}" in told
    assert told.partition("\nassert")[0].endswith("\n".join(shown))


def test_a_command_that_only_looks_may_be_right_a_moment_later(
    prompt: Prompt, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    check("page.md", Step(1, f"cd {tmp_path}", []), prompt)
    check("page.md", Step(1, "cat file; echo one >>file", ["one"]), prompt)
    with pytest.raises(AssertionError, match="one\none"):
        check("page.md", Step(1, "grep one file; echo one >>file", ["one"] * 3), prompt)
    with pytest.raises(AssertionError):
        check("page.md", Step(1, "cat file", ["never"]), prompt, patience=0.3)


MARKDOWN = [
    *(REPOSITORY / name for name in ("CHANGELOG.md", "share/package.md")),
    *PAGES,
    *(REPOSITORY / "docs" / "examples").rglob("*.md"),
]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_each_block_of_the_pages_is_run_or_says_in_a_sentence_why_not(page: Path) -> None:
    """Those of PAGES are run by tests/e2e/test_pages.py; another page names the test that does."""
    found = blocks(page)
    for block in found:
        if block.reason is not None:
            assert re.fullmatch(r"[A-Z].+\.", block.reason), block
            assert does_what(page, block.reason), block
    if page not in PAGES and any(block.reason is None for block in found):
        assert "tests/" in page.read_text()
        assert does_what(page, page.read_text())


def does_what(page: Path, words: str) -> bool:
    """Say whether each test that is named is there, and itself names the page."""
    tests = re.findall(r"tests/\S+?\.py", words)
    name = str(page.relative_to(REPOSITORY))
    return all(name in (REPOSITORY / test).read_text() for test in tests)
