"""Markdown: renders a page of the documents as HTML, with an anchor for each heading and row.

Headings get the anchors that code hosts give them. A row of a table whose first cell is one code
(a setting, an error) gets that code as its anchor. Raw HTML is not taken.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from msgspec import Struct

_MARKDOWN: Final = MarkdownIt("commonmark", {"html": False}).enable("table")
_DROPPED: Final = re.compile(r"[^\w\- ]")  # from a heading, for its anchor


class Rendered(Struct, frozen=True):
    """A page as HTML.

    Args:
        title: Its first heading, as text.
        html: Its content.
        anchors: The ids in it.
        links: Where its links and images lead, as the page has them.
    """

    title: str
    html: str
    anchors: tuple[str, ...]
    links: tuple[str, ...]


def render(text: str, rewrite: Callable[[str], str] = str) -> Rendered:
    """Return a page as HTML.

    Args:
        text: The page in Markdown (CommonMark with tables).
        rewrite: Returns the target of a link where the page is served.
    """
    tokens = _MARKDOWN.parse(text)
    title, anchors = _anchor(tokens)
    links = []
    for token in tokens:
        for part in token.children or ():
            for attribute in ("href", "src"):
                if attribute in part.attrs:
                    links.append(str(part.attrs[attribute]))
                    part.attrSet(attribute, rewrite(links[-1]))
    html = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    return Rendered(title, html, tuple(anchors), tuple(links))


def _anchor(tokens: list[Token]) -> tuple[str, Iterable[str]]:
    """Give headings and rows of tables their ids; return the first heading, and all ids."""
    title, anchors = "", dict[str, None]()
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            text = _text(tokens[index + 1])
            title = title or text
            wanted = _DROPPED.sub("", text.lower()).replace(" ", "-")
        elif token.type == "tr_open" and tokens[index + 1].type == "td_open":
            cell = tokens[index + 2].children or []
            wanted = cell[0].content if [part.type for part in cell] == ["code_inline"] else ""
        else:
            continue
        if wanted and wanted not in anchors:
            token.attrSet("id", wanted)
            anchors[wanted] = None
    return title, anchors


def _text(inline: Token) -> str:
    return "".join(part.content for part in inline.children or ())
