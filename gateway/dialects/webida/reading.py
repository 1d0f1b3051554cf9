"""Reading Webida's requests: text becomes types at the door, or an error in the product's words.

The published client says ``Content-Type: application/json`` on every request, also where it sends
no body: a body counts only where one is wanted. Parameters that nobody asked for are left alone, as
the product does.

Not here: tokens (``access``).
"""

import asyncio
import re
from typing import Final
from urllib.parse import parse_qsl

from msgspec import DecodeError, Raw, Struct, ValidationError, convert
from msgspec.json import decode
from starlette.types import Receive
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import PARAMETERS_MAX, one_header
from gateway.core.errors import BadRequest, PayloadTooLarge, UriTooLong
from gateway.core.model import CLOSE_AFTER_MAX_S, Name

BODY_MAX_BYTES: Final = 16 * 1024  # a Credential has about 2 KiB, with a master token
BODY_WITHIN_S: Final = 5.0  # for a whole body
TARGET_MAX: Final = 8 * 1024  # characters of path and query; what other servers take as well

_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_NUMBER_MAX: Final = 64  # characters of a number

Pairs = list[tuple[str, str]]


class Credential(Struct, frozen=True):
    """Who logs in: by id and password, or by a MASTER token beside anything."""

    loginId: str  # noqa: N815 - the product's names
    loginPassword: str  # noqa: N815
    masterToken: str | None = None  # noqa: N815


def read_pairs(scope: AsgiScope) -> Pairs:
    """Return the parameters of the query, in order.

    Raises:
        UriTooLong: Path and query are over 8 KiB.
        BadRequest: The query cannot be read.
    """
    query: bytes = scope["query_string"]
    if len(scope.get("raw_path") or b"") + len(query) > TARGET_MAX:
        raise UriTooLong
    try:
        return parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=PARAMETERS_MAX,
            errors="strict",
        )
    except ValueError as error:
        raise BadRequest("the query cannot be read") from error


def one(pairs: Pairs, name: str) -> str | None:
    """Return a parameter; an empty one counts as one that is not there.

    Raises:
        BadRequest: It comes more than once.
    """
    found = [value for known, value in pairs if known == name]
    if len(found) > 1:
        raise BadRequest(f'"{name}" must be a string')
    return (found[0] or None) if found else None


def workspace_of(pairs: Pairs) -> str | None:
    """Return the workspace that a query names.

    Raises:
        BadRequest: It comes more than once, or is no name.
    """
    text = one(pairs, "workspaceId")
    if text is None:
        return None
    try:
        return convert(text, Name)
    except ValidationError as error:
        raise BadRequest('"workspaceId" must be a name of at most 256 characters') from error


def close_after_s(pairs: Pairs) -> int:
    """Return after how many seconds to close.

    Raises:
        BadRequest: It is missing, no whole number, negative, or more than a day.
    """
    found = [value for known, value in pairs if known == "closeAfter"]
    if not found:
        raise BadRequest('"closeAfter" is required')
    text = found[0]
    if len(found) > 1 or len(text) > _NUMBER_MAX or not _NUMBER.fullmatch(text):
        raise BadRequest('"closeAfter" must be a number')
    number = float(text)
    if number < 0:
        raise BadRequest('"closeAfter" must be larger than or equal to 0')
    if number > CLOSE_AFTER_MAX_S:
        raise BadRequest(f'"closeAfter" must be less than or equal to {CLOSE_AFTER_MAX_S}')
    if not number.is_integer():
        raise BadRequest('"closeAfter" must be an integer')
    return int(number)


async def read_credential(scope: AsgiScope, receive: Receive) -> Credential:
    """Return who logs in.

    Raises:
        PayloadTooLarge: The body is over 16 KiB.
        BadRequest: It did not come, or is no Credential.
    """
    body = await _bytes(scope, receive)
    if not body:
        raise BadRequest('"body" is required')
    try:
        fields = decode(body, type=dict[str, Raw])
    except (DecodeError, RecursionError, ValueError) as error:
        raise BadRequest('"body" must be an object') from error
    for name in ("loginId", "loginPassword"):
        if name not in fields:
            raise BadRequest(f'"{name}" is required')
    try:
        return decode(body, type=Credential)
    except (DecodeError, ValueError) as error:
        name = next((name for name in Credential.__struct_fields__ if name in str(error)), "body")
        raise BadRequest(f'"{name}" must be a string') from error


async def _bytes(scope: AsgiScope, receive: Receive) -> bytes:
    length = one_header(scope, b"content-length") or ""
    if length.isdecimal() and int(length[:9]) > BODY_MAX_BYTES:
        raise PayloadTooLarge
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadRequest("the body ended too early")
                body += message.get("body", b"")
                if len(body) > BODY_MAX_BYTES:
                    raise PayloadTooLarge
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise BadRequest("the body did not come in time") from None
