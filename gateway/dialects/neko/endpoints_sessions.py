"""Sessions over neko's REST API: the caller's own one, and all that it sees."""

from datetime import timedelta
from typing import Final

from msgspec.structs import replace
from starlette.responses import Response

from gateway.auth.credentials import check_cookie_login, networks, origins
from gateway.core.errors import (
    BadRequest,
    Forbidden,
    LimitExceeded,
    NotFound,
    SessionClosed,
    Unauthorized,
)
from gateway.core.model import Session
from gateway.core.public import rfc3339
from gateway.dialects.neko.errors import NO_SESSION, Refused
from gateway.dialects.neko.login import NekoCaller, shown_id
from gateway.dialects.neko.render import (
    NEVER_CONNECTED,
    is_there,
    profile_of,
    session_data,
    state_of,
)
from gateway.dialects.neko.schema import (
    NekoStats,
    ProfileChange,
    SessionData,
    SessionLoginRequest,
    SessionLoginResponse,
)
from gateway.dialects.neko.service import Service, service_of
from gateway.dialects.neko.style import ADMIN, COOKIE, cookie_form, row
from gateway.http.endpoint import AnyEndpoint, Call, Nothing, list_reply, reply

COOKIE_LIFE: Final = timedelta(hours=24)  # of the cookie; the session has no end of its own


async def login(call: Call[NekoCaller, Nothing, SessionLoginRequest]) -> Response:
    """Open a session."""
    settings = service_of(call.context).context.settings
    if settings.neko_cookie:
        allowed, trusted = origins(settings.allowed_origins), networks(settings.trusted_proxies)
        check_cookie_login(call.request.scope, allowed, trusted)
    wanted = call.body
    session, token = await service_of(call.context).login(
        call.request.scope, wanted.username, wanted.password
    )
    shown = SessionLoginResponse(
        id=shown_id(session), profile=profile_of(session), state=state_of(session), token=token
    )
    if not settings.neko_cookie:
        return reply(shown)
    response = reply(replace(shown, token=None))
    life_s = int(COOKIE_LIFE.total_seconds())
    response.set_cookie(COOKIE, token, max_age=life_s, expires=life_s, **cookie_form(call.request))
    return response


async def logout(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Close the caller's session."""
    session = call.caller.session
    if session is None:
        raise Refused(400, "session is not logged in")
    await service_of(call.context).close(session, by=call.caller.id, reason="logged out")
    response = reply(True)  # noqa: FBT003
    if service_of(call.context).context.settings.neko_cookie:
        response.delete_cookie(COOKIE, **cookie_form(call.request))
    return response


async def whoami(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show the caller's session."""
    caller = call.caller
    if caller.session is None:
        return reply(_virtual(caller))
    return reply(session_data(caller.id, caller.session))


def _virtual(caller: NekoCaller) -> SessionData:
    return SessionData(id=caller.id, profile=caller.profile, state=NEVER_CONNECTED)


async def profile(call: Call[NekoCaller, Nothing, ProfileChange]) -> Response:
    """Change the caller's profile: others than admins change their name only."""
    wanted = call.body
    caller = call.caller
    if caller.session is None:
        raise Refused(400, "session does not exist")
    if not caller.profile.is_admin:
        wanted = ProfileChange(name=wanted.name or "")
    await service_of(call.context).set_profile(caller.session, wanted)
    return reply(True)  # noqa: FBT003


async def list_sessions(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show every session that the caller sees, connected or not."""
    sessions = service_of(call.context).sessions(call.caller)
    return await list_reply(sessions, lambda session: session_data(shown_id(session), session))


async def get_session(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show one session."""
    session = await _session(call, 404)
    return reply(session_data(shown_id(session), session))


async def delete_session(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Close a session, but not the caller's own."""
    session = await _session(call, 400)
    own = call.caller.session
    if own is not None and own.id == session.id:
        raise Refused(400, "cannot delete own session")
    await service_of(call.context).close(session, by=call.caller.id, reason="deleted")
    return Response(status_code=204)


async def disconnect(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """End a session's connection; the session stays."""
    session = await _session(call, 400)
    try:
        await service_of(call.context).disconnect(session)
    except (NotFound, SessionClosed):
        raise Refused(400, NO_SESSION) from None
    return Response(status_code=204)


async def _session(call: Call[NekoCaller, Nothing, Nothing], status: int) -> Session:
    session = await service_of(call.context).session(call.path["id"], call.caller)
    if session is None:
        raise Refused(status, NO_SESSION)
    return session


async def stats(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Count who is there, from the sessions themselves: so the counts cannot drift."""
    service, caller = service_of(call.context), call.caller
    there = [known for known in service.sessions(caller) if is_there(known)]
    admins = sum(1 for known in there if known.profile and known.profile.is_admin)
    users = len(there) - admins
    host_id = service.control.host_id(caller)
    shown = NekoStats(
        has_host=host_id is not None,
        host_id=host_id or None,
        server_started_at=rfc3339(service.node.up_since_ms),
        total_users=users,
        last_user_left_at=None if users else _left_at(service, caller, admin=False),
        total_admins=admins,
        last_admin_left_at=None if admins else _left_at(service, caller, admin=True),
    )
    return reply(shown)


def _left_at(service: Service, caller: NekoCaller, *, admin: bool) -> str | None:
    match caller.visibility.by:
        case "all":
            at = service.rooms.left_at(None, admin=admin)
        case "workspace":
            at = service.rooms.left_at(caller.visibility.value, admin=admin)
        case _:
            at = None
    return None if at is None else rfc3339(at)


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    row(
        "POST", "/api/login", login, "Log in", is_public=True, body=SessionLoginRequest,
        returns={200: SessionLoginResponse},
        errors=(BadRequest, Unauthorized, Forbidden, LimitExceeded),
    ),
    row(
        "POST", "/api/logout", logout, "Log out: close the caller's session", returns={200: bool},
        errors=(BadRequest,),
    ),
    row("GET", "/api/whoami", whoami, "The caller's session", returns={200: SessionData}),
    row(
        "POST", "/api/profile", profile, "Change the caller's profile", body=ProfileChange,
        returns={200: bool}, errors=(BadRequest,),
    ),
    row("GET", "/api/stats", stats, "Who is there, in numbers", returns={200: NekoStats}),
    row("GET", "/api/sessions", list_sessions, "All sessions", returns={200: list[SessionData]}),
    row(
        "GET", "/api/sessions/{id}", get_session, "One session", extra=ADMIN,
        returns={200: SessionData}, errors=(NotFound,),
    ),
    row(
        "DELETE", "/api/sessions/{id}", delete_session, "Close a session", extra=ADMIN,
        returns={204: None}, errors=(BadRequest,),
    ),
    row(
        "POST", "/api/sessions/{id}/disconnect", disconnect, "End a session's connection",
        extra=ADMIN, returns={204: None}, errors=(BadRequest,),
    ),
)  # fmt: skip
