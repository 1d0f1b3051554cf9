"""Style: how MaxScale's REST API is spoken: its addresses, its methods and its refusals.

The version in an address is optional, and slashes at the end are ignored. The method may come from
``X-HTTP-Method-Override``; rights are judged by that one, not by the one on the wire.

Not here: who the caller is (``access``), what the endpoints do (``endpoints``).
"""

from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import quote, unquote

from msgspec import DecodeError
from msgspec.json import decode, encode
from starlette.responses import Response

from gateway.auth.credentials import headers
from gateway.auth.principals import Principal
from gateway.core.errors import (
    BadRequest,
    Draining,
    Forbidden,
    GatewayError,
    Invalid,
    SessionClosed,
    Unauthorized,
    excerpt,
)
from gateway.dialects.maxscale.access import MaxScaleLogins
from gateway.dialects.maxscale.query import CommonParameters
from gateway.dialects.maxscale.render import RenderContext, error_document
from gateway.http.endpoint import JSON, AnyCall, AnyEndpoint, EndpointTable, Match, Nothing
from gateway.http.request import Request
from gateway.http.style import Reading, Traits

T = TypeVar("T")

VERSION: Final = "v1"
METHODS: Final = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS")
ALWAYS: Final[Mapping[str, str]] = {  # headers of every reply, as MaxScale sends them
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "Deny",
    "X-XSS-Protection": "1",
}

TRAITS: Final = Traits(
    counts_callers=False,  # ``access`` counts a password before it is checked
    credential_first=True,  # MaxScale tells nobody without a login which addresses there are
    body_discard_bytes=1024 * 1024,  # MaxCtrl's HTTP client reads no answer before it has written
    options_status=200,  # as MaxScale, which has no 204 here
    exposes="ETag, Gateway-Lag-Ms, Last-Modified, Mxs-Warning, Retry-After, X-Request-Id",
    allows=(
        "Authorization, Content-Type, If-Match, If-Modified-Since, If-None-Match,"
        " If-Unmodified-Since, X-HTTP-Method-Override, X-Requested-With"
    ),
    challenge=None,  # ours depends on who asks; see ``refuse``
    vary="Authorization, Cookie, Origin",  # ``Accept`` is not looked at: MaxScale has one form
    cache_control="no-cache",
)


class MaxScaleStyle:
    """MaxScale's style."""

    traits = TRAITS

    def __init__(self, access: MaxScaleLogins, table: EndpointTable) -> None:
        self._access = access
        self._table = table

    def match(self, request: Request) -> Match:
        """Return which endpoint an address means, with or without the version.

        What is nowhere is 404 for each method that MaxScale knows, and 405 for others.
        """
        path, method = _path(request), effective_method(request)
        found = self._table.match(path, method)
        if not found.allowed:
            found = self._table.match(f"/{VERSION}{path}", method)
        allowed = tuple(known for known in METHODS if known in found.allowed)
        if method not in METHODS:
            return Match(method, None, {}, allowed or METHODS)
        if found.endpoint is None and method != "OPTIONS":
            return Match(method, None, {}, ())
        names = {name: unquote(text) for name, text in found.names.items()}
        return Match(method, found.endpoint, names, allowed)

    async def credential(self, request: Request, _endpoint: AnyEndpoint | None) -> Principal:
        """Return who asks."""
        return await self._access.caller({**request.scope, "method": effective_method(request)})

    async def read(
        self, endpoint: AnyEndpoint, request: Request, _names: Mapping[str, str]
    ) -> Reading:
        """Return the common parameters, and the body as text.

        Media types are not looked at. A handler decodes the body, after it has judged whether its
        session is there and fits the conditions.
        """
        query = CommonParameters.parse(request.query_string)
        if endpoint.body is Nothing:
            return Reading(query, Nothing())
        text = await request.read_body()
        if not text:
            raise BadRequest("Missing request body")
        return Reading(query, text)

    def refuse(self, error: GatewayError, request: Request, _caller: object) -> Response:
        """Return MaxScale's list of details."""
        status, details = status_of(type(error)), [error.detail]
        match error:
            case Unauthorized():
                details = ["Access denied"]
            case Forbidden():
                details = ["Administrative access required", error.detail]
            case Draining():
                details = ["MaxScale is shutting down"]
            case _ if type(error) is GatewayError:  # what nobody foresaw
                details = ["Internal error"]
        response = errors_reply(status, *details)
        response.headers["Cache-Control"] = self.traits.cache_control
        is_script = "XMLHttpRequest" in headers(request.scope, b"x-requested-with")
        if isinstance(error, Unauthorized) and not is_script:  # which shows a login of its own
            response.headers["WWW-Authenticate"] = 'Basic realm="maxscale"'
        return response

    def finish(self, _request: Request, response: Response) -> None:
        """Add MaxScale's own headers, and what it tells in answer to OPTIONS."""
        told = response.headers
        told.update(ALWAYS)
        if lag_ms := told.get("gateway-lag-ms"):
            told["Mxs-Warning"] = f"This is {lag_ms} ms old: the store does not answer"
        if response.status_code == self.traits.options_status and "allow" in told:
            told["Accept"] = told["allow"]  # MaxScale lists the methods there


def status_of(kind: type[GatewayError]) -> int:
    """Return MaxScale's status for an error; it knows neither 410 nor 422."""
    if issubclass(kind, SessionClosed):
        return 404
    return 400 if issubclass(kind, Invalid) else kind.status


def effective_method(request: Request) -> str:
    """Return the method that a request asks for, in capitals."""
    return (request.header("x-http-method-override") or request.method).upper()


def render_context(call: AnyCall) -> RenderContext:
    """Return what the renderings of a reply depend on; links repeat the version if it was there."""
    settings, request = call.context.settings, call.request
    tls = call.context.peer(request.scope).tls
    host = request.header("host") or "localhost"  # HTTP/1.0 needs none
    root = f"{'https' if tls else 'http'}://{host}{request.root}/"
    is_versioned = f"{_path(request)}/".startswith(f"/{VERSION}/")
    return RenderContext(
        base=f"{root}{VERSION}/" if is_versioned else root,
        now_ms=call.node.now_ms(),
        is_seed=settings.maxscale_generation == "seed",
        is_full=call.caller.is_full,
    )


def read_partial(text: bytes, kind: type[T]) -> T:
    """Return what a JSON body holds.

    Raises:
        BadRequest: It cannot be read.
    """
    try:
        return decode(text, type=kind)
    except RecursionError as error:
        raise BadRequest("Invalid JSON in request: it is nested too deep") from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"Invalid JSON in request: {excerpt(str(error))}") from error


def errors_reply(status: int, *details: str) -> Response:
    """Return a reply that tells what went wrong."""
    return Response(encode(error_document(*details)), status, media_type=JSON)


def _path(request: Request) -> str:
    """Return the path in its one spelling, empty at the root; a name may hold an encoded slash."""
    parts = request.raw_path.decode("latin-1").strip("/").split("/")
    return "".join("/" + quote(unquote(part), safe="") for part in parts if parts != [""])
