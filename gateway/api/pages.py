"""Pages: the documents of ``gateway/docs`` for browsers, without a script or a foreign host.

``/docs`` is the list of pages, followed by the errors, because the ``type`` of a problem is
``/docs#<code>``. All links are relative, so that they hold below any prefix.
"""

import re
from collections.abc import Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Final

from starlette.responses import Response

from gateway.auth.principals import Principal
from gateway.core.errors import NotFound
from gateway.http.document import StaticDocument
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing
from gateway.http.markdown import render

FOLDER: Final = Path(__file__).parents[1] / "docs"
INDEX: Final = "README"  # as code hosts show it for the folder
ERRORS: Final = "errors"
INDEX_PAGES: Final = (INDEX, ERRORS)  # what ``/docs`` shows
DECISIONS: Final = "decisions"  # a page, and the folder of those it lists
HTML: Final = "text/html"
FILES: Final = {".css": "text/css", ".svg": "image/svg+xml"}  # media types of what pages load
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}

_LISTED: Final = re.compile(r"^[*-] \[(.+)\]\((.+)\.md\)", re.MULTILINE)  # a page in the index
_MACHINE: Final = ("openapi.json", "asyncapi.json")  # the documents for programs

PageCall = Call[Principal, Nothing, Nothing]


def source(name: str) -> str:
    """Return the Markdown of a page; that of the decisions lists them."""
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    if name == DECISIONS:
        for path in sorted((FOLDER / DECISIONS).glob("*.md")):
            title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            text += f"* [{title}]({DECISIONS}/{path.name})\n"
    return text


def served(link: str) -> str:
    """Return where a link of a page leads when the page is served: pages have no suffix there."""
    if "://" in link:
        return link
    path, hash_sign, anchor = link.partition("#")
    path = path.removesuffix(".md")
    if path.endswith(INDEX):
        path = path.removesuffix(INDEX) + "../docs"
    return path + hash_sign + anchor


def page(address: str, *names: str) -> bytes:
    """Return the HTML of an address.

    Args:
        address: The path at which it is served, without a slash before it.
        names: The pages that it shows, one after the other.
    """
    home = "../" * address.count("/") or "./"
    inside = "" if address.startswith("docs/") else "docs/"  # from here to the folder of the pages

    def rewrite(link: str) -> str:
        found = served(link)
        return found if "://" in found or found.startswith("#") else inside + found

    shown = [render(source(name), rewrite) for name in names]
    links = [
        *((f"{home}docs", "Documents"),),
        *((f"{home}docs/{name}", text) for text, name in _LISTED.findall(source(INDEX))),
        *((f"{home}{name}", name) for name in _MACHINE),
    ]
    here = f"{home}{address}"
    menu = "".join(
        f'<li><a href="{target}"{" aria-current=page" if target == here else ""}>{escape(text)}</a>'
        for target, text in links
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(shown[0].title)}</title>\n"
        f'<link rel="stylesheet" href="{home}docs/style.css">\n'
        f"<nav><ul>{menu}</ul></nav>\n"
        f"<main>\n{''.join(one.html for one in shown)}</main>\n"
    ).encode()


def _documents() -> dict[str, StaticDocument]:
    """Return all that is served below ``/docs/``, by its path there."""
    found = {}
    for path in FOLDER.rglob("*"):
        name = path.relative_to(FOLDER).with_suffix("").as_posix()
        if path.suffix == ".md" and name != INDEX:
            found[name] = StaticDocument(partial(page, f"docs/{name}", name), HTML, HEADERS)
        elif path.suffix in FILES:
            found[name + path.suffix] = StaticDocument(path.read_bytes, FILES[path.suffix], HEADERS)
    return found


def endpoints() -> list[AnyEndpoint]:
    """Return the endpoints of the pages."""
    index = StaticDocument(partial(page, "docs", *INDEX_PAGES), HTML, HEADERS)
    documents = _documents()

    async def read_index(call: PageCall) -> Response:
        """List the pages of the documents, and all errors."""
        return await index.reply(call.request)

    async def read_page(call: PageCall) -> Response:
        """Read a page of the documents.

        Raises:
            NotFound: There is no such page.
        """
        name = call.path["page"]
        if not name:
            return Response(status_code=308, headers={"Location": "../docs"})
        if name not in documents:
            raise NotFound("There is no such page.")
        return await documents[name].reply(call.request)

    returns = {200: str, 304: None}
    return [
        Endpoint(
            "GET",
            path,
            handler,
            returns=returns | ({308: None} if "{" in path else {}),
            produces=(HTML, *FILES.values()) if "{" in path else (HTML,),
            errors=(NotFound,) if "{" in path else (),
            is_public=True,
            tag="operations",
        )
        for path, handler in (
            ("/docs", read_index),
            ("/docs/{page:path}", read_page),
        )
    ]
