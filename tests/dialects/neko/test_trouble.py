"""What happens when things meet in time, or go wrong."""

import asyncio
import json
import logging

import pytest
from msgspec.structs import replace

from gateway.core.command import Close, Connect, Kick, RequestClose, Update
from gateway.core.errors import AlreadyConnected, LimitExceeded, RevisionMismatch, StoreUnavailable
from gateway.core.model import Session
from gateway.dialects.neko import rooms, service, session_socket
from gateway.dialects.neko.schema import NekoSettings
from gateway.realtime.contest import attach_when_free
from tests.dialects.neko.client import Neko
from tests.dialects.neko.conftest import PASSWORD, Gateway
from tests.nodes import blank
from tests.support import S, eventually


def session_id(client: Neko) -> str:
    """The gateway's id of a client's session."""
    return (client.token or "").partition(".")[0]


def test_times_are_those_of_neko() -> None:
    """Heartbeats come every ten seconds, a loss is announced after five."""
    assert (session_socket.HEARTBEAT_S, service.GRACE_MS) == (10.0, 5_000)


async def test_of_two_logins_at_once_one_wins(gateway: Gateway) -> None:
    """Two logins of one member at once end with one session, and no error of ours."""
    answers = await asyncio.gather(
        *(gateway.client().post("/api/login", username="mia", password=PASSWORD) for _ in range(4))
    )

    assert {status for status, _ in answers} <= {200, 422}
    mine = [one for one in gateway.node.replica.sessions.values() if one.account == "mia"]
    assert len(mine) == 1


async def test_session_that_is_closing_takes_no_socket(gateway: Gateway) -> None:
    """While a delayed close is pending nobody may connect again."""
    mia, node = await gateway.login("mia"), gateway.node
    async with mia.connected():
        at = node.clock.now_ms() + 60_000
        await node.apply(session_id(mia), RequestClose(at=at))
        async with mia.socket() as late:
            ended = await late.event("system/disconnect")
            assert ended == {"message": "connection disabled"}


async def test_client_that_may_come_while_its_session_closes_stays(gateway: Gateway) -> None:
    """A close that was asked for without a client lets it in once; neko warns of nothing."""
    mia, node = await gateway.login("mia"), gateway.node
    at = node.clock.now_ms() + 60_000
    await node.apply(session_id(mia), RequestClose(at=at))
    async with mia.connected() as socket:
        assert await socket.is_quiet()
        assert node.replica.sessions[session_id(mia)].is_connected


async def test_contest_of_a_session_is_answered_by_its_client(gateway: Gateway) -> None:
    """A newcomer is refused within seconds if the first client lives, and need not wait longer."""
    mia, node = await gateway.login("mia"), gateway.node

    async def attach() -> Session:
        raise AlreadyConnected

    async with mia.connected() as socket:
        session = node.replica.sessions[session_id(mia)]
        async with asyncio.timeout(5 * S):
            with pytest.raises(AlreadyConnected):
                await attach_when_free(node, session, attach, patience_s=60 * S)
        assert await socket.is_quiet()


async def test_session_that_ends_while_a_socket_comes_is_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket whose session is closed, kicked or taken before its greeting hears why."""
    mia, node = await gateway.login("mia"), gateway.node
    apply = node.apply

    for command, message in ((Kick(), None), (Close(), "session deleted")):

        async def meanwhile(known: str, wanted: object, *, op: str | None = None) -> Session:
            session = await apply(known, wanted, op=op)  # type: ignore[arg-type]
            if type(wanted).__name__ == "Connect":
                await apply(known, command)  # noqa: B023
            return session

        monkeypatch.setattr(node, "apply", meanwhile)
        async with mia.socket() as socket:
            seen, code = await socket.ended()
            assert code == 1006
            told = [payload["message"] for _, payload in seen]
            assert told == ([message] if message else [])
        monkeypatch.undo()


async def test_gateway_that_is_full_opens_no_session(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When there are as many sessions as may be, a login is told so."""
    full = replace(gateway.context.settings, max_sessions=1)
    await gateway.node.open(blank("x"))
    found = service.service_of(gateway.context)
    monkeypatch.setattr(found, "context", replace(gateway.context, settings=full))

    status, body = await gateway.client().post("/api/login", username="mia", password=PASSWORD)

    assert (status, body["message"]) == (422, "There are too many sessions.")


async def test_profiles_that_are_changed_at_once_are_all_kept(gateway: Gateway) -> None:
    """Changes of different flags at the same time do not undo each other."""
    root, mia = await gateway.login("root"), await gateway.login("mia")
    flags = ("can_watch", "can_share_media", "sends_inactive_cursor")

    answers = await asyncio.gather(
        *(root.post("/api/members/mia", **{flag: False}) for flag in flags)
    )

    assert [status for status, _ in answers] == [204] * 3
    profile = (await mia.get("/api/whoami"))[1]["profile"]
    assert [profile[flag] for flag in flags] == [False] * 3


async def test_store_that_is_away_is_told_in_nekos_words(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that cannot be served right now is a 503 with neko's body; a fault is a 500."""
    mia = await gateway.login("mia")
    failing: list[Exception] = [StoreUnavailable()]

    async def fails(*_: object, **__: object) -> Session:
        raise failing[-1]

    monkeypatch.setattr(gateway.node, "apply", fails)
    response = await mia.send("POST", "/api/logout")
    assert (response.status_code, response.json()["code"]) == (503, 503)
    assert response.headers["retry-after"] == "1"
    for failure, status in (
        (RevisionMismatch(), 503),  # others keep changing it
        (LimitExceeded(), 422),
        (ValueError("a bug"), 500),
    ):
        failing.append(failure)
        response = await mia.send("POST", "/api/profile", json={"name": "x"})
        assert (response.status_code, response.json()["code"]) == (status, status)


async def test_bug_in_a_socket_is_logged_and_ends_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails unexpectedly ends one connection, without a word, and is logged."""
    mia = await gateway.login("mia")

    def fails(*_: object) -> bool:
        raise ValueError("a bug")

    monkeypatch.setattr(service.Service, "merciful", fails)
    with caplog.at_level(logging.ERROR):
        async with mia.socket() as socket:
            assert await socket.ended() == ([], 1006)
    assert "a socket failed" in caplog.text


async def test_client_may_speak_binary_and_log(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """JSON in a binary message is heard; a client's log lines go to ours, cut short."""
    mia = await gateway.login("mia")

    with caplog.at_level(logging.INFO):
        async with mia.connected() as socket:
            lines = [{"level": "info", "fields": {}, "message": "hello" + "o" * 9_000}]
            message = {"event": "system/logs", "payload": lines}
            await socket.connection.send(json.dumps(message).encode())
            [line] = await eventually(
                lambda: [found for found in caplog.records if found.msg == "a client logs"]
            )
    assert vars(line)["account"] == "mia"
    assert vars(line)["text"].startswith("hello")
    assert len(vars(line)["text"]) <= session_socket.LOG_LINE_MAX


async def test_displaced_socket_does_not_speak_any_more(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a socket says after another took over changes nothing."""
    monkeypatch.setattr("gateway.connections.registry.HANDOVER_ELSEWHERE_S", S)
    mia, node = await gateway.login("mia"), gateway.node

    async with mia.connected() as socket:
        session = await node.find(session_id(mia))
        assert session.connection is not None
        elsewhere = replace(session.connection, id="other", node="b:1")
        await node.apply(session.id, Connect(connection=elsewhere))
        await socket.say("control/request", {})
        await node.apply(session.id, Update(labels={"a": "b"}))
        seen, _ = await socket.ended()
        assert [name for name, _ in seen] == ["system/disconnect"]
        assert not node.documents.get("neko.room", "")


async def test_rooms_that_nobody_changed_are_forgotten(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rooms do not pile up: those of which nothing is known go when there are many."""
    monkeypatch.setattr(rooms, "ROOMS_KEPT", 3)
    known = rooms.Rooms(gateway.node, NekoSettings())
    known.room("kept").admins.add("s1")
    for number in range(10):
        known.room(f"ws-{number}")

    assert known.room("kept").admins == {"s1"}
    assert len(known._rooms) <= 4  # noqa: SLF001


async def test_document_of_another_version_is_taken_for_none(gateway: Gateway) -> None:
    """A room or member that cannot be read does no harm: the defaults hold."""
    node, root = gateway.node, await gateway.login("root")

    await node.documents.write("neko.room", "", lambda _: {"settings": {"private_mode": 7}})
    await node.documents.write("neko.member", "mia", lambda _: {"scopes": 7})
    assert not (await root.get("/api/room/settings"))[1]["private_mode"]
    await gateway.login("mia")
