"""Plex's own clients, unmodified: python-plexapi 4.18.3 with its alerts, plex-api-client 0.30.0."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import Any

import pytest
from plex_api_client import PlexAPI
from plex_api_client.models import errors
from plexapi.exceptions import BadRequest, NotFound, Unauthorized
from plexapi.server import PlexServer

from gateway.core.command import Close, StartStream
from gateway.core.model import Client, Stream, Watch
from tests.dialects.plex.conftest import ADMIN, Plex
from tests.support import eventually

FILM = Watch(
    key="/library/metadata/101",
    title="A film",
    state="playing",
    position_ms=61_000,
    duration_ms=5_400_000,
    item={"originallyAvailableAt": "2024-05-01"},
)
SONG = Watch(key="song/7", title="A song", kind="track", state="paused", position_ms=5)
EPISODE = Watch(
    key="/library/metadata/102",
    title="The second",
    kind="episode",
    item={"grandparentTitle": "The show", "grandparentKey": "/library/metadata/7", "index": 2},
)
PHOTO = Watch(key="photo/1", title="A photo", kind="photo")
LIVE = Watch(key="channel/9", title="News", kind="clip")


@pytest.fixture
async def busy(plex: Plex) -> Plex:
    """A gateway on which all kinds of things play."""
    facts = {"workspace": "films", "account": "ann", "name": "Ann's desk"}
    client = Client(key="dev-0001", product="Demo Player", platform="Linux", device="PC")
    await plex.play("film", FILM, client=client, **facts)
    await plex.play("song", SONG, account="bob")
    await plex.play("episode", EPISODE)
    await plex.play("photo", PHOTO)
    await plex.play("live", LIVE)
    data = {"progress": 1.5, "speed": 3.5, "videoDecision": "transcode", "audioDecision": "copy"}
    await plex.node.apply("film", StartStream(stream=Stream(key="t1", kind="transcode", data=data)))
    return plex


async def driven(plex: Plex, work: Callable[[Any], Any], token: str = ADMIN) -> Any:  # noqa: ANN401
    """Do *work* with python-plexapi, connected below the prefix, in a thread of its own."""

    def work_with_client() -> Any:  # noqa: ANN401
        server = PlexServer(f"{plex.url}/plex", token)  # type: ignore[no-untyped-call]
        try:
            return work(server)
        finally:
            server._session.close()  # noqa: SLF001 - it leaves its connections open

    return await asyncio.to_thread(work_with_client)


async def called(plex: Plex, work: Callable[[PlexAPI], Any], token: str = ADMIN) -> Any:  # noqa: ANN401
    """Do *work* with plex-api-client, in a thread of its own."""

    def work_with_client() -> Any:  # noqa: ANN401
        with PlexAPI(access_token=token, server_url=f"{plex.url}/plex") as client:
            return work(client)

    return await asyncio.to_thread(work_with_client)


# --- python-plexapi


async def test_plexapi_sees_what_plays(busy: Plex) -> None:
    """Each kind of item becomes the client's own class, with user, player and session."""

    def look(server: Any) -> dict[str, Any]:  # noqa: ANN401
        found = {type(entry).__name__: entry for entry in server.sessions()}
        film = found["MovieSession"]
        assert film.usernames == ["ann"]
        assert (film.title, film.viewOffset, film.duration) == ("A film", 61_000, 5_400_000)
        assert (film.player.title, film.player.state) == ("Ann's desk", "playing")
        assert film.player.machineIdentifier == "dev-0001"
        assert film.player.local is True
        assert (film.session.id, film.session.location) == ("film", "lan")
        assert film.transcodeSession.progress == 1.5
        assert isinstance(film.sessionKey, int)
        assert film.librarySectionTitle == "films"
        assert film.media[0].parts[0].decision == "transcode"
        assert found["TrackSession"].usernames == ["bob"]
        assert "show" in repr(found["EpisodeSession"])
        assert found["ClipSession"].live is True
        assert film.reload().sessionKey == film.sessionKey
        (job,) = server.transcodeSessions()
        assert (job.key, job.speed) == ("/transcode/sessions/t1", 3.5)
        return found

    found = await driven(busy, look)
    assert set(found) == {
        *("MovieSession", "TrackSession", "EpisodeSession", "PhotoSession", "ClipSession")
    }


async def test_plexapi_sees_a_watch_without_a_length_as_a_live_film(plex: Plex) -> None:
    """A client of another door need not say what it watches, nor how long that is."""
    await plex.play("news", Watch(key="channel/9", title="News"))

    def look(server: Any) -> None:  # noqa: ANN401
        (news,) = server.sessions()
        assert (type(news).__name__, news.title, news.live) == ("MovieSession", "News", True)

    await driven(plex, look)


async def test_plexapi_knows_the_server(busy: Plex) -> None:
    """Root, identity, people, players and the empty lists."""

    def look(server: Any) -> None:  # noqa: ANN401
        assert server.identity().machineIdentifier == server.machineIdentifier
        assert server.transcoderActiveVideoSessions == 1
        server.sessions()
        accounts = {account.name: account.id for account in server.systemAccounts()}
        assert set(accounts) == {"owner", "ann", "bob"}
        assert server.systemAccount(accounts["ann"]).name == "ann"
        (device,) = server.systemDevices()
        assert (device.clientIdentifier, device.platform) == ("dev-0001", "Linux")
        assert server.clients() == []
        assert server.activities == []

    await driven(busy, look)


async def test_plexapi_stops_a_session_with_a_reason(busy: Plex) -> None:
    """``stop`` closes the session; a second one is not found."""

    def stop(server: Any) -> None:  # noqa: ANN401
        film = next(entry for entry in server.sessions() if entry.session.id == "film")
        film.stop(reason="Enough for today")
        assert all(entry.session.id != "film" for entry in server.sessions())
        with pytest.raises(NotFound):
            film.stop(reason="again")

    await driven(busy, stop)
    assert "film" not in busy.node.replica.sessions
    row = next(row for row in busy.node.replica.rows("session") if row.session_id == "film")
    assert row.reason == "Enough for today"


async def test_plexapi_stops_a_transcode_by_its_key(busy: Plex) -> None:
    """The key of a transcode is the path to delete."""

    def stop(server: Any) -> None:  # noqa: ANN401
        (job,) = server.transcodeSessions()
        server.query(job.key, method=server._session.delete)  # noqa: SLF001 - as its users do
        assert server.transcodeSessions() == []

    await driven(busy, stop)
    assert busy.node.replica.sessions["film"].streams == ()


async def test_plexapi_reads_the_history_in_pages(
    plex: Plex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pages are followed, newest first; filters work over the wire."""
    monkeypatch.setattr("plexapi.base.X_PLEX_CONTAINER_SIZE", 2)
    for number in range(5):
        account = "ann" if number % 2 else "bob"
        watch = Watch(key=f"/library/metadata/{number + 1}", title=f"{number}", duration_ms=1)
        await plex.play(f"s-{number}", watch, account=account, workspace="films")
        await plex.node.apply(f"s-{number}", Close())

    def read(server: Any) -> None:  # noqa: ANN401
        rows = server.history()
        assert [row.title for row in rows] == ["4", "3", "2", "1", "0"]
        assert all(isinstance(row.viewedAt, datetime) for row in rows)
        accounts = {account.name: account.id for account in server.systemAccounts()}
        mine = server.history(accountID=accounts["ann"], librarySectionID=1)
        assert [row.title for row in mine] == ["3", "1"]
        assert [row.title for row in server.history(maxresults=3)] == ["4", "3", "2"]
        assert [row.title for row in server.history(ratingKey=3)] == ["2"]
        assert len(server.history(mindate=datetime(2024, 1, 1))) == 5  # noqa: DTZ001 - as its users
        assert server.history(mindate=datetime(2100, 1, 1)) == []  # noqa: DTZ001

    await driven(plex, read)


async def test_plexapi_looks_up_what_plays_and_what_was_played(busy: Plex) -> None:
    """``source``, ``fetchItem`` and ``library.sections`` of a server that has no library."""
    await busy.node.apply("film", Close())

    def look(server: Any) -> None:  # noqa: ANN401
        film = server.history()[0].source()
        assert (type(film).__name__, film.title, film.duration) == ("Movie", "A film", 5_400_000)
        assert (film.ratingKey, film.librarySectionTitle) == (101, "films")
        assert server.fetchItem(101).title == "A film"
        song = next(entry for entry in server.sessions() if entry.title == "A song").source()
        assert (type(song).__name__, song.title) == ("Track", "A song")
        assert [item.title for item in server.fetchItems("/library/metadata/101,102")] == [
            *("A film", "The second")
        ]
        (section,) = server.library.sections()
        assert (section.title, section.key, section.type) == (
            "films",
            film.librarySectionID,
            "movie",
        )
        items = server.fetchItems(f"/library/sections/{section.key}/all")
        assert [item.title for item in items] == ["A film"]
        with pytest.raises(NotFound):
            server.fetchItem(999)

    await driven(busy, look)


async def test_plexapi_deletes_from_the_history(busy: Plex) -> None:
    """``history()[0].delete()`` deletes the row for good; a second one is not found."""
    await busy.node.apply("film", Close())

    def delete(server: Any) -> None:  # noqa: ANN401
        (row,) = server.history()
        row.delete()
        assert server.history() == []
        with pytest.raises(NotFound):
            row.delete()

    await driven(busy, delete)


async def test_plexapi_reports_what_it_plays(plex: Plex) -> None:
    """As a producer: another client's item, reported by ``updateTimeline``, is a session."""
    await plex.play("seed", FILM)

    await driven(plex, lambda server: server.sessions()[0].updateTimeline(61_000, "paused", 90_000))
    mine = [known for known in plex.node.replica.sessions.values() if known.id != "seed"]
    assert [(known.watch.position_ms, known.watch.state) for known in mine if known.watch] == [
        (61_000, "paused")
    ]
    await driven(plex, lambda server: server.sessions()[0].updateProgress(62_000, "stopped"))
    assert set(plex.node.replica.sessions) == {"seed"}


@pytest.mark.parametrize(
    "token, error", [("wrong", Unauthorized), ("ann", BadRequest)], ids=["stranger", "player"]
)
async def test_plexapi_raises_its_own_errors(
    plex: Plex, token: str, error: type[Exception]
) -> None:
    """A wrong token, and one that may not list."""
    with pytest.raises(error):
        await driven(plex, lambda server: server.sessions(), token)


@asynccontextmanager
async def alerts(plex: Plex) -> AsyncIterator[list[dict[str, Any]]]:
    """Listen with python-plexapi's AlertListener; it needs ``websocket-client``."""
    if find_spec("websocket") is None:
        pytest.skip("websocket-client is not installed")
    heard: list[dict[str, Any]] = []
    listener = await driven(plex, lambda server: server.startAlertListener(heard.append))
    await eventually(lambda: plex.context.connections.count == 1)
    connection = listener._ws.sock  # noqa: SLF001
    try:
        yield heard
    finally:
        await plex.context.connections.drain(0)  # its thread ends with its connection
        await asyncio.to_thread(listener.join)
        connection.shutdown()  # which it leaves open


async def test_plexapi_hears_each_step_of_a_playback(plex: Plex) -> None:
    """The AlertListener gets playing, the transcode, the end of both, each once."""
    async with alerts(plex) as heard:
        await plex.play("film", FILM)
        stream = Stream(key="t1", kind="transcode")
        await plex.node.apply("film", StartStream(stream=stream))
        await plex.node.apply("film", Close(reason="Enough"))
        await eventually(lambda: len(heard) >= 4)

    assert [alert["type"] for alert in heard] == [
        *("playing", "transcodeSession.start", "transcodeSession.end", "playing")
    ]
    states = [
        a["PlaySessionStateNotification"][0]["state"] for a in heard if a["type"] == "playing"
    ]
    assert states == ["playing", "stopped"]


# --- plex-api-client


async def test_generated_client_reads_sessions(busy: Plex) -> None:
    """The seed's GetSessions: every field is of the type that the client insists on."""
    response = await called(busy, lambda client: client.sessions.get_sessions())
    container = response.object.media_container

    assert container.size == 5
    film = next(entry for entry in container.metadata if entry.session.id == "film")
    assert (film.user.title, film.player.state) == ("ann", "playing")
    assert film.session_key == str(busy.node.replica.sessions["film"].number)


async def test_generated_client_reads_history(busy: Plex) -> None:
    """The seed's GetSessionHistory with its example's parameters."""
    await busy.node.apply("film", Close())
    everything = await called(busy, lambda client: client.sessions.get_session_history())
    row = everything.object.media_container.metadata[0]
    account, section = row.account_id, int(row.library_section_id)
    response = await called(
        busy,
        lambda client: client.sessions.get_session_history(
            sort="viewedAt:desc", account_id=account, filter_={}, library_section_id=section
        ),
    )

    (found,) = response.object.media_container.metadata
    assert (found.title, found.history_key) == ("A film", row.history_key)
    none = await called(
        busy, lambda client: client.sessions.get_session_history(account_id=account + 1000)
    )
    assert none.object.media_container.size == 0


async def test_generated_client_reads_and_stops_transcodes(busy: Plex) -> None:
    """The seed's GetTranscodeSessions and StopTranscodeSession."""
    response = await called(busy, lambda client: client.sessions.get_transcode_sessions())
    (job,) = response.object.media_container.transcode_session
    assert (job.key, job.progress) == ("/transcode/sessions/t1", 1.5)

    stop = lambda client: client.sessions.stop_transcode_session(session_key="t1")  # noqa: E731
    stopped = await called(busy, stop)
    assert stopped.status_code == 204
    with pytest.raises(errors.SDKError) as refused:
        await called(busy, stop)
    assert refused.value.status_code == 404


async def test_generated_client_knows_the_server(busy: Plex) -> None:
    """Identity without a token, capabilities, devices, clients and activities."""
    identity = await called(busy, lambda client: client.server.get_server_identity())
    assert len(identity.object.media_container.machine_identifier) == 40
    root = await called(busy, lambda client: client.server.get_server_capabilities())
    assert root.object.media_container.transcoder_active_video_sessions == 1
    devices = await called(busy, lambda client: client.server.get_devices())
    assert devices.object.media_container.device[0].client_identifier == "dev-0001"
    clients = await called(busy, lambda client: client.server.get_available_clients())
    assert clients.object.media_container.size == 0
    activities = await called(busy, lambda client: client.activities.get_server_activities())
    assert activities.object.media_container.size == 0


async def test_generated_client_raises_its_typed_errors(plex: Plex) -> None:
    """401 and 400 in JSON are the exceptions that the seed's document lists."""
    wrong = "wrong"
    for name, call in {
        "GetSessionsUnauthorized": lambda client: client.sessions.get_sessions(),
        "GetSessionHistoryUnauthorized": lambda client: client.sessions.get_session_history(),
        "GetTranscodeSessionsUnauthorized": lambda c: c.sessions.get_transcode_sessions(),
        "StopTranscodeSessionUnauthorized": lambda c: c.sessions.stop_transcode_session(
            session_key="t"
        ),
    }.items():
        with pytest.raises(getattr(errors, name)):
            await called(plex, call, wrong)
    with pytest.raises(errors.GetSessionHistoryBadRequest):
        await called(plex, lambda client: client.sessions.get_session_history(sort="bad"))
