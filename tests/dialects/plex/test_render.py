"""What sessions, streams and finished watches look like to Plex; golden files, see SOURCES.md."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec import to_builtins

from gateway.core.event import HistoryRow
from gateway.core.model import Client, Connection, Private, Session, Stream, Watch
from gateway.dialects.plex import render, schema, style
from gateway.dialects.plex.render import Ids
from gateway.dialects.plex.schema import Word
from tests.nodes import blank

NOW_MS: Final = 1_760_000_100_250
T0_MS: Final = 1_760_000_000_000

FILM: Final = Watch(
    key="/library/metadata/101",
    title="Demo Stream",
    state="paused",
    position_ms=61_000,
    position_at=T0_MS + 61_000,
    duration_ms=5_400_000,
    bandwidth=4_200,
    item={"guid": "demo://item/101", "thumb": "/library/metadata/101/thumb/1"},
)
EPISODE: Final = Watch(
    key="show/1/2",
    kind="episode",
    title="The second",
    duration_ms=1_800_000,
    item={
        "grandparentTitle": "The show",
        "grandparentKey": "/library/metadata/7",
        "grandparentRatingKey": 7,
        "parentIndex": 1,
        "index": 2,
        "originallyAvailableAt": "2024-05-01",
        "playQueueItemID": 12,
    },
)
TRANSCODE: Final = Stream(
    key="tr0001",
    kind="transcode",
    state="running",
    data={
        "progress": 1.5,
        "size": -22,
        "speed": 3.5,
        "remaining": 120,
        "container": "mp4",
        "context": "streaming",
        "protocol": "dash",
        "timeStamp": 1_760_000_100.25,
        "sourceVideoCodec": "hevc",
        "sourceAudioCodec": "eac3",
        "videoDecision": "transcode",
        "audioDecision": "copy",
        "subtitleDecision": "burn",
        "videoCodec": "h264",
        "audioCodec": "aac",
        "audioChannels": 2,
        "width": 1920,
        "height": 1080,
        "transcodeHwRequested": True,
        "transcodeHwFullPipeline": False,
        "minOffsetAvailable": 0.0,
        "maxOffsetAvailable": 45.5,
    },
)
ANN: Final = Client(
    key="dev-0001", product="Demo Player", version="1.0.0", platform="Linux", device="PC", model="m"
)


def session(**facts: object) -> Session:
    """Return a session that watches."""
    known = {"number": 7, "created_at": T0_MS, "watching_since": T0_MS, "watch": FILM}
    return blank("k3v9", **{**known, **facts})


def reported(**facts: object) -> Session:
    """Return the session of a player of Plex that reports."""
    extra = {"platformVersion": "6.1", "vendor": "Demo", "profile": "Generic", "secure": True}
    return session(
        name="Ann's desk",
        account="ann",
        workspace="Main",
        client=ANN,
        attributes={"plex": extra},
        private=Private(environment={render.ADDRESS: "192.168.7.20"}),
        **facts,
    )


def connected(address: str, *, tls: bool = False) -> Session:
    """Return a session of a socket."""
    link = Connection(id="c", node="n", connected_at=T0_MS, address=address, tls=tls)
    return session(connection=link)


def shown(session: Session, *, full: bool = True, media: bool = False) -> Word:
    """Return *session* as an entry of the list, with its first transcode."""
    assert session.watch is not None
    transcode = [
        render.transcode_session(session, stream, stream.key, NOW_MS)
        for stream in session.streams
        if render.is_transcode(stream)
    ]
    ids = Ids(
        item=101, account=2 if session.account else 1, section=1 if session.workspace else None
    )
    return render.metadata(
        session,
        session.watch,
        ids,
        NOW_MS,
        transcode=transcode[0] if transcode else None,
        full=full,
        media=media,
    )


def row(**facts: Any) -> HistoryRow:  # noqa: ANN401 - fields of a row
    """Return a row of the history."""
    known = {"kind": "watch", "session_id": "s", "session_number": 7, "number": 42}
    return HistoryRow(**{**known, "at": 1_760_005_500_123, "started_at": T0_MS, **facts})


SHAPES: Final[dict[str, Word]] = {
    "session_paused": shown(reported()),
    "session_plain": shown(reported(), full=False),
    "session_transcoding": shown(reported(streams=(TRANSCODE,))),
    "session_episode": shown(session(watch=EPISODE)),
    "session_of_another_door": shown(session(watch=Watch(key="lesson/3", state="idle"))),
    "history_film": render.history_item(row(), FILM, Ids(item=101, account=2, section=1, device=5)),
    "history_episode": render.history_item(row(), EPISODE, Ids(item=1_000_000_001)),
    "transcode_full": render.transcode_session(session(), TRANSCODE, "tr0001", NOW_MS),
    "transcode_bare": render.transcode_session(
        session(watch=None), Stream(key="t", kind="transcode", state="error"), "17-t", NOW_MS
    ),
    "notification_playing": render.notification(
        reported(), EPISODE, "playing", NOW_MS, item=102, transcode="tr0001"
    ),
    "notification_stopped": render.notification(session(), FILM, "stopped", NOW_MS, item=None),
    "root": schema.Root(
        machine_identifier="9f0c",
        owner_features=schema.KICK,
        transcoder_active_video_sessions=1,
    ),
    "identity": schema.Identity(machine_identifier="9f0c"),
    "account": schema.Account(id=2, key="/accounts/2", name="ann"),
    "device": render.device(
        5, "dev-0001", {"name": "Ann's desk", "platform": "Linux", "created_at": T0_MS}
    ),
    "device_unknown": render.device(6, "dev-0002", {}),
}
XML: Final[dict[str, str]] = {
    "session_transcoding": style.element(
        style.METADATA, shown(reported(streams=(TRANSCODE,)), media=True)
    ),
    "session_of_another_door": style.element(
        style.METADATA, shown(session(watch=Watch(key="lesson/3")), media=True)
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_is_the_golden_one(name: str, golden: Callable[[str], Any]) -> None:
    """Every shape is what Plex's clients were seen to read."""
    assert to_builtins(SHAPES[name]) == golden(f"{name}.json")


@pytest.mark.parametrize("name", XML)
def test_xml_is_the_golden_one(name: str, golden: Callable[[str], str]) -> None:
    """The same shapes as XML, with the media that XML's readers want."""
    assert XML[name] + "\n" == golden(f"{name}.xml")


def test_every_golden_file_is_checked(request: pytest.FixtureRequest) -> None:
    """No golden file is left over."""
    folder = request.path.parent / "golden"

    assert {path.stem for path in folder.glob("*.json")} == set(SHAPES)
    assert {path.stem for path in folder.glob("*.xml")} == set(XML)


@pytest.mark.parametrize(
    "watch, kind",
    [
        (Watch(key="k", kind="track"), "track"),
        (Watch(key="k", kind="video", duration_ms=1), "movie"),
        (Watch(key="k", kind="video"), "movie"),
        (Watch(key="k", kind="clip"), "clip"),
        (Watch(key="k", kind="track", item={"type": "photo"}), "photo"),
        (Watch(key="k", item={"type": 7}), "movie"),
    ],
)
def test_kind_is_what_the_client_says_if_plex_has_it(watch: Watch, kind: str) -> None:
    """The item's type comes first, then the watch's kind, then what is likely."""
    assert render.kind_of(watch) == kind


def test_watch_without_a_position_is_as_old_as_it_is_watched() -> None:
    """A live stream has no position: its offset is for how long it is watched."""
    live = Watch(key="k")

    assert render.offset_ms(session(), live, T0_MS + 5_000) == 5_000
    assert render.offset_ms(session(), live, T0_MS - 5_000) == 0
    assert render.offset_ms(session(watching_since=None), live, NOW_MS) == 0


@pytest.mark.parametrize(
    "address, local",
    [
        ("192.168.7.20", True),
        ("127.0.0.1", True),
        ("fe80::1", True),
        ("8.8.8.8", False),
        ("2a00:1450::1", False),
        ("unix", True),
        (None, True),
    ],
)
def test_player_is_local_unless_its_address_is_of_the_internet(
    address: str | None, local: bool
) -> None:
    """LAN or WAN follows from the address; of nothing known nothing is held against a player."""
    assert render.is_local(address) is local


def test_socket_tells_address_and_security() -> None:
    """A session with a socket shows its address and whether it is encrypted."""
    player = to_builtins(shown(connected("8.8.8.8", tls=True)))["Player"]

    assert (player["address"], player["remotePublicAddress"]) == ("8.8.8.8", "8.8.8.8")
    assert (player["local"], player["secure"]) == (False, True)
    assert "remotePublicAddress" not in to_builtins(shown(connected("10.0.0.1")))["Player"]


@pytest.mark.parametrize(
    "told, name",
    [
        ({"thumb": 7}, "thumb"),
        ({"index": "two"}, "index"),
        ({"index": True}, "index"),
        ({"index": 2**60}, "index"),
        ({"parentRatingKey": "seven"}, "parentRatingKey"),
        ({"parentRatingKey": -7}, "parentRatingKey"),
        ({"parentRatingKey": [7]}, "parentRatingKey"),
        ({"originallyAvailableAt": "May 2024"}, "originallyAvailableAt"),
        ({"originallyAvailableAt": 2024}, "originallyAvailableAt"),
    ],
)
def test_what_plex_cannot_read_is_left_out(told: dict[str, Any], name: str) -> None:
    """A client may say anything of its item; only what Plex's clients can read is passed on."""
    watch = Watch(key="k", item=told)

    assert name not in to_builtins(shown(session(watch=watch)))


@pytest.mark.parametrize(
    "told, kept",
    [
        ({"parentThumb": "/t"}, True),
        ({"parentRatingKey": 6}, True),
        ({"parentKey": "/p"}, True),
        ({}, False),
    ],
)
def test_episode_without_a_season_has_no_show_to_ask_for(told: dict[str, Any], kept: bool) -> None:
    """python-plexapi asks a show for its seasons if an episode tells the one and not the other."""
    watch = Watch(key="k", kind="episode", item={"grandparentKey": "/library/metadata/7", **told})
    entry = to_builtins(shown(session(watch=watch)))

    assert ("grandparentKey" in entry) is kept
    assert entry["grandparentTitle"] == ""


def test_transcode_takes_numbers_of_any_kind() -> None:
    """A whole number is a good fraction; beyond its bounds progress is at the bound."""
    stream = Stream(key="t", kind="transcode", data={"progress": 150, "speed": "fast", "size": "?"})
    shape = render.transcode_session(session(), stream, "t", NOW_MS)

    assert (shape.progress, shape.speed, shape.size) == (100.0, 0.0, -22)
    assert shape.duration == 5_400_000


@pytest.mark.parametrize("state", ["complete", "done"])
def test_transcode_that_is_done_is_complete(state: str) -> None:
    """The stream's own state counts as well as Plex's flag."""
    stream = Stream(key="t", kind="transcode", state=state)

    assert render.transcode_session(session(), stream, "t", NOW_MS).complete


def test_parents_are_the_numbers_of_season_and_show() -> None:
    """A filter for a show finds its episodes."""
    assert render.parents(EPISODE) == ("7",)
    assert render.parents(Watch(key="k")) == ()


def test_attributes_of_others_are_no_trouble() -> None:
    """What stands under Plex's name in a session may be anything."""
    strange = session(attributes={"plex": "no object"})

    assert render.extra_of(strange) == {}
    assert to_builtins(shown(strange))["Player"]["vendor"] == ""
