"""Members over neko's REST API: who may log in, and what a change means to their sessions."""

from typing import Final

from msgspec import ValidationError, convert

from gateway.core.errors import NotFound, SessionClosed
from gateway.core.model import IdName, Profile
from gateway.dialects.neko.bodies import (
    NEW_PROFILE,
    MemberBulkDelete,
    MemberBulkUpdate,
    MemberCreate,
    MemberPassword,
    ProfileChange,
)
from gateway.dialects.neko.errors import UNREADABLE, Refused
from gateway.dialects.neko.members import Member
from gateway.dialects.neko.operation import Answer, Call, Operation, query_of
from gateway.dialects.neko.service import merged
from gateway.dialects.neko.shapes import MemberData, profile_of


async def list_members(call: Call) -> Answer:
    """Show the members whom the caller may see."""
    query = query_of(call.request.scope)
    offset, limit = _number(query.get("offset")), _number(query.get("limit"))
    found = (await call.service.members.all(call.caller))[offset:]
    shown = found[:limit] if limit else found
    return Answer(200, [MemberData(id=member.name, profile=member.profile) for member in shown])


def _number(text: str | None) -> int:
    """Return a number of a query; what cannot be read is 0, as neko takes it."""
    if text is None or not text.isascii() or not text.isdigit():
        return 0
    return int(text[:9])


async def create_member(call: Call) -> Answer:
    """Add a member."""
    wanted = await call.read(MemberCreate)
    if not wanted.username:
        raise Refused(400, "username cannot be empty")
    if not wanted.password:
        raise Refused(400, "password cannot be empty")
    try:
        convert(wanted.username, IdName)
    except ValidationError:
        raise Refused(400, UNREADABLE) from None
    new = merged(NEW_PROFILE, wanted.profile)
    await call.service.members.add(wanted.username, wanted.password, new, call.caller)
    return Answer(200, MemberData(id=wanted.username, profile=new))


async def get_member(call: Call) -> Answer:
    """Show a member's profile: that of the open session, if there is one."""
    session = await call.service.session(call.id, call.caller)
    if session is not None:
        return Answer(200, profile_of(session))
    return Answer(200, (await _member(call, call.id)).profile)


async def _member(call: Call, name: str) -> Member:
    member = await call.service.members.get(name, call.caller)
    if member is None:
        raise Refused(404, "member not found")
    return member


async def update_member(call: Call) -> Answer:
    """Change a member's profile, and that of the open session."""
    await _update(call, call.id, await call.read(ProfileChange))
    return Answer(204)


async def _update(call: Call, name: str, wanted: ProfileChange) -> None:
    member = await _member(call, name)
    await call.service.members.set_profile(name, merged(member.profile, wanted))
    session = await call.service.session(name, call.caller)
    if session is not None:
        try:
            await call.service.set_profile(session, wanted)
        except (NotFound, SessionClosed):
            return  # it ended meanwhile; the next one has the new profile


async def update_password(call: Call) -> Answer:
    """Change a member's password; an open session goes on."""
    wanted = await call.read(MemberPassword)
    if not wanted.password:
        raise Refused(400, "password cannot be empty")
    await call.service.members.set_password(await _member(call, call.id), wanted.password)
    return Answer(204)


async def delete_member(call: Call) -> Answer:
    """Close a member's session and forget the member."""
    await _delete(call, call.id)
    return Answer(204)


async def _delete(call: Call, name: str) -> None:
    await call.service.members.remove(await _member(call, name))
    session = await call.service.session(name, call.caller)
    if session is not None:
        await call.service.close(session, by=call.caller.id, reason="member deleted")


async def bulk_update(call: Call) -> Answer:
    """Change many profiles, one after the other; the first that fails ends it."""
    wanted = await call.read(MemberBulkUpdate)
    for name in wanted.ids:
        await _update(call, name, wanted.profile)
    return Answer(204)


async def bulk_delete(call: Call) -> Answer:
    """Delete many members, one after the other; the first that fails ends it."""
    for name in (await call.read(MemberBulkDelete)).ids:
        await _delete(call, name)
    return Answer(204)


OPERATIONS: Final = (
    Operation(
        method="GET", path="/api/members", name="membersList", handler=list_members,
        summary="All members", returns={200: list[MemberData]},
    ),
    Operation(
        method="POST", path="/api/members", name="membersCreate", handler=create_member,
        who="admin", summary="Add a member", body=MemberCreate, returns={200: MemberData},
        errors=(400, 422),
    ),
    Operation(
        method="GET", path="/api/members/{id}", name="membersGetProfile", handler=get_member,
        who="admin", summary="A member's profile", returns={200: Profile}, errors=(404,),
    ),
    Operation(
        method="POST", path="/api/members/{id}", name="membersUpdateProfile",
        handler=update_member, who="admin", summary="Change a member's profile",
        body=ProfileChange, returns={204: None}, errors=(400, 404),
    ),
    Operation(
        method="DELETE", path="/api/members/{id}", name="membersRemove", handler=delete_member,
        who="admin", summary="Delete a member", returns={204: None}, errors=(404,),
    ),
    Operation(
        method="POST", path="/api/members/{id}/password", name="membersUpdatePassword",
        handler=update_password, who="admin", summary="Change a member's password",
        body=MemberPassword, returns={204: None}, errors=(400, 404),
    ),
    Operation(
        method="POST", path="/api/members_bulk/update", name="membersBulkUpdate",
        handler=bulk_update, who="admin", summary="Change many profiles",
        body=MemberBulkUpdate, returns={204: None}, errors=(400, 404),
    ),
    Operation(
        method="POST", path="/api/members_bulk/delete", name="membersBulkDelete",
        handler=bulk_delete, who="admin", summary="Delete many members",
        body=MemberBulkDelete, returns={204: None}, errors=(400, 404),
    ),
)  # fmt: skip
