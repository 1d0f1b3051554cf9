"""Players that have no socket and report how they do."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from gateway.core.command import Close, RequestClose
from gateway.core.model import Deadline, Session
from gateway.dialects.plex import endpoints_timeline as playback
from gateway.dialects.plex.endpoints_timeline import HANDLE, KEEPALIVE_MS, sweep
from tests.dialects.plex.conftest import Plex, serving
from tests.nodes import running_node

TERMINATED = "Admin terminated playback with reason: Enough"


class Player:
    """A player of Plex, as the API describes it."""

    def __init__(self, http: httpx2.AsyncClient, *, playback: str | None = "p-1") -> None:
        self.http = http
        self.headers = {
            "X-Plex-Client-Identifier": "dev-1",
            "X-Plex-Product": "Demo Player",
            "X-Plex-Version": "1.0.0",
            "X-Plex-Platform": "Linux",
            "X-Plex-Platform-Version": "6.1",
            "X-Plex-Device": "PC",
            "X-Plex-Device-Name": "Ann's desk",
            "X-Plex-Device-Vendor": "Demo",
        }
        if playback:
            self.headers["X-Plex-Session-Identifier"] = playback

    async def report(
        self, state: str, time_ms: int = 0, item: int = 101, **more: int
    ) -> dict[str, object]:
        """Report; return the container of the answer."""
        params: dict[str, str | int] = {
            "ratingKey": item,
            "key": f"/library/metadata/{item}",
            "state": state,
            "time": time_ms,
            "duration": 90_000,
            **more,
        }
        reply = await self.http.get("/:/timeline", params=params, headers=self.headers)
        assert reply.status_code == 200, reply.text
        container: dict[str, object] = reply.json()["MediaContainer"]
        return container


def only(plex: Plex) -> Session:
    """Return the one open session."""
    (session,) = plex.node.replica.sessions.values()
    return session


@pytest.fixture
async def ann(plex: Plex) -> AsyncIterator[Player]:
    """A player of Ann's that tells its playbacks apart."""
    async with plex.http("ann") as http:
        yield Player(http)


@pytest.fixture
async def plain(plex: Plex) -> AsyncIterator[Player]:
    """A player of Ann's that tells none apart."""
    async with plex.http("ann") as http:
        yield Player(http, playback=None)


async def test_first_report_opens_a_session(plex: Plex, ann: Player) -> None:
    """What a player says of itself and of its item is the session's, for every door to see."""
    assert await ann.report("buffering", 500, playQueueItemID=12, bandwidth=4200) == {"size": 0}
    session = only(plex)

    assert (session.name, session.account, session.workspace) == ("Ann's desk", "ann", "films")
    assert session.client is not None
    assert session.client.key == "dev-1"
    assert session.keepalive_ms == KEEPALIVE_MS
    watch = session.watch
    assert watch is not None
    assert (watch.key, watch.state) == ("/library/metadata/101", "buffering")
    assert (watch.position_ms, watch.duration_ms, watch.bandwidth) == (500, 90_000, 4200)
    assert watch.item == {"playQueueItemID": 12}
    async with plex.http() as http:
        (entry,) = (await http.get("/status/sessions")).json()["MediaContainer"]["Metadata"]
    assert entry["Player"]["platformVersion"] == "6.1"
    assert entry["Player"]["address"] == "127.0.0.1"
    assert "127.0.0.1" not in str(session.attributes)


async def test_reports_move_the_session(plex: Plex, ann: Player) -> None:
    """State, seeks and items are one session's; each report is its sign of life."""
    await ann.report("playing", 0)
    first = only(plex)
    await ann.report("paused", 10_000)
    await ann.report("paused", 70_000)
    watch = only(plex).watch
    assert watch is not None
    assert (watch.state, watch.position_ms) == ("paused", 70_000)

    await ann.report("playing", 0, item=102)
    session = only(plex)
    assert (session.id, session.number) == (first.id, first.number)
    assert session.watch is not None
    assert session.watch.key == "/library/metadata/102"
    assert (session.keepalive_at or 0) >= (first.keepalive_at or 0)


async def test_time_that_passes_is_written_seldom(plex: Plex, ann: Player) -> None:
    """A position that is where it should be costs at most one commit in five seconds."""
    await ann.report("playing", 0)
    await ann.report("playing", 1)
    before = only(plex).revision
    for _ in range(5):
        await ann.report("playing", 2)

    assert only(plex).revision == before


async def test_stopped_ends_the_session(plex: Plex, ann: Player) -> None:
    """A stop is the end, told once; a stop of nothing is nothing, and a new play is another."""
    await ann.report("playing", 0)
    first = only(plex).id
    assert await ann.report("stopped", 5_000) == {"size": 0}
    assert not plex.node.replica.sessions
    assert list(plex.node.documents.all(HANDLE)) == []
    assert await ann.report("stopped", 5_000) == {"size": 0}

    await ann.report("playing", 0)
    assert only(plex).id != first


@pytest.mark.parametrize("continuing", [0, 1])
async def test_stop_says_where_the_playback_ended(plex: Plex, ann: Player, continuing: int) -> None:
    """The row of the history has the position of the report that ended the watch."""
    await ann.report("playing", 60_000)
    await ann.report("stopped", 88_000, continuing=continuing)
    (row,) = plex.node.replica.rows("watch")

    assert row.watch is not None
    assert row.watch.position_ms == 88_000


async def test_stop_of_another_item_moves_nothing(plex: Plex, ann: Player) -> None:
    """A report about an item that is not the one that plays says nothing of where that ended."""
    await ann.report("playing", 60_000)
    await ann.report("stopped", 5, item=102)
    (row,) = plex.node.replica.rows("watch")

    assert row.watch is not None
    assert (row.watch.key, row.watch.position_ms) == ("/library/metadata/101", 60_000)


async def test_stop_before_the_next_item_keeps_the_session(plex: Plex, ann: Player) -> None:
    """With ``continuing`` another item follows: the session goes on without a watch meanwhile."""
    await ann.report("playing", 0)
    number = only(plex).number
    await ann.report("stopped", 90_000, continuing=1)
    assert only(plex).watch is None

    await ann.report("playing", 0, item=102)
    assert only(plex).number == number


@pytest.mark.parametrize("accept", ["application/json", "*/*"])
async def test_terminated_player_is_told_at_each_report(
    plex: Plex, ann: Player, accept: str
) -> None:
    """Each later report of the playback is answered with the termination, and revives nothing."""
    await ann.report("playing", 0)
    async with plex.http() as http:
        params = {"sessionId": only(plex).id, "reason": "Enough"}
        await http.get("/status/sessions/terminate", params=params)
    ended = {"size": 0, "terminationCode": 2006, "terminationText": TERMINATED}

    for state in ("playing", "paused", "stopped", "playing"):
        assert await ann.report(state, 1_000) == ended
    assert await ann.report("playing", 0, item=102) == ended
    assert not plex.node.replica.sessions
    reply = await ann.http.get(
        "/:/timeline?ratingKey=101&state=playing", headers={**ann.headers, "Accept": accept}
    )
    assert TERMINATED in reply.text


async def test_termination_is_told_by_every_node(plex: Plex, ann: Player) -> None:
    """The end is remembered in the store, not in the process that heard of it."""
    await ann.report("playing", 0)
    session = only(plex)
    await plex.node.apply(session.id, Close(reason="Enough"))
    prefix, url = plex.context.settings.key_prefix, plex.context.settings.redis_url
    async with running_node(url or "", prefix, "b") as other:
        handle = next(iter(other.documents.all(HANDLE)))[1]
        assert handle["session"] == session.id
        assert session.id in other.replica.gone


async def test_any_door_may_terminate(plex: Plex, ann: Player) -> None:
    """A delayed close of the native API reaches the player when it comes to pass."""
    await ann.report("playing", 0)
    session = only(plex)
    now_ms = plex.node.clock.now_ms()
    await plex.node.apply(session.id, RequestClose(at=now_ms + 60_000, reason="Enough"))
    assert await ann.report("playing", 1) == {"size": 0}
    await plex.node.apply(session.id, RequestClose(at=now_ms, reason="Enough"))

    assert (await ann.report("playing", 2))["terminationText"] == TERMINATED


async def test_termination_without_a_reason_says_so(plex: Plex, ann: Player) -> None:
    """No reason is no empty one."""
    await ann.report("playing", 0)
    await plex.node.apply(only(plex).id, Close())

    assert (await ann.report("playing", 1))["terminationText"] == "Admin terminated playback."


async def test_client_without_playbacks_may_play_something_else(plex: Plex, plain: Player) -> None:
    """Who tells no playbacks apart is refused the item that was ended, until it stops."""
    await plain.report("playing", 0, item=100)
    await plain.report("playing", 0, item=101)
    await plex.node.apply(only(plex).id, Close(reason="Enough"))
    assert (await plain.report("playing", 0, item=101))["terminationCode"] == 2006

    assert await plain.report("playing", 0, item=102) == {"size": 0}
    await plex.node.apply(only(plex).id, Close(reason="Enough"))
    assert (await plain.report("stopped", 0, item=102))["terminationCode"] == 2006
    assert await plain.report("playing", 0, item=102) == {"size": 0}
    assert len(plex.node.replica.sessions) == 1


async def test_player_that_was_silent_may_come_back(plex: Plex, ann: Player) -> None:
    """A session that ended for silence was not terminated: the next report begins another."""
    await ann.report("playing", 0)
    session = only(plex)
    assert session.keepalive_at is not None
    ended = Close(outcome="expired", reason=Deadline.KEEPALIVE)
    await plex.node.apply(session.id, ended)

    assert await ann.report("playing", 0) == {"size": 0}
    assert only(plex).id != session.id


async def test_players_are_kept_apart_by_account(plex: Plex, ann: Player) -> None:
    """Nobody reports for another account's playback, whatever it calls itself."""
    await ann.report("playing", 0)
    async with plex.http("bob") as http:
        await Player(http).report("stopped", 0)
        assert len(plex.node.replica.sessions) == 1
        await Player(http).report("playing", 0)

    assert sorted(str(s.account) for s in plex.node.replica.sessions.values()) == ["ann", "bob"]


async def test_playbacks_of_one_client_are_told_apart(plex: Plex, ann: Player) -> None:
    """One client may play several things at once."""
    await ann.report("playing", 0)
    await Player(ann.http, playback="p-2").report("playing", 0)

    assert len(plex.node.replica.sessions) == 2


async def test_reports_at_once_open_one_session(plex: Plex, ann: Player) -> None:
    """Reports that overtake each other are one playback's, through two mounts as well."""
    async with plex.http("ann", base="/plex") as http:
        other = Player(http)
        await asyncio.gather(*(player.report("playing", 0) for player in (ann, other) * 5))

    assert len(plex.node.replica.sessions) == 1


async def test_progress_is_a_short_report(plex: Plex, ann: Player) -> None:
    """``/:/progress`` names the item by ``key`` alone; unset is ``None`` in python-plexapi."""
    params = {"key": "101", "state": "playing", "time": "7000", "duration": "None"}
    reply = await ann.http.post("/:/progress/", params=params, headers=ann.headers)
    watch = only(plex).watch

    assert reply.status_code == 200
    assert watch is not None
    assert (watch.key, watch.position_ms, watch.duration_ms) == (
        "/library/metadata/101",
        7_000,
        None,
    )
    await ann.report("playing", 7_100)
    await ann.http.get("/:/timeline?ratingKey=101&state=paused", headers=ann.headers)
    watch = only(plex).watch
    assert watch is not None
    assert (watch.state, watch.position_ms, watch.duration_ms) == ("paused", 7_100, 90_000)


@pytest.mark.parametrize("token", ["reader", "nothing"])
async def test_playing_needs_the_right_to_connect(plex: Plex, token: str) -> None:
    """Readers do not play."""
    async with plex.http(token) as http:
        reply = await http.get("/:/timeline?ratingKey=1&state=playing&X-Plex-Client-Identifier=c")

    assert reply.status_code == 403
    assert not plex.node.replica.sessions


async def test_handles_that_lead_nowhere_are_swept(plex: Plex, ann: Player) -> None:
    """A handle is kept as long as its session or the memory of it, and no longer."""
    await ann.report("playing", 0)
    session = only(plex)
    later_ms = plex.node.clock.now_ms() + 10 * 60_000
    assert await sweep(plex.node, later_ms) == 0
    await plex.node.apply(session.id, Close(reason="Enough"))
    assert await sweep(plex.node, later_ms) == 0

    del plex.node.replica.gone[session.id]  # what forgetting does after a day
    assert await sweep(plex.node, later_ms) == 1
    assert list(plex.node.documents.all(HANDLE)) == []


async def test_sweeping_is_done_now_and_then(plex: Plex, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of all nodes sweeps in the background."""
    swept = asyncio.Event()

    async def once(_node: object, _now_ms: int) -> int:
        swept.set()
        return 0

    monkeypatch.setattr(playback, "SWEEP_S", 0.0)
    monkeypatch.setattr(playback, "sweep", once)
    task = asyncio.create_task(playback.run(plex.context))
    try:
        await asyncio.wait_for(swept.wait(), 2)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_full_gateway_refuses_a_playback(plex: Plex, ann: Player) -> None:
    """Too many sessions: 503, and the player may ask again."""
    plex.node.max_sessions = 0
    params = {"ratingKey": "1", "state": "playing"}
    async with serving(plex.context) as url:
        reply = await ann.http.get(f"{url}/:/timeline", params=params, headers=ann.headers)

    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
