"""The client that is a session: what it says arrives once, whatever the connection does."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.client import Closed, GatewayError, LinkState, SessionClient, connect, errors
from tests.server.scripted import Peer, accept_all, ending, greet, scripted
from tests.support import MS, eventually


async def test_hello_makes_a_session() -> None:
    """Entering waits for the hello; the address says who the session is, the header the token."""
    async with (
        scripted(greet) as gateway,
        connect(
            gateway.url,
            token="T",
            name="Ann & Bo",
            workspace="ws-7",
            labels={"env": "prod"},
            session="s1",
            session_token="s1.secret",
        ) as me,
    ):
        assert (me.id, me.session["number"], me.session_token) == ("s1", 1, "s1.secret")
        assert me.state == LinkState.CONNECTED
        assert gateway.peers[0].path == "/v1/connect"
        assert gateway.peers[0].authorization == "Bearer T"
        assert gateway.peers[0].query == {
            "session": "s1",
            "session_token": "s1.secret",
            "name": "Ann & Bo",
            "workspace": "ws-7",
            "label.env": "prod",
        }
    assert (await me.wait_closed()).code == 1000


@pytest.mark.parametrize(
    "say,wire,shown",
    [
        (
            lambda me: me.watch("m/1", title="T", state="playing", position_ms=0),
            {"type": "watch", "key": "m/1", "title": "T", "state": "playing", "position_ms": 0},
            {"watch": {"key": "m/1", "title": "T", "state": "playing", "position_ms": 0}},
        ),
        (
            lambda me: me.update(name=None, labels={"a": "b", "c": None}, client={"product": "p"}),
            {
                "type": "update",
                "changes": {
                    "name": None,
                    "labels": {"a": "b", "c": None},
                    "client": {"product": "p"},
                },
            },
            {"labels": {"a": "b"}, "client": {"product": "p"}},
        ),
        (
            lambda me: me.stream("t1", "transcode", state="running", data={"n": 1}),
            {
                "type": "stream",
                "key": "t1",
                "kind": "transcode",
                "state": "running",
                "data": {"n": 1},
            },
            {"streams": [{"key": "t1", "kind": "transcode", "state": "running", "data": {"n": 1}}]},
        ),
        (lambda me: me.unwatch(), {"type": "unwatch"}, {"is_watching": False}),
        (
            lambda me: me.progress(5, state="paused"),
            {"type": "progress", "position_ms": 5, "state": "paused"},
            {},
        ),
        (lambda me: me.saving(), {"type": "saving"}, {}),
        (lambda me: me.need_more(5000), {"type": "need_more", "ms": 5000}, {}),
    ],
)
async def test_accepted_word_is_sent_once_and_folded_in(
    say: Callable[[SessionClient], Awaitable[None]], wire: dict[str, Any], shown: dict[str, Any]
) -> None:
    """A method sends what is set, returns on the ack, and the session shows it."""
    heard: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        await peer.hello()
        heard.append(await peer.accept(revision=9))
        await peer.stay()

    async with scripted(script) as gateway, connect(gateway.url) as me:
        await say(me)

        assert heard == [wire]
        assert me.session.items() >= {"revision": 9, **shown}.items()


async def test_refused_word_raises_what_the_gateway_answers() -> None:
    """An error reply is raised as its class, nothing is folded in, and the connection stays."""

    async def script(peer: Peer) -> None:
        await peer.hello()
        await peer.hear()
        await peer.say("error", ref=peer.ref, code="not_watching", message="No.")
        await peer.hear()
        await peer.say("error", ref=peer.ref, code="from_the_future", message="Hm.")
        await peer.accept()
        await peer.stay()

    async with scripted(script) as gateway, connect(gateway.url) as me:
        with pytest.raises(errors.NotWatching, match="No"):
            await me.progress(1)
        with pytest.raises(GatewayError, match="Hm"):
            await me.watch("m/1")

        assert "watch" not in me.session
        await me.unwatch()


async def test_drain_brings_the_same_session_back_when_told() -> None:
    """After 4001 a client waits retry_after_ms, comes back as its session and repeats nothing."""
    left_at: list[float] = []

    async def drain(peer: Peer) -> None:
        await peer.hello()
        await peer.accept()
        left_at.append(time.monotonic())
        await peer.bye(4001, retry_after_ms=int(100 * MS * 1000))

    async with (
        scripted(drain, accept_all) as gateway,
        connect(gateway.url, name="Ann", token="T") as me,
    ):
        await me.watch("m/1")
        await eventually(lambda: len(gateway.peers) == 2)
        assert time.monotonic() - left_at[0] >= 100 * MS
        assert gateway.peers[1].query == {"session": "s1", "session_token": "s1.secret"}
        assert gateway.peers[1].authorization == "Bearer T"
        await me.progress(7)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 3000, 4002, 4003, 4008, 4009, 4099])
async def test_passing_end_brings_the_client_back(code: int) -> None:
    """Every close code but 4500 to 4999 is come back from, also those nobody knows."""

    async def close(peer: Peer) -> None:
        await peer.hello()
        await peer.socket.close(code)

    async with scripted(close, accept_all) as gateway, connect(gateway.url) as me:
        await eventually(lambda: len(gateway.peers) == 2)
        await me.unwatch()


@pytest.mark.parametrize(
    "code,kind",
    [
        (4500, errors.SessionClosed),
        (4501, errors.NotConnected),
        (4502, errors.Unauthorized),
        (4503, errors.BadRequest),
        (4505, errors.NotConnected),
        (4506, errors.LimitExceeded),
        (4507, errors.Forbidden),
        (4511, errors.SessionClosed),
        (4999, GatewayError),
    ],
)
async def test_final_end_is_not_come_back_from(code: int, kind: type[GatewayError]) -> None:
    """After 4500 to 4999 the client has ended, says why, and every further word raises it."""
    async with (
        scripted(ending(code, reason="maintenance")) as gateway,
        connect(gateway.url) as me,
    ):
        assert await me.wait_closed() == Closed(code, "maintenance", 0)
        assert me.state == LinkState.CLOSED
        with pytest.raises(kind, match="maintenance"):
            await me.unwatch()
        assert len(gateway.peers) == 1


@pytest.mark.parametrize(
    "code,reason,kind",
    [
        (4502, "unauthorized", errors.Unauthorized),
        (4511, "session_closing", errors.SessionClosing),
        (4500, "invalid", errors.SessionClosed),
    ],
)
async def test_refusal_of_the_first_connection_is_raised(
    code: int, reason: str, kind: type[GatewayError]
) -> None:
    """A bye in place of the hello is raised; its reason names an error only of its code."""

    async def refuse(peer: Peer) -> None:
        await peer.bye(code, reason)

    async with scripted(refuse) as gateway:
        with pytest.raises(kind) as caught:
            await connect(gateway.url).__aenter__()

    assert type(caught.value) is kind


@pytest.mark.parametrize("told", ["bye", "close frame"])
async def test_refusal_says_what_was_wrong(told: str) -> None:
    """The detail of a refusal is in the error, also when only the close frame tells it."""

    async def refuse(peer: Peer) -> None:
        if told == "bye":
            await peer.say(
                "bye", code=4507, reason="forbidden", reconnect=False, detail="Not linger_ms."
            )
        await peer.socket.close(4507, "forbidden: Not linger_ms.")

    async with scripted(refuse) as gateway:
        with pytest.raises(errors.Forbidden, match=r"^Not linger_ms\.$"):
            await connect(gateway.url).__aenter__()


async def test_word_without_answer_is_said_again() -> None:
    """What the connection broke off is said again on the next one, with its ref and in order."""
    refs: list[str] = []

    async def break_off(peer: Peer) -> None:
        await peer.hello()
        for _ in range(2):
            await peer.hear()
            refs.append(peer.ref)
        peer.drop()

    async def go_on(peer: Peer) -> None:
        await peer.hello(session_token=None)
        for key in ("m/1", "m/2"):
            assert (await peer.accept())["key"] == key
            refs.append(peer.ref)
        await peer.stay()

    async with scripted(break_off, go_on) as gateway, connect(gateway.url) as me:
        await asyncio.gather(me.watch("m/1"), me.watch("m/2"))

        assert refs[:2] == refs[2:]
        assert me.session["watch"] == {"key": "m/2"}
        assert me.session_token == "s1.secret"


async def test_word_without_connection_fails_in_time() -> None:
    """A word waits for an answer only so long: unsent is Unavailable, sent OutcomeUnknown."""

    async def leave_unanswered(peer: Peer) -> None:
        await peer.hello()
        await peer.hear()
        await peer.bye(4001, retry_after_ms=60_000)

    async with (
        scripted(leave_unanswered) as gateway,
        connect(gateway.url, call_within_s=100 * MS) as me,
    ):
        with pytest.raises(errors.OutcomeUnknown):
            await me.watch("m/1")
        await eventually(lambda: me.state == LinkState.CONNECTING)
        with pytest.raises(errors.Unavailable) as caught:
            await me.watch("m/1")
        assert type(caught.value) is errors.Unavailable


async def test_new_session_is_told_what_was_said_last() -> None:
    """A session that had to be opened anew hears the last of each word again."""
    told: list[dict[str, Any]] = []

    async def open_anew(peer: Peer) -> None:
        await peer.hello(id="s2", number=2, session_token="s2.secret")
        told.extend([await peer.accept() for _ in range(3)])
        await peer.stay()

    async def before(peer: Peer) -> None:
        await peer.hello()
        for _ in range(8):
            await peer.accept()
        await peer.say("stop_stream", key="t3")
        peer.drop()

    async with scripted(before, open_anew) as gateway, connect(gateway.url, name="Ann") as me:
        await me.update(labels={"a": "1", "b": "2"})
        await me.update(name="Bo", labels={"a": None})
        await me.watch("m/1", title="T")
        await me.progress(7)
        for key in ("t1", "t2", "t3"):
            await me.stream(key, "transcode", state="running")
        await me.stream("t1", "transcode", state="stopped")
        await eventually(lambda: len(told) == 3)

        assert told == [
            {"type": "update", "changes": {"name": "Bo", "labels": {"a": None, "b": "2"}}},
            {"type": "watch", "key": "m/1", "title": "T", "position_ms": 7},
            {"type": "stream", "key": "t2", "kind": "transcode", "state": "running", "data": {}},
        ]
        assert (me.id, me.session_token) == ("s2", "s2.secret")
        assert me.session["watch"]["position_ms"] == 7
