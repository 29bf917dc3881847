"""How Sphinx makes a site of this directory (`scripts/site.sh`): of its Markdown, as it is.

What the repository shows is what the site has. The pages and their order are those of the lists in
index.md: each heading there is a part of the site's contents.
"""

import re

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "mdvp"
html_title = "mdvp"
extensions = ["myst_parser"]

myst_heading_anchors = 4  # links such as trees.md#symbolic-links, to as many levels of headings
myst_heading_slug_func = "github"  # as the repository's own view names them
myst_enable_extensions = ["strikethrough"]

smartquotes = False  # what is quoted can be copied

html_theme = "furo"
html_copy_source = False
# It is fetched from each page that was found, which a browser does not do for files (file://).
html_show_search_summary = False
html_show_copyright = False  # the licence is with the sources
html_use_index = False
pygments_style = "default"
pygments_dark_style = "monokai"


def setup(app: Sphinx) -> None:
    """Have the contents made of index.md, and drawings in the language of Mermaid shown as text."""
    app.connect("source-read", _add_contents)
    app.add_lexer("mermaid", TextLexer)


def _add_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    if page == "index":
        _, *parts = re.split("^## ", source[0], flags=re.MULTILINE)
        source[0] += "".join(_contents(part) for part in parts)


def _contents(part: str) -> str:
    title, _, text = part.partition("\n")
    links = re.findall(r"^- \[(.*?)\]\((.*?)\.md\)", text, re.MULTILINE)
    pages = [f"{name} <{page}>" for name, page in links]
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {title}", *pages, "```", ""])
