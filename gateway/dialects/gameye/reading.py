"""Reading Gameye's requests: bytes become types at the door, or an error that names every field.

Bodies are read field by field, so that one answer lists all that is wrong. The media type does not
matter: many who write such requests by hand send none.
Not here: the query of the list (``query``), tokens (``routes``).
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

from msgspec import UNSET, DecodeError, Meta, Raw, Struct, UnsetType, ValidationError
from msgspec.json import Decoder, decode, encode
from msgspec.structs import fields
from starlette.types import Receive, Scope

from gateway.auth.credentials import PARAMETERS_MAX, one_header
from gateway.core.errors import BadRequest, PayloadTooLarge, UriTooLong, excerpt
from gateway.core.model import (
    DURATION_MAX_MS,
    MEMBERS_MAX,
    Key,
    Labels,
    Name,
    SessionId,
)
from gateway.dialects.gameye.errors import violated, wrong
from gateway.dialects.gameye.shapes import Violation

BODY_MAX_BYTES: Final = 64 * 1024  # four records of the largest size
BODY_WITHIN_S: Final = 5.0  # for a whole body; 64 KiB take less on the slowest phone
TARGET_MAX: Final = 8 * 1024  # characters of path and query; what other servers take as well
ENVIRONMENT_MAX_BYTES: Final = 8 * 1024  # half a record
ARGUMENTS_MAX_BYTES: Final = 2 * 1024  # half of a session's attributes
TTL_MIN_MS: Final = 60_000  # Gameye's floor

_CLEAN: Final = r"^[^\x00]*$"  # no process takes NUL in its arguments or environment
_TTL: Final = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$(.*)`$")

Variable = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00=]+$")]
Value = Annotated[str, Meta(min_length=1, max_length=4096, pattern=_CLEAN)]
PlayerNames = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MEMBERS_MAX)]
Ttl = Annotated[
    str | int, Meta(description="`30m`, `2h`, `2h30m`; a plain number is of seconds; at least 1 m.")
]

T = TypeVar("T", bound=Struct)


class StartBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to start. ``ttl`` is its longest life."""

    location: Name
    image: Name
    id: SessionId | UnsetType = UNSET
    version: Name | UnsetType = UNSET
    env: Annotated[dict[Variable, Value], Meta(max_length=256)] | UnsetType = UNSET
    args: Annotated[tuple[Value, ...], Meta(max_length=256)] | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    restart: bool | UnsetType = UNSET
    ttl: Ttl | UnsetType = UNSET
    external_id: Key | UnsetType = UNSET


class JoinBody(Struct, frozen=True, kw_only=True):
    """Who joins which session."""

    session: str
    players: PlayerNames


class LeaveBody(Struct, frozen=True, kw_only=True):
    """Who leaves; without ``session`` they leave every one they are in."""

    players: PlayerNames
    session: str | UnsetType = UNSET


def read_pairs(scope: Scope) -> list[tuple[str, str]]:
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
        raise BadRequest("The query of the address cannot be read.") from error


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


def read_body(body: bytes, kind: type[T]) -> T:
    """Return what a JSON body says.

    Args:
        body: As it came.
        kind: A Struct; if it forbids unknown fields, they are violations too.

    Raises:
        Invalid: It is no JSON object, or fields of it are missing, unknown or not acceptable.
    """
    try:
        given = decode(body, type=dict[str, Raw])
    except (DecodeError, RecursionError, ValueError) as error:
        raise wrong("body", "must be a JSON object") from error
    decoders = _decoders(kind)
    found: dict[str, Any] = {}
    violations = [
        Violation(field=name, description="is required")
        for name, (_, is_required) in decoders.items()
        if is_required and name not in given
    ]
    for name, raw in given.items():
        if name in decoders:
            if bytes(raw) == b"null" and not decoders[name][1]:
                continue  # what Go's clients send for what is unset
            try:
                found[name] = decoders[name][0].decode(raw)
            except (DecodeError, RecursionError, ValueError) as error:
                violations.append(_violation(name, error))
            else:
                if name in _FAULTS and (fault := _FAULTS[name](found[name])):
                    violations.append(Violation(field=name, description=fault))
        elif kind.__struct_config__.forbid_unknown_fields:
            violations.append(Violation(field=name[:64], description="is not known"))
    if violations:
        raise violated(*violations)
    return kind(**found)


@lru_cache(maxsize=8)
def _decoders(kind: type[Any]) -> dict[str, tuple[Decoder[Any], bool]]:
    return {field.name: (Decoder(field.type), field.required) for field in fields(kind)}


def _violation(name: str, error: Exception) -> Violation:
    """Return what is wrong with a field; msgspec says after its message where in it."""
    if not isinstance(error, ValidationError):
        return Violation(field=name, description="is no JSON")
    text = str(error)
    place = _PLACE.search(text)
    if place is None:
        return Violation(field=name, description=excerpt(text))
    inner = "" if place[1] == "[...]" else place[1]
    return Violation(field=name + inner, description=excerpt(text[: place.start()]))


def ttl_ms(ttl: str | int) -> int | None:
    """Return a longest life in milliseconds, ``None`` if it cannot be read.

    Gameye's reference writes hours and minutes, another page seconds; a unit tells them apart.
    """
    text = str(ttl)
    if text and (match := _TTL.fullmatch(text)):
        return (int(match[1] or 0) * 60 + int(match[2] or 0)) * 60_000
    return int(text) * 1000 if _SECONDS.fullmatch(text) else None


def _ttl_fault(ttl: str | int) -> str | None:
    found_ms = ttl_ms(ttl)
    if found_ms is None:
        return "must be hours and minutes, such as 2h30m, or a number of seconds"
    if not TTL_MIN_MS <= found_ms <= DURATION_MAX_MS:
        return f"must be from 1m to {DURATION_MAX_MS // 3_600_000}h"
    return None


def _size_fault(most: int) -> Callable[[object], str | None]:
    def fault(value: object) -> str | None:
        return f"must be at most {most} bytes as JSON" if len(encode(value)) > most else None

    return fault


_FAULTS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "ttl": _ttl_fault,
    "env": _size_fault(ENVIRONMENT_MAX_BYTES),
    "args": _size_fault(ARGUMENTS_MAX_BYTES),
}
"""What a field's type cannot say; these three are the start's."""
