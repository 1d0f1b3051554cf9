"""Describe: the table of operations as a fragment of an OpenAPI 3.1 document.

Schemas are those of the types that are read and sent, their names marked as Webida's, because the
document also holds those of other doors. Not here: the socket, which OpenAPI cannot tell.
"""

import re
from http import HTTPStatus
from typing import Any, Final

from msgspec.json import schema_components

from gateway.core.errors import Forbidden, GatewayError, Unauthorized, Unavailable
from gateway.dialects.webida.door import Operation
from gateway.dialects.webida.errors import JSON, row_of
from gateway.dialects.webida.routes import BASE, OPERATIONS
from gateway.dialects.webida.shapes import RestError

TAG: Final = "Webida"

_REF: Final = "#/components/schemas/Webida{name}"
_PART: Final = re.compile(r"\{(\w+)\}")

Json = dict[str, Any]


def describe() -> Json:
    """Return ``paths`` and ``components`` of the dialect."""
    types: list[Any] = [RestError, str]
    for row in OPERATIONS:
        types.extend(kind for _, kind, _ in row.parameters)
        types.extend(kind for kind in (*row.returns, row.body) if kind is not None)
    schemas, components = schema_components(types, ref_template=_REF)
    known = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Json] = {}
    for row in OPERATIONS:
        paths.setdefault(BASE + row.path, {})[row.method.lower()] = _operation(row, known)
    named = {f"Webida{name}": schema for name, schema in components.items()}
    return {"paths": paths, "components": {"schemas": named}}


def _operation(row: Operation, known: dict[str, Json]) -> Json:
    described: Json = {
        "operationId": f"webida_{row.handler.__name__}",
        "summary": row.summary,
        "tags": [TAG],
        "parameters": [
            *(_parameter(name, "path", known[repr(str)]) for name in _PART.findall(row.path)),
            *(
                _parameter(name, "query", known[repr(kind)], required=required)
                for name, kind, required in row.parameters
            ),
        ],
        "responses": {"200": _reply(200, _success(row, known)), **_errors(row, known)},
    }
    if row.is_public:
        described["security"] = []
    if row.body is not None:
        content = {JSON: {"schema": known[repr(row.body)]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameter(name: str, place: str, schema: Json, *, required: bool = True) -> Json:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _success(row: Operation, known: dict[str, Json]) -> Json:
    schemas = [known[repr(kind)] for kind in row.returns]
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}


def _reply(status: int, schema: Json) -> Json:
    content = {JSON: {"schema": schema}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _errors(row: Operation, known: dict[str, Json]) -> dict[str, Json]:
    kinds: tuple[type[GatewayError], ...] = (*row.errors, Unauthorized, Unavailable, GatewayError)
    if not row.is_public:
        kinds = (*kinds, Forbidden)
    statuses = sorted({row_of(kind).status for kind in kinds})
    return {str(status): _reply(status, known[repr(RestError)]) for status in statuses}
