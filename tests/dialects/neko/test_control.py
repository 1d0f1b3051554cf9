"""Who has control, how the room is run, and the order in which everybody hears of it."""

from contextlib import AsyncExitStack

from tests.dialects.neko.client import Neko, Socket
from tests.dialects.neko.conftest import Gateway
from tests.support import eventually


async def joined(gateway: Gateway, stack: AsyncExitStack, *names: str) -> list[tuple[Neko, Socket]]:
    """Log in and connect, one after the other; everybody has heard of all others."""
    found: list[tuple[Neko, Socket]] = []
    for name in names:
        client = await gateway.login(name)
        socket = await stack.enter_async_context(client.connected())
        for _, other in found:
            assert (await other.until("session/state"))[-1][1]["id"] == name
        found.append((client, socket))
    return found


async def test_control_goes_from_hand_to_hand(gateway: Gateway) -> None:
    """Request, release, give, take and reset say who did it, and who has control now."""
    async with AsyncExitStack() as stack:
        people = await joined(gateway, stack, "mia", "bo", "root")
        (mia, on_mia), (bo, on_bo), (root, _) = people
        room = "/api/room/control"

        async def heard(by: str, host: str | None) -> None:
            expected = {"id": by, "has_host": host is not None}
            expected |= {"host_id": host} if host else {}
            for _, socket in people:
                assert await socket.event("control/host") == expected

        assert await mia.get(room) == (200, {"has_host": False})
        assert (await mia.post(f"{room}/release"))[0] == 422
        assert (await mia.post(f"{room}/request"))[0] == 204
        await heard("mia", "mia")
        assert (await mia.post(f"{room}/request"))[0] == 204  # it has it
        assert await bo.get(room) == (200, {"has_host": True, "host_id": "mia"})
        asked = await bo.post(f"{room}/request")
        assert asked == (202, {"code": 202, "message": "control request sent"})
        assert await on_mia.event("control/request") == {"id": "bo"}
        assert (await bo.post(f"{room}/give/mia"))[0] == 403
        assert (await mia.post(f"{room}/give/nobody"))[0] == 404
        assert (await mia.post(f"{room}/give/bo"))[0] == 204
        await heard("mia", "bo")
        assert (await bo.post(f"{room}/take"))[0] == 403
        assert (await root.post(f"{room}/take"))[0] == 204
        await heard("root", "root")
        assert (await root.post(f"{room}/give/mia"))[0] == 204
        await heard("root", "mia")
        assert (await root.post(f"{room}/reset"))[0] == 204
        await heard("root", None)
        assert (await root.post(f"{room}/reset"))[0] == 204  # nothing to take away
        await on_bo.say("control/request", {})
        await heard("bo", "bo")
        await on_bo.say("control/release", {})
        await heard("bo", None)
        assert await on_bo.is_quiet()


async def test_input_takes_control_only_where_nobody_is_asked(gateway: Gateway) -> None:
    """Input takes control that is free or implicit; it does not pester a host."""
    async with AsyncExitStack() as stack:
        people = await joined(gateway, stack, "mia", "bo")
        (_, on_mia), (_, on_bo) = people
        root = await gateway.login("root")
        for _, socket in people:
            await socket.event("session/created")

        await on_mia.say("control/move", {"x": 1, "y": 1})
        for _, socket in people:
            assert (await socket.event("control/host"))["host_id"] == "mia"
        await on_bo.say("control/keypress", {"keysym": 1})
        assert await on_mia.is_quiet()
        assert (await root.post("/api/room/settings", implicit_hosting=True))[0] == 204
        for _, socket in people:
            await socket.event("system/settings")
        await eventually_moves(on_bo, people)


async def eventually_moves(socket: Socket, people: list[tuple[Neko, Socket]]) -> None:
    """Move until it has control: what comes too often is passed over."""

    async def moved() -> bool:
        await socket.say("control/move", {"x": 2, "y": 2})
        return not await quiet(people[0][1])

    await eventually(moved)


async def quiet(socket: Socket) -> bool:
    """Whether nobody else has control yet."""
    try:
        assert (await socket.frame(within=0.05))["event"] == "control/host"
    except TimeoutError:
        return True
    return False


async def test_private_mode_takes_control_from_members(gateway: Gateway) -> None:
    """A host who is no admin loses control, then everybody hears of the settings."""
    async with AsyncExitStack() as stack:
        (mia, on_mia), (root, _) = await joined(gateway, stack, "mia", "root")
        await on_mia.say("control/request", {})
        await on_mia.event("control/host")

        assert (await root.post("/api/room/settings", private_mode=True))[0] == 204
        assert await on_mia.event("control/host") == {"id": "root", "has_host": False}
        assert (await on_mia.event("system/settings"))["private_mode"]
        refused = {"code": 422, "message": "private mode is enabled"}
        assert await mia.get("/api/room/control") == (422, refused)
        assert await mia.post("/api/room/control/request") == (422, refused)
        assert (await root.post("/api/room/control/give/mia"))[0] == 400
        assert (await root.post("/api/room/control/request"))[0] == 204
        assert (await on_mia.event("control/host"))["host_id"] == "root"
        assert (await root.post("/api/room/settings", private_mode=False))[0] == 204
        assert not (await on_mia.event("system/settings"))["private_mode"]


async def test_control_protection_locks_while_no_admin_is_there(gateway: Gateway) -> None:
    """The last admin's leaving takes control, locks and is announced, in this order."""
    async with AsyncExitStack() as stack:
        [(mia, on_mia)] = await joined(gateway, stack, "mia")
        root = await gateway.login("root")
        await on_mia.event("session/created")
        async with root.connected() as on_root:
            await on_mia.event("session/state")
            assert (await root.post("/api/room/settings", control_protection=True))[0] == 204
            assert not (await on_mia.event("system/settings"))["locked_controls"]
            await on_mia.say("control/request", {})
            assert (await on_mia.event("control/host"))["has_host"]
            await on_root.connection.close(1000)
        assert await on_mia.event("control/host") == {"id": "root", "has_host": False}
        settings = await on_mia.event("system/settings")
        assert (settings["id"], settings["locked_controls"]) == ("root", True)
        assert not (await on_mia.event("session/state"))["is_connected"]
        refused = await mia.post("/api/room/control/request")
        assert refused == (403, {"code": 403, "message": "controls are locked"})
        async with root.connected():
            assert not (await on_mia.event("system/settings"))["locked_controls"]
            assert (await on_mia.event("session/state"))["is_connected"]


async def test_admin_who_unlocks_the_controls_is_not_taken_for_the_host(gateway: Gateway) -> None:
    """A host who was named while the controls were locked has control once an admin is there."""
    node = gateway.node
    async with AsyncExitStack() as stack:
        [(mia, on_mia)] = await joined(gateway, stack, "mia")
        root = await gateway.login("root")
        await on_mia.event("session/created")
        host = str(mia.token).partition(".")[0]
        room = {"settings": {"control_protection": True}, "grant": "g", "host": host}
        await node.documents.write("neko.room", "", lambda _: room)
        assert (await on_mia.event("system/settings"))["locked_controls"]
        async with root.connected():
            expected = {"id": "root", "has_host": True, "host_id": "mia"}
            assert await on_mia.event("control/host") == expected


async def test_host_who_may_not_host_any_more_loses_control(gateway: Gateway) -> None:
    """The profile is told first, then that nobody has control."""
    async with AsyncExitStack() as stack:
        (mia, on_mia), (root, _) = await joined(gateway, stack, "mia", "root")
        await on_mia.say("control/request", {})
        await on_mia.event("control/host")

        assert (await root.post("/api/members/mia", can_host=False))[0] == 204
        assert not (await on_mia.event("session/profile"))["can_host"]
        assert not (await on_mia.event("control/host"))["has_host"]
        refused = {"code": 403, "message": "session cannot host"}
        assert await mia.post("/api/room/control/request") == (403, refused)
        assert (await root.post("/api/room/control/give/mia"))[0] == 400


async def test_settings_are_merged_and_told_by_whom(gateway: Gateway) -> None:
    """Settings that are left out stay, plugins' settings merge, nothing new is not told."""
    async with AsyncExitStack() as stack:
        (mia, on_mia), (root, _) = await joined(gateway, stack, "mia", "root")
        path = "/api/room/settings"

        status, before = await root.get(path)
        assert (status, before["heartbeat_interval"], before["plugins"]) == (200, 10, {})
        await root.post(path, plugins={"chat.enabled": True}, inactive_cursors=True)
        assert (await on_mia.event("system/settings"))["id"] == "root"
        await root.post(path, plugins={"x": 1}, heartbeat_interval=0)
        told = await on_mia.event("system/settings")
        assert told["plugins"] == {"chat.enabled": True, "x": 1}
        assert (told["inactive_cursors"], told["heartbeat_interval"]) == (True, 0)
        await root.post(path)
        assert await on_mia.is_quiet()
        told.pop("id")
        assert await root.get(path) == (200, told)
        assert (await mia.get(path))[0] == 403
        assert (await root.post(path, private_mode="yes"))[0] == 400
        assert (await root.post(path, plugins={"x": "y" * 20_000}))[0] == 422


async def test_locked_logins_keep_new_members_out(gateway: Gateway) -> None:
    """While logins are locked only admins log in; who is in stays."""
    root, mia = await gateway.login("root"), await gateway.login("mia")

    assert (await root.post("/api/room/settings", locked_logins=True))[0] == 204
    refused = await gateway.client().post("/api/login", username="bo", password="correct horse")
    assert refused == (403, {"code": 403, "message": "logins are locked"})
    assert (await mia.get("/api/whoami"))[0] == 200
    await gateway.login("ruth")


async def test_without_mercy_a_second_socket_is_refused(gateway: Gateway) -> None:
    """Where reconnecting has no mercy the first socket stays, in its grace as well."""
    root, mia = await gateway.login("root"), await gateway.login("mia")
    assert (await root.post("/api/room/settings", merciful_reconnect=False))[0] == 204

    async with mia.connected() as first:
        async with mia.socket() as second:
            assert await second.ended() == (
                [("system/disconnect", {"message": "already connected"})],
                1006,
            )
        assert await first.is_quiet()
        first.abort()
    session_id = (mia.token or "").partition(".")[0]
    await eventually(lambda: not gateway.node.replica.sessions[session_id].is_connected)
    async with mia.socket() as third:
        assert (await third.event("system/disconnect"))["message"] == "already connected"


async def test_rooms_of_workspaces_do_not_hear_of_each_other(gateway: Gateway) -> None:
    """A workspace is a room of its own: members, control, settings and messages stay in it."""
    async with AsyncExitStack() as stack:
        (mia, on_mia), (wanda, on_wanda) = [
            (client, await stack.enter_async_context(client.connected()))
            for client in [await gateway.login("mia"), await gateway.login("wanda")]
        ]
        assert [(await on_mia.frame())["event"] for _ in range(1)] == ["session/state"]
        wilma = await gateway.login("wilma")
        assert (await on_wanda.event("session/created"))["id"] == "wilma"
        assert (await on_mia.event("session/created"))["id"] == "wilma"  # it sees all workspaces

        await on_wanda.say("control/request", {})
        assert (await on_wanda.event("control/host"))["host_id"] == "wanda"
        assert (await wilma.post("/api/room/settings", private_mode=True))[0] == 204
        assert [(await on_wanda.frame())["event"] for _ in range(2)] == [
            "control/host",
            "system/settings",
        ]
        await on_wanda.say("send/broadcast", {"subject": "s", "body": 1})
        await on_wanda.say("send/unicast", {"receiver": "mia", "subject": "s", "body": 1})
        assert await on_mia.is_quiet()
        assert (await mia.get("/api/room/control"))[1] == {"has_host": False}
        assert (await wilma.get("/api/sessions/mia"))[0] == 404
        assert (await wilma.delete("/api/sessions/mia"))[0] == 400
        assert (await wilma.post("/api/room/control/give/mia"))[0] == 404
        assert [one["id"] for one in (await wanda.get("/api/sessions"))[1]] == ["wanda", "wilma"]


async def test_member_who_sees_nobody_hears_no_names(gateway: Gateway) -> None:
    """Without the scope read a member knows its own session, and that control is taken."""
    async with AsyncExitStack() as stack:
        hermit = await gateway.login("hermit")
        on_hermit = await stack.enter_async_context(hermit.connected())
        mia = await gateway.login("mia")
        on_mia = await stack.enter_async_context(mia.connected())
        root = await gateway.login("root")

        await on_mia.say("control/request", {})
        assert await on_hermit.event("control/host") == {"id": "", "has_host": True, "host_id": ""}
        assert (await hermit.get("/api/room/control"))[1] == {"has_host": True, "host_id": ""}
        assert (await root.post("/api/room/settings", inactive_cursors=True))[0] == 204
        assert (await on_hermit.event("system/settings"))["id"] == ""
        assert [one["id"] for one in (await hermit.get("/api/sessions"))[1]] == ["hermit"]
        await on_hermit.say("send/broadcast", {"subject": "s", "body": 1})
        await on_hermit.say("send/unicast", {"receiver": "mia", "subject": "s", "body": 1})
        stats = (await hermit.get("/api/stats"))[1]
        assert (stats["total_users"], stats["has_host"]) == (1, True)
        assert "host_id" not in stats
        assert (await root.post("/api/room/control/give/hermit"))[0] == 204
        assert (await on_hermit.event("control/host"))["host_id"] == "hermit"
        seen = await on_mia.until("control/host")
        seen += await on_mia.until("control/host")
        assert "send/broadcast" not in [name for name, _ in seen]


async def test_subject_that_cannot_be_carried_is_not_said(gateway: Gateway) -> None:
    """A subject that the gateway cannot carry, or keeps for itself, is dropped."""
    async with AsyncExitStack() as stack:
        [(_, on_mia)] = await joined(gateway, stack, "mia")
        said = {"receiver": "mia", "body": 1}
        for subject in ("", "neko:control/request", "x" * 129, "a\0b"):
            await on_mia.say("send/unicast", {**said, "subject": subject})
        await on_mia.say("send/unicast", {**said, "subject": "s", "body": "x" * 5_000})
        await on_mia.say("send/unicast", {**said, "subject": "good"})
        assert (await on_mia.event("send/unicast"))["subject"] == "good"


async def test_socket_that_says_too_much_is_cut(gateway: Gateway) -> None:
    """More messages than may be end the connection without a word: the client may come back."""
    async with AsyncExitStack() as stack:
        [(_, on_mia)] = await joined(gateway, stack, "mia")
        for _ in range(100):
            await on_mia.say("control/request", {})
        seen, code = await on_mia.ended()
        assert code == 1006
        assert [name for name, _ in seen if name == "system/disconnect"] == []


async def test_api_session_has_rights_but_no_part_in_control(gateway: Gateway) -> None:
    """Who shows a key may run the room; it cannot have control, log out or change its profile."""
    api = gateway.client()
    api.token = "the-admin-key"

    status, me = await api.get("/api/whoami")
    assert (status, me["id"], me["profile"]["name"]) == (200, "API", "API Session")
    assert (me["profile"]["is_admin"], me["profile"]["can_connect"]) == (True, False)
    assert (await api.get("/api/sessions/API"))[0] == 404
    assert (await api.get("/api/sessions"))[1] == []
    assert await api.post("/api/logout") == (
        400,
        {"code": 400, "message": "session is not logged in"},
    )
    assert await api.post("/api/profile", name="x") == (
        400,
        {"code": 400, "message": "session does not exist"},
    )
    assert (await api.get("/api/room/control"))[0] == 200
    assert (await api.post("/api/room/control/request"))[0] == 403
    assert (await api.post("/api/room/control/take"))[0] == 403
    assert (await api.post("/api/room/control/release"))[0] == 422
    assert (await api.post("/api/room/control/reset"))[0] == 204
    mia = await gateway.login("mia")
    async with mia.connected() as socket:
        assert (await api.post("/api/room/control/give/mia"))[0] == 204
        assert await socket.event("control/host") == {
            "id": "API",
            "has_host": True,
            "host_id": "mia",
        }
