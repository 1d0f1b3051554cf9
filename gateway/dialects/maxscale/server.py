"""Server: what is not a session: health, login, the server itself, and what sessions refer to.

Services and filters are known by name only, from the sessions that the caller sees.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

from starlette.responses import Response

from gateway import __version__
from gateway.auth.credentials import check_cookie_login, client_address, networks, origins
from gateway.core.errors import Draining, NotFound
from gateway.core.model import Session
from gateway.core.query import View
from gateway.dialects.maxscale.access import COOKIE
from gateway.dialects.maxscale.collection import Collection, listed, single
from gateway.dialects.maxscale.documents import (
    GatewayAttributes,
    GatewayDocument,
    GatewayResource,
    Link,
    NamedDocument,
    Token,
    TokenDocument,
)
from gateway.dialects.maxscale.door import Call
from gateway.dialects.maxscale.facts import facts_of
from gateway.dialects.maxscale.shapes import named, service_name

COUNTED_AT_ONCE: Final = 500  # sessions counted between two turns: about 4 ms of work

Named = Literal["services", "filters"]


async def ping(call: Call) -> Response:
    """Say that the server is there, to those who may log in.

    Raises:
        Draining: It is going: MaxCtrl, which knows several servers, asks another.
    """
    if call.context.node.is_draining:
        raise Draining
    return Response(status_code=200)


async def get_gateway(call: Call) -> Response:
    """Look at the server."""
    links = Link(self_=f"{call.scene.base}maxscale/")
    data = GatewayResource(attributes=GatewayAttributes(version=__version__))
    return call.reply(GatewayDocument(data=data, links=links))


async def log_in(call: Call) -> Response:
    """Exchange a name and a password for a token, or forget the cookie that holds one."""
    trusted = networks(call.context.settings.trusted_proxies)
    response = Response(status_code=200)
    set_cookie = partial(
        response.set_cookie,
        COOKIE,
        path=call.scope.get("root_path") or "/",
        secure=client_address(call.scope, trusted).tls,
        httponly=True,
        samesite="strict",
    )
    if call.query.is_on("logout"):
        set_cookie("", max_age=0)
        return response
    if call.query.is_on("persist"):
        allowed = origins(call.context.settings.allowed_origins)
        check_cookie_login(call.scope, allowed, trusted, has_body=False)
    principal = await call.access.login(call.scope)
    life_s = call.query.seconds("max-age") or None
    token = call.access.issue(principal, life_s)
    if call.query.is_on("persist"):
        response.status_code = 204
        set_cookie(token, max_age=life_s)
        return response
    return call.reply(TokenDocument(meta=Token(token=token)), {"Cache-Control": "no-store"})


async def list_named(kind: Named, call: Call) -> Response:
    """List services or filters that sessions refer to."""
    names = sorted((await _counted(call, kind)).items())
    collection = Collection(
        kind=kind,
        count=lambda: len(names),
        rows=lambda offset, limit: names[offset : offset + limit],
        render=lambda item: named(kind, *item, call.scene),
        stamp=lambda item: f"{item[0]} {item[1]}",
    )
    return await listed(call, collection, call.query.filters())


async def get_named(kind: Named, call: Call) -> Response:
    """Look at a service or filter that sessions refer to."""
    name = call.names[0]
    count = (await _counted(call, kind))[name]
    if not count:
        raise NotFound(f"{name[:64]} is not a {kind.removesuffix('s')}")
    found = named(kind, name, count, call.scene)
    return single(call, NamedDocument(data=found, links=found.links), kind)


async def counted(sessions: Sequence[Session], kind: Named) -> Counter[str]:
    """Return how many of *sessions* refer to each service or filter, in several turns."""
    found: Counter[str] = Counter()
    for start in range(0, len(sessions), COUNTED_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        for session in sessions[start : start + COUNTED_AT_ONCE]:
            if kind == "services":
                found[service_name(session)] += 1
            else:
                found.update(facts_of(session).filters)
    return found


async def _counted(call: Call, kind: Named) -> Counter[str]:
    view = View(visibility=call.principal.visibility())
    return await counted(call.context.node.replica.all_in(view), kind)
