"""Coerce: converts what clients report of items and transcodes, which may be anything; pure.

Each function returns a value that Plex's clients can read, or ``None``, which is left out.
"""

from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from typing import Any, Final, get_args

from msgspec import Struct
from msgspec.structs import fields

from gateway.dialects.plex.schema import Day, Digits

TEXT_MAX: Final = 1024  # characters of one text
INTEGER_MAX: Final = 2**53 - 1  # JavaScript's largest safe integer


def text_of(value: object) -> str | None:
    """Return a text that is not empty, cut to ``TEXT_MAX``."""
    return value[:TEXT_MAX] if isinstance(value, str) and value else None


def integer_of(value: object) -> int | None:
    """Return a whole number that JavaScript can count to."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INTEGER_MAX:
        return value
    return None


def number_of(value: object) -> float | None:
    """Return a number, whole or not."""
    number = value if isinstance(value, float) else integer_of(value)
    return None if number is None else float(number)


def flag_of(value: object) -> bool | None:
    """Return true or false."""
    return value if isinstance(value, bool) else None


def digits_of(value: object) -> str | None:
    """Return a number of at least 0 as text, whichever of both it came as."""
    text = str(value) if integer_of(value) is not None else text_of(value)
    return text if text and text.isascii() and text.isdigit() else None


def day_of(value: object) -> str | None:
    """Return a day as ``YYYY-MM-DD``: other texts make zod throw."""
    text = text_of(value)
    try:
        return date.fromisoformat(text).isoformat() if text else None
    except ValueError:
        return None


Reader = Callable[[object], Any]
_READERS: Final[Mapping[Any, Reader]] = {
    str: text_of,
    int: integer_of,
    float: number_of,
    bool: flag_of,
    Digits: digits_of,
    Day: day_of,
}


def coerced(kind: type[Struct], values: Mapping[str, object]) -> dict[str, Any]:
    """Return those of *values* that are what the fields of *kind* take, by the fields' names."""
    found = {name: read(values.get(spelling)) for name, spelling, read in _readers(kind)}
    return {name: value for name, value in found.items() if value is not None}


@cache
def _readers(kind: type[Struct]) -> tuple[tuple[str, str, Reader], ...]:
    return tuple(
        (known.name, known.encode_name, _READERS[option])
        for known in fields(kind)
        for option in (known.type, *get_args(known.type))
        if option in _READERS
    )
