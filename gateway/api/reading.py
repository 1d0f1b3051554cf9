"""Reading: the parts of an HTTP request become types at the door, or an error that names the part.

Strict on purpose: what we do not know in a query or a body is refused, so that a misspelt filter
never shows everything. Bounds are here, not in the handlers.
Not here: tokens (``credentials``), rights (``auth``), the order of it all (``operation``).
"""

import asyncio
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from msgspec import DecodeError, Struct, ValidationError, convert
from msgspec.json import Decoder
from starlette.types import Receive

from gateway.auth.credentials import PARAMETERS_MAX, Scope, headers, one_header
from gateway.core.errors import (
    BadRequest,
    Invalid,
    NotAcceptable,
    PayloadTooLarge,
    UnsupportedMediaType,
    UriTooLong,
    excerpt,
)
from gateway.core.model import Key, Name, SessionId

BODY_MAX_BYTES: Final = 64 * 1024  # four records of the largest size
BODY_WITHIN_S: Final = 5.0  # for a whole body; 64 KiB take less on the slowest phone
TARGET_MAX: Final = 8 * 1024  # characters of path and query; what other servers take as well
LABEL: Final = "label."  # label.<k>=v in a query

PATH_TYPES: Final[Mapping[str, Any]] = {"id": SessionId, "key": Key, "name": Name}

_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?", re.ASCII
)
TRUE: Final = ("", "true", "1")  # of a parameter that may stand without a value
FALSE: Final = ("false", "0")

_PORT_MAX: Final = 65_535

T = TypeVar("T")
S = TypeVar("S", bound=Struct)


def check_target(scope: Scope) -> None:
    """Refuse a request whose address or ``Host`` no honest client sends.

    Raises:
        UriTooLong: Path and query are over 8 KiB.
        BadRequest: The path is not UTF-8 or holds a line break, or there is no usable ``Host``.
    """
    raw: bytes = scope.get("raw_path") or b""
    if len(raw) + len(scope["query_string"]) > TARGET_MAX:
        raise UriTooLong
    if b"%" in raw:
        try:
            unquote_to_bytes(raw).decode()
        except UnicodeDecodeError as error:
            raise BadRequest("The path is not UTF-8.") from error
    if "\n" in scope["path"]:  # a pattern's $ would match before it
        raise BadRequest("The path holds a line break.")
    host = one_header(scope, b"host")
    if host is None:
        if scope.get("http_version") != "1.0":
            raise BadRequest("The header host is missing.")
        return
    match = _HOST.fullmatch(host)
    if match is None or int(match[1] or 0) > _PORT_MAX:
        raise BadRequest("The header host cannot be read.")


def read_path(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a path.

    Raises:
        BadRequest: One cannot be what it stands for.
    """
    for name, text in parameters.items():
        try:
            convert(text, PATH_TYPES.get(name, str))
        except ValidationError as error:
            raise BadRequest(f"`{name}` in the path is not acceptable.") from error
    return dict(parameters)


def read_pairs(scope: Scope) -> list[tuple[str, str]]:
    """Return the parameters of the query, in order, except the token.

    Raises:
        BadRequest: It cannot be read.
    """
    try:
        pairs = parse_qsl(
            scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            max_num_fields=PARAMETERS_MAX,
            errors="strict",
        )
    except ValueError as error:
        raise BadRequest("The query of the address cannot be read.") from error
    return [(name, text) for name, text in pairs if name != "token"]


def read_query(pairs: Iterable[tuple[str, str]], kind: type[S], universal: Collection[str]) -> S:
    """Return what a query asks for.

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
    """Return which of the media types *produced* the caller likes best, the first of equals.

    Raises:
        NotAcceptable: It takes none of them (RFC 9110 section 12.5.1).
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


def has_body(scope: Scope) -> bool:
    """Whether a body was announced."""
    return bool(
        [
            name
            for name, value in scope["headers"]
            if name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        ]
    )


def check_json(scope: Scope, media: Iterable[str]) -> None:
    """Refuse a body that is not JSON as it stands.

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


async def read_bytes(scope: Scope, receive: Receive) -> bytes:
    """Return the body.

    Raises:
        PayloadTooLarge: It is over 64 KiB.
        BadRequest: It did not come within 5 s, or the caller went away.
    """
    length = one_header(scope, b"content-length")
    if length is not None and length.isdecimal() and int(length[:9]) > BODY_MAX_BYTES:
        raise PayloadTooLarge
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadRequest("The body ended too early.")
                body += message.get("body", b"")
                if len(body) > BODY_MAX_BYTES:
                    raise PayloadTooLarge
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise BadRequest("The body did not come in time.") from None


def read_json(body: bytes, decoder: Decoder[T]) -> T:
    """Return what a JSON body says.

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
    """Look at one object of a body: who reads a repeated name first or last is anybody's guess."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("An object in the body names a member twice.")
    for name, value in pairs:
        for text in (name, *(value if isinstance(value, list) else (value,))):
            if isinstance(text, str) and "\x00" in text:
                raise Invalid("A text in the body holds NUL.")
    return found


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters, or no body."""
