"""Endpoints: sessions, the services and filters they refer to, logins, and the server itself.

A session is found by its number; closed and hidden ones are unknown. ``ttl`` is a delayed close. A
restart, and a change of logs or filters, is written down in ``attributes.maxscale``: the producer
of the session carries it out. Services and filters are known by name only, from the sessions that
the caller sees; unlike MaxScale's, all links to them can be followed.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import Final, Literal

from msgspec import UNSET, ValidationError, convert
from starlette.responses import Response

from gateway import __version__
from gateway.auth.credentials import check_cookie_login, networks, origins
from gateway.core.command import Close, RequestClose, Update
from gateway.core.errors import (
    BadRequest,
    Draining,
    Forbidden,
    GatewayError,
    NotFound,
    SessionClosed,
    Unavailable,
    excerpt,
)
from gateway.core.model import CLOSE_AFTER_MAX_S, Object, Session
from gateway.core.public import rfc3339
from gateway.core.query import Filter, Page, Sort, View
from gateway.dialects.maxscale import schema
from gateway.dialects.maxscale.access import COOKIE, MaxScaleLogins
from gateway.dialects.maxscale.collection import (
    ApiCall,
    Collection,
    collection_reply,
    document_reply,
    resource_reply,
)
from gateway.dialects.maxscale.conditions import (
    ValidatorCache,
    Validators,
    is_unmodified,
    tag_of,
)
from gateway.dialects.maxscale.facts import NAME, FilterName, LogSwitches, proxy_facts
from gateway.dialects.maxscale.query import service_asked_for
from gateway.dialects.maxscale.render import (
    document,
    filters_of,
    named,
    resource,
    service_name,
    service_of,
)
from gateway.dialects.maxscale.style import errors_reply, read_partial, render_context
from gateway.http.endpoint import paced

RESTARTS_AT_ONCE: Final = 64  # commits on their way; they travel in one pipeline
DETAILS_MAX: Final = 10  # errors told of one request

Named = Literal["services", "filters"]

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,18}")


class Endpoints:
    """The handlers of all endpoints."""

    def __init__(self, access: MaxScaleLogins, validators: ValidatorCache) -> None:
        self._access = access
        self._validators = validators

    # --- the server

    async def ping(self, call: ApiCall) -> Response:
        """Tell a caller who may log in that the server is there.

        Raises:
            Draining: It is going: MaxCtrl, which knows several servers, asks another.
        """
        if call.node.is_draining:
            raise Draining
        return Response(status_code=200)

    async def get_server(self, call: ApiCall) -> Response:
        """Look at the server."""
        links = schema.SelfLink(self_=f"{render_context(call).base}maxscale/")
        data = schema.ServerResource(attributes=schema.ServerAttributes(version=__version__))
        return document_reply(call, schema.ResourceDocument(data=data, links=links))

    async def log_in(self, call: ApiCall) -> Response:
        """Exchange a name and a password for a token, or forget the cookie that holds one."""
        settings, scope = call.context.settings, call.request.scope
        response = Response(status_code=200)
        set_cookie = partial(
            response.set_cookie,
            COOKIE,
            path=call.request.root or "/",
            secure=call.context.peer(scope).tls,
            httponly=True,
            samesite="strict",
        )
        if call.query.is_on("logout"):
            set_cookie("", max_age=0)
            return response
        if call.query.is_on("persist"):
            allowed, trusted = origins(settings.allowed_origins), networks(settings.trusted_proxies)
            check_cookie_login(scope, allowed, trusted, has_body=False)
        principal = await self._access.login(scope)
        life_s = call.query.seconds("max-age") or None
        token = self._access.issue(principal, life_s)
        if call.query.is_on("persist"):
            response.status_code = 204
            set_cookie(token, max_age=life_s)
            return response
        found = schema.LoginDocument(meta=schema.LoginToken(token=token))
        return document_reply(call, found, {"Cache-Control": "no-store"})

    # --- services and filters

    async def list_named(self, kind: Named, call: ApiCall) -> Response:
        """List services or filters that sessions refer to."""
        context = render_context(call)
        names = sorted((await counted(_sessions(call), kind)).items())
        collection = Collection(
            kind=kind,
            count=lambda: len(names),
            all=lambda: names,
            page=lambda offset, limit: names[offset : offset + limit],
            render=lambda item: named(kind, *item, context),
            tag=lambda item: f"{item[0]} {item[1]}",
        )
        filters = call.query.filters()
        return await collection_reply(call, collection, filters, context, self._validators)

    async def get_named(self, kind: Named, call: ApiCall) -> Response:
        """Look at a service or filter that sessions refer to."""
        name = call.path["id"]
        count = (await counted(_sessions(call), kind))[name]
        if not count:
            raise NotFound(f"{name[:64]} is not a {kind.removesuffix('s')}")
        found = named(kind, name, count, render_context(call))
        return resource_reply(call, schema.ResourceDocument(data=found, links=found.links), kind)

    # --- sessions

    async def list_sessions(self, call: ApiCall) -> Response:
        """List sessions, by number."""
        filters, node, context = call.query.filters(), call.node, render_context(call)
        view = View(
            filter=Filter(service=service_asked_for(filters)), visibility=call.caller.visibility()
        )
        collection = Collection(
            kind="sessions",
            count=lambda: node.count(view),
            all=lambda: sorted(node.all_in(view), key=attrgetter("number")),
            page=lambda offset, limit: node.part(
                view, Page(sort=Sort.NUMBER, limit=limit, offset=offset)
            ),
            render=lambda session: resource(session, node.last_active_at(session.id), context),
            tag=lambda session: f"{session.number}.{_tag(call, session)}",
        )
        return await collection_reply(call, collection, filters, context, self._validators)

    async def get_session(self, call: ApiCall) -> Response:
        """Look at a session."""
        session = _visible(call)
        current = self._current(call, session)
        headers = dict(current.headers())
        if is_unmodified(call.request.headers(), current, is_read=True):
            return Response(status_code=304, headers=headers)
        active_at = call.node.last_active_at(session.id)
        shown = document(session, active_at, render_context(call))
        return resource_reply(call, shown, "sessions", headers)

    async def get_services(self, call: ApiCall) -> Response:
        """Look at the relationship of a session to its service."""
        return document_reply(call, service_of(_visible(call), render_context(call)))

    async def get_filters(self, call: ApiCall) -> Response:
        """Look at the relationship of a session to its filters."""
        return document_reply(call, filters_of(_visible(call), render_context(call)))

    async def patch_session(self, call: ApiCall) -> Response:
        """Change a session's log switches and filters."""
        session = self._changeable(call)
        wanted = read_partial(call.body, schema.PartialDocument)
        await _change(call, session, session_patch(wanted.data))
        return Response(status_code=200)

    async def patch_filters(self, call: ApiCall) -> Response:
        """Change a session's filters."""
        session = self._changeable(call)
        wanted = read_partial(call.body, schema.FilterReferences)
        await _change(call, session, {"filters": filter_names(wanted)})
        return Response(status_code=200)

    async def restart_session(self, call: ApiCall) -> Response:
        """Ask for a restart of a session, which its producer carries out."""
        await _change(call, self._changeable(call), _restart(call))
        return Response(status_code=200)

    async def restart_sessions(self, call: ApiCall) -> Response:
        """Ask for a restart of all sessions that the caller may change."""
        wanted = [known for known in _sessions(call) if call.caller.covers(known.workspace)]
        failed: list[GatewayError] = []

        async def restart(session: Session) -> None:
            try:
                await _change(call, session, _restart(call))
            except (NotFound, SessionClosed):
                pass  # it ended meanwhile: nothing is left to restart
            except GatewayError as error:
                failed.append(error)

        for start in range(0, len(wanted), RESTARTS_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for session in wanted[start : start + RESTARTS_AT_ONCE]:
                    group.create_task(restart(session))
            for error in failed:
                if isinstance(error, Unavailable):
                    raise error
        if failed:
            details = [error.detail for error in failed[:DETAILS_MAX]]
            return errors_reply(400, *details, "Could not restart all sessions")
        return Response(status_code=200)

    async def delete_session(self, call: ApiCall) -> Response:
        """Close a session, now or after ``ttl`` seconds."""
        session = self._changeable(call)
        ttl_s = call.query.seconds("ttl")
        if ttl_s is not None and ttl_s > CLOSE_AFTER_MAX_S:
            raise BadRequest(f"ttl is at most {CLOSE_AFTER_MAX_S} seconds")
        node, by = call.node, call.caller.name
        if ttl_s:
            at = node.now_ms() + ttl_s * 1000
            await node.apply(session.id, RequestClose(at=at, by=by))
        else:
            await node.apply(session.id, Close(by=by))
        return Response(status_code=200)

    def _changeable(self, call: ApiCall) -> Session:
        """Return the session that the path names, if it may be changed by this request.

        Raises:
            NotFound: There is none, or the caller does not see it.
            Forbidden: The caller's rights are good for another workspace.
            RevisionMismatch: A precondition does not hold.
        """
        session = _visible(call)
        if not call.caller.covers(session.workspace):
            raise Forbidden("This login is good for another workspace.")
        is_unmodified(call.request.headers(), self._current(call, session), is_read=False)
        return session

    def _current(self, call: ApiCall, session: Session) -> Validators:
        name = b"session " + session.id.encode()
        return self._validators.validators(name, _tag(call, session), call.context.wall_ms())


async def counted(sessions: Sequence[Session], kind: Named) -> Counter[str]:
    """Return how many of *sessions* refer to each service or filter, in several turns."""
    found: Counter[str] = Counter()
    async for session in paced(sessions):
        if kind == "services":
            found[service_name(session)] += 1
        else:
            found.update(proxy_facts(session).filters)
    return found


def session_patch(wanted: schema.PartialResource) -> Object:
    """Return what a partial resource changes, as a merge patch of our attributes.

    Raises:
        BadRequest: A filter's name is none.
    """
    patch: Object = {}
    switches = {
        name: is_on
        for name in LogSwitches.__struct_fields__
        if isinstance(is_on := wanted.attributes.parameters.get(name), bool)
    }
    if switches:
        patch["parameters"] = switches
    if wanted.relationships.filters is not UNSET:
        patch["filters"] = filter_names(wanted.relationships.filters)
    return patch


def filter_names(wanted: schema.FilterReferences) -> list[str] | None:
    """Return the names of filters; ``None`` for none of them, which in a patch removes.

    Raises:
        BadRequest: A name is none.
    """
    names = []
    for reference in wanted.data:
        name = reference.get("id")
        try:
            names.append(convert(name, FilterName))
        except ValidationError as error:
            raise BadRequest(f"Not a valid filter: {excerpt(str(name))}") from error
    return names or None


def _sessions(call: ApiCall) -> list[Session]:
    """Return the sessions that the caller sees."""
    return call.node.all_in(View(visibility=call.caller.visibility()))


def _visible(call: ApiCall) -> Session:
    """Return the session that the path names.

    Raises:
        NotFound: There is none, or the caller does not see it.
    """
    text = call.path["id"]
    number = int(text) if _NUMBER.fullmatch(text) else 0
    session = call.node.numbered(number)
    if session is None or not call.caller.visibility().allows(session):
        raise NotFound(f"{text[:64]} is not a session")
    return session


def _tag(call: ApiCall, session: Session) -> str:
    return tag_of(session, call.node.last_active_at(session.id))


async def _change(call: ApiCall, session: Session, patch: Object) -> None:
    if patch:
        is_conditional = call.request.header("if-match") is not None
        revision = session.revision if is_conditional else None
        wanted = Update(patch={"attributes": {NAME: patch}}, revision=revision)
        await call.node.apply(session.id, wanted)


def _restart(call: ApiCall) -> Object:
    return {"restart_requested_at": rfc3339(call.node.now_ms())}
