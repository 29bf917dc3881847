"""README, the pages in docs/ and the site made of them: linked, whole, right about the settings."""

import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from myst_parser.slugs import github_slugify, unique_slug

from mdvp.core import options
from mdvp.core.volume import Access, Fate, OnRemove
from mdvp.settings import Settings as PluginSettings
from sync.settings import Settings as SyncSettings

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
MARKDOWN = [README, REPOSITORY / "CHANGELOG.md", *PAGES]

WANTED = {
    *("index", "first-steps", "install", "volumes", "life", "shared", "keys", "image"),
    *("trees", "modes"),
    *("existing-redis", "applications", "running", "monitoring", "security", "architecture"),
    *("benchmarks", "logs"),
}
FIRST_SCREEN = 45  # lines
WHOLE = 100

LOADED = {"stylesheet", "preload", "icon", "modulepreload", "manifest"}  # by <link rel="...">
SETTING = r"(?:SYNC|REDIS|LOG)_[A-Z_]+[A-Z]|GRACE|LOCK_DIRECTORIES|ON_REMOVE"


def is_elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.scheme or parts.netloc)


# What the repository shows.


class Page:
    """A page as GitHub and the like show it.

    Attributes:
        links: what links and pictures lead to.
        anchors: what a link can have behind a `#`.
        tables: all tables: rows, each the text of its cells, as it is written.

    """

    def __init__(self, path: Path) -> None:
        tree = SyntaxTreeNode(MarkdownIt("gfm-like", {"linkify": False}).parse(path.read_text()))
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.tables: list[list[list[str]]] = []
        for node in tree.walk():
            if node.type in ("link", "image"):
                self.links.append(str(node.attrs["href" if node.type == "link" else "src"]))
            elif node.type == "heading":
                words = "".join(_words(node.children[0]))
                self.anchors.add(unique_slug(github_slugify(words), self.anchors))
            elif node.type == "table":
                rows = [row for part in node.children for row in part.children]
                self.tables.append(
                    [[cell.children[0].content for cell in row.children] for row in rows]
                )


def _words(node: SyntaxTreeNode) -> Iterator[str]:
    for each in node.walk():
        if each.type in ("text", "code_inline"):
            yield each.content


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_between_files_of_the_repository_lead_somewhere(path: Path) -> None:
    broken = [link for link in Page(path).links if not is_elsewhere(link) and not leads(path, link)]
    assert broken == []


def leads(path: Path, link: str) -> bool:
    parts = urlsplit(link)
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not (file.is_file() and is_known_to_git(file)):
        return False
    return not parts.fragment or parts.fragment in Page(file).anchors


def is_known_to_git(file: Path) -> bool:
    if not (REPOSITORY / ".git").exists():  # a copy, as of a clone: it has what git knows of
        return True
    command = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", str(file))
    return bool(subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout)


def test_each_page_that_there_should_be_is_there() -> None:
    assert {path.stem for path in DOCS.glob("*.md")} == WANTED


def test_readme_shows_what_it_is_on_one_screen_and_is_short() -> None:
    lines = README.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("## "))
    assert first <= FIRST_SCREEN
    assert len(lines) <= WHOLE


def test_readme_leads_to_each_page() -> None:
    reached = {
        (README.parent / urlsplit(link).path).resolve()
        for link in Page(README).links
        if not is_elsewhere(link)
    }
    assert {page for page in PAGES if page != DOCS / "index.md"} - reached == set()


# The settings and options, and what the tables say of them.


@dataclass(frozen=True)
class Said:
    """What a table says of a setting or an option: its default, as it is written."""

    default: str

    @property
    def plain(self) -> str:
        return self.default.strip("`")


@pytest.fixture(scope="module")
def tables() -> dict[str, Said]:
    """Return what the tables say that have a column of defaults, by name."""
    said: dict[str, Said] = {}
    tables = [table for page in PAGES for table in Page(page).tables]
    for titles, *rows in tables:
        for cells in rows if titles[1:2] == ["default"] else ():
            for name in re.findall(r"`([\w.-]+)`", cells[0]):
                assert said.setdefault(name, Said(cells[1])) == Said(cells[1]), name
    return said


def documented(settings: type) -> dict[str, str]:
    """Return the settings that a docstring names, and the default that it has in parentheses."""
    text = inspect.getdoc(settings) or ""
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=[a-z_]+ +[A-Z\w]+.*)", text, flags=re.MULTILINE):
        default = re.search(r"\(([^()]*)\)\s*$", entry)
        for name in re.findall(SETTING, entry):
            found[name] = " ".join(default[1].split()) if default else ""
    return found


SYNC = documented(SyncSettings)
PLUGIN = documented(PluginSettings)
# Of one entry of the docstring, which has one default for all, in words.
ACCESS = {name for name in SYNC if name.startswith("REDIS_")}


def test_the_docstrings_name_every_setting_that_is_read() -> None:
    """So that no setting is missing below because this test cannot see it."""
    for module, found in ((SyncSettings, SYNC), (PluginSettings, PLUGIN)):
        source = Path(inspect.getfile(module)).read_text()
        read = set(re.findall(rf'"({SETTING})"', source))
        assert read - found.keys() == set()
        assert len(read) > 2


@pytest.mark.parametrize("name", sorted((SYNC | PLUGIN).keys() - ACCESS))
def test_each_setting_is_in_a_table_with_its_default(name: str, tables: dict[str, Said]) -> None:
    said = tables[name]
    for found in (SYNC, PLUGIN):
        if name in found:
            if said.default.startswith("`"):
                assert said.plain == found[name].partition(" ")[0]
            else:
                assert not re.fullmatch(r"[\d%]+|[a-z]+-[a-z-]+", found[name]), found[name]


@pytest.mark.parametrize("name", sorted(ACCESS))
def test_each_setting_of_the_server_is_in_a_page(name: str) -> None:
    assert any(f"`{name}`" in page.read_text() for page in PAGES)


@pytest.mark.parametrize("settings", [SyncSettings, PluginSettings])
def test_a_default_that_is_set_changes_nothing(settings: type, tables: dict[str, Said]) -> None:
    """The default of the tables is what the program does when nothing is set."""
    names = documented(settings).keys() & tables.keys()
    given = {name: tables[name].plain for name in names if tables[name].default.startswith("`")}
    assert len(given) > 2
    read = settings.read  # type: ignore[attr-defined]  # both have it
    assert read(given) == read({})


def test_each_option_of_a_volume_is_in_a_table_with_its_default(tables: dict[str, Said]) -> None:
    has = {name: said for name, said in tables.items() if name in options._OPTIONS}
    assert has.keys() == options._OPTIONS.keys()
    given = {name: said.plain for name, said in has.items() if said.default.startswith("`")}
    read = options.read(given)
    assert read == options.Options(
        access=Access.EXCLUSIVE,
        mode=0o755,
        on_remove=OnRemove(Fate.DELETE),
        protect=False,
        live=False,
        adopt=False,
    )


def test_what_can_be_set_of_the_plugin_is_in_a_table_with_its_default(
    tables: dict[str, Said],
) -> None:
    config = json.loads((REPOSITORY / "plugin" / "config.json").read_text())
    wanted = {each["name"]: each["value"] for each in config["env"]}
    wanted |= {
        f"{each['name']}.source": each["source"]
        for each in config["mounts"]
        if "source" in each.get("settable", ())
    }
    assert {name: tables[name].plain for name in wanted} == wanted


# The site.


class Html(HTMLParser):
    """A page of the site.

    Attributes:
        links: what can be clicked on.
        loads: what the browser fetches to show it.
        ids: what a link can have behind a `#`.

    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.ids |= {given["id"]} if "id" in given else set()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and LOADED.intersection(given.get("rel", "").split()):
            self.loads.append(given["href"])
        self.loads += [given[name] for name in ("src", "srcset", "data", "poster") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site; it is made without a warning, or there is none."""
    place = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        (REPOSITORY / "scripts/site.sh", place),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return place


@pytest.fixture(scope="module")
def html(site: Path) -> dict[Path, Html]:
    return {path: Html(path) for path in site.rglob("*.html")}


def test_each_page_is_in_the_site(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file()


def test_each_page_is_in_the_contents(site: Path, html: dict[Path, Html]) -> None:
    reached = {(site / link).resolve() for link in html[site / "index.html"].links}
    wanted = {(site / page.relative_to(DOCS)).with_suffix(".html") for page in PAGES}
    assert wanted - reached - {site / "index.html"} == set()


def test_links_of_the_site_lead_somewhere(html: dict[Path, Html]) -> None:
    broken = [
        f"{path.name}: {link}"
        for path, page in html.items()
        for link in page.links
        if not is_elsewhere(link) and not arrives(html, path, link)
    ]
    assert broken == []


def arrives(html: dict[Path, Html], path: Path, link: str) -> bool:
    parts = urlsplit(link)
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if file not in html:
        return file.is_file()
    return not parts.fragment or unquote(parts.fragment) in html[file].ids


def test_nothing_is_loaded_from_elsewhere(site: Path, html: dict[Path, Html]) -> None:
    loads = [(path, each) for path, page in html.items() for each in page.loads]
    assert [each for _, each in loads if is_elsewhere(each)] == []
    for path, each in loads:
        assert (path.parent / urlsplit(each).path).is_file(), each
    for style in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        fetched = re.findall(r"""(?:@import\s+|url\()\s*["']?([^"')\s]+)""", style.read_text())
        assert [
            each for each in fetched if is_elsewhere(each) and not each.startswith("data:")
        ] == []


def test_a_search_finds_what_people_look_for(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    for word in ("configmap", "sentinel", "inotifi", "kubernet", "prometheus", "volum", "plugin"):
        assert re.search(rf'"?{word}"?:', index), word


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    """Sphinx, with the options of scripts/site.sh, says so; and so it says of a lost anchor."""
    script = (REPOSITORY / "scripts/site.sh").read_text()
    options_given = re.findall(r"--[a-z-]+(?: html)?", script.partition("sphinx-build ")[2])
    source = tmp_path / "docs"
    source.mkdir()
    (source / "conf.py").write_text((DOCS / "conf.py").read_text())
    (source / "index.md").write_text("# A\n\n## B\n\n- [C](c.md): [none](c.md#d), [gone](e.md)\n")
    (source / "c.md").write_text("# C\n\n![none](picture.svg)\n")
    (source / "lost.md").write_text("# Lost\n")
    words = [word for option in options_given for word in option.split() if "doctree" not in word]
    done = subprocess.run(
        (REPOSITORY / ".venv/bin/sphinx-build", *words, source, tmp_path / "site"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    for sign in ("'d'", "e.md", "picture.svg", "lost.md"):
        assert sign in done.stderr
