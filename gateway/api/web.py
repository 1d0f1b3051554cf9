"""Web: the files of ``gateway/web``: the client for pages, and the dashboard.

Each file is a row of the table of endpoints, made at the start: an address that names no file leads
nowhere, and an upgrade of the package under a running gateway does not mix two versions. Their
names hold no hash, so a browser asks each time whether it still has the newest.

Not here: the documents (``pages``).
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from starlette.responses import Response

from gateway.auth.principals import Principal
from gateway.http.document import StaticDocument
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing

FOLDER: Final = Path(__file__).parents[1] / "web"
INDEX: Final = "index.html"
CLIENT: Final = ("client.js", "client.d.ts")
DASHBOARD: Final = "dashboard"  # an address of the page, and the folder of what it loads
MEDIA: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",  # RFC 9239
    ".svg": "image/svg+xml",
    ".ts": "application/typescript",
}
SHARED_HEADERS: Final[Mapping[str, str]] = {  # pages of other origins may load the client
    "Cross-Origin-Resource-Policy": "cross-origin"
}
OWN_HEADERS: Final[Mapping[str, str]] = {
    # 'self' covers WebSockets of the same host and port (CSP 3, section 6.7.2.8).
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

WebCall = Call[Principal, Nothing, Nothing]


def endpoints() -> list[AnyEndpoint]:
    """Return the endpoints of the files that are there, and of addresses that lead to them."""
    found = {f"/{name}": (FOLDER / name, SHARED_HEADERS) for name in CLIENT}
    found |= dict.fromkeys(("/", f"/{DASHBOARD}"), (FOLDER / INDEX, OWN_HEADERS))
    for path in sorted((FOLDER / DASHBOARD).rglob("*")):
        if path.suffix in MEDIA:
            found[f"/{path.relative_to(FOLDER).as_posix()}"] = path, OWN_HEADERS
    rows = [_file(address, *file) for address, file in found.items() if file[0].is_file()]
    return [*rows, _row("", to_root), _row(f"/{DASHBOARD}/", to_dashboard)]


def way_to(root: str) -> AnyEndpoint:
    """Return the endpoint that leads from the root, which a product has, to the page."""

    async def to_mounted(_call: WebCall) -> Response:
        return _redirect(f"{root.removeprefix('/')}/")

    return _row(f"/{DASHBOARD}", to_mounted)


async def to_root(call: WebCall) -> Response:
    """Lead from the prefix of this API to the page, whose links are relative."""
    return _redirect(f"{call.request.root.rpartition('/')[2]}/")


async def to_dashboard(_call: WebCall) -> Response:
    """Lead to the address at which the relative links of the page hold."""
    return _redirect(f"../{DASHBOARD}")


def _redirect(location: str) -> Response:
    return Response(status_code=308, headers={"Location": location})


def _file(address: str, path: Path, headers: Mapping[str, str]) -> AnyEndpoint:
    text, media = path.read_bytes(), MEDIA[path.suffix]
    document = StaticDocument(lambda: text, media, headers)

    async def read_file(call: WebCall) -> Response:
        return await document.reply(call.request)

    return _row(address, read_file, media)


def _row(
    address: str, handler: Callable[[WebCall], Awaitable[Response]], media: str = MEDIA[".html"]
) -> AnyEndpoint:
    return Endpoint("GET", address, handler, produces=(media,), is_public=True, is_hidden=True)
