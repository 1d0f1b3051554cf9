"""Describe: the table of endpoints as a fragment of an OpenAPI 3.1 document.

Of the two ways to write an address the one with the version is described, of the two forms the
current one. Made from the table that serves and the types that are sent, so they cannot differ.
"""

import re
from http import HTTPStatus
from typing import Any, Final

from msgspec.json import schema_components

from gateway.dialects.maxscale.documents import ErrorDocument
from gateway.dialects.maxscale.door import JSON, VERSION, Endpoint
from gateway.dialects.maxscale.routes import ENDPOINTS

TAG: Final = "MaxScale"

_PREFIX: Final = "MaxScale"  # of the names of schemas, which all dialects share a place for
_REF: Final = f"#/components/schemas/{_PREFIX}{{name}}"
_PART: Final = re.compile(r"\{(\w+)\}")

Json = dict[str, Any]


def describe() -> Json:
    """Return ``paths`` and ``components`` of the dialect."""
    kinds = [
        ErrorDocument,
        *(kind for row in ENDPOINTS for kind in (row.returns, row.body) if kind),
    ]
    kinds = list(dict.fromkeys(kinds))
    schemas, components = schema_components(kinds, ref_template=_REF)
    known = dict(zip(kinds, schemas, strict=True))
    named = {_PREFIX + name: schema for name, schema in components.items()}
    paths: dict[str, Json] = {}
    for row in ENDPOINTS:
        path = f"/{VERSION}/{row.path}"
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, known)
    return {"paths": paths, "components": {"schemas": named}}


def _operation(row: Endpoint, known: dict[Any, Json]) -> Json:
    words = [row.method.lower(), *re.findall(r"\w+", row.path)]
    described: Json = {
        "operationId": "maxscale_" + "_".join(words),
        "summary": row.summary,
        "tags": [TAG],
        "parameters": [
            *(_parameter(name, "path", "Its name.") for name in _PART.findall(row.path)),
            *(_parameter(name, "query", text) for name, text in row.parameters.items()),
        ],
        "responses": {"200": _reply(200, known[row.returns] if row.returns else None)},
    }
    errors = [400, 401, 404, 503]
    if row.scope is not None:
        described["description"] = f"Needs the scope `{row.scope}`."
        errors += [403, 409]
    elif row.is_conditional:
        described["responses"]["304"] = _reply(304, None)
    if row.is_conditional:
        errors += [412]
    if row.is_public:
        described["security"] = []
        described["responses"]["204"] = _reply(204, None)
    if row.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": known[row.body]}},
        }
        errors += [413]
    for status in sorted(errors):
        described["responses"][str(status)] = _reply(status, known[ErrorDocument])
    return described


def _parameter(name: str, place: str, text: str) -> Json:
    return {
        "name": name,
        "in": place,
        "description": text,
        "schema": {"type": "string"},
        **({"required": True} if place == "path" else {}),
    }


def _reply(status: int, schema: Json | None) -> Json:
    reply: Json = {"description": HTTPStatus(status).phrase}
    if schema is not None:
        reply["content"] = {JSON: {"schema": schema}}
    return reply
