"""Members over neko's REST API, and the effects of their changes on open sessions."""

from typing import Final

from msgspec import ValidationError, convert
from starlette.responses import Response

from gateway.core.errors import BadRequest, LimitExceeded, NotFound, SessionClosed
from gateway.core.model import IdName, Profile
from gateway.dialects.neko.errors import UNREADABLE, Refused
from gateway.dialects.neko.login import NekoCaller
from gateway.dialects.neko.members import Member
from gateway.dialects.neko.render import profile_of
from gateway.dialects.neko.schema import (
    NEW_PROFILE,
    MemberBulkDelete,
    MemberBulkUpdate,
    MemberCreate,
    MemberData,
    MemberPassword,
    MembersQuery,
    ProfileChange,
)
from gateway.dialects.neko.service import merged, service_of
from gateway.dialects.neko.style import ADMIN, row
from gateway.http.endpoint import AnyCall, AnyEndpoint, Call, Nothing, list_reply, reply


async def list_members(call: Call[NekoCaller, MembersQuery, Nothing]) -> Response:
    """Show the members whom the caller may see."""
    offset, limit = call.query.offset, call.query.limit
    found = (await service_of(call.context).members.all(call.caller))[offset:]
    shown = found[:limit] if limit else found
    return await list_reply(
        shown, lambda member: MemberData(id=member.name, profile=member.profile)
    )


async def create_member(call: Call[NekoCaller, Nothing, MemberCreate]) -> Response:
    """Add a member."""
    wanted = call.body
    if not wanted.username:
        raise Refused(400, "username cannot be empty")
    if not wanted.password:
        raise Refused(400, "password cannot be empty")
    try:
        convert(wanted.username, IdName)
    except ValidationError:
        raise Refused(400, UNREADABLE) from None
    new = merged(NEW_PROFILE, wanted.profile)
    await service_of(call.context).members.add(wanted.username, wanted.password, new, call.caller)
    return reply(MemberData(id=wanted.username, profile=new))


async def get_member(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Show a member's profile: that of the open session, if there is one."""
    session = await service_of(call.context).session(call.path["id"], call.caller)
    if session is not None:
        return reply(profile_of(session))
    return reply((await _member(call, call.path["id"])).profile)


async def _member(call: AnyCall, name: str) -> Member:
    member = await service_of(call.context).members.get(name, call.caller)
    if member is None:
        raise Refused(404, "member not found")
    return member


async def update_member(call: Call[NekoCaller, Nothing, ProfileChange]) -> Response:
    """Change a member's profile, and that of the open session."""
    await _update(call, call.path["id"], call.body)
    return Response(status_code=204)


async def _update(call: AnyCall, name: str, wanted: ProfileChange) -> None:
    member = await _member(call, name)
    await service_of(call.context).members.set_profile(name, merged(member.profile, wanted))
    session = await service_of(call.context).session(name, call.caller)
    if session is not None:
        try:
            await service_of(call.context).set_profile(session, wanted)
        except (NotFound, SessionClosed):
            return  # it ended meanwhile; the next one has the new profile


async def update_password(call: Call[NekoCaller, Nothing, MemberPassword]) -> Response:
    """Change a member's password; an open session goes on."""
    wanted = call.body
    if not wanted.password:
        raise Refused(400, "password cannot be empty")
    await service_of(call.context).members.set_password(
        await _member(call, call.path["id"]), wanted.password
    )
    return Response(status_code=204)


async def delete_member(call: Call[NekoCaller, Nothing, Nothing]) -> Response:
    """Close a member's session and forget the member."""
    await _delete(call, call.path["id"])
    return Response(status_code=204)


async def _delete(call: AnyCall, name: str) -> None:
    await service_of(call.context).members.remove(await _member(call, name))
    session = await service_of(call.context).session(name, call.caller)
    if session is not None:
        await service_of(call.context).close(session, by=call.caller.id, reason="member deleted")


async def bulk_update(call: Call[NekoCaller, Nothing, MemberBulkUpdate]) -> Response:
    """Change many profiles, one after the other; the first that fails ends it."""
    wanted = call.body
    for name in wanted.ids:
        await _update(call, name, wanted.profile)
    return Response(status_code=204)


async def bulk_delete(call: Call[NekoCaller, Nothing, MemberBulkDelete]) -> Response:
    """Delete many members, one after the other; the first that fails ends it."""
    for name in call.body.ids:
        await _delete(call, name)
    return Response(status_code=204)


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    row(
        "GET", "/api/members", list_members, "All members", query=MembersQuery,
        returns={200: list[MemberData]},
    ),
    row(
        "POST", "/api/members", create_member, "Add a member", extra=ADMIN, body=MemberCreate,
        returns={200: MemberData}, errors=(BadRequest, LimitExceeded),
    ),
    row(
        "GET", "/api/members/{id}", get_member, "A member's profile", extra=ADMIN,
        returns={200: Profile}, errors=(NotFound,),
    ),
    row(
        "POST", "/api/members/{id}", update_member, "Change a member's profile", extra=ADMIN,
        body=ProfileChange, returns={204: None}, errors=(BadRequest, NotFound),
    ),
    row(
        "DELETE", "/api/members/{id}", delete_member, "Delete a member", extra=ADMIN,
        returns={204: None}, errors=(NotFound,),
    ),
    row(
        "POST", "/api/members/{id}/password", update_password, "Change a member's password",
        extra=ADMIN, body=MemberPassword, returns={204: None}, errors=(BadRequest, NotFound),
    ),
    row(
        "POST", "/api/members_bulk/update", bulk_update, "Change many profiles", extra=ADMIN,
        body=MemberBulkUpdate, returns={204: None}, errors=(BadRequest, NotFound),
    ),
    row(
        "POST", "/api/members_bulk/delete", bulk_delete, "Delete many members", extra=ADMIN,
        body=MemberBulkDelete, returns={204: None}, errors=(BadRequest, NotFound),
    ),
)  # fmt: skip
