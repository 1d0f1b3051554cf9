"""Style: Plex's tokens, paths and parameters, and its answers in JSON or XML.

Its exceptions from the common rules, and why:

- The token and every other ``X-Plex-…`` are in a header or in the query; ``Authorization`` is
  ignored, because some clients send other data there. So pages may send any header.
- A path is the same with and without a slash at its end (API description 1.1.1).
- Unknown parameters are ignored, and of repeated ones the first counts, because clients send dozens
  of hints; python-plexapi sends ``None`` for unset ones.
- XML unless ``Accept`` names JSON, whatever else it names; nothing is a 406.
- The challenge of a 401 names the place of a token; browsers ignore unknown schemes.

XML has the same names as JSON: scalars become attributes, objects elements, true is ``1``; the
items of a library are ``Video``, ``Track`` or ``Photo`` elements by their type.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar

from msgspec import ValidationError, convert, to_builtins
from msgspec.json import encode
from msgspec.structs import fields, replace
from starlette.responses import Response
from starlette.types import Scope

from gateway.auth.credentials import Credential
from gateway.auth.principals import Principal
from gateway.context import Context
from gateway.core import errors
from gateway.core.errors import BadRequest, GatewayError, Unauthorized, excerpt
from gateway.dialects.plex.query import Count, Paged
from gateway.dialects.plex.schema import Container, ErrorItem, Errors, Word
from gateway.http.endpoint import JSON, AnyEndpoint, Call, EndpointTable, Match, paced
from gateway.http.endpoint import Nothing as NoBody
from gateway.http.problems import nearest
from gateway.http.request import Request, read_pairs
from gateway.http.style import Reading, TableStyle, Traits

XML: Final = "text/xml;charset=utf-8"
METADATA: Final = "Metadata"  # the JSON name that has no element of its own
HEADER_MAX: Final = 256  # characters of one X-Plex header that are kept
ROWS_MAX: Final = 5_000  # items in one answer: about 50 ms and 5 MB; the rest is told as a total

PlexCall = Call[Principal, Any, Any]
T = TypeVar("T")
Pairs = Sequence[tuple[str, str]]

_DIGITS_MAX: Final = 15  # of a number: 53 bits are what JavaScript counts to
_ELEMENTS: Final = {"track": "Track", "photo": "Photo"}
# Extensible Markup Language 1.0, section 2.2: the production Char, negated.
_ILLEGAL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL: Final = re.compile(f'[&<>"\t\n\r]|{_ILLEGAL.pattern}')
_ESCAPED: Final = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&quot;",
        "\t": "&#9;",  # section 3.3.3: a parser would turn these three into blanks
        "\n": "&#10;",
        "\r": "&#13;",
    }
)
_MESSAGES: Final[dict[type[GatewayError], str]] = {
    errors.Unauthorized: "User could not be authenticated",
    errors.SessionClosed: errors.NotFound.title,
}
_STATUS: Final[dict[type[GatewayError], tuple[int, int]]] = {
    errors.Unauthorized: (401, 1001),
    errors.Forbidden: (403, 1003),
    errors.NotFound: (404, 1004),
    errors.SessionClosed: (404, 1004),
    errors.MethodNotAllowed: (405, 1005),
    errors.UriTooLong: (414, 1014),
    errors.RateLimited: (429, 1029),
    errors.TooManySessions: (503, 1053),
    errors.Conflict: (503, 1053),
    errors.Unavailable: (503, 1053),
}
"""Status and code of errors and their kinds; every other one that is the caller's is a 400."""


class PlexStyle(TableStyle[Principal]):
    """The style of Plex's API; see :class:`gateway.http.style.Style`."""

    traits = Traits(
        allows=None,
        exposes="X-Plex-Container-Start, X-Plex-Container-Total-Size, Retry-After, X-Request-Id",
        challenge="X-Plex-Token",
        vary="Accept, Origin, X-Plex-Token",
    )

    def __init__(self, context: Context, table: EndpointTable) -> None:
        self._context = context
        super().__init__(table)

    def match(self, request: Request) -> Match:
        """Return the endpoint of a target, with or without a slash at its end."""
        path = request.path or "/"
        found = self._table.match(path, request.method)
        if found.allowed or not path.endswith("/"):
            return found
        return self._table.match(path.rstrip("/") or "/", request.method)

    async def credential(self, request: Request, endpoint: AnyEndpoint | None) -> Principal:
        """Return whose token it is."""
        del endpoint
        return await principal_in(self._context, request.scope)

    async def read(
        self, endpoint: AnyEndpoint, request: Request, names: Mapping[str, str]
    ) -> Reading:
        """Return the parameters, from the query and from headers."""
        del names
        query = read_parameters(request, endpoint.query)
        return Reading(query, NoBody(), JSON if takes_json(request.scope) else XML)

    def refuse(self, error: GatewayError, request: Request, caller: Principal | None) -> Response:
        """Return the body of :class:`Errors` for who accepts JSON, else Plex's small page."""
        del caller
        return refusal(error, as_json=takes_json(request.scope))


def refusal(error: GatewayError, *, as_json: bool) -> Response:
    """Return the answer to *error*."""
    item = error_item(error)
    if as_json:
        return Response(encode(Errors(errors=(item,))), item.status, media_type=JSON)
    phrase = HTTPStatus(item.status).phrase
    page = (
        f"<html><head><title>{phrase}</title></head>"
        f"<body><h1>{item.status} {phrase}</h1></body></html>"
    )
    return Response(page, item.status, media_type="text/html")


def error_item(error: GatewayError) -> ErrorItem:
    """Return *error* in Plex's words; a closed session is unknown, whatever it was."""
    status, code = error_codes(type(error))
    message = nearest(_MESSAGES, type(error), error.detail)
    return ErrorItem(code=code, message=message, status=status)


def error_codes(error: type[GatewayError]) -> tuple[int, int]:
    """Return status and code of a kind of errors."""
    is_ours = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return nearest(_STATUS, error, (500, 1050) if is_ours else (400, 1000))


# --- requests


def takes_json(scope: Scope) -> bool:
    """Whether ``Accept`` names JSON."""
    accepts = (value for name, value in scope["headers"] if name == b"accept")
    return any(JSON.encode() in value.lower() for value in accepts)


async def principal_in(context: Context, scope: Scope) -> Principal:
    """Return whose token a request shows.

    Raises:
        Unauthorized: There is no token, or none that is good.
    """
    token = plex_values(scope, read_pairs(scope)).get("x-plex-token")
    if not token:
        raise Unauthorized
    return await context.principal_of(Credential(token=token, source="header"))


def plex_values(scope: Scope, pairs: Pairs) -> dict[str, str]:
    """Return every ``X-Plex-…`` by its name in lower case; a header counts before the query.

    Players send names in UTF-8 or in Latin-1.
    """
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        if raw_name.startswith(b"x-plex-"):
            try:
                text = raw_value.decode()
            except UnicodeDecodeError:
                text = raw_value.decode("latin-1")
            found.setdefault(raw_name.decode("latin-1"), text)
    for name, text in pairs:
        if (low := name.lower()).startswith("x-plex-"):
            found.setdefault(low, text)
    return found


def read_parameters(request: Request, kind: type[T]) -> T:
    """Return what a request asks for; of *kind* the fields have Plex's names.

    Raises:
        BadRequest: The query cannot be read, or a parameter is missing or no whole number.
    """
    pairs = read_pairs(request.scope)
    plex = plex_values(request.scope, pairs)
    given: dict[str, str] = {}
    for known in fields(kind):  # type: ignore[arg-type]
        name = known.encode_name
        if name.startswith("X-Plex-"):
            clean = "".join(char for char in plex.get(name.lower(), "") if char.isprintable())
            text = clean.strip()[:HEADER_MAX]
        else:
            text = next((value for other, value in pairs if other == name and value), "")
        is_count = known.type == Count | None
        if not text or (is_count and text == "None"):  # as clients spell what is unset
            if known.required:
                raise BadRequest(f"{name} is missing")
        elif is_count and not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX):
            raise BadRequest(f"{name} must be a whole number")
        else:
            given[name] = text
    try:
        return convert(given, kind, strict=False)
    except ValidationError as error:
        raise BadRequest(excerpt(str(error))) from error


# --- answers


async def listing(
    call: PlexCall,
    name: str,
    items: Sequence[T],
    render: Callable[[T], Awaitable[Word]] | None = None,
    around: Container | None = None,
) -> Response:
    """Return the wanted part of *items* in a container.

    Args:
        call: The request.
        name: What an item is called.
        items: All of them.
        render: Makes one; unset if they are rendered already.
        around: The container, without its numbers; a plain one if unset.
    """
    page: Paged = call.query if isinstance(call.query, Paged) else Paged()
    start, size = page.start or 0, ROWS_MAX if page.size is None else min(page.size, ROWS_MAX)
    part = items[start : start + size]
    pieces: list[Any] = []  # text of XML, bytes of JSON
    async for item in paced(part):
        one: Any = item if render is None else await render(item)
        pieces.append(encode(one) if call.media == JSON else element(name, one))
    total = len(items)
    is_part = (page.start, page.size) != (None, None) or len(part) < total
    numbers = {"offset": start, "total_size": total} if is_part else {}
    response = container(
        call, replace(around or Container(), size=len(part), **numbers), name, pieces
    )
    if is_part:
        response.headers["X-Plex-Container-Start"] = str(start)
        response.headers["X-Plex-Container-Total-Size"] = str(total)
    return response


def container(
    call: PlexCall, word: Container, name: str = "", pieces: Sequence[Any] = ()
) -> Response:
    """Return a container; its children are called *name* and are encoded already."""
    if call.media != JSON:
        return Response(document(word, pieces), headers={"Content-Type": XML})
    data = encode(word)
    if pieces:
        data = b'%b,"%b":[%b]}' % (data[:-1], name.encode(), b",".join(pieces))
    return Response(b'{"MediaContainer":%b}' % data, media_type=JSON)


# --- XML


def document(word: Container, children: Iterable[str] = ()) -> bytes:
    """Return a ``MediaContainer`` with *children*, which are elements already."""
    root = _element("MediaContainer", to_builtins(word), "".join(children))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{root}'.encode()


def element(name: str, word: Word) -> str:
    """Return *word* as an element; :data:`METADATA` is called by its ``type``."""
    return _element(name, to_builtins(word))


def _element(name: str, words: dict[str, Any], inner: str = "") -> str:
    if name == METADATA:
        name = _ELEMENTS.get(words["type"], "Video")
    parts = [f"<{name}"]
    children: list[str] = []
    for key, value in words.items():
        if isinstance(value, dict):
            children.append(_element(key, value))
        elif isinstance(value, list | tuple):
            children.extend(_element(key, item) for item in value)
        else:
            parts.append(f' {key}="{_text(value)}"')
    content = "".join([*children, inner])
    parts.append(f">{content}</{name}>" if content else "/>")
    return "".join(parts)


def _text(value: str | float) -> str:
    """Return an attribute; characters that XML cannot carry are dropped."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if not isinstance(value, str):
        return str(value)
    return _ILLEGAL.sub("", value).translate(_ESCAPED) if _SPECIAL.search(value) else value
