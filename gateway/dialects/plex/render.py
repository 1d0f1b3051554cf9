"""Renders sessions, streams and finished watches in Plex's form; pure.

Fields that a session lacks get a neutral value, because clients of Plex fail without players and
users. The data that a client reports of its item is in ``watch.item`` under Plex's names; values of
another type are left out.

Not here: which sessions a caller sees (``endpoints_*``), their numbers (``state``).
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final, get_args
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.event import HistoryRow
from gateway.core.model import Client, Session, Stream, Watch
from gateway.dialects.plex import schema
from gateway.dialects.plex.coerce import coerced, digits_of, integer_of, text_of
from gateway.dialects.plex.schema import OWNER, Kind, State

ITEM_PATH: Final = "/library/metadata/"
TRANSCODE_PATH: Final = "/transcode/sessions/"
HISTORY_PATH: Final = "/status/sessions/history/"
TRANSCODE: Final = "transcode"  # the kind of a stream that is a transcode
OWNER_NAME: Final = "owner"
ADDRESS: Final = "plex.address"  # in a session's private environment: whence a player reports

_KINDS: Final[Mapping[str, Kind]] = {kind: kind for kind in get_args(Kind)}
_STATES: Final[Mapping[str, State]] = {
    known: known for known in get_args(State) if known != "stopped"
}
_ENDED: Final = frozenset({"complete", "completed", "done"})
_FAILED: Final = frozenset({"error", "failed"})


class Ids(Struct, frozen=True, kw_only=True):
    """The numbers of what is watched, whose it is, its workspace and its client."""

    item: int
    account: int = OWNER
    section: int | None = None
    device: int | None = None


# --- sessions


def metadata(
    session: Session,
    watch: Watch,
    ids: Ids,
    now_ms: int,
    *,
    transcode: schema.TranscodeSession | None = None,
    full: bool = False,
    media: bool = False,
) -> schema.Metadata:
    """Return a session as an entry of ``/status/sessions``.

    With *full* it has addresses. With *media* the files that are played are made up: XML's readers
    want some, JSON's readers do not agree on their types.
    """
    since_s = (session.watching_since or session.created_at) // 1000
    return schema.Metadata(
        **item_fields(watch, ids.item),
        **section_fields(ids.section, session.workspace),
        session_key=str(session.number),
        duration=watch.duration_ms,
        view_offset=offset_ms(session, watch, now_ms),
        added_at=since_s,
        updated_at=since_s if watch.position_at is None else watch.position_at // 1000,
        live=is_live(watch) or None,
        user=schema.PlexUser(id=str(ids.account), title=session.account or OWNER_NAME),
        player=_player(session, watch, ids, full=full),
        session=schema.PlaybackSession(
            id=session.id,
            bandwidth=watch.bandwidth or 0,
            location="lan" if is_local(address_of(session)) else "wan",
        ),
        transcode_session=transcode,
        media=(_media(watch, ids, transcode),) if media else (),
    )


def kind_of(watch: Watch) -> Kind:
    """Return what is watched: as the client says, else a film; monitors do not log clips."""
    said = (watch.item or {}).get("type", watch.kind)
    known = _KINDS.get(said) if isinstance(said, str) else None
    return known or "movie"


def is_live(watch: Watch) -> bool:
    """Whether what is watched has no end."""
    return watch.duration_ms is None and kind_of(watch) != "photo"


def state_of(watch: Watch) -> State:
    """Return how it goes; a state that Plex has not is playing."""
    return _STATES.get(watch.state or "", "playing")


def offset_ms(session: Session, watch: Watch, now_ms: int) -> int:
    """Return the last reported position; for a stream without one, for how long it is watched."""
    if watch.position_ms is not None:
        return watch.position_ms
    return max(now_ms - (session.watching_since or now_ms), 0)


def address_of(session: Session) -> str | None:
    """Return the address of the player: of its socket, or of its last report."""
    if session.connection and session.connection.address:
        return session.connection.address
    return (session.private.environment or {}).get(ADDRESS)


def is_local(address: str | None) -> bool:
    """Whether a player is on this network; one of which nothing is known is."""
    try:
        return not ip_address(address or "").is_global
    except ValueError:
        return True


def extra_of(session: Session) -> dict[str, Any]:
    """Return what Plex's door keeps in a session beside what all sessions have."""
    extra = session.attributes.get("plex")
    return extra if isinstance(extra, dict) else {}


def client_of(session: Session) -> str:
    """Return what the client calls itself; one that did not say is called by its session."""
    return (session.client and session.client.key) or session.id


def _player(session: Session, watch: Watch, ids: Ids, *, full: bool) -> schema.Player:
    client, extra, address = session.client or Client(), extra_of(session), address_of(session)
    secure = session.connection.tls if session.connection else extra.get("secure")
    local = is_local(address)
    return schema.Player(
        machine_identifier=client_of(session),
        state=state_of(watch),
        local=local,
        relayed=False,
        secure=secure is True,
        user_id=ids.account,
        title=session.name or client.product or session.id,
        product=client.product or "",
        platform=client.platform or "",
        platform_version=text_of(extra.get("platformVersion")) or "",
        version=client.version or "",
        model=client.model or "",
        device=client.device or "",
        vendor=text_of(extra.get("vendor")) or "",
        profile=text_of(extra.get("profile")) or "",
        address=address if full else None,
        remote_public_address=address if full and not local else None,
    )


def _media(watch: Watch, ids: Ids, transcode: schema.TranscodeSession | None) -> schema.Media:
    number, job = str(ids.item), transcode
    video, audio = (job.video_codec, job.audio_codec) if job else (None, None)
    decisions = (job.video_decision, job.audio_decision) if job else ("", "")
    streams = tuple(
        schema.MediaStream(
            id=f"{number}{stream_type}",
            stream_type=stream_type,
            codec=codec,
            display_title=codec.upper(),
            key=f"/library/streams/{number}{stream_type}",
            decision=decision,
        )
        for stream_type, codec, decision in zip((1, 2), (video, audio), decisions, strict=True)
        if codec
    )
    part = schema.MediaPart(
        id=number,
        key=f"/library/parts/{number}/0/file",
        decision="transcode" if job else "directplay",
        duration=watch.duration_ms,
        container=job.container if job else None,
        streams=streams,
    )
    return schema.Media(
        id=number,
        duration=watch.duration_ms,
        bitrate=watch.bandwidth,
        container=part.container,
        video_codec=video,
        audio_codec=audio,
        parts=(part,),
    )


# --- items


def item_fields(watch: Watch, number: int) -> dict[str, Any]:
    """Return what every entry says of its item: what its client said that Plex's clients can read.

    *number* is the item's.
    """
    item = coerced(schema.Item, watch.item or {})
    item |= {"rating_key": str(number), "key": f"{ITEM_PATH}{number}"}
    item |= {"title": watch.title or watch.key, "type": kind_of(watch)}
    item.setdefault("guid", f"gateway://item/{quote(watch.key.lstrip('/'))}")
    if kind_of(watch) == "episode":
        item.setdefault("grandparent_title", "")
        if not item.keys() & {"parent_key", "parent_rating_key", "parent_thumb"}:
            item.pop("grandparent_key", None)  # python-plexapi would ask for its children
    return item


def section_fields(section: int | None, workspace: str | None) -> dict[str, Any]:
    """Return what an entry says of its workspace, which is the section of this number."""
    if section is None or workspace is None:
        return {}
    named = {"library_section_id": str(section), "library_section_title": workspace}
    return {**named, "library_section_key": f"/library/sections/{section}"}


# --- transcodes


def is_transcode(stream: Stream) -> bool:
    """Whether Plex shows this stream."""
    return stream.kind == TRANSCODE


def transcode_session(
    session: Session, stream: Stream, name: str, now_ms: int
) -> schema.TranscodeSession:
    """Return a stream as a transcode; *name* is the key it goes by among all sessions."""
    data = coerced(schema.TranscodeSession, stream.data)
    data["key"] = transcode_key(name)
    data.setdefault("duration", session.watch.duration_ms if session.watch else None)
    data.setdefault("time_stamp", now_ms / 1000)
    data["progress"] = min(max(data.get("progress", 0.0), 0.0), 100.0)
    data["complete"] = data.get("complete", False) or stream.state in _ENDED
    data["error"] = data.get("error", False) or stream.state in _FAILED
    return schema.TranscodeSession(**data)


def transcode_key(name: str) -> str:
    """Return the path of a transcode; clients send it back as it is to stop it."""
    return TRANSCODE_PATH + quote(name, safe="")


# --- history


def history_item(row: HistoryRow, watch: Watch, ids: Ids) -> schema.HistoryItem:
    """Return a finished watch as a row of the history."""
    return schema.HistoryItem(
        **item_fields(watch, ids.item),
        history_key=f"{HISTORY_PATH}{row.number}",
        viewed_at=row.at // 1000,
        account_id=ids.account,
        device_id=ids.device,
        library_section_id=None if ids.section is None else str(ids.section),
    )


def parents(watch: Watch) -> tuple[str, ...]:
    """Return the rating keys of an item's parents: a show's filter finds its episodes."""
    told = watch.item or {}
    found = (digits_of(told.get(name)) for name in ("parentRatingKey", "grandparentRatingKey"))
    return tuple(key for key in found if key)


# --- what is pushed


def notification(
    session: Session,
    watch: Watch,
    state: State,
    now_ms: int,
    *,
    item: int | None,
    transcode: str | None = None,
) -> schema.Notification:
    """Return what is pushed when a playback begins, changes or ends at *now_ms*.

    *item* is the number of what is, or was, watched; ``None`` if it has none yet, see
    :func:`numbered`. *transcode* is the name of its transcode.
    """
    said = schema.Notification(
        session_key=str(session.number),
        client_identifier=client_of(session),
        rating_key="",
        key="",
        view_offset=offset_ms(session, watch, now_ms),
        state=state,
        play_queue_item_id=integer_of((watch.item or {}).get("playQueueItemID")),
        transcode_session=transcode,
    )
    return said if item is None else numbered(said, item)


def numbered(said: schema.Notification, item: int) -> schema.Notification:
    """Return *said* about the item of this number."""
    return replace(said, rating_key=str(item), key=f"{ITEM_PATH}{item}")


def device(number: int, client: str, facts: Mapping[str, Any]) -> schema.Device:
    """Return a player; its *facts* are ``name``, ``platform`` and ``created_at`` (ms)."""
    return schema.Device(
        id=number,
        name=text_of(facts.get("name")) or client,
        platform=text_of(facts.get("platform")) or "",
        client_identifier=client,
        created_at=(integer_of(facts.get("created_at")) or 0) // 1000,
    )
