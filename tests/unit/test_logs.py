"""What docs/logs.md says of the events of the log is what the sources have; and each has one."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sync.report import lines
from sync.report.tally import OPERATIONS, WORDS

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "logs.md"
RESERVED = {"time", "level", "logger", "message", "exception"}
LEVELS = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "exception": "ERROR",
    "critical": "CRITICAL",
    "log": "",  # it depends
}


@dataclass(frozen=True)
class Event:
    slug: str
    levels: frozenset[str]  # none where that depends
    fields: frozenset[str]


class Source:
    """A module, as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text())

    def events(self) -> Iterator[Event]:
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name) and node.func.id == "Lines":
                yield from self._of_lines(node)
            elif isinstance(node.func, ast.Attribute) and self._is_log(node.func):
                yield from self._of_call(node, node.func.attr)

    @staticmethod
    def _is_log(function: ast.Attribute) -> bool:
        of = ast.unparse(function.value)
        return function.attr in LEVELS and bool(re.search(r"(^|\.)_?log$|^logging\.getL", of))

    def _of_call(self, call: ast.Call, method: str) -> Iterator[Event]:
        is_of_operation = self.path.name == "lines.py" and "_LINES" in ast.unparse(call.args[0])
        is_of_lines = self.path.name == "log.py" and method == "log"
        if is_of_operation or is_of_lines:  # they are looked at elsewhere
            return
        before = 2 if method == "log" else 1
        assert len(call.args) == before + 1, f"{self._place(call)}: the words, and one mapping"
        mapping = self._mapping(call.args[before])
        fields: set[str] = set()
        slug = ""
        for key, value in zip(mapping.keys, mapping.values, strict=True):
            if key is None:  # ** of what there is for each operation
                assert self.path.name == "lines.py", self._place(call)
                fields |= set(WORDS)
            elif ast.literal_eval(key) == "event":
                slug = ast.literal_eval(value)
            elif not ast.literal_eval(key).startswith("_"):
                fields.add(ast.literal_eval(key))
        assert slug, self._place(call)
        yield Event(slug, frozenset({LEVELS[method]} - {""}), frozenset(fields))

    def _mapping(self, node: ast.expr) -> ast.Dict:
        """Return the mapping that an argument is, or that it is made of."""
        if isinstance(node, ast.Dict):
            return node
        if isinstance(node, ast.Call):
            name = (
                node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            )
            returned = [
                each.value
                for function in ast.walk(self.tree)
                if isinstance(function, ast.FunctionDef) and function.name == name
                for each in ast.walk(function)
                if isinstance(each, ast.Return)
            ]
        else:
            returned = [
                each.value
                for each in ast.walk(self.tree)
                if isinstance(each, ast.Assign)
                and ast.unparse(each.targets[0]) == ast.unparse(node)
            ]
        assert len(returned) == 1, self._place(node)
        assert isinstance(returned[0], ast.Dict), self._place(node)
        return returned[0]

    def _of_lines(self, call: ast.Call) -> Iterator[Event]:
        arguments = [
            each
            for argument in call.args
            for each in (
                argument.value.elts
                if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple)
                else [argument]
            )
        ]
        levels = frozenset({ast.unparse(arguments[1]).removeprefix("logging.")})
        slug = ast.literal_eval(arguments[2])
        yield Event(slug, levels, self._written())
        yield Event(f"{slug}_more", levels, frozenset())

    def _written(self) -> frozenset[str]:
        """Return what is given for each of the lines that are not more than so many a second."""
        return frozenset(
            keyword.arg
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("_lines.write", "_kept.write"))
            for keyword in node.keywords
            if keyword.arg and not keyword.arg.startswith("_")
        )

    def _place(self, node: ast.expr) -> str:
        return f"{self.path}:{node.lineno}: {ast.unparse(node)}"


def of(part: str) -> dict[str, Event]:
    """Return the events of a part, as its sources have them."""
    found: dict[str, Event] = {}
    for path in sorted((REPOSITORY / part).rglob("*.py")):
        for each in Source(path).events():
            other = found.setdefault(each.slug, each)
            assert other == each, "one event has several levels, or several fields"
    if part == "sync":
        for operation, words in lines._LINES.items():
            fields = {*re.findall(r"%\((\w+)\)", words), "seconds"}
            found[operation] = Event(operation, frozenset({"INFO"}), frozenset(fields))
    return found


def documented(part: str) -> dict[str, Event]:
    """Return the events of a part, as the page has them."""
    section = PAGE.read_text().split(f"## Events of {part}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z, ]+) \| ([^|]*)\|", section, re.MULTILINE)
    assert rows
    assert len({slug for slug, _, _ in rows}) == len(rows)
    return {
        slug: Event(slug, frozenset(levels.split(", ")), frozenset(re.findall(r"`(\w+)`", fields)))
        for slug, levels, fields in rows
    }


@pytest.mark.parametrize(("part", "name"), [("sync", "mdvp-sync"), ("mdvp", "mdvp")])
def test_the_page_has_each_event_with_its_level_and_its_fields(part: str, name: str) -> None:
    found, said = of(part), documented(name)
    assert said.keys() == found.keys()
    for slug, event in found.items():
        assert said[slug].fields == event.fields, slug
        if event.levels:
            assert said[slug].levels == event.levels, slug


@pytest.mark.parametrize("part", ["sync", "mdvp"])
def test_no_field_has_the_name_of_one_that_each_line_has(part: str) -> None:
    for event in of(part).values():
        assert event.fields & {*RESERVED, "event"} == set()
        assert not any(each.endswith("_base64") for each in event.fields)


def test_each_operation_has_its_words() -> None:
    assert set(lines._LINES) == set(WORDS) == set(OPERATIONS.values())
