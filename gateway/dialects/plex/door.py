"""Door: how a request of a Plex client is read and answered, whatever it asks.

The token stands in ``X-Plex-Token``, a header or a parameter, as does every ``X-Plex-…``;
``Authorization`` is none of ours: some clients send nonsense there. XML unless ``Accept`` names
JSON. Every end of a handler is turned into an answer here, also those nobody foresaw.

Not here: what the paths do (``routes``).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import replace
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import Credential
from gateway.auth.principals import Principal
from gateway.context import Context, caller_key
from gateway.core.errors import (
    BadRequest,
    GatewayError,
    MethodNotAllowed,
    Unauthorized,
    UriTooLong,
)
from gateway.dialects.plex import xml
from gateway.dialects.plex.server import error_item, error_page
from gateway.dialects.plex.words import Container, Errors, Word

JSON: Final = "application/json"
XML: Final = "text/xml;charset=utf-8"
TARGET_MAX: Final = 8 * 1024  # bytes of path and query; what other servers take as well
PARAMETERS_MAX: Final = 256  # in one query; with all X-Plex headers in it there are forty
HEADER_MAX: Final = 256  # characters of one X-Plex header that are kept
ROWS_MAX: Final = 5_000  # items in one answer: about 50 ms and 5 MB; the rest is told as a total
BREATH_ROWS: Final = 200  # items rendered between two looks at other requests
POSITION_MAX: Final = 10**9  # of a page's start

T = TypeVar("T")

log = logging.getLogger(__name__)


class Page(Struct, frozen=True):
    """Which part of a list is wanted."""

    start: int = 0
    size: int = ROWS_MAX
    asked: bool = False


class Call(Struct, frozen=True, kw_only=True):
    """One request.

    Args:
        context: The node and its surroundings.
        principal: Who asks; nobody where no token is needed.
        method: Its method.
        path: The parameters of its path.
        pairs: The parameters of its query, decoded, in order, with the token.
        headers: Its headers, names in lower case.
        wants_json: Whether the answer is JSON.
        scope: The ASGI scope, for what is not here.
    """

    context: Context
    principal: Principal
    method: str
    path: Mapping[str, str]
    pairs: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    wants_json: bool
    scope: AsgiScope

    def parameter(self, name: str) -> str | None:
        """Return the first parameter of this name; an empty one was not given."""
        return next((text for known, text in self.pairs if known == name and text), None)

    def plex(self, name: str) -> str | None:
        """Return ``X-Plex-<name>``, from a header or the query, without control characters."""
        text = said(self.headers, self.pairs, name)
        clean = "".join(char for char in text or "" if char.isprintable()).strip()
        return clean[:HEADER_MAX] or None

    def integer(self, name: str) -> int | None:
        """Return a parameter that counts something; ``None`` as python-plexapi spells unset.

        Raises:
            BadRequest: It is no whole number of at least 0.
        """
        text = self.parameter(name)
        if text is None or text == "None":
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 15):  # noqa: PLR2004 - 53 bits
            raise BadRequest(f"{name} must be a whole number")
        return int(text)

    @property
    def page(self) -> Page:
        """The wanted part of a list.

        Raises:
            BadRequest: Start or size is no whole number of at least 0.
        """
        start, size = self.plex("Container-Start"), self.plex("Container-Size")
        return Page(
            _position("X-Plex-Container-Start", start, 0),
            min(_position("X-Plex-Container-Size", size, ROWS_MAX), ROWS_MAX),
            asked=start is not None or size is not None,
        )


def _position(name: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise BadRequest(f"{name} must be a whole number")
    return min(int(text[:18]), POSITION_MAX)


def said(headers: Mapping[str, str], pairs: Sequence[tuple[str, str]], name: str) -> str | None:
    """Return ``X-Plex-<name>`` as it was sent."""
    name = f"x-plex-{name}".lower()
    header = headers.get(name)
    if header is not None:
        return header
    return next((text for known, text in pairs if known.lower() == name), None)


Handler = Callable[[Call], Awaitable[Response]]


class Entrance:
    """One path as an ASGI application: what each method does there.

    Args:
        context: The node and its surroundings.
        handlers: By method.
        is_public: Whether no token is needed.
        otherwise: For all other methods; if unset they are refused.
    """

    def __init__(
        self,
        context: Context,
        handlers: Mapping[str, Handler],
        *,
        is_public: bool = False,
        otherwise: Handler | None = None,
    ) -> None:
        self._context = context
        self._handlers = handlers
        self._is_public = is_public
        self._otherwise = otherwise

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(scope)
        await response(scope, receive, send)

    async def _answer(self, scope: AsgiScope) -> Response:
        connection = HTTPConnection(scope)
        wants_json = JSON in connection.headers.get("accept", "").lower()
        try:
            call = await enter(self._context, scope, is_public=self._is_public)
            method = "GET" if call.method == "HEAD" else call.method
            handler = self._handlers.get(method, self._otherwise)
            if handler is None:
                raise MethodNotAllowed
            return await handler(call)
        except GatewayError as error:
            return refusal(error, wants_json=wants_json, allow=self._handlers)
        except Exception:
            log.exception("a request failed")
            return refusal(GatewayError(), wants_json=wants_json)


async def enter(context: Context, scope: AsgiScope, *, is_public: bool = False) -> Call:
    """Return the request in *scope*, its token checked.

    Raises:
        Unauthorized: There is no token, or none that is good.
        BadRequest: The query cannot be read.
        UriTooLong: Path and query are over 8 KiB.
    """
    pairs = _pairs(scope)
    headers = _headers(scope)
    principal = Principal(name="anybody")
    if not is_public:
        token = said(headers, pairs, "Token")
        if not token:
            raise Unauthorized
        asking = context.principal_of(Credential(token=token, source="header"))
        principal = await context.rate_limited(scope, asking, caller_key)
    return Call(
        context=context,
        principal=principal,
        method=scope.get("method", "GET"),
        path=scope.get("path_params", {}),
        pairs=pairs,
        headers=headers,
        wants_json=JSON in headers.get("accept", "").lower(),
        scope=scope,
    )


def _pairs(scope: AsgiScope) -> list[tuple[str, str]]:
    query: bytes = scope["query_string"]
    raw: bytes = scope.get("raw_path") or b""
    if len(query) + len(raw) > TARGET_MAX:
        raise UriTooLong
    try:
        unquote_to_bytes(raw).decode()
        return parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=PARAMETERS_MAX,
            errors="strict",
        )
    except ValueError as error:
        raise BadRequest("The address cannot be read") from error


def _headers(scope: AsgiScope) -> dict[str, str]:
    """Return the headers; the first counts. Players send names in UTF-8 or in Latin-1."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        found.setdefault(name.decode("latin-1").lower(), text)
    return found


# --- answers


def refusal(
    error: GatewayError, *, wants_json: bool, allow: Mapping[str, Handler] = {}
) -> Response:
    """Return the answer that tells *error*."""
    item = error_item(error)
    headers = {"Cache-Control": "no-cache"}
    if item.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(allow)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if wants_json:
        return Response(encode(Errors(errors=(item,))), item.status, headers, JSON)
    return Response(error_page(item), item.status, headers, "text/html")


def container(call: Call, word: Container) -> Response:
    """Return a container without children."""
    return _container(call, word, "", [])


async def listing(
    call: Call,
    name: str,
    items: Sequence[T],
    render: Callable[[T], Awaitable[Word]],
    *,
    around: Container | None = None,
) -> Response:
    """Return the wanted part of *items* in a container.

    Args:
        call: The request.
        name: What an item is called.
        items: All of them.
        render: Makes one.
        around: The container, without its numbers.
    """
    page = call.page
    part = items[page.start : page.start + page.size]
    pieces: list[str | bytes] = []
    for number, item in enumerate(part, 1):
        word = await render(item)
        pieces.append(encode(word) if call.wants_json else xml.element(name, word))
        if number % BREATH_ROWS == 0:
            await asyncio.sleep(0)
    count = len(items)
    is_part = page.asked or len(part) < count
    response = _container(
        call,
        replace(
            around or Container(size=0),
            size=len(part),
            offset=page.start if is_part else None,
            total_size=count if is_part else None,
        ),
        name,
        pieces,
    )
    if is_part:
        response.headers["X-Plex-Container-Start"] = str(page.start)
        response.headers["X-Plex-Container-Total-Size"] = str(count)
    return response


async def as_it_is(word: Word) -> Word:
    """Return an item that is rendered already."""
    return word


def _container(call: Call, word: Container, name: str, pieces: Sequence[str | bytes]) -> Response:
    headers = {"Cache-Control": "no-cache"}
    if not call.wants_json:
        body = xml.document(word, (piece for piece in pieces if isinstance(piece, str)))
        return Response(body, headers={**headers, "Content-Type": XML})
    body = encode(word)
    if pieces:
        children = b",".join(piece for piece in pieces if isinstance(piece, bytes))
        body = b'%b,"%b":[%b]}' % (body[:-1], name.encode(), children)
    return Response(b'{"MediaContainer":%b}' % body, headers=headers, media_type=JSON)
