"""The pages of the documents: served by the gateway itself, readable, and true to HTTP."""

import asyncio
import gzip
import re
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

import pytest

from gateway.api import pages
from gateway.core.errors import ERRORS
from tests.browser import browser
from tests.server.conftest import Gateway

NAMES: Final = sorted(
    path.relative_to(pages.FOLDER).with_suffix("").as_posix() for path in pages.FOLDER.rglob("*.md")
)
ADDRESSES: Final = ("/docs", *(f"/docs/{name}" for name in NAMES if name != pages.INDEX))


class Seen(HTMLParser):
    """What a browser finds in a page: ids, and the addresses of links and of what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        found = dict(attrs)
        self.tags.add(tag)
        if identifier := found.get("id"):
            self.ids.append(identifier)
        if address := found.get("src") or found.get("href"):
            (self.links if tag == "a" else self.loads).append(address)


def inside(found: Seen) -> Iterator[str]:
    """Return the links of a page that do not leave the gateway."""
    return (link for link in found.links if not link.startswith("https://"))


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    """Every page by its address."""
    made = {"/docs": pages.page("docs", *pages.INDEX_PAGES)}
    made |= {
        f"/docs/{name}": pages.page(f"docs/{name}", name) for name in NAMES if name != pages.INDEX
    }
    return {address: Seen(text.decode()) for address, text in made.items()}


@pytest.mark.parametrize("address", ADDRESSES)
def test_links_of_a_served_page_lead_somewhere(seen: dict[str, Seen], address: str) -> None:
    """Each link leads to a page or document of the gateway, and to an anchor that is there."""
    broken = []
    for link in inside(seen[address]):
        target = urlsplit(urljoin(f"http://gateway{address}", link))
        if target.path in ("/openapi.json", "/asyncapi.json"):
            continue
        page = seen.get(target.path)
        if page is None or (target.fragment and target.fragment not in page.ids):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_page_needs_no_script_and_no_foreign_host(seen: dict[str, Seen], address: str) -> None:
    """A page loads its style and pictures from the gateway, and nothing else; ids are unique."""
    page = seen[address]

    assert page.tags.isdisjoint({"script", "iframe", "object", "form", "base"})
    assert len(page.ids) == len(set(page.ids))
    for load in page.loads:
        path = urlsplit(urljoin(f"http://gateway{address}", load))
        assert path.netloc == "gateway"
        assert (pages.FOLDER / path.path.removeprefix("/docs/")).is_file(), load


@pytest.mark.parametrize("code", ERRORS)
def test_type_of_every_problem_is_an_anchor(seen: dict[str, Seen], code: str) -> None:
    """``/docs#<code>`` is the row of the error, whatever the error is."""
    assert code in seen["/docs"].ids


@pytest.mark.parametrize("address", ["/docs", "/docs/errors", "/docs/style.css"])
async def test_page_is_served_as_http_wants_it(gateway: Gateway, address: str) -> None:
    """GET, HEAD, a tag for the next time, compressed if accepted, and a policy for browsers."""
    async with gateway.http(None) as http:
        plain = await http.get(address, headers={"Accept-Encoding": "identity"})
        packed = await http.get(address, headers={"Accept-Encoding": "gzip"})
        head = await http.head(address, headers={"Accept-Encoding": "identity"})
        again = await http.get(address, headers={"If-None-Match": packed.headers["etag"]})
        wrong = await http.post(address)
        media = "text/css" if address.endswith(".css") else "text/html"

    assert plain.status_code == 200
    assert plain.headers["content-type"] == f"{media}; charset=utf-8"
    assert "default-src 'none'" in plain.headers["content-security-policy"]
    assert "unsafe" not in plain.headers["content-security-policy"]
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text
    assert packed.headers["etag"] != plain.headers["etag"]
    assert len(gzip.compress(plain.content)) < len(plain.content)
    assert head.headers["content-length"] == plain.headers["content-length"]
    assert (again.status_code, again.content) == (304, b"")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    "path",
    [
        *("nowhere", "..", "../README", "../README.md", "%2e%2e/README", "..%2fREADME"),
        *("decisions/../errors", "decisions/", "errors.md", "errors/", "/errors", "README", "%00"),
    ],
)
async def test_no_path_leads_out_of_the_pages(gateway: Gateway, path: str) -> None:
    """Only the names of pages are answered; all else is refused, whatever is in the folders."""

    def status() -> int:
        connection = HTTPConnection(urlsplit(gateway.url).netloc)
        connection.request("GET", f"/docs/{path}")  # as it stands
        with closing(connection), connection.getresponse() as reply:
            return reply.status

    assert await asyncio.to_thread(status) in (400, 404)


async def test_folder_leads_to_the_index(gateway: Gateway) -> None:
    """``/docs/`` is where people guess it, and a relative redirect holds below any prefix."""
    async with gateway.http(None) as http:
        reply = await http.get("/docs/")

    assert (reply.status_code, reply.headers["location"]) == (308, "../docs")


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_browser_shows_the_row_of_an_error(
    gateway: Gateway, chromium: str, tmp_path: Path
) -> None:
    """Who follows the type of a problem sees the row of this error, marked, in the page's style."""
    async with gateway.http() as http:
        kind = (await http.get("/v1/sessions/nobody")).json()["type"]
    async with browser(chromium, tmp_path) as window:
        page = await window.page(urljoin(gateway.url, kind))
        row = await page.run("document.querySelector(':target').innerText")
        styled = await page.run("getComputedStyle(document.body).fontFamily")

    assert re.match(r"not_found\s+404", row)
    assert styled.startswith("system-ui")
