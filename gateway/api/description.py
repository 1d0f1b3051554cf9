"""The data of the native API's OpenAPI document that its table of endpoints does not have."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import Meta

from gateway.api.idempotency import IDEMPOTENCY_KEY
from gateway.api.style import PATH_TYPES, takes_position
from gateway.http.document import Json
from gateway.http.endpoint import AnyEndpoint
from gateway.http.openapi import REF, Description, text_schema
from gateway.http.preconditions import IF_MATCH
from gateway.http.problems import MEDIA_TYPE, Problem
from gateway.http.request import FALSE, TRUE

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


def _ref(name: str) -> Json:
    return {"$ref": REF.format(name=name)}


def _refused(in_list: str, in_map: str, *more: Json) -> Json:
    """Return the schema of JSON that is refused: a text with NUL, or *more*.

    Args:
        in_list: The name of the schema of what a list must not hold.
        in_map: The same for a map.
        more: What else is refused.
    """
    is_clean = {"propertyNames": _NO_NUL, "additionalProperties": {"not": _ref(in_map)}}
    return {
        "anyOf": [
            *more,
            {"type": "string", "pattern": "\\x00"},
            {"type": "array", "items": {}, "contains": _ref(in_list)},
            {"type": "object", "not": is_clean},
        ]
    }


SCHEMAS: Final[Json] = {
    "Addressees": {"maxProperties": 1},  # a session or a workspace, not both
    "RefusedItem": _refused("RefusedItem", "RefusedValue"),
    "RefusedPayload": _refused("RefusedPayload", "RefusedPayload"),
    "RefusedValue": _refused("RefusedItem", "RefusedValue", {"type": "null"}),
    "Value": {"not": _ref("RefusedValue")},
    "PatchValue": {"anyOf": [{"type": "null"}, {"not": _ref("RefusedValue")}]},
    "Payload": {"not": _ref("RefusedPayload")},
}
"""JSON that is carried, told by what is refused; a null in a map removes, so it is no content.

A schema of what is carried would have to hold itself, and many generators of clients fail on that.
They pass over ``not``, so to them such a value is anything.
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
    pretty = {"description": "Indent the reply.", "allowEmptyValue": True}
    schema = {"type": "string", "enum": [*TRUE, *FALSE]}
    found: list[Json] = [{"name": "pretty", "in": "query", **pretty, "schema": schema}]
    if takes_position(endpoint):
        text, schema = "A position that the reply must have seen.", text_schema(POSITION)
        found.insert(0, {"name": "at", "in": "query", "description": text, "schema": schema})
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
    path_types={**PATH_TYPES, "key": _plain(128), "name": _plain(256), "page": _plain(256)},
    schemas=SCHEMAS,
    negotiates=True,
)
