"""The web files: the client for pages and the dashboard, as browsers and proxies want them."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest
from msgspec.structs import replace

from gateway.api import web
from gateway.settings import Settings
from tests.browser import browser
from tests.server.conftest import ALLOWED_ORIGIN, Gateway, serving
from tests.support import eventually

PAGE: Final = """<!doctype html>
<meta charset="utf-8">
<title>A page</title>
<link rel="stylesheet" href="dashboard/style.css">
<script type="module" src="dashboard/app.js"></script>
"""
APP: Final = """
import {heard} from "../client.js";
const refused = [];
document.addEventListener("securitypolicyviolation", (event) => {
  refused.push(event.violatedDirective);
});
for (const attempt of [
  () => { document.body.innerHTML = "<b>markup</b>"; },
  () => { new Function("1")(); },
  () => fetch("https://elsewhere.example"),
]) {
  try { await attempt(); } catch { /* the event tells */ }
}
globalThis.shown = heard(new URL("../v1/events", import.meta.url)).then((hello) => ({
  hello, refused: [...new Set(refused)].sort(), color: getComputedStyle(document.body).color,
}));
"""
CLIENT: Final = """
export const heard = (url) => new Promise((resolve, reject) => {
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url, ["gateway.v1", "bearer.reader"]);
  socket.onmessage = ({data}) => resolve(JSON.parse(data).type);
  socket.onerror = reject;
});
"""
FILES: Final = {
    "client.js": CLIENT,
    "client.d.ts": "export declare function heard(url: URL): Promise<string>;\n",
    "index.html": PAGE,
    "package.json": "{}",
    "dashboard/app.js": APP,
    "dashboard/style.css": "body { color: rgb(1, 2, 3); }\n",
    "dashboard/parts/icon.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>\n',
    "dashboard/.app.js.swp": "an editor's",
}
SERVED: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/client.d.ts": ("client.d.ts", "application/typescript"),
    "/client.js": ("client.js", "text/javascript; charset=utf-8"),
    "/dashboard": ("index.html", "text/html; charset=utf-8"),
    "/dashboard/app.js": ("dashboard/app.js", "text/javascript; charset=utf-8"),
    "/dashboard/parts/icon.svg": ("dashboard/parts/icon.svg", "image/svg+xml"),
    "/dashboard/style.css": ("dashboard/style.css", "text/css; charset=utf-8"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Web files of the tests, in place of those of the package."""
    found = tmp_path / "web"
    for name, text in FILES.items():
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_text(text)
    monkeypatch.setattr(web, "FOLDER", found)
    return found


@pytest.fixture
async def anybody(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that shows no credential."""
    async with gateway.http(None) as client:
        yield client


def status_of(url: str, target: str) -> int:
    """Return how a target is answered that is sent as it stands."""
    connection = HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", target)
    with closing(connection), connection.getresponse() as reply:
        return reply.status


@pytest.mark.parametrize("address", SERVED)
async def test_file_is_served_as_http_wants_it(
    anybody: httpx2.AsyncClient, folder: Path, address: str
) -> None:
    """GET, HEAD, 304 for the tag of each coding, and compressed only if that is accepted."""
    name, media = SERVED[address]
    plain = await anybody.get(address, headers={"Accept-Encoding": "identity"})
    packed = await anybody.get(address, headers={"Accept-Encoding": "br, gzip"})
    head = await anybody.head(address, headers={"Accept-Encoding": "identity"})
    wrong = await anybody.post(address)

    assert plain.status_code == 200
    assert plain.content == (folder / name).read_bytes()
    assert plain.headers["content-type"] == media
    assert plain.headers["cache-control"] == "public, no-cache"
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert "Accept-Encoding" in plain.headers["vary"]
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == len(gzip.compress(plain.content, 9, mtime=0))
    assert packed.content == plain.content
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == plain.headers["content-length"]
    assert not {plain.headers["etag"][:2], packed.headers["etag"][:2]} & {"W/"}
    for tag in (plain.headers["etag"], packed.headers["etag"]):
        coding = "gzip" if tag.endswith('-gzip"') else "identity"
        again = await anybody.get(
            address, headers={"If-None-Match": tag, "Accept-Encoding": coding}
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "public, no-cache"
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_pages_may_load_and_do_only_what_is_ours(anybody: httpx2.AsyncClient) -> None:
    """The policy of a page names no foreign source, no inline script, and no frame around it."""
    for address in ("/", "/dashboard", "/dashboard/app.js"):
        found = (await anybody.get(address)).headers
        policy = dict(
            part.strip().partition(" ")[::2] for part in found["content-security-policy"].split(";")
        )

        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert policy["trusted-types"] == "'none'"
        assert found["cross-origin-opener-policy"] == "same-origin"
        assert found["cross-origin-resource-policy"] == "same-origin"
        assert found["referrer-policy"] == "no-referrer"


async def test_client_may_be_loaded_by_allowed_pages(anybody: httpx2.AsyncClient) -> None:
    """A page of an allowed origin may import the client; a page of another one may not."""
    for address in ("/client.js", "/client.d.ts"):
        allowed = await anybody.get(address, headers={"Origin": ALLOWED_ORIGIN})
        foreign = await anybody.get(address, headers={"Origin": "https://elsewhere.example"})

        assert allowed.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
        assert allowed.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "access-control-allow-origin" not in foreign.headers
        assert "Origin" in foreign.headers["vary"]


@pytest.mark.parametrize(
    "target",
    [
        *("/package.json", "/index.html", "/dashboard/.app.js.swp", "/dashboard/parts"),
        *("/dashboard/../client.js", "/dashboard/..%2fclient.js", "/dashboard/%2e%2e/client.js"),
        *("/../web/client.js", "//client.js", "/client.js/", "/client.js%00", "/dashboard//app.js"),
        *("/dashboard/app.js%0a", "/dashboard/..%5cclient.js", "/CLIENT.JS", "/web/client.js"),
    ],
)
async def test_no_other_target_leads_to_a_file(gateway: Gateway, target: str) -> None:
    """Only the names of the table are answered; all else is refused, whatever is in the folder."""
    assert await asyncio.to_thread(status_of, gateway.url, target) in (400, 404)


async def test_file_stays_what_it_was_at_the_start(
    anybody: httpx2.AsyncClient, folder: Path
) -> None:
    """A file that changes under a running gateway does not mix with those of before."""
    (folder / "client.js").write_text("other")
    (folder / "dashboard/app.js").unlink()

    assert (await anybody.get("/client.js")).text == CLIENT
    assert (await anybody.get("/dashboard/app.js")).text == APP


@pytest.mark.parametrize(
    "dialect, target, leads_to",
    [
        (None, "/dashboard/", "/dashboard"),
        ("plex=/", "/dashboard", "/gateway/"),
        ("plex=/", "/gateway", "/gateway/"),
        ("plex=/", "/gateway/dashboard/", "/gateway/dashboard"),
    ],
)
async def test_addresses_that_people_guess_lead_to_the_page(
    settings: Settings, dialect: str | None, target: str, leads_to: str
) -> None:
    """A redirect is relative, so it holds below the prefix of a proxy, and keeps the fragment."""
    proxied = {"X-Forwarded-Prefix": "/live"}
    set_up = replace(settings, dialect=dialect, trusted_proxies=("127.0.0.1",))
    async with serving(set_up) as gateway, gateway.http(None) as http:
        for headers, prefix in (({}, ""), (proxied, "/live")):
            reply = await http.get(target, headers=headers)
            found = urljoin(f"{gateway.url}{prefix}{target}", reply.headers["location"])

            assert reply.status_code == 308
            assert found == f"{gateway.url}{prefix}{leads_to}"
        assert (await http.get(leads_to)).text == PAGE


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("dialect, address", [(None, "/"), ("plex=/", "/gateway/")])
async def test_browser_runs_the_page_under_its_policy(
    settings: Settings, chromium: str, tmp_path: Path, dialect: str | None, address: str
) -> None:
    """Style, modules and WebSockets of the own origin work; all else is refused."""
    async with (
        serving(replace(settings, dialect=dialect)) as gateway,
        browser(chromium, tmp_path / "profile") as window,
    ):
        page = await window.page(gateway.url + address)
        await eventually(lambda: page.run("globalThis.shown !== undefined"))
        shown = await page.run("shown")

    assert shown == {
        "hello": "hello",
        "refused": ["connect-src", "require-trusted-types-for"],
        "color": "rgb(1, 2, 3)",
    }
