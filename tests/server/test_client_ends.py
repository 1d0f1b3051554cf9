"""The client that is a session, at its edges: warnings, goodbyes, tokens, bounds, bad gateways."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from itertools import count

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from gateway.client import (
    Closed,
    CloseExtendedNotice,
    ClosingNotice,
    LinkState,
    MessageNotice,
    connect,
    errors,
)
from gateway.client import session_runner as client_runner
from tests.server.scripted import Peer, accept_all, ending, greet, jwt, scripted
from tests.support import MS, eventually

LATER = "2026-01-02T03:04:05.678Z"
CLOSING = {"closes_at": LATER, "in_ms": 2000, "extend_max_ms": 5000, "reason": "maintenance"}


async def test_warned_client_saves_and_is_closed() -> None:
    """A handler hears the warning, asks for more, says that it has saved, and the session ends."""
    heard: list[object] = []

    async def warn(peer: Peer) -> None:
        await peer.hello()
        await peer.say("closing", **CLOSING)
        assert await peer.accept() == {"type": "saving"}
        assert await peer.accept() == {"type": "need_more", "ms": 4000}
        await peer.say("close_extended", closes_at=LATER, in_ms=4000)
        assert await peer.accept() == {"type": "saved"}
        await peer.bye(4500, "maintenance")

    async def save(notice: ClosingNotice) -> None:
        heard.append(notice)
        assert me.session["state"] == "closing"
        assert me.session["closing"]["reason"] == "maintenance"
        await me.saving()
        await me.need_more(4000)
        await me.saved()

    async with (
        scripted(warn) as gateway,
        connect(gateway.url, on_closing=save, on_close_extended=heard.append) as me,
    ):
        assert (await me.wait_closed()).code == 4500
        await eventually(lambda: len(heard) == 2)

    assert heard == [
        ClosingNotice(closes_at=LATER, in_ms=2000, extend_max_ms=5000, reason="maintenance"),
        CloseExtendedNotice(closes_at=LATER, in_ms=4000),
    ]


async def test_cancelled_close_leaves_no_trace() -> None:
    """After the warning is taken back the session shows no pending close."""
    cancelled: list[object] = []

    async def reconsider(peer: Peer) -> None:
        await peer.hello()
        await peer.say("closing", **CLOSING)
        await peer.say("close_cancelled")
        await peer.stay()

    async with (
        scripted(reconsider) as gateway,
        connect(gateway.url, on_close_cancelled=cancelled.append) as me,
    ):
        await eventually(lambda: cancelled)

        assert me.session["state"] == "connected"
        assert "closing" not in me.session
        assert "closes_at" not in me.session


async def test_failing_handler_harms_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that raises is logged; the next notice is handled and the session goes on."""
    heard: list[MessageNotice] = []

    async def talk(peer: Peer) -> None:
        await peer.hello()
        await peer.say("from_the_future", n=1)
        await peer.say("stop_stream", key="t1")
        await peer.say("message", topic="news", body={"n": 1}, colour="blue")
        await peer.accept()
        await peer.stay()

    def fail(_: object) -> None:
        raise ValueError("my mistake")

    async with (
        scripted(talk) as gateway,
        connect(gateway.url, on_stop_stream=fail, on_message=heard.append) as me,
    ):
        await eventually(lambda: heard)
        await me.unwatch()

    assert heard == [MessageNotice(topic="news", body={"n": 1})]
    assert "my mistake" in caplog.text


async def test_overflowing_notices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notices that no handler takes are kept up to a bound; what is dropped is counted."""
    monkeypatch.setattr(client_runner, "NOTICES_MAX", 2)
    go_on, heard = asyncio.Event(), list[str]()

    async def flood(peer: Peer) -> None:
        await peer.hello()
        for n in range(5):
            await peer.say("message", topic=str(n))
            await peer.accept()
        await peer.stay()

    async def dawdle(notice: MessageNotice) -> None:
        await go_on.wait()
        heard.append(notice.topic)

    async with scripted(flood) as gateway, connect(gateway.url, on_message=dawdle) as me:
        for _ in range(5):
            await me.unwatch()
        go_on.set()
        await eventually(lambda: len(heard) == 3)

        assert me.notices_dropped == 2
        assert heard == ["0", "1", "2"]


@pytest.mark.parametrize("answered", [True, False])
async def test_leaving_is_final(answered: bool) -> None:
    """After leave() the client does not come back, even if the gateway only drops it."""

    async def let_go(peer: Peer) -> None:
        await peer.hello()
        if answered:
            await peer.hear()
            await peer.bye(4500, "left")
        else:
            await peer.accept()
            peer.drop()

    async with scripted(let_go) as gateway, connect(gateway.url) as me:
        await me.leave()

        assert me.closed
        assert me.closed.code == 4500
        assert len(gateway.peers) == 1
        await me.leave()


async def test_leave_that_was_cut_off_is_said_again() -> None:
    """A leave() that a lost connection cut off is sent again; the closed session answers it."""

    async def break_off(peer: Peer) -> None:
        await peer.hello()
        await peer.hear()
        peer.drop()

    async def refuse(peer: Peer) -> None:
        await peer.bye(4511, "session_closed")

    async with scripted(break_off, refuse) as gateway, connect(gateway.url) as me:
        await me.leave()

        assert me.closed == Closed(4511, "session_closed", 0)


async def test_leaving_the_block_closes_cleanly() -> None:
    """Leaving the block is a clean close, which the gateway can tell from a lost client."""
    async with scripted(greet) as gateway:
        async with connect(gateway.url):
            pass
        socket = gateway.peers[0].socket
        await socket.wait_closed()

        assert socket.close_code == 1000


@pytest.mark.parametrize("reopen", [True, False])
async def test_session_that_ended_meanwhile_is_reopened_if_wanted(reopen: bool) -> None:
    """Who comes back to a session that has ended ends too, or with reopen=True opens another."""

    async def refuse(peer: Peer) -> None:
        assert peer.query["session_token"] == "s1.secret"
        await peer.bye(4511)

    async def anew(peer: Peer) -> None:
        assert peer.query == {"name": "Ann"}
        await peer.hello(id="s2", number=2, session_token="s2.secret")
        assert (await peer.hear())["key"] == "m/1"
        await peer.stay()

    async def before(peer: Peer) -> None:
        await peer.hello()
        await peer.accept()
        peer.drop()

    async with (
        scripted(before, refuse, anew) as gateway,
        connect(gateway.url, name="Ann", reopen=reopen) as me,
    ):
        await me.watch("m/1")
        if reopen:
            await eventually(lambda: me.session.get("watch") and me.id == "s2")
        else:
            assert (await me.wait_closed()).code == 4511


async def test_expired_token_is_replaced_before_coming_back() -> None:
    """After 4005 a token function is asked again; a fixed token is the end."""
    fresh = count()

    async def token() -> str:
        return f"T{next(fresh)}"

    async with (
        scripted(ending(4005), greet) as gateway,
        connect(gateway.url, token=token),
    ):
        await eventually(lambda: len(gateway.peers) == 2)
        assert [peer.authorization for peer in gateway.peers] == ["Bearer T0", "Bearer T1"]

    async with scripted(ending(4005)) as gateway, connect(gateway.url, token="T") as me:
        assert (await me.wait_closed()).code == 4005
        with pytest.raises(errors.TokenExpired):
            await me.unwatch()


async def test_token_is_refreshed_on_the_open_socket() -> None:
    """Before a JWT expires a fresh one is sent on the same connection."""
    tokens = [jwt(exp=time.time() + 200 * MS), jwt(exp=time.time() + 3600)]
    asked = iter(tokens)

    async def token() -> str:
        return next(asked)

    async def script(peer: Peer) -> None:
        await peer.hello()
        assert await peer.hear() == {"type": "token", "token": tokens[1]}
        await peer.say("ack", ref=peer.ref)
        await peer.say("message", topic="done")
        await peer.stay()

    done: list[object] = []
    async with (
        scripted(script) as gateway,
        connect(gateway.url, token=token, on_message=done.append),
    ):
        await eventually(lambda: done)

    assert gateway.peers[0].authorization == f"Bearer {tokens[0]}"


async def test_failing_token_function_is_no_end() -> None:
    """A token function that fails for a while is asked again; a refusal that it raises is final."""

    def answers(*results: str | Exception) -> Callable[[], Awaitable[str]]:
        waiting = iter(results)

        async def token() -> str:
            result = next(waiting)
            if isinstance(result, Exception):
                raise result
            return result

        return token

    async with scripted(greet) as gateway:
        async with connect(gateway.url, token=answers(ValueError("away"), "T")):
            assert gateway.peers[0].authorization == "Bearer T"
        with pytest.raises(errors.Forbidden, match="locked"):
            await connect(gateway.url, token=answers(errors.Forbidden("locked"))).__aenter__()


async def test_gateway_that_is_not_there_is_unavailable() -> None:
    """Without a gateway the first connection fails in time; open_within_s=0 is one attempt."""
    async with scripted() as gateway:
        pass
    with pytest.raises(errors.Unavailable):
        await connect(gateway.url, open_within_s=0).__aenter__()


async def test_gateway_that_stays_away_is_given_up() -> None:
    """A client that cannot come back for give_up_after_s has ended."""

    async def refuse(peer: Peer) -> None:
        await peer.bye(4008, retry_after_ms=60_000)

    async with (
        scripted(ending(4001), refuse) as gateway,
        connect(gateway.url, give_up_after_s=50 * MS) as me,
    ):
        assert await me.wait_closed() == Closed(4008, "", 60_000)
        assert me.state == LinkState.CLOSED
        with pytest.raises(errors.Unavailable):
            await me.unwatch()


async def test_bad_first_message_is_come_back_from() -> None:
    """A gateway that starts with nonsense or no hello is left and tried again."""

    async def nonsense(peer: Peer) -> None:
        await peer.socket.send("{")
        await peer.stay()

    async def no_hello(peer: Peer) -> None:
        await peer.say("ack")
        await peer.stay()

    async def later_nonsense(peer: Peer) -> None:
        await peer.hello()
        await peer.say("ack", ref=7)
        await peer.stay()

    async with (
        scripted(nonsense, no_hello, later_nonsense, accept_all) as gateway,
        connect(gateway.url) as me,
    ):
        await eventually(lambda: len(gateway.peers) == 4)
        await me.unwatch()
        assert [peer.socket.close_code for peer in gateway.peers[:3]] == [1002, 1002, 1002]


async def test_refusal_before_the_handshake_is_understood() -> None:
    """An HTTP 503 is come back from, a problem that is final is raised as its error."""
    problem = b'{"code":"forbidden","detail":"Bad Origin.","status":403}'
    replies = iter(
        [
            (HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "0"}, b"<html>busy</html>"),
            (HTTPStatus.FORBIDDEN, {"Content-Type": "application/problem+json"}, problem),
        ]
    )

    def refuse(socket: ServerConnection, _: Request) -> Response:
        status, headers, body = next(replies)
        response = socket.respond(status, "")
        for name, value in headers.items():
            del response.headers[name]
            response.headers[name] = value
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(body))
        response.body = body
        return response

    async def never(_: ServerConnection) -> None:
        raise AssertionError

    async with serve(never, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(errors.Forbidden, match="Bad Origin"):
            await connect(f"ws://127.0.0.1:{port}").__aenter__()


async def test_bounds_are_kept_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that are too long or too many are refused at once, and the session goes on."""
    monkeypatch.setattr(client_runner, "CALLS_MAX", 1)

    async def slow(peer: Peer) -> None:
        await peer.hello()
        assert (await peer.hear())["key"] == "m/1"
        await overloaded.wait()
        await peer.say("ack", ref=peer.ref)
        await peer.stay()

    overloaded = asyncio.Event()
    async with scripted(slow) as gateway, connect(gateway.url) as me:
        with pytest.raises(errors.PayloadTooLarge):
            await me.update(attributes={"a": "x" * 65_536})
        watching = asyncio.create_task(me.watch("m/1"))
        await eventually(lambda: len(gateway.peers) == 1)
        await asyncio.sleep(0)
        with pytest.raises(errors.Overloaded):
            await me.unwatch()
        overloaded.set()
        await watching


@pytest.mark.parametrize(
    "url", ["ftp://host", "host:80", "http://", "http://h?token=T", "http://u:p@h", "http://h:x"]
)
async def test_address_that_is_none_is_refused(url: str) -> None:
    """Only an http or ws address with a host, and nothing secret in it, is a gateway's."""
    with pytest.raises(errors.Invalid):
        connect(url)
