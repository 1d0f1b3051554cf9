"""The delayed close, from all sides: the client, those who watch, REST, and later callers."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from gateway.core.model import Closing
from gateway.realtime.close_reminder import reminder_times
from gateway.settings import Settings
from tests.server.conftest import Gateway, serving
from tests.server.talk import dial
from tests.support import S, eventually


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Gateway]:
    """A second node on the same data."""
    async with serving(replace(settings, node_name="node-b")) as found:
        yield found


async def test_polite_close_from_notice_to_tombstone(gateway: Gateway, other: Gateway) -> None:
    """Warned, refused meanwhile, closed once with 4500 at the deadline, and gone on every node."""
    async with (
        await dial(gateway, session="one") as ann,
        await dial(gateway, "/v1/events") as here,
        await dial(other, "/v1/events") as there,
        gateway.http() as http,
        other.http() as elsewhere,
    ):
        hello = await ann.hear("hello")
        for watcher in (here, there):
            await watcher.find("snapshot")
        reply = await http.delete(f"/v1/sessions/one?close_after={0.6 * S:g}&reason=maintenance")
        assert reply.status_code == 202
        closes_at = reply.json()["closes_at"]
        notice = await ann.hear("closing")
        assert (notice["closes_at"], notice["reason"]) == (closes_at, "maintenance")
        assert 0 < notice["in_ms"] <= 600 * S
        for node in (gateway, other):
            for query in ({}, {"session_token": hello["session_token"]}):
                async with await dial(node, session="one", params=query) as late:
                    bye = await late.bye()
                    assert (bye["code"], bye["reason"]) == (4511, "session_closing")
        assert (await http.get("/v1/sessions/one")).json()["closes_at"] == closes_at
        again = await ann.hear("closing")
        assert 0 < again["in_ms"] <= 300 * S
        bye = await ann.bye()
        assert (bye["code"], bye["reason"]) == (4500, "maintenance")
        for watcher in (here, there):
            events = await watcher.until("session.closed")
            closings = [event for event in events if event["type"] == "session.closing"]
            assert [event["changes"]["closes_at"] for event in closings] == [closes_at]
            assert events[-1]["changes"]["closed"]["outcome"] == "unsaved"
            assert events[-1]["at"] >= closes_at
            await watcher.nothing()
        for client, node in ((http, gateway), (elsewhere, other)):
            assert (await client.get("/v1/sessions/one")).status_code == 410
            for query in ({}, {"session_token": hello["session_token"]}):
                async with await dial(node, session="one", params=query) as late:
                    bye = await late.bye()
                    assert (bye["code"], bye["reason"]) == (4511, "session_closed")


async def test_closed_session_of_others_is_no_news(gateway: Gateway) -> None:
    """Somebody without any right hears nothing of a closed session: 4507, as if it never was."""
    async with await dial(gateway, token="ann") as ann:
        session_id = (await ann.hear("hello"))["session"]["id"]
        await ann.ask("leave")
    for token, code in (("bob", 4507), ("ws-2", 4507), ("ann", 4511), ("ws-1", 4511)):
        async with await dial(gateway, token=token, session=session_id) as late:
            assert (await late.bye())["code"] == code


async def test_close_after_zero_is_now(gateway: Gateway) -> None:
    """A close without delay ends the socket at once, unwarned."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        assert (await http.delete("/v1/sessions/one?close_after=0")).status_code == 200
        code, heard = await ann.ends()

        assert code == 4500
        assert [message["type"] for message in heard] == ["bye"]


@pytest.mark.parametrize("text", ["-1", "soon", "86401", "nan", "inf", "1e400", ""])
async def test_impossible_delays_are_refused(gateway: Gateway, text: str) -> None:
    """A delay that is no time within a day is a 400 and changes nothing."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        assert (await http.delete(f"/v1/sessions/one?close_after={text}")).status_code == 400

        await ann.nothing()


async def test_cancelled_close_goes_on(gateway: Gateway) -> None:
    """A close that is called off is told, warns no more and never happens."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        await http.delete("/v1/sessions/one?close_after=0.2")
        await ann.hear("closing")
        assert (await http.delete("/v1/sessions/one/closing")).status_code == 200
        assert await ann.hear() == {"type": "close_cancelled"}
        for _ in range(6):
            await ann.nothing()
        assert gateway.node.replica.sessions["one"].state == "connected"


async def test_moved_close_is_told_again(gateway: Gateway) -> None:
    """A new request moves the deadline; the client hears the new one."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        await http.put("/v1/sessions/one/closing", json={"after_s": 60, "reason": "later"})
        first = await ann.hear("closing")
        await http.put("/v1/sessions/one/closing", json={"after_s": 30})
        second = await ann.hear("closing")

        assert first["closes_at"] > second["closes_at"]
        assert second["in_ms"] <= 30_000


async def test_need_more_gets_what_the_budget_has(gateway: Gateway) -> None:
    """An extension is granted up to the budget, told to the client, and then refused."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        await http.put("/v1/sessions/one/closing", json={"after_s": 20, "extend_max_s": 30})
        notice = await ann.hear("closing")
        assert notice["extend_max_ms"] == 30_000
        assert (await ann.ask("need_more", ms=1000))["type"] == "ack"  # it has that already
        assert (await ann.ask("need_more", ms=40_000))["type"] == "ack"
        extended = next(one for one in ann.heard if one["type"] == "close_extended")
        assert 39_000 < extended["in_ms"] <= 40_000
        await ann.ask("need_more", ms=80_000)
        extended = [one for one in ann.heard if one["type"] == "close_extended"][-1]
        assert extended["in_ms"] <= 50_000
        refused = await ann.ask("need_more", ms=80_000)
        assert refused["code"] == "extension_refused"


async def test_saved_closes_at_once(gateway: Gateway) -> None:
    """A client that saved is answered and closed before the deadline, with outcome saved."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        await http.delete("/v1/sessions/one?close_after=60&reason=update")
        await ann.hear("closing")
        assert (await ann.ask("saving"))["type"] == "ack"
        shown = (await http.get("/v1/sessions/one")).json()
        assert "saving_at" in shown["closing"]
        assert (await ann.ask("saved"))["type"] == "ack"
        assert (await ann.bye())["code"] == 4500
        closed = (await http.get("/v1/sessions/one")).json()["session"]["closed"]
        assert (closed["outcome"], closed["reason"]) == ("saved", "update")


@pytest.mark.parametrize("how, outcome", [("leave", "left"), ("close", "left"), ("drop", "lost")])
async def test_leaving_early_ends_a_closing_session(
    gateway: Gateway, how: str, outcome: str
) -> None:
    """While closing, a client that goes ends the session, and the outcome says how it went."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        await http.delete("/v1/sessions/one?close_after=60")
        await ann.hear("closing")
        if how == "leave":
            await ann.ask("leave")
        elif how == "close":
            await ann.socket.close()
        else:
            ann.drop()
        await eventually(lambda: "one" in gateway.node.replica.gone)
        closed = (await http.get("/v1/sessions/one")).json()["session"]["closed"]
        assert closed["outcome"] == outcome


async def test_client_that_was_away_is_let_in_once(gateway: Gateway, other: Gateway) -> None:
    """Asked while nobody was connected: its own token lets it in, warned at once, only once."""
    async with await dial(gateway, session="one") as ann:
        hello = await ann.hear("hello")
    token = hello["session_token"]
    async with gateway.http() as http:
        await eventually(lambda: other.node.replica.sessions["one"].state == "away")
        await http.delete("/v1/sessions/one?close_after=60")
        async with await dial(other, session="one") as stranger:
            assert (await stranger.bye())["code"] == 4511
        async with await dial(other, token=None, session_token=token) as ann:
            assert (await ann.hear("hello"))["session"]["state"] == "closing"
            assert (await ann.hear("closing"))["in_ms"] > 50_000
            async with await dial(gateway, token=None, session_token=token) as second:
                assert (await second.bye())["code"] == 4511
            await ann.ask("saved")


async def test_drained_client_comes_back_to_its_closing(gateway: Gateway, other: Gateway) -> None:
    """Ended by the gateway itself, a closing client comes back: same deadline, warned at once."""
    async with await dial(gateway, session="one") as ann, other.http() as http:
        hello = await ann.hear("hello")
        await http.delete("/v1/sessions/one?close_after=60")
        notice = await ann.hear("closing")
        await gateway.context.connections.drain(0.05)
        assert (await ann.bye())["code"] == 4001
        await eventually(lambda: not other.node.replica.sessions["one"].is_connected)
        async with await dial(other, token=None, session_token=hello["session_token"]) as back:
            await back.hear("hello")
            assert (await back.hear("closing"))["closes_at"] == notice["closes_at"]


async def test_close_happens_on_time_without_its_client(gateway: Gateway) -> None:
    """A pending close whose client is away happens at its deadline, as lost."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
    async with gateway.http() as http:
        await eventually(lambda: gateway.node.replica.sessions["one"].state == "away")
        await http.delete("/v1/sessions/one?close_after=0.1")
        await eventually(lambda: "one" in gateway.node.replica.gone, within=1 * S)
        closed = (await http.get("/v1/sessions/one")).json()["session"]["closed"]
        assert closed["outcome"] == "lost"


@pytest.mark.parametrize(
    "after_ms, now_ms, times",
    [
        (60_000, 0, [30_000, 50_000, 57_000]),
        (60_000, 30_000, [50_000, 57_000]),
        (20_000, 0, [10_000, 17_000]),
        (8_000, 0, [4_000, 5_000]),
        (2_000, 0, [1_000]),
        (2_000, 1_500, []),
    ],
)
def test_client_is_warned_at_half_time_10_s_and_3_s(
    after_ms: int, now_ms: int, times: list[int]
) -> None:
    """The warnings after the first one: half of the time, 10 s and 3 s before, none twice."""
    closing = Closing(at=after_ms, first_at=after_ms, requested_at=0)

    assert reminder_times(closing, now_ms) == times
