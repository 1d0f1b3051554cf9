"""Coerce: JSON bodies become types, or one error that names every field that is wrong.

Bodies are read field by field, so that one reply lists all that is wrong with them.

Not here: the parameters of a query (``query``).
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

from msgspec import DecodeError, Raw, Struct, ValidationError
from msgspec.json import Decoder, decode, encode
from msgspec.structs import fields

from gateway.core.errors import excerpt
from gateway.core.model import DURATION_MAX_MS
from gateway.dialects.gameye.schema import Violation, violated, wrong

ENVIRONMENT_MAX_BYTES: Final = 8 * 1024  # half a record
ARGUMENTS_MAX_BYTES: Final = 2 * 1024  # half of a session's attributes
TTL_MIN_MS: Final = 60_000  # Gameye's floor

_TTL: Final = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$(.*)`$")

T = TypeVar("T", bound=Struct)


def read_body(body: bytes, kind: type[T]) -> T:
    """Return what a JSON body holds; unknown fields are violations if *kind* forbids them.

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
"""What the types of the start's fields cannot express."""
