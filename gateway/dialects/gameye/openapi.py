"""Gameye's paths as a fragment of an OpenAPI document, made from the table that is served.

Schemas are those of the types that are read and sent, their names marked as Gameye's, because the
document also holds those of other doors.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from msgspec.json import schema_components

from gateway.core.errors import Forbidden, GatewayError, Unauthorized
from gateway.dialects.gameye.errors import row_of
from gateway.dialects.gameye.operation import JSON, AnyOperation
from gateway.dialects.gameye.shapes import Failure

TAG: Final = "Gameye"
_CONVERTOR: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_REF: Final = "#/components/schemas/Gameye{name}"

Json = dict[str, Any]


def fragment(operations: Iterable[AnyOperation]) -> Json:
    """Return ``paths`` and ``components`` of *operations* (OpenAPI 3.1)."""
    table = list(operations)
    types: list[Any] = [Failure, str]
    for row in table:
        types.extend(parameter.kind for parameter in row.parameters)
        types.extend(kind for kind in (row.returns, row.body) if isinstance(kind, type))
    schemas, components = schema_components(types, ref_template=_REF)
    known = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Json] = {}
    for row in table:
        path = _CONVERTOR.sub(r"{\1}", row.path)
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, known)
    named = {f"Gameye{name}": schema for name, schema in components.items()}
    return {"paths": paths, "components": {"schemas": named}}


def _operation(row: AnyOperation, known: dict[str, Json]) -> Json:
    described: Json = {
        "operationId": f"gameye_{row.handler.__name__}",
        "summary": row.summary,
        "tags": [TAG],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": known[repr(str)]}
                for name in _CONVERTOR.findall(row.path)
            ),
            *(_parameter(parameter, known) for parameter in row.parameters),
        ],
        "responses": {str(row.status): _success(row, known), **_errors(row, known)},
    }
    if row.scope is None:
        described["security"] = []
    else:
        described["description"] = f"Needs the scope `{row.scope}`."
    if row.body is not None:
        described["requestBody"] = {"required": True, "content": _content(known[repr(row.body)])}
    return described


def _parameter(parameter: Any, known: dict[str, Json]) -> Json:  # noqa: ANN401
    described: Json = {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.description,
        "schema": known[repr(parameter.kind)],
    }
    if "$ref" in described["schema"] or described["schema"].get("type") == "object":
        described |= {"style": "deepObject", "explode": True}
    return described


def _success(row: AnyOperation, known: dict[str, Json]) -> Json:
    described: Json = {"description": HTTPStatus(row.status).phrase}
    if isinstance(row.returns, str):
        described["content"] = {row.returns: {"schema": {"type": "string"}}}
    elif row.returns is not None:
        described["content"] = _content(known[repr(row.returns)])
    return described


def _errors(row: AnyOperation, known: dict[str, Json]) -> dict[str, Json]:
    kinds: tuple[type[GatewayError], ...] = row.errors
    if row.scope is not None:
        kinds = (Unauthorized, Forbidden, *kinds)
    rows = sorted({row_of(kind) for kind in (*kinds, GatewayError)})
    content = _content(known[repr(Failure)])
    return {
        str(found.status): {"description": f"`{found.code}`: {found.message}", "content": content}
        for found in rows
    }


def _content(schema: Json) -> Json:
    return {JSON: {"schema": schema}}
