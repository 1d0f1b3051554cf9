"""Bodies: what neko's clients send, parsed at the door.

Unknown names are ignored, as neko does. Where neko takes null for a value it is refused here: its
own document says that there is none.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import UNSET, Meta, MsgspecError, Raw, Struct, UnsetType
from msgspec.json import decode

from gateway.core.model import Profile
from gateway.dialects.neko.errors import NO_DATA, UNREADABLE, Refused

BODY_MAX_BYTES: Final = 256 * 1024  # of a request; a batch holds many small ones
BATCH_MAX: Final = 100  # requests in a batch
BULK_MAX: Final = 1_000  # members in one bulk request

Text = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00]*$")]
T = TypeVar("T")


class SessionLoginRequest(Struct, frozen=True):
    """A name and a password."""

    username: str = ""
    password: str = ""


class ProfileChange(Struct, frozen=True, kw_only=True):
    """A part of a member's profile; what is left out stays."""

    name: Text | UnsetType = UNSET
    is_admin: bool | UnsetType = UNSET
    can_login: bool | UnsetType = UNSET
    can_connect: bool | UnsetType = UNSET
    can_watch: bool | UnsetType = UNSET
    can_host: bool | UnsetType = UNSET
    can_share_media: bool | UnsetType = UNSET
    can_access_clipboard: bool | UnsetType = UNSET
    sends_inactive_cursor: bool | UnsetType = UNSET
    can_see_inactive_cursors: bool | UnsetType = UNSET
    plugins: dict[str, Any] | UnsetType = UNSET


class MemberCreate(Struct, frozen=True):
    """A new member; what the profile leaves out is allowed, but for being an admin."""

    username: str = ""
    password: str = ""
    profile: ProfileChange = ProfileChange()


class MemberPassword(Struct, frozen=True):
    """A new password."""

    password: str = ""


Ids = Annotated[tuple[str, ...], Meta(max_length=BULK_MAX)]


class MemberBulkUpdate(Struct, frozen=True):
    """The same change for many members."""

    ids: Ids = ()
    profile: ProfileChange = ProfileChange()


class MemberBulkDelete(Struct, frozen=True):
    """Many members."""

    ids: Ids = ()


class BatchRequest(Struct, frozen=True):
    """One request of a batch."""

    path: str = ""
    method: Literal["GET", "POST", "DELETE"] = "GET"
    body: Raw | UnsetType = UNSET


class BroadcastRequest(Struct, frozen=True):
    """Where to broadcast to."""

    url: str = ""


class ScreenRequest(Struct, frozen=True):
    """A screen that is wanted."""

    width: int = 0
    height: int = 0
    rate: int = 0


class Spoken(Struct, frozen=True):
    """A message of a socket: ``send/unicast`` has a receiver, ``send/broadcast`` has none."""

    subject: str = ""
    body: Any = None
    receiver: str = ""


class ClientEvent(Struct, frozen=True):
    """What a socket says."""

    event: str
    payload: Raw = Raw()


class LogLine(Struct, frozen=True):
    """A line of a client's log."""

    message: str = ""
    level: str = "info"


NEW_PROFILE: Final = Profile(
    can_login=True,
    can_connect=True,
    can_watch=True,
    can_host=True,
    can_share_media=True,
    can_access_clipboard=True,
    sends_inactive_cursor=True,
    can_see_inactive_cursors=True,
)


async def read_bytes(stream: AsyncIterator[bytes]) -> bytes:
    """Return a request's body.

    Raises:
        Refused: It is too long.
    """
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            raise Refused(400, UNREADABLE)
    return bytes(body)


def parse(body: bytes, kind: type[T]) -> T:
    """Return what a body says, whatever its media type is said to be.

    Raises:
        Refused: There is none, or it says something else.
    """
    if not body.strip():
        raise Refused(400, NO_DATA)
    try:
        return decode(body, type=kind)
    except (MsgspecError, ValueError, RecursionError):
        raise Refused(400, UNREADABLE) from None
