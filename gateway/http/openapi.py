"""OpenAPI: generates the document of an API (OpenAPI 3.1) from its table of endpoints.

Schemas are made from the types that requests and replies use. All errors have one schema; each
status lists the codes that it can have.

Not here: the sockets (``api.asyncapi``).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from msgspec import UNSET, Struct
from msgspec.json import schema_components
from msgspec.structs import fields

from gateway import __version__
from gateway.core.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    Invalid,
    NotAcceptable,
    PayloadTooLarge,
    RateLimited,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
)
from gateway.core.model import LabelName, LabelValue
from gateway.http.document import Json, document_endpoint
from gateway.http.endpoint import JSON, AnyEndpoint, Nothing
from gateway.http.request import LABEL
from gateway.logs.request import ID_MAX

PATH: Final = "/openapi.json"

REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_PYTHON_END: Final = r"$(?!\n)"  # of a pattern; where there is no last newline to fear it is $
_EVERY_REPLY: Final[Json] = {
    "X-Request-Id": {
        "description": "Names the request in the log: what the request had under this name, if it "
        f"was of {ID_MAX} characters or fewer without blanks, else an id of its own.",
        "required": True,
        "schema": {"type": "string", "maxLength": ID_MAX},
    }
}

_EVERY: Final[tuple[type[GatewayError], ...]] = (BadRequest, UriTooLong, GatewayError, Unavailable)


def _status(error: type[GatewayError]) -> int:
    return error.status


def _code(error: type[GatewayError]) -> str:
    return error.code


def _no_parameters(_endpoint: AnyEndpoint) -> list[Json]:
    return []


class Description(Struct, frozen=True, kw_only=True):
    """The data of a document that the table of endpoints does not have.

    Args:
        title: The API's name.
        text: A few sentences for people.
        security_schemes: The places of a credential, by name (OpenAPI ``securitySchemes``).
        failure: Type of the body of an error.
        failure_media: Its media types.
        status_of: The status of an error at this door.
        code_of: The code of an error at this door.
        parameters: Query parameters that an endpoint has besides those of its Struct.
        headers: Request headers by name: their meaning, and the pattern of their values.
        sent_headers: Response headers of every success (OpenAPI ``headers``).
        path_types: Types of the parameters of paths; text if unset.
        schemas: Further schemas that types refer to; one named like a type adds to that type's.
        negotiates: Whether ``Accept`` is checked (406).
    """

    title: str
    text: str
    security_schemes: Mapping[str, Json]
    failure: Any
    failure_media: tuple[str, ...] = (JSON,)
    status_of: Callable[[type[GatewayError]], int] = _status
    code_of: Callable[[type[GatewayError]], str] = _code
    parameters: Callable[[AnyEndpoint], list[Json]] = _no_parameters
    headers: Mapping[str, tuple[str, str | None]] = {}
    sent_headers: Json = {}
    path_types: Mapping[str, Any] = {}
    schemas: Json = {}
    negotiates: bool = False


def document(endpoints: Iterable[AnyEndpoint], about: Description, root: str) -> Json:
    """Return the OpenAPI document of *endpoints*.

    Args:
        endpoints: The table.
        about: The data that the table does not have.
        root: The path that the API is mounted at; empty at the root.

    Raises:
        ValueError: Two operations have the same id.
    """
    table = [endpoint for endpoint in endpoints if not endpoint.is_hidden]
    ids = Counter(endpoint.operation_id for endpoint in table)
    if twice := [name for name, count in ids.items() if count > 1]:
        raise ValueError(f"operations of one name: {', '.join(twice)}")
    types: list[Any] = [about.failure, *about.path_types.values(), LabelName, LabelValue]
    for endpoint in table:
        types.extend(kind for kind in endpoint.returns.values() if _is_type(kind))
        types.extend(field.type for field in fields(endpoint.query))
        if _is_type(endpoint.body):
            types.append(endpoint.body)
    schemas, components = schema_components(types, ref_template=REF)
    known = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Json] = {}
    for endpoint in table:
        path = _PARAMETER.sub(r"{\1}", endpoint.path)
        described = _Described(endpoint, about, known).operation()
        paths.setdefault(path, {})[endpoint.method.lower()] = described
    result: Json = portable(
        {
            "openapi": "3.1.0",
            "info": {
                "title": about.title,
                "version": __version__,
                "description": about.text,
                "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": root or "/"}],
            "security": [{name: []} for name in about.security_schemes],
            "paths": paths,
            "components": {
                "schemas": _without_defaults(components) | _added(components, about.schemas),
                "securitySchemes": dict(about.security_schemes),
            },
        }
    )
    return result


def _is_type(kind: object) -> bool:
    """Whether a row names a type, and not a schema or nothing."""
    return kind is not None and not isinstance(kind, dict)


def _added(components: Json, schemas: Mapping[str, Json]) -> Json:
    return {name: {**components.get(name, {}), **schema} for name, schema in schemas.items()}


def _without_defaults(components: Json) -> Json:
    """Return schemas of types without the defaults of their members.

    Generators of clients treat a member with a default as one that is always present, so that the
    users of such a client would have to set every member.
    """
    for schema in components.values():
        for member in schema.get("properties", {}).values():
            member.pop("default", None)
    return components


def portable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a schema whose patterns work in every language."""
    if isinstance(value, dict):
        return {
            name: text.replace(_PYTHON_END, "$")
            if name == "pattern" and isinstance(text, str)
            else portable(text)
            for name, text in value.items()
        }
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    return value


class _Described:
    """An operation as OpenAPI describes it."""

    def __init__(
        self, endpoint: AnyEndpoint, about: Description, schemas: Mapping[str, Json]
    ) -> None:
        self._row = endpoint
        self._about = about
        self._schemas = schemas

    def operation(self) -> Json:
        row = self._row
        described: Json = {
            "operationId": row.operation_id,
            "summary": row.title,
            **({"tags": [row.tag]} if row.tag else {}),
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
                "content": {
                    media: {"schema": self._schema(row.body)} for media in row.consumes or (JSON,)
                },
            }
        return described

    def _schema(self, kind: Any) -> Json:  # noqa: ANN401 - a type, or a schema
        return kind if isinstance(kind, dict) else self._schemas[repr(kind)]

    def _in_path(self) -> list[Json]:
        return [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": self._schema(self._about.path_types.get(name, {"type": "string"})),
            }
            for name in _PARAMETER.findall(self._row.path)
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
                    **({"required": True} if field.required else {}),
                    "schema": schema,
                    **({"description": text} if text else {}),
                }
            )
        return [*found, *self._about.parameters(self._row)]

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
                "description": self._about.headers[name][0],
                "schema": text_schema(self._about.headers[name][1]),
            }
            for name in self._row.headers
        ]

    def _replies(self) -> Json:
        replies: Json = {}
        for status, kind in self._row.returns.items():
            answer: Json = {"description": _phrase(status)}
            answer["headers"] = {**_EVERY_REPLY, **self._about.sent_headers}
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
        if self._about.negotiates:
            errors.append(NotAcceptable)
        if not row.is_public:
            errors += [Unauthorized, Forbidden]
        if row.body is not Nothing:
            errors += [PayloadTooLarge, Invalid]
            errors += [UnsupportedMediaType] if row.consumes else []
        return errors

    def _problems(self) -> Json:
        about = self._about
        by_status: dict[int, set[str]] = {}
        for error in self._errors():
            by_status.setdefault(about.status_of(error), set()).add(about.code_of(error))
        schema = self._schema(about.failure)
        return {
            str(status): {
                "description": f"{_phrase(status)}: {', '.join(sorted(codes))}",
                "headers": _EVERY_REPLY,
                "content": {
                    media: {"schema": schema if "json" in media else {"type": "string"}}
                    for media in about.failure_media
                },
            }
            for status, codes in sorted(by_status.items())
            if status not in self._row.returns
        }


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a product's own
        return "Refused"


def text_schema(pattern: str | None) -> Json:
    """Return the schema of text that fits *pattern*."""
    return {"type": "string", **({"pattern": pattern} if pattern else {})}


def _without_null(schema: Json) -> Json:
    """Return the schema of a parameter: one that is not given is not null."""
    options = schema.get("anyOf")
    if options is None:
        return schema
    left = [option for option in options if option.get("type") != "null"]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**left[0], **rest} if len(left) == 1 else {**rest, "anyOf": left}


def described(endpoints: Iterable[AnyEndpoint], about: Description, root: str) -> list[AnyEndpoint]:
    """Return *endpoints* and the one that serves their description, its own row in it."""
    summary = "Describe the operations (OpenAPI 3.1)"
    table = list(endpoints)
    make: Callable[[], Json] = lambda: document(table, about, root)  # noqa: E731
    table.append(document_endpoint(PATH, summary=summary, make=make))
    return table
