"""The session socket: how a client becomes a session, comes back, and says things."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from gateway.core.document import Message, Recipients
from gateway.core.model import Session
from gateway.settings import Settings
from tests.server.conftest import Gateway, serving
from tests.server.talk import dial
from tests.support import S, eventually


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Gateway]:
    """A second node on the same data."""
    async with serving(replace(settings, node_name="node-b")) as found:
        yield found


def record(gateway: Gateway, session_id: str) -> Session:
    """Return what a node knows of a session."""
    return gateway.node.replica.sessions[session_id]


# --- opening


async def test_hello_is_listed_at_once(gateway: Gateway) -> None:
    """A session that was greeted is in this node's list in the same round trip."""
    async with await dial(gateway, name="Ann", label__env="prod") as ann, gateway.http() as http:
        hello = await ann.hear("hello")
        shown = (await http.get("/v1/sessions")).json()["sessions"]

        assert shown == [hello["session"]]
        assert hello["session"]["is_connected"] is True
        assert hello["session"]["state"] == "connected"
        assert hello["session"]["labels"] == {"env": "prod"}
        assert hello["session"]["linger_ms"] == 15_000
        assert hello["session_token"].startswith(hello["session"]["id"] + ".")
        assert hello["heartbeat_ms"] == 15_000


async def test_session_is_on_the_other_node_at_once(gateway: Gateway, other: Gateway) -> None:
    """A session that was greeted on one node is soon known on the other."""
    async with await dial(gateway) as ann:
        session_id = (await ann.hear("hello"))["session"]["id"]

        await eventually(lambda: session_id in other.node.replica.sessions, within=1 * S)


async def test_writer_chooses_the_id_and_where_it_belongs(gateway: Gateway) -> None:
    """With write the id, account, workspace and timings of a new session can be chosen."""
    async with await dial(
        gateway, session="mine-1", account="zoe", workspace="ws-9", service="tv", linger_ms=1
    ) as zoe:
        session = (await zoe.hear("hello"))["session"]

        assert (session["id"], session["account"]) == ("mine-1", "zoe")
        assert (session["workspace"], session["service"]) == ("ws-9", "tv")
        assert session["linger_ms"] == 1
        assert session["connection"]["address"] == "127.0.0.1"


async def test_client_gets_account_and_workspace_of_its_token(gateway: Gateway) -> None:
    """With connect alone account and workspace are the token's, and nothing full is shown."""
    async with await dial(gateway, token="ann", workspace="ws-1") as ann:
        session = (await ann.hear("hello"))["session"]

        assert (session["account"], session["workspace"]) == ("ann", "ws-1")
        assert "address" not in session["connection"]


@pytest.mark.parametrize(
    "query",
    [
        {"session": "of-my-choice"},
        {"workspace": "ws-2"},
        {"account": "bob"},
        {"service": "tv"},
        {"linger_ms": 5},
    ],
)
async def test_client_may_not_set_more(gateway: Gateway, query: dict[str, object]) -> None:
    """With connect alone nothing else can be chosen: 4507, and nothing is opened."""
    async with await dial(gateway, token="ann", params=query) as ann:
        assert (await ann.bye())["code"] == 4507
        assert not gateway.node.replica.sessions


@pytest.mark.parametrize(
    "token, query, body, names",
    [
        ("ws-1", {"nam": "x"}, {"nam": "x"}, "nam"),
        ("ws-1", {"linger_ms": -1}, {"linger_ms": -1}, "linger_ms"),
        ("ann", {"linger_ms": 5}, {"linger_ms": 5}, "linger_ms"),
        ("ws-1", {"workspace": "ws-2"}, {"workspace": "ws-2"}, "another workspace"),
    ],
)
async def test_refusal_says_what_rest_says(
    gateway: Gateway,
    token: str,
    query: dict[str, object],
    body: dict[str, object],
    names: str,
) -> None:
    """A refused socket is told the detail that REST gives, in its bye and in its close frame."""
    async with await dial(gateway, token=token, params=query) as talk, gateway.http(token) as http:
        bye = await talk.bye()
        rest = (await http.post("/v1/sessions", json=body)).json()

    assert bye["reason"] in (rest["code"], "bad_request")
    assert names in bye["detail"]
    assert names in rest["detail"]
    assert talk.socket.close_reason == f"{bye['reason']}: {bye['detail']}"[:123]


@pytest.mark.parametrize("token", ["reader", "nothing"])
async def test_without_the_scope_connect_nothing_is_opened(gateway: Gateway, token: str) -> None:
    """A token without connect opens no session: 4507."""
    async with await dial(gateway, token=token) as nobody:
        assert (await nobody.bye())["code"] == 4507


class TestLimits:
    """A gateway that takes two sessions and five messages at once."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Small limits."""
        return replace(settings, max_sessions=2, max_connections=3, messages_per_s=2.5)

    async def test_more_sessions_than_may_be_are_refused(self, gateway: Gateway) -> None:
        """One session too many gets 4506; those that are there stay."""
        async with await dial(gateway) as one, await dial(gateway) as two:
            await one.hear("hello")
            await two.hear("hello")
            async with await dial(gateway) as three:
                assert (await three.bye())["code"] == 4506
            await one.nothing()

    async def test_too_many_messages_are_cut(self, gateway: Gateway) -> None:
        """A client that talks without end gets 4006 and may come back later."""
        async with await dial(gateway) as ann:
            await ann.hear("hello")
            for _ in range(8):
                await ann.say("heartbeat")
            bye = await ann.bye()

            assert bye["code"] == 4006
            assert bye["retry_after_ms"] >= 250


# --- coming back


async def test_session_token_lets_its_client_back(gateway: Gateway, other: Gateway) -> None:
    """Whoever shows the session's token is that session again, on any node, without any login."""
    async with await dial(gateway, name="Ann") as ann:
        hello = await ann.hear("hello")
    session_id = hello["session"]["id"]
    await eventually(lambda: record(other, session_id).state == "away")
    token = hello["session_token"]
    async with await dial(other, token=None, session=session_id, session_token=token) as ann:
        again = await ann.hear("hello")

        assert again["session"]["id"] == session_id
        assert again["session"]["name"] == "Ann"
        assert "session_token" not in again
    async with await dial(
        other, token=None, subprotocols=("gateway.v1", f"session.{token}")
    ) as ann:
        assert (await ann.hear("hello"))["session"]["id"] == session_id
        assert ann.socket.subprotocol == "gateway.v1"


async def test_own_account_and_writers_attach(gateway: Gateway) -> None:
    """The same account, and whoever may write there, attach without the session's token."""
    async with await dial(gateway, token="ann") as ann:
        session_id = (await ann.hear("hello"))["session"]["id"]
    for token in ("ann", "ws-1"):
        async with await dial(gateway, token=token, session=session_id) as back:
            assert (await back.hear("hello"))["session"]["id"] == session_id


@pytest.mark.parametrize("token", ["bob", "ws-2", "reader"])
async def test_others_do_not_attach(gateway: Gateway, token: str) -> None:
    """Somebody else's session is refused like one that is not there: 4507."""
    async with await dial(gateway, token="ann") as ann:
        session_id = (await ann.hear("hello"))["session"]["id"]
        async with await dial(gateway, token=token, session=session_id) as thief:
            assert (await thief.bye())["code"] == 4507
        await ann.nothing()


async def test_wrong_session_token_is_refused(gateway: Gateway) -> None:
    """A token with another secret attaches to nothing: 4507."""
    async with await dial(gateway, token="ann") as ann:
        hello = await ann.hear("hello")
        forged = f"{hello['session']['id']}.{'A' * 43}"
        async with await dial(gateway, token=None, session_token=forged) as thief:
            assert (await thief.bye())["code"] == 4507


async def test_session_token_of_nothing_never_opens(gateway: Gateway) -> None:
    """An unknown session's token is refused for good (4511), also beside a token that may write."""
    for token in (None, "admin-key-of-the-tests"):
        async with await dial(gateway, token=token, session_token=f"gone.{'A' * 43}") as ann:
            assert (await ann.bye())["code"] == 4511


async def test_second_socket_displaces_the_first(gateway: Gateway, other: Gateway) -> None:
    """The newer connection is greeted first; then the older one gets 4505; the session stays."""
    for node in (gateway, other):
        async with await dial(gateway, session="one") as old:
            await old.hear("hello")
            async with await dial(node, session="one") as new:
                hello = await new.hear("hello")
                assert (await old.bye())["code"] == 4505
                assert record(node, "one").revision == hello["session"]["revision"]
                assert (await new.ask("watch", key="m"))["type"] == "ack"
                assert record(node, "one").is_connected


async def test_two_sockets_with_one_new_id_leave_one_connected(gateway: Gateway) -> None:
    """Of two clients that open the same id at once, one is displaced; none is refused."""
    talks = await asyncio.gather(*(dial(gateway, session="race") for _ in range(2)))
    ends = [asyncio.create_task(talk.ends()) for talk in talks]
    done, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=5 * S)

    assert [task.result()[0] for task in done] == [4505]
    assert record(gateway, "race").is_connected
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for talk in talks:
        await talk.socket.close()


# --- what is said


async def test_what_the_client_says_becomes_its_session(gateway: Gateway) -> None:
    """Watch, progress, update and streams are acknowledged, and shown by then."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        ack = await ann.ask("watch", key="movie/42", title="It", state="playing", position_ms=0)
        assert ack == {"type": "ack", "ref": "1", "revision": 2}
        assert record(gateway, "one").watch is not None
        assert "revision" not in await ann.ask("progress", position_ms=5000, ref="late")
        await ann.ask("update", changes={"name": "Ann", "labels": {"a": "b"}})
        await ann.ask("update", changes={"labels": {"c": "d"}, "client": {"product": "tv"}})
        await ann.ask("stream", key="t1", kind="transcode", state="running", data={"x": 1})
        await ann.ask("stream", key="t1", kind="transcode", state="paused")
        await ann.ask("unwatch")
        session = record(gateway, "one")
        assert (session.name, session.labels) == ("Ann", {"a": "b", "c": "d"})
        assert session.client is not None
        assert session.client.product == "tv"
        assert [stream.state for stream in session.streams] == ["paused"]
        assert session.watch is None
        await ann.ask("stream", key="t1", kind="transcode", state="stopped")
        assert not record(gateway, "one").streams
        await ann.nothing()


async def test_refused_messages_change_nothing(gateway: Gateway) -> None:
    """What makes no sense is an error with its ref; the socket stays."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        for kind, fields, code in (
            ("progress", {"position_ms": 1}, "not_watching"),
            ("saved", {}, "not_closing"),
            ("saving", {}, "not_closing"),
            ("need_more", {"ms": 5}, "not_closing"),
            ("need_more", {"ms": -1}, "invalid"),
            ("stream", {"key": "x", "kind": "y", "state": "stopped"}, "unknown_stream"),
            ("watch", {"title": "no key"}, "invalid"),
            ("update", {"changes": {"account": "eve"}}, "invalid"),
            ("update", {"changes": {"attributes": {"a": "x" * 5000}}}, "invalid"),
            ("update", {"changes": {"attributes": {"a": "\0"}}}, "invalid"),
            ("subscribe", {"since": "nonsense"}, "bad_position"),
        ):
            answer = await ann.ask(kind, **fields)
            assert (answer["type"], answer.get("code")) == ("error", code), (kind, answer)
        assert record(gateway, "one").revision == 1


async def test_unknown_types_and_fields_are_ignored(gateway: Gateway) -> None:
    """A newer client's words do no harm: no answer, no error."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        await ann.say("dance", ref="x")
        await ann.say("heartbeat", since="yesterday")

        assert await ann.hear() == {"type": "ack"}


async def test_repeated_unique_ref_is_done_once(gateway: Gateway) -> None:
    """The same long ref over another connection changes nothing more; a short one is no name."""
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        first = await ann.ask("watch", key="a", ref="abcdef012345-1")
        await ann.ask("unwatch", ref="1")
    async with await dial(gateway, session="one") as ann:
        await ann.hear("hello")
        await ann.ask("watch", key="a", ref="abcdef012345-1")
        assert record(gateway, "one").watch is None
        await ann.ask("watch", key="b", ref="1")
        assert record(gateway, "one").is_watching
    assert first["revision"] == 2


async def test_displaced_socket_cannot_speak_for_the_session(gateway: Gateway) -> None:
    """What an old socket says after its successor came changes nothing."""
    async with await dial(gateway, session="one") as old:
        await old.hear("hello")
        async with await dial(gateway, session="one") as new:
            await asyncio.gather(old.say("watch", key="stale"), new.hear("hello"))
            await old.ends()
            await new.ask("heartbeat")
            watch = record(gateway, "one").watch
            assert watch is None or record(gateway, "one").revision == 3  # said before it was old


async def test_stream_ended_by_others_is_told(gateway: Gateway) -> None:
    """The client hears that somebody ended its stream."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        await ann.ask("stream", key="t1", kind="transcode")
        assert (await http.delete("/v1/sessions/one/streams/t1")).status_code == 200

        assert await ann.hear() == {"type": "stop_stream", "key": "t1"}


async def test_stream_ended_by_others_is_told_after_a_repeated_stop(gateway: Gateway) -> None:
    """A client that repeats its own stop hears of a later one, and never of its own."""
    async with await dial(gateway, session="one") as ann, gateway.http() as http:
        await ann.hear("hello")
        await ann.ask("stream", key="t1", kind="transcode")
        for _ in range(2):
            await ann.ask("stream", key="t1", kind="transcode", state="stopped", ref="stop-0123456")
        await ann.ask("stream", key="t1", kind="transcode")
        assert "stop_stream" not in {message["type"] for message in ann.heard}
        assert (await http.delete("/v1/sessions/one/streams/t1")).status_code == 200

        assert await ann.hear() == {"type": "stop_stream", "key": "t1"}


async def test_messages_reach_their_recipients(gateway: Gateway, other: Gateway) -> None:
    """A message to a session, its workspace or all is heard once, whichever node it came to."""
    async with (
        await dial(gateway, session="one", workspace="ws-1") as ann,
        await dial(other, session="two", workspace="ws-2") as bob,
    ):
        await ann.hear("hello")
        await bob.hear("hello")
        for to in (Recipients(), Recipients(workspace="ws-1"), Recipients(session="one")):
            await other.node.publish(Message(to=to, topic="news", body={"n": 1}, sender="me"))
        for _ in range(3):
            heard = await ann.hear("message")
            assert (heard["topic"], heard["body"], heard["sender"]) == ("news", {"n": 1}, "me")
        await bob.hear("message")
        await bob.nothing()
        await ann.nothing()
