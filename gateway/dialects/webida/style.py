"""Webida's style: a bare token in ``Authorization``, its validator's words, and its errors.

Authentication comes before the parameters: a request without a valid token gets 401 whatever its
parameters are. The published client sends ``Content-Type: application/json`` with every request,
even without a body. Unknown parameters are ignored, as in the product.

One table maps our errors to the product's status and code. Codes are those of its server, not the
phrases of HTTP: a conflict is an ``InvalidArgument``, and an unknown path has another code than an
unknown session. A closed session is answered like one that never existed. Statuses that the product
does not document (413, 414, 415, 429) have its form.

Not here: tokens (``access``), what a caller may do to a session (``endpoints_sessions``).
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

from msgspec import NODEFAULT, DecodeError, Raw, Struct, ValidationError, convert
from msgspec.json import decode, encode
from msgspec.structs import FieldInfo, fields
from starlette.responses import Response

from gateway.auth.principals import Principal
from gateway.core import errors
from gateway.core.errors import BadRequest, GatewayError, MethodNotAllowed
from gateway.core.model import CLOSE_AFTER_MAX_S
from gateway.dialects.webida.access import Access, WebidaCaller
from gateway.dialects.webida.schema import RestError
from gateway.http.endpoint import JSON, AnyEndpoint, EndpointTable, Nothing
from gateway.http.openapi import Description
from gateway.http.pipeline import NoSuchPath
from gateway.http.problems import nearest
from gateway.http.request import Request, check_json, read_pairs
from gateway.http.style import Reading, TableStyle, Traits

BODY_MAX_BYTES: Final = 16 * 1024  # a login has about 2 KiB, with a master token
BODY_DISCARD_BYTES: Final = 64 * 1024  # the published client hears a refusal after it has written

_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_NUMBER_MAX: Final = 64  # characters of a number

S = TypeVar("S", bound=Struct)


class Row(NamedTuple):
    """The status and code of an error for Webida's clients."""

    status: int
    code: str


_MALFORMED: Final = Row(400, "BadRequestError")
_MISSING: Final = Row(404, "NotFoundError")
_INTERNAL: Final = Row(500, "InternalError")

TABLE: Final[dict[type[GatewayError], Row]] = {  # the nearest ancestor of an error counts
    errors.BadRequest: _MALFORMED,
    errors.Invalid: _MALFORMED,
    errors.Unauthorized: Row(401, "UnauthorizedError"),
    errors.Forbidden: Row(403, "ForbiddenError"),
    errors.NotFound: _MISSING,
    errors.SessionClosed: _MISSING,
    NoSuchPath: Row(404, "ResourceNotFound"),
    errors.MethodNotAllowed: Row(405, "MethodNotAllowedError"),
    errors.Conflict: Row(409, "InvalidArgument"),
    errors.RevisionMismatch: Row(409, "InvalidArgument"),
    errors.PayloadTooLarge: Row(413, "RequestEntityTooLargeError"),
    errors.UriTooLong: Row(414, "RequesturiTooLargeError"),
    errors.UnsupportedMediaType: Row(415, "UnsupportedMediaTypeError"),
    errors.RateLimited: Row(429, "TooManyRequestsError"),
    errors.Unavailable: Row(503, "ServiceUnavailableError"),
}


def row_of(kind: type[GatewayError]) -> Row:
    """Return the status and code of errors of *kind*; the nearest ancestor counts."""
    return nearest(TABLE, kind, _INTERNAL)


ABOUT: Final = Description(
    title="Webida",
    text="The sessions of this gateway as Webida's RESTful API tells them, and its logins.",
    security_schemes={
        "webida-simple-auth": {"type": "apiKey", "in": "header", "name": "Authorization"}
    },
    failure=RestError,
    status_of=lambda error: row_of(error).status,
    code_of=lambda error: row_of(error).code,
)


class WebidaStyle(TableStyle[WebidaCaller]):
    """The style of Webida's API; see :class:`gateway.http.style.Style`.

    Args:
        access: Tokens.
        table: The endpoints.
    """

    traits = Traits(
        nobody=WebidaCaller(principal=Principal(name="anybody")),
        body_max_bytes=BODY_MAX_BYTES,
        body_discard_bytes=BODY_DISCARD_BYTES,
        vary="Authorization, Origin",  # there is no cookie, and one media type only
    )

    def __init__(self, access: Access, table: EndpointTable) -> None:
        self._access = access
        super().__init__(table)

    async def credential(self, request: Request, endpoint: AnyEndpoint | None) -> WebidaCaller:  # noqa: ARG002
        """Return the caller; a token in the address is ignored, because addresses are logged."""
        return await self._access.caller(request.header("authorization"))

    async def read(
        self,
        endpoint: AnyEndpoint,
        request: Request,
        names: Mapping[str, str],  # noqa: ARG002 - an id that cannot be one is an unknown session
    ) -> Reading:
        """Return the parameters and the body, or the first thing that is wrong in its words."""
        query = Nothing() if endpoint.query is Nothing else read_parameters(request, endpoint.query)
        if endpoint.body is Nothing:
            return Reading(query, Nothing())
        if request.header("content-type") is not None:  # curl's users need not say it
            check_json(request.scope, endpoint.consumes)
        body = await request.read_body()
        return Reading(query, read_object(body, endpoint.body))

    def refuse(
        self,
        error: GatewayError,
        request: Request,
        caller: WebidaCaller | None,  # noqa: ARG002
    ) -> Response:
        """Return the RestError for *error*."""
        match error:
            case NoSuchPath():
                return failed(error, "There is no such path.")
            case MethodNotAllowed():
                return failed(error, f"{request.method[:16]} is not allowed")
            case _:
                return failed(error)


def failed(error: GatewayError, message: str | None = None) -> Response:
    """Return the answer to *error*, with its own text or *message*."""
    row = row_of(type(error))
    body = encode(RestError(code=row.code, message=message or error.detail))
    return Response(body, row.status, media_type=JSON)


# --- parameters


def pairs_of(scope: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the parameters of a query, in order.

    Raises:
        BadRequest: It cannot be read.
    """
    try:
        return read_pairs(scope)
    except BadRequest as error:
        raise BadRequest("the query cannot be read") from error


def read_parameters(request: Request, kind: type[S]) -> S:
    """Return the parameters that *kind* names; an empty text counts as none.

    Raises:
        BadRequest: One is missing, repeated or not acceptable; said as the product's validator
            does.
    """
    given: dict[str, list[str]] = {}
    for name, text in pairs_of(request.scope):
        given.setdefault(name, []).append(text)
    known = fields(kind)
    return kind(**{field.name: _parameter(field, given.get(field.encode_name)) for field in known})


def _parameter(field: FieldInfo, texts: list[str] | None) -> object:
    name = field.encode_name
    if field.type is int:
        return _whole_number(name, texts)
    if texts is not None and len(texts) > 1:
        raise BadRequest(f'"{name}" must be a string')
    if not texts or not texts[0]:
        if field.default is NODEFAULT:
            raise BadRequest(f'"{name}" is required')
        return field.default
    try:
        return convert(texts[0], field.type)
    except ValidationError as error:
        raise BadRequest(f'"{name}" must be {_wanted(field.type)}') from error


def _wanted(kind: Any) -> str:  # noqa: ANN401 - a type
    if get_origin(kind) is Literal:
        return f"one of [{', '.join(get_args(kind))}]"
    return "a name of at most 256 characters"


def _whole_number(name: str, texts: list[str] | None) -> int:
    """Return a whole number, written in any form that ECMAScript parses."""
    if not texts:
        raise BadRequest(f'"{name}" is required')
    if len(texts) > 1 or len(texts[0]) > _NUMBER_MAX or not _NUMBER.fullmatch(texts[0]):
        raise BadRequest(f'"{name}" must be a number')
    number = float(texts[0])
    if number < 0:
        raise BadRequest(f'"{name}" must be larger than or equal to 0')
    if number > CLOSE_AFTER_MAX_S:
        raise BadRequest(f'"{name}" must be less than or equal to {CLOSE_AFTER_MAX_S}')
    if not number.is_integer():
        raise BadRequest(f'"{name}" must be an integer')
    return int(number)


# --- the body


def read_object(body: bytes, kind: type[S]) -> S:
    """Return the object that a body holds.

    Raises:
        BadRequest: It is none, or a member is missing or not acceptable.
    """
    if not body:
        raise BadRequest('"body" is required')
    try:
        members = decode(body, type=dict[str, Raw])
    except (DecodeError, RecursionError, ValueError) as error:
        raise BadRequest('"body" must be an object') from error
    known = fields(kind)
    for field in known:
        if field.default is NODEFAULT and field.encode_name not in members:
            raise BadRequest(f'"{field.encode_name}" is required')
    try:
        return decode(body, type=kind)
    except (DecodeError, ValueError) as error:
        names = (field.encode_name for field in known)
        name = next((name for name in names if name in str(error)), "body")
        raise BadRequest(f'"{name}" must be a string') from error
