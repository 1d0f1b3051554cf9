"""OpenAPI: the table of operations as a document (OpenAPI 3.1), so that the two cannot differ.

Schemas are those of the types that are read and rendered. Errors are one schema, listed by status
with the codes that can come.
Not here: the sockets (``asyncapi``).
"""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from msgspec import UNSET
from msgspec.json import encode, schema_components
from msgspec.structs import fields
from starlette.responses import Response

from gateway import __version__
from gateway.api import ops
from gateway.api.conditions import IDEMPOTENCY_KEY, IF_MATCH
from gateway.api.operation import AnyOperation, Call, Operation, raw_reply, takes_position
from gateway.api.problems import MEDIA_TYPE, Problem
from gateway.api.reading import FALSE, LABEL, PATH_TYPES, TRUE, Nothing
from gateway.core.errors import (
    BadPosition,
    BadRequest,
    Forbidden,
    GatewayError,
    Invalid,
    NotAcceptable,
    PayloadTooLarge,
    PositionAhead,
    RateLimited,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
)
from gateway.core.model import LabelName, LabelValue

Json = dict[str, Any]

PATH: Final = "/openapi.json"
POSITION: Final = r"^[0-9a-z]{1,16}-[0-9a-f]{8}(-[0-9]{1,16}){1,256}$"  # core.position reads it
_REF: Final = "#/components/schemas/{name}"
_CONVERTOR: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_PYTHON_END: Final = r"$(?!\n)"  # of a pattern; where there is no last newline to fear it is $

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


def _any_of(list_of: list[str], *, map_of: str, null: bool = False) -> Json:
    """Return the schema of JSON without NUL, whose lists and maps hold what is named."""
    return {
        "anyOf": [
            *([{"type": "null"}] if null else []),
            {"type": ["boolean", "number"]},
            _NO_NUL,
            {"type": "array", "items": {"anyOf": [_reference(name) for name in list_of]}},
            {
                "type": "object",
                "propertyNames": _NO_NUL,
                "additionalProperties": _reference(map_of),
            },
        ]
    }


def _reference(name: str) -> Json:
    return {"type": "null"} if name == "null" else {"$ref": _REF.format(name=name)}


VALUES: Final[Json] = {
    "Json": _any_of(["Json"], map_of="Json", null=True),
    "Value": _any_of(["null", "Value"], map_of="Value"),
    "PatchValue": _any_of(["null", "Value"], map_of="PatchValue", null=True),
}
"""JSON that is carried: a map holds null only where it is no content, or where it removes."""

_EVERY: Final[tuple[type[GatewayError], ...]] = (
    BadRequest,
    NotAcceptable,
    UriTooLong,
    GatewayError,
    Unavailable,
)


def document(operations: Iterable[AnyOperation]) -> Json:
    """Return the OpenAPI document of *operations*."""
    table = list(operations)
    types: list[Any] = [Problem, *PATH_TYPES.values(), LabelName, LabelValue]
    for operation in table:
        types.extend(kind for kind in operation.returns.values() if kind is not None)
        types.extend(field.type for field in fields(operation.query))
        types.append(operation.body)
    schemas, components = schema_components(types, ref_template=_REF)
    known = dict(zip(map(_hashable, types), schemas, strict=True))
    paths: dict[str, Json] = {}
    for operation in table:
        path = _CONVERTOR.sub(r"{\1}", operation.path)
        described = _Described(operation, known).operation()
        paths.setdefault(path, {})[operation.method.lower()] = described
    result: Json = _portable(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Session Gateway",
                "version": __version__,
                "description": DESCRIPTION,
                "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"token": []}],
            "paths": paths,
            "components": {
                "schemas": {**components, **VALUES},
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }
    )
    return result


def _hashable(kind: Any) -> str:  # noqa: ANN401 - a type
    return repr(kind)


def _portable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a schema in which patterns are those of every language."""
    if isinstance(value, dict):
        return {
            name: text.replace(_PYTHON_END, "$")
            if name == "pattern" and isinstance(text, str)
            else _portable(text)
            for name, text in value.items()
        }
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return value


class _Described:
    """One operation in OpenAPI's words."""

    def __init__(self, operation: AnyOperation, schemas: Mapping[str, Json]) -> None:
        self._row = operation
        self._schemas = schemas

    def operation(self) -> Json:
        row = self._row
        described: Json = {
            "operationId": row.handler.__name__,
            "summary": row.summary,
            "tags": [row.tag],
            "parameters": [*self._in_path(), *self._in_query(), *self._in_headers()],
            "responses": {**self._replies(), **self._problems()},
        }
        if row.scope is not None:
            described["description"] = f"Needs the scope `{row.scope}`."
        if row.is_public:
            described["security"] = []
        if row.body is not Nothing:
            described["requestBody"] = {
                "required": True,
                "content": {media: {"schema": self._schema(row.body)} for media in row.consumes},
            }
        return described

    def _schema(self, kind: Any) -> Json:  # noqa: ANN401 - a type
        return self._schemas[_hashable(kind)]

    def _in_path(self) -> list[Json]:
        return [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": self._schema(PATH_TYPES[name]),
            }
            for name in _CONVERTOR.findall(self._row.path)
        ]

    def _in_query(self) -> list[Json]:
        found = []
        for field in fields(self._row.query):
            schema = _without_null(self._schema(field.type))
            if field.name == "labels":
                found.append(self._labels())
                continue
            default = field.default
            if default not in (None, UNSET) and isinstance(default, str | int | float):
                schema = {**schema, "default": default}
            text = schema.get("description")
            found.append(
                {
                    "name": field.encode_name,
                    "in": "query",
                    "schema": schema,
                    **({"description": text} if text else {}),
                }
            )
        if takes_position(self._row):
            found.append(
                {
                    "name": "at",
                    "in": "query",
                    "description": "A position that the reply must have seen.",
                    "schema": _text(POSITION),
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

    def _labels(self) -> Json:
        """Return the parameter that stands for every ``label.<k>=v``."""
        name = self._schema(LabelName)
        pattern = str(name["pattern"]).removeprefix("^")
        return {
            "name": "labels",
            "in": "query",
            "style": "form",
            "explode": True,
            "description": f"Labels that must be equal, each as `{LABEL}<name>=<value>`.",
            "schema": {
                "type": "object",
                "maxProperties": 32,
                "propertyNames": {"pattern": f"^label\\.{pattern}", "maxLength": 64 + len(LABEL)},
                "additionalProperties": self._schema(LabelValue),
            },
        }

    def _in_headers(self) -> list[Json]:
        return [
            {
                "name": name,
                "in": "header",
                "description": HEADERS[name][0],
                "schema": _text(HEADERS[name][1]),
            }
            for name in self._row.headers
        ]

    def _replies(self) -> Json:
        replies: Json = {}
        for status, kind in self._row.returns.items():
            answer: Json = {"description": HTTPStatus(status).phrase, "headers": _HEADERS_SENT}
            if kind is not None:
                answer["content"] = {
                    media: {"schema": self._schema(kind) if "json" in media else {"type": "string"}}
                    for media in self._row.produces
                }
            replies[str(status)] = answer
        return replies

    def _errors(self) -> list[type[GatewayError]]:
        row = self._row
        errors = [*_EVERY, RateLimited, *row.errors]
        if takes_position(row):
            errors += [BadPosition, PositionAhead]
        if not row.is_public:
            errors += [Unauthorized, Forbidden]
        if row.body is not Nothing:
            errors += [UnsupportedMediaType, PayloadTooLarge, Invalid]
        return errors

    def _problems(self) -> Json:
        by_status: dict[int, set[str]] = {}
        for error in self._errors():
            by_status.setdefault(error.status, set()).add(error.code)
        return {
            str(status): {
                "description": f"{HTTPStatus(status).phrase}: {', '.join(sorted(codes))}",
                "content": {MEDIA_TYPE: {"schema": self._schema(Problem)}},
            }
            for status, codes in sorted(by_status.items())
        }


def _text(pattern: str | None) -> Json:
    return {"type": "string", **({"pattern": pattern} if pattern else {})}


_HEADERS_SENT: Final[Json] = {
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


def _without_null(schema: Json) -> Json:
    """Return the schema of a parameter: one that is not given is not null."""
    options = schema.get("anyOf")
    if options is None:
        return schema
    left = [option for option in options if option.get("type") != "null"]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**left[0], **rest} if len(left) == 1 else {**rest, "anyOf": left}


def merged(native: Json, fragments: Mapping[str, Json], below: str) -> Json:
    """Return the document with the dialects' *fragments* (``paths``, ``components``) in it.

    Each dialect answers below ``/<name>``; its components get its name, so that none clash. The
    native paths are those *below* a path, but for operations, which are always at the root.
    """
    stay = {operation.path for operation in ops.OPERATIONS}
    paths = {path if path in stay else below + path: item for path, item in native["paths"].items()}
    components = dict(native["components"])
    for dialect, fragment in fragments.items():
        for path, item in fragment["paths"].items():
            paths[f"/{dialect}{path}"] = _renamed(item, dialect)
        for section, found in fragment.get("components", {}).items():
            components[section] = {
                **components.get(section, {}),
                **{f"{dialect}.{name}": _renamed(part, dialect) for name, part in found.items()},
            }
    return {**native, "paths": paths, "components": components}


def _renamed(value: Any, dialect: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [_renamed(item, dialect) for item in value]
    if not isinstance(value, dict):
        return value
    result = {name: _renamed(item, dialect) for name, item in value.items()}
    if isinstance(reference := value.get("$ref"), str):
        section, _, name = reference.rpartition("/")
        result["$ref"] = f"{section}/{dialect}.{name}"
    if isinstance(value.get("security"), list):
        result["security"] = [
            {f"{dialect}.{name}": scopes for name, scopes in wanted.items()}
            for wanted in value["security"]
        ]
    return result


def described(
    operations: Iterable[AnyOperation], fragments: Mapping[str, Json], below: str = ""
) -> list[AnyOperation]:
    """Return *operations* and the one that serves their document, its own row in it.

    Args:
        operations: The native ones.
        fragments: What dialects add, by name.
        below: The path that the native API is mounted at.
    """
    table = list(operations)

    async def openapi(_call: Call[Nothing, Nothing]) -> Response:
        return raw_reply(text)

    own: AnyOperation = Operation(
        method="GET",
        path=PATH,
        handler=openapi,
        query=Nothing,
        body=Nothing,
        returns={200: dict[str, Any]},
        is_public=True,
        summary="This document",
        tag="operations",
    )
    table.append(own)
    text = encode(_portable(merged(document(table), fragments, below)))
    return table
