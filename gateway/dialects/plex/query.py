"""Query: the queries of Plex's clients, with the filters and orders of the history; pure.

Plex's operators contain the ``=`` of the query pair, so that after decoding an operator is the end
of the parameter's *name*: ``viewedAt>=5`` comes as ``viewedAt>`` with the value ``5`` and means at
least 5; ``viewedAt>>=5`` means more than 5. Callers who build queries from dictionaries send the
name ``viewedAt>=``, people send the value ``>=5``; both mean at least.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from operator import eq, ge, gt, le, lt
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from gateway.core.errors import BadRequest
from gateway.dialects.plex.schema import spelled

Count = Annotated[int, Meta(ge=0)]
VALUES_MAX: Final = 256  # of one comma list
CONDITIONS_MAX: Final = 32  # filters in one query
SORTS_MAX: Final = 8  # fields of one order

DATE: Final = "viewedAt"
FILTERS: Final[Mapping[str, str]] = {  # generated clients write accountId
    name.lower(): name
    for name in ("accountID", "deviceID", "librarySectionID", "metadataItemID", DATE)
}
SORTABLE: Final = (
    *("viewedAt", "accountID", "deviceID", "librarySectionID", "historyKey"),
    *("ratingKey", "title", "type"),
)

_NAME: Final = re.compile(r"([A-Za-z]+)(>=>|<=<|>>|<<|>=|<=|>|<|!)?")
_VALUE: Final = re.compile(r"(>=|<=|>>|<<|>|<)?(.*)", re.DOTALL)
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_RELATIVE: Final = re.compile(r"([-+ ])([0-9]{1,9})(s|m|h|d|w|mon|y)?", re.ASCII)
_DAY_S: Final = 86_400
_UNITS_S: Final[Mapping[str | None, int]] = {
    None: 1,
    "s": 1,
    "m": 60,
    "h": 3_600,
    "d": _DAY_S,
    "w": 7 * _DAY_S,
    "mon": 30 * _DAY_S,
    "y": 365 * _DAY_S,
}
# ``>=>`` is how the description of the API spells it, with a second = before the value.
_IN_NAME: Final[Mapping[str | None, str]] = {
    None: "=",
    "!": "!=",
    ">>": ">",
    "<<": "<",
    **dict.fromkeys((">", ">=", ">=>"), ">="),
    **dict.fromkeys(("<", "<=", "<=<"), "<="),
}
_COMPARE: Final = {">=": ge, ">": gt, "<=": le, "<": lt, "=": eq}


class Asked(Struct, frozen=True, kw_only=True, rename=spelled):
    """Base of queries; fields called ``X-Plex-…`` may stand in a header as well."""


class Paged(Asked, frozen=True, kw_only=True):
    """Which part of a list is wanted."""

    start: Count | None = field(default=None, name="X-Plex-Container-Start")
    size: Count | None = field(default=None, name="X-Plex-Container-Size")


class PlayedQuery(Paged, frozen=True, kw_only=True):
    """The order of the history, and its filters as they are described."""

    sort: str | None = None
    account_id: str | None = None
    library_section_id: str | None = None
    metadata_item_id: str | None = None
    device_id: str | None = None
    viewed_at: str | None = None
    at_least: str | None = field(default=None, name="viewedAt>")
    at_most: str | None = field(default=None, name="viewedAt<")


class TerminateQuery(Asked, frozen=True, kw_only=True):
    """Which session is to end, and what its player is told."""

    session_id: str | None = field(default=None, name="sessionId")
    reason: str | None = None


class PushQuery(Asked, frozen=True, kw_only=True):
    """Which pushes are wanted: ``a,b`` only these, ``-a`` all but."""

    filters: str | None = None


class TimelineQuery(Asked, frozen=True, kw_only=True):
    """A player's report; times in ms, ``bandwidth`` in kbit/s."""

    state: str
    client_identifier: str = field(name="X-Plex-Client-Identifier")
    session_identifier: str | None = field(default=None, name="X-Plex-Session-Identifier")
    rating_key: str | None = None
    key: str | None = None
    time: Count | None = None
    duration: Count | None = None
    play_queue_item_id: Count | None = None
    continuing: str | None = None
    bandwidth: Count | None = None
    title: str | None = None
    type: str | None = None
    product: str | None = field(default=None, name="X-Plex-Product")
    version: str | None = field(default=None, name="X-Plex-Version")
    platform: str | None = field(default=None, name="X-Plex-Platform")
    platform_version: str | None = field(default=None, name="X-Plex-Platform-Version")
    device: str | None = field(default=None, name="X-Plex-Device")
    device_name: str | None = field(default=None, name="X-Plex-Device-Name")
    device_vendor: str | None = field(default=None, name="X-Plex-Device-Vendor")
    model: str | None = field(default=None, name="X-Plex-Model")
    client_profile_name: str | None = field(default=None, name="X-Plex-Client-Profile-Name")


class Condition(Struct, frozen=True):
    """One filter: at least one of a row's numbers compares with at least one value."""

    field: str
    operator: str
    values: tuple[int, ...]

    def holds(self, found: Sequence[int]) -> bool:
        """Whether a row in whose field stand *found* passes; ``!=``: none is any of the values."""
        if self.operator == "!=":
            return not any(number in self.values for number in found)
        compare = _COMPARE[self.operator]
        return any(compare(number, value) for number in found for value in self.values)


class Order(Struct, frozen=True):
    """One field of an order."""

    field: str
    descending: bool


def conditions(pairs: Iterable[tuple[str, str]], now_s: int) -> list[Condition]:
    """Return the filters in a query, dates relative to *now_s*; the rest is passed over.

    Raises:
        BadRequest: A value is no number or date, or there are too many.
    """
    found: list[Condition] = []
    for name, text in pairs:
        match = _NAME.fullmatch(name)
        known = match and FILTERS.get(match[1].lower())
        if not match or not known or not text:  # generated clients send empty ones for unset
            continue
        operator, listed = _IN_NAME[match[2]], text
        if match[2] is None and (inner := _VALUE.fullmatch(text)) and inner[1]:
            operator, listed = inner[1].replace(">>", ">").replace("<<", "<"), inner[2]
        elif match[2] in (">", "<"):
            listed = text.removeprefix(match[2])  # the same spelling, with no = of its own
        values = listed.split(",", VALUES_MAX)
        if len(values) > VALUES_MAX or len(found) >= CONDITIONS_MAX:
            raise BadRequest(f"There are too many values for {known}.")
        numbers = tuple(_parse(known, value, now_s) for value in values)
        found.append(Condition(known, operator, numbers))
    return found


def _parse(name: str, text: str, now_s: int) -> int:
    if name == DATE and (match := _RELATIVE.fullmatch(text)):
        distance_s = int(match[2]) * _UNITS_S[match[3]]
        return now_s - distance_s if match[1] == "-" else now_s + distance_s
    if not _INTEGER.fullmatch(text):
        raise BadRequest(f"{name} must be a {'date' if name == DATE else 'number'}.")
    return int(text)


def orders(text: str | None) -> list[Order]:
    """Return the order that ``sort`` asks for; none is the order in which rows were written.

    Raises:
        BadRequest: It names an unknown field or direction.
    """
    found: list[Order] = []
    for part in text.split(",", SORTS_MAX) if text else ():
        name, _, direction = part.partition(":")
        if name not in SORTABLE or direction not in ("", "asc", "desc"):
            raise BadRequest("sort must be field[:asc|desc] with a field of the rows.")
        found.append(Order(name, direction == "desc"))
    if len(found) > SORTS_MAX:
        raise BadRequest("sort has too many fields.")
    return found
