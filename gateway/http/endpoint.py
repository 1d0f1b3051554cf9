"""Endpoints: one row per operation of an API, and the table that finds the row for a request.

The pipeline serves the table and ``openapi`` describes it, so the two cannot differ. A handler gets
a :class:`Call`, which has passed every check that needs no session, and returns a response or
raises a ``GatewayError``.

Not here: the steps between the request and the handler (``pipeline``).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct
from msgspec.json import encode
from starlette.responses import Response

from gateway.auth.principals import Scope
from gateway.context import Context
from gateway.core.errors import GatewayError
from gateway.http.request import Request
from gateway.node import Node

JSON: Final = "application/json"
YIELD_EVERY: Final = 500  # rows of a list; rendering them takes about 5 ms
YIELD_AFTER_S: Final = 0.005  # of work on rows that take longer

_PARAMETER: Final = re.compile(r"\{(\w+)(:path)?\}")

C = TypeVar("C")
Q = TypeVar("Q")
B = TypeVar("B")
T = TypeVar("T")


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """The type of a query without parameters, and of a missing body."""


class Call(Struct, Generic[C, Q, B], frozen=True, kw_only=True):
    """A request that has passed every check that needs no session.

    Args:
        context: The node and its surroundings.
        caller: The caller: the principal, or what a style has in its place.
        path: The parameters of the path, decoded.
        query: The parameters of the query.
        body: The body; ``Nothing()`` where there is none.
        media: The media type to answer with.
        request: The request, for everything else.
    """

    context: Context
    caller: C
    path: Mapping[str, str]
    query: Q
    body: B
    media: str
    request: Request

    @property
    def node(self) -> Node:
        """The node of this process."""
        return self.context.node


class Endpoint(Struct, Generic[C, Q, B], frozen=True):
    """One row of an API's table.

    Args:
        method: The method, in capitals.
        path: The path below the API's prefix; ``{name}`` is one segment, ``{name:path}`` the rest.
        handler: Handles the call.
        summary: One line for people; the first line of the handler's docstring if unset.
        query: Struct of the query's parameters; ``Nothing`` if there are none.
        body: Struct of the body; ``Nothing`` if there is none.
        returns: Type of the reply's body by status: a type, a JSON schema, or ``None``: no body.
        tag: Chapter of the documentation.
        errors: Errors that it raises besides those that follow from its other fields.
        scope: The scope that the caller must have; ``None``: any caller may use it.
        is_public: Whether it needs no credential.
        token_in_query: Whether ``?token=`` is accepted, as browsers' event streams need it.
        produces: Media types of the reply, the default first.
        consumes: Media types of the body; empty: any.
        headers: Request headers that it reads, for the documentation.
        name: The operation's id in the description; the handler's name if unset.
        is_hidden: Whether the description leaves it out.
        extra: Data for the API's own style.
    """

    method: str
    path: str
    handler: Callable[[Call[C, Q, B]], Awaitable[Response]]
    summary: str = ""
    query: type[Q] | Any = Nothing
    body: type[B] | Any = Nothing
    returns: Mapping[int, Any] = {}
    tag: str = ""
    errors: tuple[type[GatewayError], ...] = ()
    scope: Scope | None = None
    is_public: bool = False
    token_in_query: bool = False
    produces: tuple[str, ...] = (JSON,)
    consumes: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()
    name: str | None = None
    is_hidden: bool = False
    extra: Any = None

    @property
    def operation_id(self) -> str:
        """The name of the operation in the description."""
        return self.name or getattr(self.handler, "__name__", "operation").lstrip("_")

    @property
    def title(self) -> str:
        """One line about the operation."""
        text = self.summary or getattr(self.handler, "func", self.handler).__doc__ or ""
        return text.partition("\n")[0].rstrip(".").replace("``", "`")


AnyCall = Call[Any, Any, Any]
AnyEndpoint = Endpoint[Any, Any, Any]


def reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return *value* as a JSON reply."""
    return raw_reply(encode(value), status, headers)


def raw_reply(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return JSON text as a reply."""
    return Response(body, status, dict(headers or {}), JSON)


async def paced(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield *items*; let other tasks run every ``YIELD_EVERY`` items or ``YIELD_AFTER_S``."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + YIELD_AFTER_S
    for count, item in enumerate(items, 1):
        yield item
        if count % YIELD_EVERY == 0 or loop.time() > due_s:
            await asyncio.sleep(0)
            due_s = loop.time() + YIELD_AFTER_S


async def list_reply(
    rows: Iterable[T], render: Callable[[T], object], member: str | None = None
) -> Response:
    """Return *rows* as a JSON list, and let other tasks run meanwhile; see :func:`paced`.

    With *member* it is the one member of an object.
    """
    text = b"[%b]" % b",".join([encode(render(row)) async for row in paced(rows)])
    return raw_reply(text if member is None else b'{"%b":%b}' % (member.encode(), text))


class Match(Struct, frozen=True):
    """The match of a target in a table.

    Args:
        method: The effective method.
        endpoint: The row; ``None`` if no row has this method at this path.
        names: The parameters of the path.
        allowed: The methods of this path; empty if there is nothing.
    """

    method: str
    endpoint: AnyEndpoint | None
    names: Mapping[str, str]
    allowed: tuple[str, ...]


class _Path(Struct, frozen=True):
    rows: dict[str, AnyEndpoint]
    allowed: tuple[str, ...]


class EndpointTable:
    """The endpoints of an API, found by path and method.

    Args:
        endpoints: The rows; of two paths that fit a target the first one counts.
    """

    def __init__(self, endpoints: Iterable[AnyEndpoint]) -> None:
        self.endpoints = tuple(endpoints)
        by_path: dict[str, dict[str, AnyEndpoint]] = {}
        for endpoint in self.endpoints:
            rows = by_path.setdefault(endpoint.path, {})
            if endpoint.method in rows:
                raise ValueError(f"{endpoint.method} {endpoint.path} stands in the table twice")
            rows[endpoint.method] = endpoint
        self._fixed: dict[str, _Path] = {}
        self._patterns: list[tuple[re.Pattern[str], _Path]] = []
        for path, rows in by_path.items():
            found = _Path(rows, _allowed(rows))
            if "{" in path:
                self._patterns.append((_pattern(path), found))
            else:
                self._fixed[path] = found

    def match(self, path: str, method: str) -> Match:
        """Return the row for *path* and *method*; HEAD is served by GET."""
        found, names = self._fixed.get(path), {}
        if found is None:
            for pattern, candidate in self._patterns:
                if fits := pattern.fullmatch(path):
                    found, names = candidate, fits.groupdict()
                    break
            else:
                return Match(method, None, {}, ())
        endpoint = found.rows.get("GET" if method == "HEAD" else method)
        return Match(method, endpoint, names, found.allowed)


def _allowed(rows: Mapping[str, AnyEndpoint]) -> tuple[str, ...]:
    methods = {*rows, "OPTIONS"} | ({"HEAD"} if "GET" in rows else set())
    return tuple(sorted(methods))


def _pattern(path: str) -> re.Pattern[str]:
    """Return the pattern of a path with parameters; a segment is never empty."""
    parts, end = [], 0
    for parameter in _PARAMETER.finditer(path):
        parts.append(re.escape(path[end : parameter.start()]))
        parts.append(f"(?P<{parameter[1]}>{'.*' if parameter[2] else '[^/]+'})")
        end = parameter.end()
    return re.compile("".join(parts) + re.escape(path[end:]), re.DOTALL)
