"""What the table of the native API does not say of itself, for its OpenAPI document."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import Meta

from gateway.api.idempotency import IDEMPOTENCY_KEY
from gateway.api.style import PATH_TYPES, takes_position
from gateway.http.endpoint import AnyEndpoint
from gateway.http.openapi import Description, text_schema
from gateway.http.preconditions import IF_MATCH
from gateway.http.problems import MEDIA_TYPE, Problem
from gateway.http.request import FALSE, TRUE

Json = dict[str, Any]

POSITION: Final = r"^[0-9a-z]{1,16}-[0-9a-f]{8}(-[0-9]{1,16}){1,256}$"  # core.position reads it
HEADERS: Final[Mapping[str, tuple[str, str | None]]] = {
    "Idempotency-Key": (
        "Names this request: a repeat with the same key is done only once.",
        IDEMPOTENCY_KEY,
    ),
    "If-Match": ('`"<revision>"`: only if the session still has it.', IF_MATCH),
    "If-None-Match": ("The ETag of an earlier reply: 304 if nothing changed.", None),
    "Last-Event-ID": ("Where an event stream goes on.", None),
}
"""Request headers: what they say and the pattern of their values."""

DESCRIPTION: Final = (
    "Who is connected right now, told live, and closed politely. Replies carry `Gateway-Position`; "
    "hand it as `at` to any read, on any node, and the read sees at least that much. "
    "`pretty` indents any reply."
)

_NO_NUL: Final = {"type": "string", "pattern": "^[^\\x00]*$"}
_NULL: Final[Json] = {"type": "null"}
_SCALARS: Final[list[Json]] = [{"type": "boolean"}, {"type": "number"}, _NO_NUL]


def _list_of(inner: list[Json]) -> Json:
    return {"type": "array", "items": {"anyOf": [*inner, _NULL]}}


def _map_of(inner: list[Json]) -> Json:
    return {
        "type": "object",
        "propertyNames": _NO_NUL,
        "additionalProperties": {"anyOf": inner},
    }


_FLAT: Final[list[Json]] = [
    *_SCALARS,
    _list_of(_SCALARS),
    {"$ref": "#/components/schemas/ScalarMap"},
]
_NESTED: Final[list[Json]] = [
    *_SCALARS,
    _list_of(_FLAT),
    {"$ref": "#/components/schemas/ValueMap"},
]

VALUES: Final[Json] = {
    "ScalarMap": _map_of(_SCALARS),
    "ValueMap": _map_of(_FLAT),
    "Value": {"anyOf": _NESTED},
    "PatchValue": {"anyOf": [*_NESTED, _NULL]},
    "Payload": {"anyOf": [*_NESTED, _NULL]},
}
"""JSON that is carried, to a depth of three; a null in a map removes, so it is no content.

Deeper values are served as well. They are not described, because many generators of clients fail on
a schema that holds itself.
"""

SENT_HEADERS: Final[Json] = {
    "Gateway-Position": {
        "description": "What this node had seen when it answered.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Gateway-Lag-Ms": {
        "description": "How old the picture may be, in milliseconds, when the store is away.",
        "schema": {"type": "integer", "minimum": 1},
    },
}


def _parameters(endpoint: AnyEndpoint) -> list[Json]:
    found: list[Json] = []
    if takes_position(endpoint):
        found.append(
            {
                "name": "at",
                "in": "query",
                "description": "A position that the reply must have seen.",
                "schema": text_schema(POSITION),
            }
        )
    found.append(
        {
            "name": "pretty",
            "in": "query",
            "description": "Indent the reply.",
            "allowEmptyValue": True,
            "schema": {"type": "string", "enum": [*TRUE, *FALSE]},
        }
    )
    return found


def _plain(max_length: int) -> Any:  # noqa: ANN401 - a type
    """Return the type of a path's parameter: text without control characters."""
    pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"
    return Annotated[str, Meta(min_length=1, max_length=max_length, pattern=pattern)]


ABOUT: Final = Description(
    title="Session Gateway",
    text=DESCRIPTION,
    security_schemes={"token": {"type": "http", "scheme": "bearer"}},
    failure=Problem,
    failure_media=(MEDIA_TYPE,),
    parameters=_parameters,
    headers=HEADERS,
    sent_headers=SENT_HEADERS,
    path_types={**PATH_TYPES, "key": _plain(128), "name": _plain(256)},
    schemas=VALUES,
    negotiates=True,
)
