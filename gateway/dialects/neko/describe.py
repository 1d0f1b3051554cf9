"""Describe: neko's part of the gateway's OpenAPI document, made from the same table and Structs."""

from collections.abc import Iterable
from typing import Any, Final

from msgspec.json import schema_components

from gateway.dialects.neko.operation import Operation
from gateway.dialects.neko.shapes import ErrorMessage

TAG: Final = "neko"
_REF: Final = "#/components/schemas/neko{name}"
_SAID: Final = {
    200: "Done.",
    202: "Passed on.",
    204: "Done.",
    400: "The request cannot be understood, or does not fit.",
    401: "Nobody who is known.",
    403: "This session may not.",
    404: "There is no such thing.",
    422: "Not as things are.",
    503: "Not right now.",
}


def described(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the paths of *operations* and the schemas that they name."""
    table = list(operations)
    kinds: list[Any] = [ErrorMessage]
    for operation in table:
        for kind in (operation.body, *operation.returns.values()):
            if kind is not None and kind not in kinds:
                kinds.append(kind)
    schemas, components = schema_components(kinds, ref_template=_REF)
    schema_of = dict(zip(map(repr, kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in table:
        found = paths.setdefault(operation.path, {})
        found[operation.method.lower()] = _operation(operation, schema_of)
    return {
        "paths": paths,
        "components": {"schemas": {f"neko{name}": known for name, known in components.items()}},
    }


def _operation(operation: Operation, schema_of: dict[str, Any]) -> dict[str, Any]:
    content = _content(schema_of[repr(ErrorMessage)])
    responses: dict[str, Any] = {}
    for status, kind in operation.returns.items():
        shown = {} if kind is None else _content(schema_of[repr(kind)])
        responses[str(status)] = {"description": _SAID[status], **shown}
    common = (503,) if operation.who == "public" else (401, 403, 503)
    for status in sorted({*operation.errors, *common}):
        responses.setdefault(str(status), {"description": _SAID[status], **content})
    shown = {
        "tags": [TAG],
        "operationId": f"neko-{operation.name}",
        "summary": operation.summary,
        "responses": responses,
    }
    if "{id}" in operation.path:
        schema = {"type": "string"}
        shown["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": schema}]
    if operation.body is not None:
        shown["requestBody"] = {"required": True, **_content(schema_of[repr(operation.body)])}
    if operation.who == "public":
        shown["security"] = []
    return shown


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
