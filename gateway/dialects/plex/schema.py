"""Schema: the Structs of Plex's session API, with its own names; JSON and XML are made from them.

Plex Media Server 1.42, API version 1.1.1 (PMS), as its published clients read it. What is unset is
left out, never null: zod refuses null. Ids are text where real servers send text and numbers where
they send numbers: zod takes neither for the other.

Not here: how they are filled (``render``), how they are written (``style``).
"""

import re
from functools import cache
from typing import Annotated, Any, Final, Literal

from msgspec import Struct, defstruct, field

VERSION: Final = "1.42.2.1"  # of the server whose API this is; clients choose features by it
OWNER: Final = 1  # the account of what belongs to nobody in particular
KICK: Final = "session_kick"  # the feature behind terminate
TERMINATED: Final = 2006  # what players know as: an administrator ended this playback

Digits = Annotated[str, "digits"]
Day = Annotated[str, "YYYY-MM-DD"]
State = Literal["playing", "paused", "buffering", "stopped"]
Kind = Literal["movie", "episode", "track", "clip", "photo"]

_WORD: Final = re.compile(r"_([a-z])")


def spelled(name: str) -> str:
    """Return Plex's spelling: ``library_section_id`` is ``librarySectionID``, ``id`` stays."""
    if name.endswith("_id"):
        name = name.removesuffix("_id") + "ID"
    return _WORD.sub(lambda found: found[1].upper(), name)


def always(value: Any) -> Any:  # noqa: ANN401 - of any field
    """Return the default of a field that is told although it never changes."""
    return field(default_factory=lambda: value)


class Word(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, rename=spelled):
    """Base of what Plex is told."""


class PlexUser(Word, frozen=True, kw_only=True):
    """Whose playback it is; ``id`` is an ``Account``'s."""

    id: str
    title: str
    thumb: str = always("")


class Player(Word, frozen=True, kw_only=True):
    """The program that plays; the addresses are for those who may write."""

    machine_identifier: str
    state: State
    local: bool
    relayed: bool
    secure: bool
    user_id: int
    title: str
    product: str
    platform: str
    platform_version: str
    version: str
    model: str
    device: str
    vendor: str
    profile: str
    address: str | None = None
    remote_public_address: str | None = None


class PlaybackSession(Word, frozen=True, kw_only=True):
    """What ``terminate`` takes, and what the playback is given of the network (kbit/s)."""

    id: str
    bandwidth: int
    location: Literal["lan", "wan"]


class TranscodeSession(Word, frozen=True, kw_only=True):
    """One transcode job: ``duration`` in ms, ``remaining`` in s, ``size`` in bytes."""

    key: str
    throttled: bool = always(value=False)
    complete: bool = always(value=False)
    progress: float = always(0.0)
    size: int = always(-22)  # unknown, as real servers say it
    speed: float = always(0.0)
    error: bool = always(value=False)
    context: str = always("streaming")
    video_decision: str = always("transcode")
    audio_decision: str = always("transcode")
    protocol: str = always("http")
    container: str = always("mkv")
    duration: int | None = None
    remaining: int | None = None
    subtitle_decision: str | None = None
    source_video_codec: str | None = None
    source_audio_codec: str | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    audio_channels: int | None = None
    width: int | None = None
    height: int | None = None
    transcode_hw_requested: bool | None = None
    transcode_hw_full_pipeline: bool | None = None
    time_stamp: float | None = None
    min_offset_available: float | None = None
    max_offset_available: float | None = None


class MediaStream(Word, frozen=True, kw_only=True):
    """One track of a file: 1 video, 2 audio, 3 subtitles."""

    id: str
    stream_type: int
    codec: str
    display_title: str
    key: str
    decision: str


class MediaPart(Word, frozen=True, kw_only=True):
    """One file."""

    id: str
    key: str
    decision: str
    selected: bool = always(value=True)
    duration: int | None = None
    container: str | None = None
    streams: tuple[MediaStream, ...] = field(default=(), name="Stream")


class Media(Word, frozen=True, kw_only=True):
    """A version of an item; Tautulli wants one with a part."""

    id: str
    selected: bool = always(value=True)
    duration: int | None = None
    bitrate: int | None = None
    container: str | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    parts: tuple[MediaPart, ...] = field(default=(), name="Part")


class Item(Word, frozen=True, kw_only=True):
    """What a library knows of an item besides its keys, as a client gave it."""

    guid: str | None = None
    thumb: str | None = None
    art: str | None = None
    parent_key: str | None = None
    parent_rating_key: Digits | None = None
    parent_title: str | None = None
    parent_thumb: str | None = None
    parent_index: int | None = None
    grandparent_key: str | None = None
    grandparent_rating_key: Digits | None = None
    grandparent_title: str | None = None
    grandparent_thumb: str | None = None
    index: int | None = None
    originally_available_at: Day | None = None


class Metadata(Item, frozen=True, kw_only=True):
    """One playback of ``/status/sessions``; times in ms, ``…At`` in epoch seconds."""

    type: Kind
    session_key: str
    rating_key: str
    key: str
    title: str
    view_offset: int
    added_at: int
    updated_at: int
    duration: int | None = None
    live: bool | None = None
    library_section_id: str | None = None
    library_section_key: str | None = None
    library_section_title: str | None = None
    media: tuple[Media, ...] = field(default=(), name="Media")
    user: PlexUser = field(name="User")
    player: Player = field(name="Player")
    session: PlaybackSession = field(name="Session")
    transcode_session: TranscodeSession | None = field(default=None, name="TranscodeSession")


class HistoryItem(Item, frozen=True, kw_only=True):
    """One finished playback; ``viewedAt`` in epoch seconds is when it ended."""

    history_key: str
    key: str
    rating_key: str
    title: str
    type: Kind
    viewed_at: int
    account_id: int
    device_id: int | None = None
    library_section_id: str | None = None


class LibraryItem(Item, frozen=True, kw_only=True):
    """What is or was played, as an item of a library.

    ``duration`` is 0 for what has no end: Tautulli compares it with a number when a playback stops.
    """

    rating_key: str
    key: str
    title: str
    type: Kind
    duration: int
    added_at: int
    updated_at: int
    live: bool | None = None
    library_section_id: str | None = None
    library_section_key: str | None = None
    library_section_title: str | None = None


class Section(Word, frozen=True, kw_only=True):
    """A workspace as a section of a library."""

    key: str
    title: str
    uuid: str
    created_at: int
    updated_at: int
    type: str = always("movie")
    agent: str = always("com.plexapp.agents.none")
    scanner: str = always("Plex Video Files Scanner")
    language: str = always("xn")


class Account(Word, frozen=True, kw_only=True):
    """A person; 1 is the server's owner."""

    id: int
    key: str
    name: str
    default_audio_language: str = always("")
    auto_select_audio: bool = always(value=False)
    default_subtitle_language: str = always("")
    subtitle_mode: int = always(0)
    thumb: str = always("")


class Device(Word, frozen=True, kw_only=True):
    """A player that was seen; ``createdAt`` in epoch seconds."""

    id: int
    name: str
    platform: str
    client_identifier: str
    created_at: int


class Notification(Word, frozen=True, kw_only=True):
    """What a ``playing`` push says; ``transcodeSession`` is a transcode's bare id."""

    session_key: str
    client_identifier: str
    rating_key: str
    key: str
    view_offset: int
    state: State
    guid: str = always("")
    url: str = always("")
    play_queue_item_id: int | None = None
    transcode_session: str | None = None


class Container(Word, frozen=True, kw_only=True):
    """A ``MediaContainer`` without its children; offset and total belong to a page."""

    size: int = always(0)
    offset: int | None = None
    total_size: int | None = None
    identifier: str | None = None


class LibraryContainer(Container, frozen=True, kw_only=True):
    """A list of a library; the section is named where all items are of one."""

    identifier: str = always("com.plexapp.plugins.library")
    allow_sync: bool = always(value=False)
    title1: str | None = None
    library_section_id: int | None = None
    library_section_title: str | None = None


class TimelineContainer(Container, frozen=True, kw_only=True):
    """The answer to a player's report; 2006: an administrator ended this playback."""

    termination_code: int | None = None
    termination_text: str | None = None


class Identity(Container, frozen=True, kw_only=True):
    """Which server this is."""

    machine_identifier: str
    claimed: bool = always(value=True)
    version: str = always(VERSION)


class Root(Identity, frozen=True, kw_only=True):
    """What this server can do; ``session_kick`` among the owner's features is terminate.

    What the gateway has not is told as off, so that clients do not look for it.
    """

    owner_features: str
    transcoder_active_video_sessions: int
    friendly_name: str = always("Session Gateway")
    platform: str = always("Linux")
    platform_version: str = always("")
    allow_sharing: bool = always(value=False)
    allow_sync: bool = always(value=False)
    event_stream: bool = always(value=True)
    multiuser: bool = always(value=True)
    my_plex: bool = always(value=False)
    my_plex_subscription: bool = always(value=False)
    transcoder_audio: bool = always(value=False)
    transcoder_video: bool = always(value=False)
    updater: bool = always(value=False)


class ErrorItem(Word, frozen=True, kw_only=True):
    """One error."""

    code: int
    message: str
    status: int


class Errors(Word, frozen=True, kw_only=True):
    """The body of every error, for those who accept JSON."""

    errors: tuple[ErrorItem, ...]


# --- whole replies, for the description


@cache
def reply_of(container: type[Container], child: str = "", item: Any = None) -> Any:  # noqa: ANN401
    """Return the type of a reply: *container*, maybe with its list of *child* elements."""
    name = f"{container.__name__}Reply" if item is None else f"{item.__name__}List"
    fields: list[Any] = [] if item is None else [(child, tuple[item, ...], ())]
    inside = defstruct(f"{name}Container", fields, bases=(container,), kw_only=True)
    return defstruct(name, [("MediaContainer", inside)])
