"""Server: what Plex's clients ask of the server itself: root, identity, people, players, errors.

Pure. Features that this gateway has not are told as off, so that clients do not look for them.
"""

from http import HTTPStatus
from typing import Final

from gateway.core import errors
from gateway.core.errors import GatewayError
from gateway.dialects.plex import words

NAME: Final = "Session Gateway"
VERSION: Final = "1.42.2.1"  # of the server whose API this is; clients choose features by it
PLATFORM: Final = "Linux"
KICK: Final = "session_kick"  # the feature behind terminate

_STATUS: Final[dict[type[GatewayError], tuple[int, int]]] = {
    errors.BadRequest: (400, 1000),
    errors.Invalid: (400, 1000),
    errors.PayloadTooLarge: (400, 1000),
    errors.UriTooLong: (400, 1000),
    errors.LimitExceeded: (400, 1000),
    errors.NotAcceptable: (400, 1000),
    errors.RevisionMismatch: (400, 1000),
    errors.UnsupportedMediaType: (400, 1000),
    errors.UpgradeRequired: (400, 1000),
    errors.Unauthorized: (401, 1001),
    errors.Forbidden: (403, 1003),
    errors.NotFound: (404, 1004),
    errors.SessionClosed: (404, 1004),
    errors.MethodNotAllowed: (405, 1005),
    errors.RateLimited: (429, 1029),
    errors.Conflict: (503, 1053),
    errors.Unavailable: (503, 1053),
    GatewayError: (500, 1050),
}
"""Status and code of each error and of its kinds; those of 400 and 401 are Plex's own."""

NOT_AUTHENTICATED: Final = "User could not be authenticated"


def error_item(error: GatewayError) -> words.ErrorItem:
    """Return *error* in Plex's words; a closed session is unknown, whatever it was."""
    status, code = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    message = error.detail
    if isinstance(error, errors.Unauthorized):
        message = NOT_AUTHENTICATED
    if isinstance(error, errors.SessionClosed):
        message = errors.NotFound.title
    return words.ErrorItem(code=code, message=message, status=status)


def error_page(item: words.ErrorItem) -> bytes:
    """Return the little page that Plex shows to those who do not accept JSON."""
    phrase = HTTPStatus(item.status).phrase
    return (
        f"<html><head><title>{phrase}</title></head>"
        f"<body><h1>{item.status} {phrase}</h1></body></html>"
    ).encode()


def identity(machine: str) -> words.Identity:
    """Return who this server is."""
    return words.Identity(size=0, claimed=True, machine_identifier=machine, version=VERSION)


def root(machine: str, transcodes: int, *, may_kick: bool) -> words.Root:
    """Return what this server can do.

    Args:
        machine: Its identifier.
        transcodes: How many transcodes the caller sees.
        may_kick: Whether the caller may end sessions.
    """
    return words.Root(
        size=0,
        friendly_name=NAME,
        machine_identifier=machine,
        version=VERSION,
        platform=PLATFORM,
        platform_version="",
        owner_features=KICK if may_kick else "",
        allow_sharing=False,
        allow_sync=False,
        claimed=True,
        event_stream=True,
        multiuser=True,
        my_plex=False,
        my_plex_subscription=False,
        transcoder_active_video_sessions=transcodes,
        transcoder_audio=False,
        transcoder_video=False,
        updater=False,
    )


def account(number: int, name: str) -> words.Account:
    """Return a person."""
    return words.Account(
        id=number,
        key=f"/accounts/{number}",
        name=name,
        default_audio_language="",
        auto_select_audio=False,
        default_subtitle_language="",
        subtitle_mode=0,
        thumb="",
    )


def device(number: int, client: str, facts: dict[str, object]) -> words.Device:
    """Return a player.

    Args:
        number: Its number.
        client: What it calls itself.
        facts: What was kept of it: ``name``, ``platform``, ``created_at`` (ms).
    """
    name, platform, created_at = (facts.get(key) for key in ("name", "platform", "created_at"))
    return words.Device(
        id=number,
        name=name if isinstance(name, str) else client,
        platform=platform if isinstance(platform, str) else "",
        client_identifier=client,
        created_at=created_at // 1000 if isinstance(created_at, int) else 0,
    )
