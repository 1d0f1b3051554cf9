"""What a client of neko relies on, claim by claim, over real sockets."""

from contextlib import AsyncExitStack

import pytest

from tests.dialects.neko.client import Neko
from tests.dialects.neko.conftest import ADMIN_KEY, Gateway, Start
from tests.support import S

GRACE_S = 0.3 * S


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lost client be announced sooner than after neko's five seconds."""
    monkeypatch.setattr("gateway.dialects.neko.service.GRACE_MS", int(GRACE_S * 1000))


async def state_of(client: Neko, name: str) -> dict[str, object]:
    """Return a session's state as an admin reads it."""
    status, body = await client.get(f"/api/sessions/{name}")
    assert status == 200, body
    found: dict[str, object] = body["state"]
    return found


async def test_token_is_shown_once_and_wrong_logins_look_alike(gateway: Gateway) -> None:
    """Login alone shows the token; an unknown member and a wrong password get the same bytes."""
    mia = await gateway.login("mia")

    status, me = await mia.get("/api/whoami")
    assert status == 200
    assert (me["id"], me["profile"]["name"], "token" in me) == ("mia", "mia", False)
    assert me["state"] == {"is_connected": False, "is_watching": False}
    _, listed = await mia.get("/api/sessions")
    assert listed == [me]

    nobody = gateway.client()
    unknown = await nobody.send("POST", "/api/login", json={"username": "x", "password": "y"})
    wrong = await nobody.send("POST", "/api/login", json={"username": "mia", "password": "y"})
    assert (unknown.status_code, unknown.content) == (wrong.status_code, wrong.content)
    assert unknown.json() == {"code": 401, "message": "Unauthorized"}


async def test_admin_routes_tell_who_asks_before_what_exists(gateway: Gateway) -> None:
    """A member may list but not read one; an admin gets neko's statuses for unknown and own ids."""
    mia, root = await gateway.login("mia"), await gateway.login("root")

    assert (await mia.get("/api/sessions"))[0] == 200
    for name in ("mia", "root", "nobody"):
        assert (await mia.get(f"/api/sessions/{name}"))[0] == 403
    unknown = {"message": "session not found"}
    assert await root.get("/api/sessions/nobody") == (404, {"code": 404, **unknown})
    assert await root.delete("/api/sessions/nobody") == (400, {"code": 400, **unknown})
    assert await root.post("/api/sessions/nobody/disconnect") == (400, {"code": 400, **unknown})
    own = {"code": 400, "message": "cannot delete own session"}
    assert await root.delete("/api/sessions/root") == (400, own)
    assert await root.post("/api/sessions/root/disconnect") == (204, None)


@pytest.mark.parametrize(
    "token, message",
    [
        (None, "no authentication provided"),
        ("nonsense", "session not found"),
        (f"nobody.{'x' * 43}", "session not found"),
        (ADMIN_KEY, "connection disabled"),
    ],
)
async def test_socket_without_a_session_is_told_why(
    gateway: Gateway, token: str | None, message: str
) -> None:
    """A socket that may not connect completes the handshake, is told why and ends as 1006."""
    client = gateway.client()
    client.token = token

    async with client.socket() as socket:
        assert await socket.ended() == ([("system/disconnect", {"message": message})], 1006)


@pytest.mark.parametrize("name", ["root", "mia"])
async def test_first_messages_are_the_picture_then_its_own_state(
    gateway: Gateway, name: str
) -> None:
    """A new client hears init, as an admin what admins hear, then that it is connected itself."""
    client = await gateway.login(name)

    async with client.socket() as socket:
        init = await socket.event("system/init")
        assert init["session_id"] == name
        assert init["sessions"][name]["state"]["is_connected"]
        assert init["control_host"] == {"id": "", "has_host": False}
        assert init["screen_size"].keys() == {"width", "height", "rate"}
        assert init["settings"]["merciful_reconnect"]
        assert init["webrtc"] == {"videos": []}
        assert (init["touch_events"], init["screencast_enabled"]) == (False, False)
        if name == "root":
            admin = await socket.event("system/admin")
            assert admin["broadcast_status"] == {"is_active": False}
        state = await socket.event("session/state")
        assert state.pop("id") == name
        assert state == init["sessions"][name]["state"]
        for plugin in ("chat/init", "filetransfer/update", "openinapp/init"):
            assert not (await socket.event(plugin))["enabled"]
        assert await socket.is_quiet()


async def test_heartbeat_comes_regularly_without_a_payload(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat has no payload key and comes again and again, whatever else is said."""
    monkeypatch.setattr("gateway.dialects.neko.session_socket.HEARTBEAT_S", 0.05 * S)
    mia = await gateway.login("mia")

    async with mia.connected() as socket:
        for _ in range(3):
            assert await socket.frame() == {"event": "system/heartbeat"}


@pytest.mark.usefixtures("short_grace")
async def test_client_that_is_back_in_time_was_never_away(gateway: Gateway) -> None:
    """A lost client that returns within the grace keeps control; others see one newer state."""
    mia, bo = await gateway.login("mia"), await gateway.login("bo")
    root = await gateway.login("root")

    async with bo.connected() as watcher:
        async with mia.connected() as socket:
            before = (await watcher.event("session/state"))["connected_since"]
            await socket.say("control/request", {})
            assert (await watcher.event("control/host"))["host_id"] == "mia"
            socket.abort()
        assert (await state_of(root, "mia"))["is_connected"]
        async with mia.socket() as again:
            init = await again.event("system/init")
            assert init["control_host"]["host_id"] == "mia"
            state = await watcher.event("session/state")
            assert (state["id"], state["is_connected"]) == ("mia", True)
            assert state["connected_since"] > before
            with pytest.raises(TimeoutError):
                await watcher.frame(within=2 * GRACE_S)


@pytest.mark.usefixtures("short_grace")
async def test_client_that_stays_away_is_announced_after_the_grace(gateway: Gateway) -> None:
    """A lost client is announced after the grace: first that it has no control, then its state."""
    mia, bo = await gateway.login("mia"), await gateway.login("bo")

    async with bo.connected() as watcher:
        async with mia.connected() as socket:
            await watcher.event("session/state")
            await socket.say("control/request", {})
            await watcher.event("control/host")
            socket.abort()
        assert await watcher.event("control/host") == {"id": "mia", "has_host": False}
        state = await watcher.event("session/state")
        assert (state["id"], state["is_connected"]) == ("mia", False)
        assert "not_connected_since" in state
        assert "connected_since" not in state
        async with mia.connected():
            assert (await watcher.event("session/state"))["is_connected"]
            assert await watcher.is_quiet()  # control that was lost does not come back


@pytest.mark.parametrize("code, at_once", [(1000, True), (1001, True), (1011, False)])
async def test_only_an_orderly_close_is_announced_at_once(
    gateway: Gateway, code: int, at_once: bool
) -> None:
    """1000 and 1001 are announced at once, every other end waits for the grace."""
    mia, bo = await gateway.login("mia"), await gateway.login("bo")

    async with bo.connected() as watcher:
        async with mia.connected() as socket:
            await watcher.event("session/state")
            await socket.connection.close(code)
        if at_once:
            assert not (await watcher.event("session/state"))["is_connected"]
        else:
            assert await watcher.is_quiet()
            session = await gateway.context.node.find(mia.token.partition(".")[0])  # type: ignore[union-attr]
            assert session.settles_at is not None


async def test_second_socket_takes_over_after_it_was_greeted(gateway: Gateway) -> None:
    """Of two sockets with one token the old one goes, once the new one has its picture."""
    mia, bo = await gateway.login("mia"), await gateway.login("bo")

    async with bo.connected() as watcher, mia.connected() as old:
        await watcher.event("session/state")
        async with mia.socket() as new:
            assert await old.until("system/disconnect") == [
                ("system/disconnect", {"message": "connection replaced"})
            ]
            assert (await new.greeted())["session_id"] == "mia"
            assert (await old.ended())[1] == 1006
            assert (await watcher.event("session/state"))["is_connected"]
            assert await watcher.is_quiet()
            assert (await bo.get("/api/stats"))[1]["total_users"] == 2
            assert await new.is_quiet()


async def test_deleted_session_is_gone_for_everybody(gateway: Gateway) -> None:
    """The victim is told; others hear that it left and then that it is gone; its token is dead."""
    root, mia, bo = [await gateway.login(name) for name in ("root", "mia", "bo")]

    async with bo.connected() as watcher, mia.connected() as victim:
        await watcher.event("session/state")
        assert await root.delete("/api/sessions/mia") == (204, None)
        assert await victim.ended() == (
            [("system/disconnect", {"message": "session deleted"})],
            1006,
        )
        state = await watcher.event("session/state")
        assert (state["id"], state["is_connected"]) == ("mia", False)
        assert await watcher.event("session/deleted") == {"id": "mia"}
        assert (await mia.get("/api/whoami"))[0] == 401


async def test_disconnected_session_keeps_its_token(gateway: Gateway) -> None:
    """A kick ends the connection at once and nothing else: the client may come back."""
    root, mia, bo = [await gateway.login(name) for name in ("root", "mia", "bo")]

    async with bo.connected() as watcher:
        async with mia.connected() as victim:
            await watcher.event("session/state")
            assert await root.post("/api/sessions/mia/disconnect") == (204, None)
            seen, code = await victim.ended()
            assert seen[-1] == ("system/disconnect", {"message": "session disconnected"})
            assert code == 1006
        assert not (await watcher.event("session/state"))["is_connected"]
        assert (await mia.get("/api/whoami"))[0] == 200
        async with mia.connected():
            assert (await watcher.event("session/state"))["is_connected"]


async def test_member_who_may_not_log_in_is_cut(gateway: Gateway) -> None:
    """The profile comes first, then the end; REST and sockets refuse from then on."""
    root, mia, bo = [await gateway.login(name) for name in ("root", "mia", "bo")]

    async with bo.connected() as watcher, mia.connected() as victim:
        await watcher.event("session/state")
        assert (await root.post("/api/members/mia", can_login=False))[0] == 204
        profile = await watcher.event("session/profile")
        assert (profile["id"], profile["can_login"], profile["plugins"]) == ("mia", False, {})
        assert not (await watcher.event("session/state"))["is_connected"]
        seen, code = await victim.ended()
        assert [name for name, _ in seen] == ["session/profile", "system/disconnect"]
        assert (seen[-1][1]["message"], code) == ("profile changed", 1006)
    assert await mia.get("/api/whoami") == (
        403,
        {"code": 403, "message": "login is disabled for this session"},
    )
    async with mia.socket() as socket:
        assert (await socket.event("system/disconnect"))["message"] == "session login disabled"


async def test_second_login_replaces_one_who_is_away_only(gateway: Gateway) -> None:
    """Offline: deleted, created, the old token is dead. Online: 422 and nobody hears anything."""
    mia, bo = await gateway.login("mia"), await gateway.login("bo")

    async with bo.connected() as watcher:
        again = await gateway.login("mia")
        assert await watcher.event("session/deleted") == {"id": "mia"}
        created = await watcher.event("session/created")
        assert created["id"] == "mia"
        assert created["state"] == {"is_connected": False, "is_watching": False}
        assert (await mia.get("/api/whoami"))[0] == 401
        assert (await again.get("/api/whoami"))[0] == 200
        async with again.connected():
            await watcher.event("session/state")
            answer = await mia.post("/api/login", username="mia", password="correct horse")
            assert answer == (422, {"code": 422, "message": "session already connected"})
            assert await watcher.is_quiet()


async def test_restarted_server_still_knows_its_sessions(start: Start) -> None:
    """The token is good after a restart; a session that was not connected is as it was."""
    async with start() as first:
        mia = await first.login("mia")
    async with start() as second:
        mia.url = second.url
        status, me = await mia.get("/api/whoami")
        assert (status, me["id"]) == (200, "mia")
        assert me["state"] == {"is_connected": False, "is_watching": False}


async def test_nonsense_is_passed_over(gateway: Gateway) -> None:
    """Malformed and unknown messages get no answer, and the connection survives them."""
    mia = await gateway.login("mia")

    async with mia.connected() as socket:
        for text in ("", "nonsense", "[]", "{}", '{"event":7}', '{"event":"no/such"}', "[" * 9999):
            await socket.connection.send(text)
        await socket.connection.send(b"\xff\x00")
        for event in ("send/unicast", "send/broadcast", "control/request", "system/logs", "x" * 99):
            await socket.say(event)
            await socket.say(event, None)
            await socket.say(event, 7)
        await socket.say("client/heartbeat")
        await socket.say("send/unicast", {"receiver": "nobody", "subject": "s", "body": 1})
        await socket.say("send/unicast", {"receiver": "mia", "subject": "s", "body": 1})
        seen = await socket.until("send/unicast")
        assert [name for name, _ in seen if name != "control/host"] == ["send/unicast"]


async def test_messages_carry_their_true_sender(gateway: Gateway) -> None:
    """A forged sender is overwritten, and a broadcast does not come back to who sent it."""
    names = ("mia", "bo", "cy")
    clients = [await gateway.login(name) for name in names]

    async with AsyncExitStack() as stack:
        mia, bo, cy = [await stack.enter_async_context(one.connected()) for one in clients]
        for socket, count in ((mia, 2), (bo, 1)):
            for _ in range(count):
                await socket.event("session/state")
        said = {"sender": "root", "receiver": "bo", "subject": "hi", "body": {"a": [1, None]}}
        await mia.say("send/unicast", said)
        assert await bo.event("send/unicast") == {**said, "sender": "mia"}
        await mia.say("send/broadcast", {"sender": "root", "subject": "all", "body": "x"})
        for socket in (bo, cy):
            heard = await socket.event("send/broadcast")
            assert heard == {"sender": "mia", "subject": "all", "body": "x"}
        assert await mia.is_quiet()
