"""Sessions over neko's REST API: the caller's own one, and everybody's."""

from datetime import timedelta
from typing import Final

from msgspec.structs import replace
from starlette.responses import Response

from gateway.auth.credentials import check_cookie_login, networks, origins
from gateway.core.errors import NotFound, SessionClosed, Unauthorized
from gateway.core.model import Session
from gateway.core.public import rfc3339
from gateway.dialects.neko.bodies import ProfileChange, SessionLoginRequest, parse, read_bytes
from gateway.dialects.neko.errors import NO_SESSION, Refused
from gateway.dialects.neko.login import Caller, shown_id
from gateway.dialects.neko.operation import COOKIE, Answer, Call, Operation, answer, cookie_form
from gateway.dialects.neko.service import Service
from gateway.dialects.neko.shapes import (
    NEVER_CONNECTED,
    SessionData,
    SessionLoginResponse,
    Stats,
    is_there,
    profile_of,
    session_data,
    state_of,
)

COOKIE_LIFE: Final = timedelta(hours=24)  # of the cookie; the session has no end of its own


async def login(call: Call) -> Answer | Response:
    """Open a session."""
    settings = call.service.context.settings
    if settings.neko_cookie:
        allowed, trusted = origins(settings.allowed_origins), networks(settings.trusted_proxies)
        check_cookie_login(call.request.scope, allowed, trusted)
    body = await read_bytes(call.request.stream())
    if body.strip() == b"null":  # neko takes it for nobody
        raise Unauthorized
    wanted = parse(body, SessionLoginRequest)
    session, token = await call.service.login(call.request.scope, wanted.username, wanted.password)
    shown = SessionLoginResponse(
        id=shown_id(session), profile=profile_of(session), state=state_of(session), token=token
    )
    if not settings.neko_cookie:
        return answer(Answer(200, shown))
    response = answer(Answer(200, replace(shown, token=None)))
    life_s = int(COOKIE_LIFE.total_seconds())
    response.set_cookie(COOKIE, token, max_age=life_s, expires=life_s, **cookie_form(call.request))
    return response


async def logout(call: Call) -> Answer | Response:
    """Close the caller's session."""
    session = call.caller.session
    if session is None:
        raise Refused(400, "session is not logged in")
    await call.service.close(session, by=call.caller.id, reason="logged out")
    response = answer(Answer(200, True))  # noqa: FBT003
    if call.service.context.settings.neko_cookie:
        response.delete_cookie(COOKIE, **cookie_form(call.request))
    return response


async def whoami(call: Call) -> Answer:
    """Show the caller's session."""
    caller = call.caller
    if caller.session is None:
        return Answer(200, _virtual(caller))
    return Answer(200, session_data(caller.id, caller.session))


def _virtual(caller: Caller) -> SessionData:
    return SessionData(id=caller.id, profile=caller.profile, state=NEVER_CONNECTED)


async def profile(call: Call) -> Answer:
    """Change the caller's profile: others than admins change their name only."""
    wanted = await call.read(ProfileChange)
    caller = call.caller
    if caller.session is None:
        raise Refused(400, "session does not exist")
    if not caller.profile.is_admin:
        wanted = ProfileChange(name=wanted.name or "")
    await call.service.set_profile(caller.session, wanted)
    return Answer(200, True)  # noqa: FBT003


async def list_sessions(call: Call) -> Answer:
    """Show every session that the caller sees, connected or not."""
    sessions = call.service.sessions(call.caller)
    return Answer(200, [session_data(shown_id(session), session) for session in sessions])


async def get_session(call: Call) -> Answer:
    """Show one session."""
    session = await _session(call, 404)
    return Answer(200, session_data(shown_id(session), session))


async def delete_session(call: Call) -> Answer:
    """Close a session, but not the caller's own."""
    session = await _session(call, 400)
    own = call.caller.session
    if own is not None and own.id == session.id:
        raise Refused(400, "cannot delete own session")
    await call.service.close(session, by=call.caller.id, reason="deleted")
    return Answer(204)


async def disconnect(call: Call) -> Answer:
    """End a session's connection; the session stays."""
    session = await _session(call, 400)
    try:
        await call.service.disconnect(session)
    except (NotFound, SessionClosed):
        raise Refused(400, NO_SESSION) from None
    return Answer(204)


async def _session(call: Call, status: int) -> Session:
    session = await call.service.session(call.id, call.caller)
    if session is None:
        raise Refused(status, NO_SESSION)
    return session


async def stats(call: Call) -> Answer:
    """Count who is there, from the sessions themselves: so the counts cannot drift."""
    service, caller = call.service, call.caller
    there = [known for known in service.sessions(caller) if is_there(known)]
    admins = sum(1 for known in there if profile_of(known).is_admin)
    users = len(there) - admins
    host_id = service.control.host_id(caller)
    shown = Stats(
        has_host=host_id is not None,
        host_id=host_id or None,
        server_started_at=rfc3339(service.node.lease.up_since_ms),
        total_users=users,
        last_user_left_at=None if users else _left_at(service, caller, admin=False),
        total_admins=admins,
        last_admin_left_at=None if admins else _left_at(service, caller, admin=True),
    )
    return Answer(200, shown)


def _left_at(service: Service, caller: Caller, *, admin: bool) -> str | None:
    match caller.visibility.by:
        case "all":
            at = service.rooms.left_at(None, admin=admin)
        case "workspace":
            at = service.rooms.left_at(caller.visibility.value, admin=admin)
        case _:
            at = None
    return None if at is None else rfc3339(at)


OPERATIONS: Final = (
    Operation(
        method="POST", path="/api/login", name="login", handler=login, who="public",
        summary="Log in", body=SessionLoginRequest, returns={200: SessionLoginResponse},
        errors=(400, 401, 403, 422),
    ),
    Operation(
        method="POST", path="/api/logout", name="logout", handler=logout,
        summary="Log out: close the caller's session", returns={200: bool}, errors=(400,),
    ),
    Operation(
        method="GET", path="/api/whoami", name="whoami", handler=whoami,
        summary="The caller's session", returns={200: SessionData},
    ),
    Operation(
        method="POST", path="/api/profile", name="profile", handler=profile,
        summary="Change the caller's profile", body=ProfileChange, returns={200: bool},
        errors=(400,),
    ),
    Operation(
        method="GET", path="/api/stats", name="stats", handler=stats,
        summary="Who is there, in numbers", returns={200: Stats},
    ),
    Operation(
        method="GET", path="/api/sessions", name="sessionsGet", handler=list_sessions,
        summary="All sessions", returns={200: list[SessionData]},
    ),
    Operation(
        method="GET", path="/api/sessions/{id}", name="sessionGet", handler=get_session,
        who="admin", summary="One session", returns={200: SessionData}, errors=(404,),
    ),
    Operation(
        method="DELETE", path="/api/sessions/{id}", name="sessionRemove", handler=delete_session,
        who="admin", summary="Close a session", returns={204: None}, errors=(400,),
    ),
    Operation(
        method="POST", path="/api/sessions/{id}/disconnect", name="sessionDisconnect",
        handler=disconnect, who="admin", summary="End a session's connection",
        returns={204: None}, errors=(400,),
    ),
)  # fmt: skip
