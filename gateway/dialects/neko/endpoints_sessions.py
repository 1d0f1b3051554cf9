"""Sessions and members over neko's REST API, and the effects of members' changes on sessions."""

from contextlib import suppress
from datetime import timedelta
from typing import Final

from msgspec import ValidationError, convert
from msgspec.structs import replace
from starlette.responses import Response

from gateway.auth.credentials import check_cookie_login, networks, origins
from gateway.core.errors import Forbidden, LimitExceeded, NotFound, SessionClosed, Unauthorized
from gateway.core.model import IdName, Profile, Session
from gateway.core.public import rfc3339
from gateway.dialects.neko import render, schema
from gateway.dialects.neko.members import NekoCaller, shown_id
from gateway.dialects.neko.render import Refused
from gateway.dialects.neko.service import Service
from gateway.dialects.neko.style import COOKIE, NekoCall, admin_row, cookie_form, row
from gateway.http.endpoint import AnyCall, AnyEndpoint, Call, Nothing, list_reply, reply

COOKIE_LIFE: Final = timedelta(hours=24)  # of the cookie; the session has no end of its own


async def login(service: Service, call: NekoCall[schema.SessionLoginRequest]) -> Response:
    """Open a session."""
    settings = service.context.settings
    if settings.neko_cookie:
        allowed, trusted = origins(settings.allowed_origins), networks(settings.trusted_proxies)
        check_cookie_login(call.request.scope, allowed, trusted)
    wanted = call.body
    session, token = await service.login(call.request.scope, wanted.username, wanted.password)
    shown = schema.SessionLoginResponse(
        id=shown_id(session),
        profile=render.profile_of(session),
        state=render.state_of(session),
        token=token,
    )
    if not settings.neko_cookie:
        return reply(shown)
    response = reply(replace(shown, token=None))
    life_s = int(COOKIE_LIFE.total_seconds())
    response.set_cookie(COOKIE, token, max_age=life_s, expires=life_s, **cookie_form(call.request))
    return response


async def logout(service: Service, call: NekoCall[Nothing]) -> Response:
    """Close the caller's session."""
    session = call.caller.session
    if session is None:
        raise Refused(400, "session is not logged in")
    await service.close(session, by=call.caller.id, reason="logged out")
    response = reply(True)  # noqa: FBT003
    if service.context.settings.neko_cookie:
        response.delete_cookie(COOKIE, **cookie_form(call.request))
    return response


async def whoami(_: Service, call: NekoCall[Nothing]) -> Response:
    """Show the caller's session."""
    caller = call.caller
    if caller.session is not None:
        return reply(render.session_data(caller.id, caller.session))
    return reply(
        schema.SessionData(id=caller.id, profile=caller.profile, state=render.NEVER_CONNECTED)
    )


async def profile(service: Service, call: NekoCall[schema.ProfileChange]) -> Response:
    """Change the caller's profile: others than admins change their name only."""
    caller, wanted = call.caller, call.body
    if caller.session is None:
        raise Refused(400, "session does not exist")
    if not caller.profile.is_admin:
        wanted = schema.ProfileChange(name=wanted.name or "")
    await service.set_profile(caller.session, wanted)
    return reply(True)  # noqa: FBT003


async def list_sessions(service: Service, call: NekoCall[Nothing]) -> Response:
    """Show every session that the caller sees, connected or not."""
    sessions = service.sessions(call.caller)
    return await list_reply(sessions, lambda one: render.session_data(shown_id(one), one))


async def get_session(service: Service, call: NekoCall[Nothing]) -> Response:
    """Show one session."""
    session = await _session(service, call, 404)
    return reply(render.session_data(shown_id(session), session))


async def delete_session(service: Service, call: NekoCall[Nothing]) -> None:
    """Close a session, but not the caller's own."""
    session = await _session(service, call, 400)
    own = call.caller.session
    if own is not None and own.id == session.id:
        raise Refused(400, "cannot delete own session")
    await service.close(session, by=call.caller.id, reason="deleted")


async def disconnect(service: Service, call: NekoCall[Nothing]) -> None:
    """End a session's connection; the session stays."""
    session = await _session(service, call, 400)
    try:
        await service.disconnect(session)
    except (NotFound, SessionClosed):
        raise Refused(400, render.NO_SESSION) from None


async def _session(service: Service, call: NekoCall[Nothing], status: int) -> Session:
    session = await service.session(call.path["id"], call.caller)
    if session is None:
        raise Refused(status, render.NO_SESSION)
    return session


async def stats(service: Service, call: NekoCall[Nothing]) -> Response:
    """Count who is there, from the sessions themselves: so the counts cannot drift."""
    caller = call.caller
    there = [known for known in service.sessions(caller) if render.is_there(known)]
    admins = sum(1 for known in there if known.profile and known.profile.is_admin)
    users = len(there) - admins
    host_id, left_at = service.control.host_id(caller), service.rooms.left_at
    shown = schema.NekoStats(
        has_host=host_id is not None,
        host_id=host_id or None,
        server_started_at=rfc3339(service.node.up_since_ms),
        total_users=users,
        last_user_left_at=None if users else left_at(caller.visibility, admin=False),
        total_admins=admins,
        last_admin_left_at=None if admins else left_at(caller.visibility, admin=True),
    )
    return reply(shown)


# --- members


async def list_members(
    service: Service, call: Call[NekoCaller, schema.MembersQuery, Nothing]
) -> Response:
    """Show the members whom the caller may see."""
    found = (await service.members.all(call.caller))[call.query.offset :]
    shown = found[: call.query.limit or None]
    return await list_reply(shown, lambda one: schema.MemberData(id=one.name, profile=one.profile))


async def create_member(service: Service, call: NekoCall[schema.MemberCreate]) -> Response:
    """Add a member."""
    wanted = call.body
    if not wanted.username:
        raise Refused(400, "username cannot be empty")
    if not wanted.password:
        raise Refused(400, "password cannot be empty")
    try:
        convert(wanted.username, IdName)
    except ValidationError:
        raise Refused(400, render.UNREADABLE) from None
    new = schema.merged(schema.NEW_PROFILE, wanted.profile)
    await service.members.add(wanted.username, wanted.password, new, call.caller)
    return reply(schema.MemberData(id=wanted.username, profile=new))


async def get_member(service: Service, call: NekoCall[Nothing]) -> Response:
    """Show a member's profile: that of the open session, if there is one."""
    session = await service.session(call.path["id"], call.caller)
    if session is not None:
        return reply(render.profile_of(session))
    return reply((await service.members.get(call.path["id"], call.caller)).profile)


async def update_member(service: Service, call: NekoCall[schema.ProfileChange]) -> None:
    """Change a member's profile, and that of the open session."""
    await _update(service, call, call.path["id"], call.body)


async def _update(service: Service, call: AnyCall, name: str, wanted: schema.ProfileChange) -> None:
    member = await service.members.get(name, call.caller)
    await service.members.set_profile(name, schema.merged(member.profile, wanted))
    session = await service.session(name, call.caller)
    if session is not None:
        with suppress(NotFound, SessionClosed):  # if it ended, the next one has the new profile
            await service.set_profile(session, wanted)


async def update_password(service: Service, call: NekoCall[schema.MemberPassword]) -> None:
    """Change a member's password; an open session goes on."""
    if not call.body.password:
        raise Refused(400, "password cannot be empty")
    member = await service.members.get(call.path["id"], call.caller)
    await service.members.set_password(member, call.body.password)


async def delete_member(service: Service, call: NekoCall[Nothing]) -> None:
    """Close a member's session and forget the member."""
    await _delete(service, call, call.path["id"])


async def _delete(service: Service, call: AnyCall, name: str) -> None:
    await service.members.remove(await service.members.get(name, call.caller))
    session = await service.session(name, call.caller)
    if session is not None:
        await service.close(session, by=call.caller.id, reason="member deleted")


async def bulk_update(service: Service, call: NekoCall[schema.MemberBulkUpdate]) -> None:
    """Change many profiles, one after the other; the first that fails ends it."""
    for name in call.body.ids:
        await _update(service, call, name, call.body.profile)


async def bulk_delete(service: Service, call: NekoCall[schema.MemberBulkDelete]) -> None:
    """Delete many members, one after the other; the first that fails ends it."""
    for name in call.body.ids:
        await _delete(service, call, name)


_MISSING: Final = (NotFound,)

ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    row(
        "POST", "/api/login", login, schema.SessionLoginResponse, is_public=True,
        errors=(Unauthorized, Forbidden, LimitExceeded),
    ),
    row("POST", "/api/logout", logout, bool),
    row("GET", "/api/whoami", whoami, schema.SessionData),
    row("POST", "/api/profile", profile, bool),
    row("GET", "/api/stats", stats, schema.NekoStats),
    row("GET", "/api/sessions", list_sessions, list[schema.SessionData]),
    admin_row("GET", "/api/sessions/{id}", get_session, schema.SessionData, errors=_MISSING),
    admin_row("DELETE", "/api/sessions/{id}", delete_session, None),
    admin_row("POST", "/api/sessions/{id}/disconnect", disconnect, None),
    row("GET", "/api/members", list_members, list[schema.MemberData]),
    admin_row("POST", "/api/members", create_member, schema.MemberData, errors=(LimitExceeded,)),
    admin_row("GET", "/api/members/{id}", get_member, Profile, errors=_MISSING),
    admin_row("POST", "/api/members/{id}", update_member, None, errors=_MISSING),
    admin_row("DELETE", "/api/members/{id}", delete_member, None, errors=_MISSING),
    admin_row("POST", "/api/members/{id}/password", update_password, None, errors=_MISSING),
    admin_row("POST", "/api/members_bulk/update", bulk_update, None, errors=_MISSING),
    admin_row("POST", "/api/members_bulk/delete", bulk_delete, None, errors=_MISSING),
)  # fmt: skip
