"""Requests: a request as a value, and the functions that convert its parts to types.

This is strict on purpose: an unknown parameter or member is refused, so that a misspelt filter
never shows everything. A part that cannot be read becomes an error that names it.

Not here: credentials (``auth``), the order in which a request is read (``pipeline``).
"""

import asyncio
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from msgspec import DecodeError, Struct, ValidationError, convert
from msgspec.json import Decoder
from starlette.types import Receive, Scope

from gateway.auth.credentials import PARAMETERS_MAX, headers, one_header
from gateway.core.errors import (
    BadRequest,
    GatewayError,
    Invalid,
    NotAcceptable,
    PayloadTooLarge,
    UnsupportedMediaType,
    UriTooLong,
    excerpt,
)
from gateway.logs.request import mark_in

BODY_WITHIN_S: Final = 5.0  # for a whole body; 64 KiB take less on the slowest phone
TARGET_MAX_BYTES: Final = 8 * 1024  # of path and query; other servers have the same limit
LABEL: Final = "label."  # label.<k>=v in a query
TRUE: Final = ("", "true", "1")  # of a parameter that may stand without a value
FALSE: Final = ("false", "0")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

T = TypeVar("T")
S = TypeVar("S", bound=Struct)


class Request:
    """A request below an API's prefix; its body comes from a connection, or is given.

    Args:
        scope: The ASGI scope.
        receive: Where the body comes from.
        body: The body, if it is there already: of a request inside another one.
    """

    __slots__ = (
        "_body",
        "_receive",
        "body_bounds",
        "is_read",
        "method",
        "path",
        "refusal",
        "root",
        "scope",
    )

    body_bounds: tuple[int, int]  # of the style, in bytes: of a body, and of what is discarded

    def __init__(
        self, scope: Scope, receive: Receive | None = None, *, body: bytes | None = None
    ) -> None:
        root: str = scope.get("root_path", "")
        path: str = scope["path"]
        self.scope = scope
        self.method: str = scope["method"]
        self.root = root
        self.path = path[len(root) :] if root and path.startswith(root) else path
        self.refusal: GatewayError | None = None  # what the answer tells, if it refuses
        self.is_read = body is not None  # whether nothing of the body is left on the connection
        self._receive = receive
        self._body = body

    @property
    def id(self) -> str:
        """The id of this request, in its reply and in the log."""
        return mark_in(self.scope).request_id

    @property
    def body(self) -> bytes:
        """The part of the body that was read."""
        return self._body or b""

    @property
    def raw_path(self) -> bytes:
        """The path below the prefix as it was sent, percent-encoded."""
        raw: bytes = self.scope.get("raw_path") or b""
        root = self.root.encode()
        if not raw or not raw.startswith(root):  # the prefix is percent-encoded
            return quote(self.path).encode()
        return raw[len(root) :]

    @property
    def query_string(self) -> bytes:
        """The query as it was sent."""
        query: bytes = self.scope["query_string"]
        return query

    def header(self, name: str) -> str | None:
        """Return the value of a header that may come once; *name* in lower case.

        Raises:
            BadRequest: It came more than once.
        """
        return one_header(self.scope, name.encode())

    def headers(self) -> dict[str, str]:
        """Return all headers; lines of one name are one list (RFC 9110 section 5.3)."""
        found: dict[str, str] = {}
        for raw_name, raw_value in self.scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found

    @property
    def has_body(self) -> bool:
        """Whether a body was announced."""
        if self._body is not None and self._receive is None:
            return bool(self._body)
        for name, value in self.scope["headers"]:
            if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
                return True
        return False

    async def read_body(self) -> bytes:
        """Return the body.

        Raises:
            PayloadTooLarge: It is longer than the style allows.
            BadRequest: It did not come within ``BODY_WITHIN_S``, or the client went away.
        """
        if self._body is None:
            try:
                async with asyncio.timeout(BODY_WITHIN_S):
                    self._body = await self._receive_body()
            except TimeoutError:
                raise BadRequest("The body did not come in time.") from None
        if len(self._body) > self.body_bounds[0]:
            raise PayloadTooLarge
        return self._body

    async def _receive_body(self) -> bytes:
        max_bytes, bound = self.body_bounds[0], max(self.body_bounds)
        length = self.header("content-length")
        if length is not None and length.isdecimal() and int(length[:9]) > bound:
            raise PayloadTooLarge
        body = bytearray()
        size, more = 0, self._receive is not None
        while more and self._receive is not None:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise BadRequest("The body ended too early.")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size > bound:
                raise PayloadTooLarge
            if size <= max_bytes:
                body += chunk
        self.is_read = True
        if size > max_bytes:
            raise PayloadTooLarge
        return bytes(body)


def check_target(request: Request) -> None:
    """Raise if the target is too long or malformed.

    Raises:
        UriTooLong: Path and query are over 8 KiB.
        BadRequest: The path is not UTF-8, or holds a control character.
    """
    raw: bytes = request.scope.get("raw_path") or b""
    if len(raw) + len(request.query_string) > TARGET_MAX_BYTES:
        raise UriTooLong
    if b"%" in raw:
        try:
            unquote_to_bytes(raw).decode()
        except UnicodeDecodeError as error:
            raise BadRequest("The path is not UTF-8.") from error
    if _CONTROL.search(request.path):
        raise BadRequest("The path holds a control character.")


def check_path(names: Mapping[str, str], types: Mapping[str, Any]) -> None:
    """Raise if a parameter of a path is not of its type.

    Args:
        names: The parameters.
        types: What they are, by name; text if unset.

    Raises:
        BadRequest: One is not acceptable; the error names it.
    """
    for name, text in names.items():
        try:
            convert(text, types.get(name, str))
        except ValidationError as error:
            raise BadRequest(f"`{name}` in the path is not acceptable.") from error


def read_pairs(scope: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the parameters of the query, in order.

    Raises:
        BadRequest: It cannot be read, or has more than ``PARAMETERS_MAX`` parameters.
    """
    try:
        return parse_qsl(
            scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            max_num_fields=PARAMETERS_MAX,
            errors="strict",
        )
    except ValueError as error:
        raise BadRequest("The query of the address cannot be read.") from error


def without_token(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return parameters without the credential among them."""
    return [(name, text) for name, text in pairs if name != "token"]


def read_query(pairs: Iterable[tuple[str, str]], kind: type[S], universal: Collection[str]) -> S:
    """Return the query as a Struct.

    Args:
        pairs: From :func:`read_pairs`.
        kind: A Struct; its field ``labels`` takes ``label.<k>=v``.
        universal: Parameters that are read elsewhere.

    Raises:
        BadRequest: A parameter is unknown, repeated or not acceptable; the error names it.
    """
    known = kind.__struct_fields__
    given: dict[str, str] = {}
    labels: dict[str, str] = {}
    seen: set[str] = set()
    for name, text in pairs:
        is_label = "labels" in known and name.startswith(LABEL)
        if not is_label and (name == "labels" or name not in (*known, *universal)):
            raise BadRequest(f"There is no parameter `{_quoted(name)}`.")
        if name in seen:
            raise BadRequest(f"The parameter `{_quoted(name)}` is repeated.")
        seen.add(name)
        if is_label:
            labels[name.removeprefix(LABEL)] = text
        elif name not in universal:
            given[name] = text
    try:
        query = convert({**given, **({"labels": labels} if labels else {})}, kind, strict=False)
    except ValidationError as error:
        raise BadRequest(excerpt(str(error))) from error
    for name in given:
        if getattr(query, name) is None:  # the text null
            raise BadRequest(f"The parameter `{name}` is not acceptable.")
    return query


def read_flag(pairs: Iterable[tuple[str, str]], name: str) -> bool:
    """Return a parameter that may stand without a value.

    Raises:
        BadRequest: It is neither true nor false.
    """
    text = next((text for known, text in pairs if known == name), "false")
    if text not in TRUE + FALSE:
        raise BadRequest(f"The parameter `{name}` is true or false.")
    return text in TRUE


def _quoted(name: str) -> str:
    return excerpt(name).encode("unicode_escape").decode("ascii")


def choose_media(scope: Scope, produced: tuple[str, ...]) -> str:
    """Return the media type of *produced* that the caller prefers, the first of equals.

    Raises:
        NotAcceptable: The caller takes none of them (RFC 9110 section 12.5.1).
    """
    accepts = headers(scope, b"accept")
    if not accepts:
        return produced[0]
    ranges = [_range(text) for text in ",".join(accepts).split(",") if text.strip()]
    if not ranges:
        return produced[0]
    best, best_quality = "", 0.0
    for media in produced:
        patterns = (media, media.partition("/")[0] + "/*", "*/*")  # the most specific one counts
        quality = next(
            (found for wanted in patterns for name, found in ranges if name == wanted), 0.0
        )
        if quality > best_quality:
            best, best_quality = media, quality
    if not best:
        raise NotAcceptable(f"This address produces {' or '.join(produced)}.")
    return best


def _range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.split(";"))
    for parameter in parameters:
        if parameter.lower().startswith("q="):
            try:
                return name.lower(), float(parameter[2:])
            except ValueError:
                return name.lower(), 0.0
    return name.lower(), 1.0


def check_json(scope: Scope, media: Iterable[str]) -> None:
    """Raise if the body is not plain JSON.

    Raises:
        UnsupportedMediaType: Its type is none of *media*, or it is encoded or not UTF-8.
    """
    kind, *parameters = (one_header(scope, b"content-type") or "").lower().split(";")
    charsets = {
        value.strip().strip('"')
        for name, _, value in (parameter.partition("=") for parameter in parameters)
        if name.strip() == "charset"
    }
    if kind.strip() not in media:
        raise UnsupportedMediaType(f"The body must be {' or '.join(media)}.")
    if not charsets <= {"utf-8"}:
        raise UnsupportedMediaType("JSON is UTF-8.")
    if (one_header(scope, b"content-encoding") or "identity").lower() != "identity":
        raise UnsupportedMediaType("The body must not be compressed.")


def read_json(body: bytes, decoder: Decoder[T]) -> T:
    """Return a JSON body as a type.

    Raises:
        BadRequest: It is no JSON, is nested too deep, or names a member twice.
        Invalid: A value is not acceptable; the error names it.
    """
    try:
        value = decoder.decode(body)
        json.loads(body, object_pairs_hook=_once)
    except ValidationError as error:
        raise Invalid(excerpt(str(error))) from error
    except RecursionError as error:
        raise BadRequest("The body is nested too deep.") from error
    except (DecodeError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise BadRequest("The body is no JSON.") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse repeated names in an object, because parsers take either the first or the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("An object in the body names a member twice.")
    for name, value in pairs:
        for text in (name, *(value if isinstance(value, list) else (value,))):
            if isinstance(text, str) and "\x00" in text:
                raise Invalid("A text in the body holds NUL.")
    return found
