"""neko's REST API: how requests are read, refused and answered."""

from typing import Any

import pytest
from msgspec.json import encode

from gateway.core.model import Profile
from tests.dialects.neko.conftest import ADMIN_KEY, PASSWORD, Gateway, Start
from tests.support import eventually

NO_DATA = {"code": 400, "message": "no data provided"}
UNREADABLE = {"code": 400, "message": "unable to parse provided data"}


BODIES: list[tuple[bytes, int, dict[str, Any] | None]] = [
    (b"", 400, NO_DATA),
    (b" ", 400, NO_DATA),
    (b"{", 400, UNREADABLE),
    (b"7", 400, UNREADABLE),
    (b'{"username":7}', 400, UNREADABLE),
    (b'{"username":"\\ud800"}', 400, UNREADABLE),
    (b"[" * 100_000, 400, UNREADABLE),
    (b'"' + b"x" * 300_000 + b'"', 400, UNREADABLE),
    (b"null", 401, {"code": 401, "message": "Unauthorized"}),
    (b"{}", 401, {"code": 401, "message": "Unauthorized"}),
    (b'{"username":"mia\\u0000","password":"x"}', 401, None),
    (b'{"username":"reader","password":"correct horse"}', 403, None),
]

PATHS = [
    ("GET", "/health", 200, "true"),
    ("GET", "/api/nothing", 404, "404 page not found\n"),
    ("GET", "/", 404, "404 page not found\n"),
    ("GET", "/api/whoami/", 404, "404 page not found\n"),
    ("PATCH", "/api/sessions", 405, ""),
    ("HEAD", "/api/whoami", 401, ""),
    ("HEAD", "/api/login", 405, ""),
    ("GET", "/api/ws", 400, '{"code":400,"message":"Bad Request"}'),
    ("GET", "/api/whoami", 401, '{"code":401,"message":"Unauthorized"}'),
    ("GET", "/api/sessions/", 401, '{"code":401,"message":"Unauthorized"}'),
    ("GET", "/api/sessions/a%2Fb", 404, "404 page not found\n"),
]


async def test_bodies_are_read_as_neko_reads_them(gateway: Gateway) -> None:
    """The media type does not matter; what cannot be read is a 400 in neko's words."""
    for body, status, answer in BODIES:
        response = await gateway.client().send("POST", "/api/login", content=body)

        assert response.status_code == status, body[:80]
        assert answer is None or response.json() == answer


async def test_paths_and_methods_answer_as_neko_does(gateway: Gateway) -> None:
    """What is not there is plain text, a wrong method has no body and says which are right."""
    for method, path, status, text in PATHS:
        response = await gateway.client().send(method, path)

        assert (response.status_code, response.text) == (status, text), path
        assert (status == 405) == ("allow" in response.headers)


async def test_long_address_is_told(gateway: Gateway) -> None:
    """An address over 8 KiB is refused in neko's form, not a fault of ours."""
    response = await gateway.client().send("GET", "/api/whoami?a=" + "a" * 9_000)

    assert (response.status_code, response.json()["code"]) == (414, 414)


async def test_bearer_is_read_strictly(gateway: Gateway) -> None:
    """The word before the token is case-sensitive, and one blank follows it."""
    mia = await gateway.login("mia")
    token, mia.token = mia.token, None

    for form, status in (("Bearer ", 200), ("bearer ", 401), ("Basic ", 401), ("Bearer  ", 401)):
        sent = {"Authorization": f"{form}{token}"}
        assert (await mia.send("GET", "/api/whoami", headers=sent)).status_code == status


async def test_token_in_the_query_is_the_last_resort(gateway: Gateway) -> None:
    """A token in the address is good for REST too, and a header beats it."""
    mia, token = gateway.client(), (await gateway.login("mia")).token

    assert (await mia.get(f"/api/whoami?token={token}"))[0] == 200
    assert (await mia.get(f"/api/whoami?token=x&token={token}"))[0] == 401
    assert (await mia.get("/api/whoami?token="))[0] == 401
    assert (await mia.get("/api/whoami?" + "&".join("abcdefgh" * 9)))[0] == 401
    mia.token = "nonsense"
    assert (await mia.get(f"/api/whoami?token={token}"))[0] == 401


async def test_cookie_carries_the_token_where_it_is_chosen(start: Start) -> None:
    """With cookies login shows no token; a stale one beats a good bearer and is taken back."""
    async with start(neko_cookie=True) as gateway:
        mia = gateway.client()
        login = await mia.send("POST", "/api/login", json={"username": "mia", "password": PASSWORD})
        assert "token" not in login.json()
        cookie = login.headers["set-cookie"]
        for part in ("NEKO_SESSION=", "HttpOnly", "Secure", "Path=/api", "SameSite=none"):
            assert part.lower() in cookie.lower()
        shown = {"Cookie": cookie.partition(";")[0]}
        assert (await mia.send("GET", "/api/whoami", headers=shown)).json()["id"] == "mia"
        foreign = {**shown, "Origin": "https://evil.example"}
        assert (await mia.send("POST", "/api/logout", headers=foreign)).status_code == 403
        async with mia.socket(headers={**shown, "Origin": gateway.url}) as socket:
            assert (await socket.event("system/init"))["session_id"] == "mia"
        mia.token = ADMIN_KEY
        stale = {"Cookie": "a=b; NEKO_SESSION=stale"}
        refused = await mia.send("GET", "/api/whoami", headers=stale)
        assert refused.status_code == 401
        assert "NEKO_SESSION=" in refused.headers["set-cookie"]
        assert (await mia.send("GET", "/api/whoami")).status_code == 200
        mia.token = None
        own = {**shown, "Origin": gateway.url}
        gone = await mia.send("POST", "/api/logout", headers=own)
        assert (gone.status_code, gone.json()) == (200, True)
        assert "NEKO_SESSION=" in gone.headers["set-cookie"]


async def test_cookie_is_for_our_own_page_that_sends_json(start: Start) -> None:
    """A form or a page of somebody else logs nobody in: no cookie, and no session."""
    async with start(neko_cookie=True) as gateway:
        mia = gateway.client()
        given = encode({"username": "mia", "password": PASSWORD})
        own = {"Content-Type": "application/json", "Origin": gateway.url}
        for headers, status in (
            ({"Content-Type": "text/plain"}, 415),
            ({"Content-Type": "application/x-www-form-urlencoded", "Origin": gateway.url}, 415),
            ({**own, "Origin": "https://evil.example"}, 403),
            ({**own, "Sec-Fetch-Site": "cross-site"}, 403),
        ):
            refused = await mia.send("POST", "/api/login", headers=headers, content=given)
            assert (refused.status_code, refused.json()["code"]) == (status, status)
            assert "set-cookie" not in refused.headers
        assert not gateway.node.replica.sessions
        login = await mia.send("POST", "/api/login", headers=own, content=given)
        assert login.status_code == 200
        assert "set-cookie" in login.headers


@pytest.mark.parametrize("name", [".", ".."])
async def test_name_that_clients_resolve_is_no_name(gateway: Gateway, name: str) -> None:
    """A member's name is an id in paths, where these two mean something else."""
    root = await gateway.login("root")
    status, body = await root.post("/api/members", username=name, password="x", profile={})

    assert status == 400, body


async def test_page_of_another_site_gets_no_socket(gateway: Gateway) -> None:
    """A foreign origin is refused before the handshake, with neko's error."""
    mia = await gateway.login("mia")
    headers = {
        "Origin": "https://evil.example", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip

    response = await mia.send("GET", "/api/ws", headers=headers)

    assert (response.status_code, response.json()) == (400, {"code": 400, "message": "Bad Request"})
    gateway.context.connections.is_draining = True
    del headers["Origin"]
    response = await mia.send("GET", "/api/ws", headers=headers)
    assert (response.status_code, response.json()["code"]) == (503, 503)


async def test_profile_is_the_sessions_alone(gateway: Gateway) -> None:
    """A member changes its name (and blanks it), an admin everything; the next login forgets it."""
    mia, root = await gateway.login("mia"), await gateway.login("root")

    async with root.connected() as watcher:
        assert await mia.post("/api/profile", name="Mia", is_admin=True) == (200, True)
        told = await watcher.event("session/profile")
        assert (told["id"], told["name"], told["is_admin"]) == ("mia", "Mia", False)
        assert (await mia.post("/api/profile"))[0] == 200
        assert (await watcher.event("session/profile"))["name"] == ""
        await root.post("/api/profile", can_see_inactive_cursors=True, plugins={"a": {"b": 1}})
        await watcher.event("session/profile")
        await root.post("/api/profile", plugins={"c": 2})
        assert (await watcher.event("session/profile"))["plugins"] == {"a": {"b": 1}, "c": 2}
        wrong: list[dict[str, Any]] = [
            {"name": "x" * 257},
            {"is_admin": None},
            {"plugins": {"a": None}},
        ]
        for bad in wrong:
            assert await root.post("/api/profile", **bad) == (400, UNREADABLE)
    again = await gateway.login("mia")
    assert (await again.get("/api/whoami"))[1]["profile"]["name"] == "mia"


async def test_members_are_people_of_the_file_and_those_added(gateway: Gateway) -> None:
    """An admin adds members, changes and deletes them; those of the users file stay in it."""
    root, mia = await gateway.login("root"), await gateway.login("mia")
    new: dict[str, Any] = {"username": "zoe", "password": "first", "profile": {"name": "Zoe"}}

    status, shown = await root.post("/api/members", **new)
    assert (status, shown["id"]) == (200, "zoe")
    assert (shown["profile"]["is_admin"], shown["profile"]["can_host"]) == (False, True)
    taken = (422, {"code": 422, "message": "member already exists"})
    for name in ("zoe", "mia", "admin"):
        assert await root.post("/api/members", **{**new, "username": name}) == taken
    for name, message in (("username", "username"), ("password", "password")):
        empty = {"code": 400, "message": f"{message} cannot be empty"}
        assert await root.post("/api/members", **{**new, name: ""}) == (400, empty)
    assert (await root.post("/api/members", **{**new, "username": "x" * 300}))[0] == 400
    assert (await root.post("/api/members", **{**new, "password": "x" * 2000, "username": "y"}))[
        0
    ] == 400

    names = [one["id"] for one in (await mia.get("/api/members"))[1]]
    assert names == sorted(names)
    assert {"zoe", "mia", "wanda"} < set(names)
    assert (await mia.get("/api/members?limit=2&offset=1"))[1] == (await mia.get("/api/members"))[1][1:3]  # fmt: skip  # noqa: E501
    assert len((await mia.get("/api/members?limit=x&offset=-1"))[1]) == len(names)

    wrong = await gateway.client().post("/api/login", username="zoe", password="wrong")
    assert wrong == (401, {"code": 401, "message": "Unauthorized"})
    zoe = await gateway.login("zoe", "first")
    assert (await root.post("/api/members/zoe/password", password="second"))[0] == 204
    assert (await root.post("/api/members/zoe/password", password=""))[0] == 400
    assert (await zoe.get("/api/whoami"))[0] == 200  # the session goes on
    assert (await root.post("/api/members/zoe", can_watch=False))[0] == 204
    assert not (await zoe.get("/api/whoami"))[1]["profile"]["can_watch"]
    assert (await zoe.get("/api/room/screen"))[0] == 403
    zoe = await gateway.login("zoe", "second")
    status, profile = await root.get("/api/members/zoe")
    assert (status, profile["can_watch"], profile["name"]) == (200, False, "Zoe")
    assert await root.delete("/api/members/zoe") == (204, None)
    assert (await zoe.get("/api/whoami"))[0] == 401
    unknown = (404, {"code": 404, "message": "member not found"})
    assert await root.get("/api/members/zoe") == unknown
    assert await root.delete("/api/members/zoe") == unknown
    assert (await root.get("/api/members/mia"))[1]["name"] == "mia"
    assert (await root.delete("/api/members/mia"))[0] == 403
    assert (await root.post("/api/members/mia/password", password="x"))[0] == 403
    assert (await mia.get("/api/whoami"))[0] == 200


async def test_many_members_at_once(gateway: Gateway) -> None:
    """Bulk requests go one after the other; the first that fails ends them, with its error."""
    root = await gateway.login("root")
    for name in ("a", "b"):
        await root.post("/api/members", username=name, password="x")

    update = {"ids": ["a", "b"], "profile": {"can_host": False}}
    assert (await root.post("/api/members_bulk/update", **update))[0] == 204
    assert not (await root.get("/api/members/b"))[1]["can_host"]
    assert (await root.post("/api/members_bulk/update", ids=["a", "x", "b"]))[0] == 404
    assert (await root.post("/api/members_bulk/delete", ids=["a", "x", "b"]))[0] == 404
    assert (await root.get("/api/members/a"))[0] == 404
    assert (await root.post("/api/members_bulk/delete", ids=["b"]))[0] == 204
    assert (await root.post("/api/members_bulk/delete", ids=[1]))[0] == 400


async def test_members_stay_in_their_workspace(gateway: Gateway) -> None:
    """An admin of a workspace sees and adds members of it only; who sees nobody adds nobody."""
    wilma, wanda = await gateway.login("wilma"), await gateway.login("wanda")
    hermit, root = await gateway.login("hermit"), await gateway.login("root")

    assert (await wilma.post("/api/members", username="wes", password="x"))[0] == 200
    assert [one["id"] for one in (await wanda.get("/api/members"))[1]] == ["wanda", "wes", "wilma"]
    assert (await wilma.get("/api/members/mia"))[0] == 404
    wes = await gateway.login("wes", "x")
    assert {one["id"] for one in (await wes.get("/api/sessions"))[1]} == {"wanda", "wes", "wilma"}
    assert [one["id"] for one in (await hermit.get("/api/members"))[1]] == ["hermit"]
    await root.post("/api/members/hermit", is_admin=True)
    assert (await hermit.post("/api/members", username="x", password="x"))[0] == 403


async def test_batch_answers_each_request_by_itself(gateway: Gateway) -> None:
    """Order is kept; each part has its own rights, status and body; some paths are excluded."""
    mia = await gateway.login("mia")
    requests: list[dict[str, Any]] = [
        {"path": "/api/whoami", "method": "GET"},
        {"path": "/api/profile", "method": "POST", "body": {"name": "Mia"}},
        {"path": "/api/sessions?x=1", "method": "GET", "body": None},
        {"path": "/api/sessions/mia/disconnect", "method": "POST"},
        {"path": "/api/nothing", "method": "GET"},
        {"path": "/api/sessions", "method": "DELETE"},
        {"path": "/health", "method": "GET"},
        {"path": "/api/b%61tch", "method": "POST", "body": []},
        {"path": "/api/ws", "method": "GET"},
    ]

    response = await mia.send("POST", "/api/batch", json=requests)

    answers = response.json()
    assert [one["status"] for one in answers] == [200, 200, 200, 403, 404, 405, 400, 400, 400]
    assert [one["path"] for one in answers] == [one["path"] for one in requests]
    assert answers[0]["body"]["id"] == "mia"
    assert answers[2]["body"][0]["profile"]["name"] == "Mia"
    assert ["body" in one for one in answers[4:6]] == [False, False]
    assert answers[6]["body"]["message"] == "this path is not allowed in batch requests"
    assert answers[7]["body"]["message"] == "this path is excluded from batch requests"
    assert (await mia.send("POST", "/api/batch", json=[])).json() == []
    wrong: list[object] = [{}, [1], [{**requests[0], "method": "PUT"}], [requests[0]] * 101]
    for bad in wrong:
        assert (await mia.send("POST", "/api/batch", json=bad)).status_code == 400
    nobody = gateway.client()
    assert (await nobody.send("POST", "/api/batch", json=[])).status_code == 401


async def test_batch_works_under_a_prefix(start: Start) -> None:
    """The dialect works where it is mounted, batches as well."""
    async with start(mount="/neko") as gateway:
        mia = await gateway.login("mia")
        requests = [{"path": "/api/whoami", "method": "GET"}]
        answers = (await mia.send("POST", "/api/batch", json=requests)).json()
        assert answers[0]["body"]["id"] == "mia"
        async with mia.connected() as socket:
            assert await socket.is_quiet()


async def test_counts_are_right_and_tell_when_the_last_one_left(gateway: Gateway) -> None:
    """Counts follow the sessions; ``left_at`` is there only while nobody of that class is."""
    root, mia = await gateway.login("root"), await gateway.login("mia")

    empty = (await mia.get("/api/stats"))[1]
    assert empty.pop("server_started_at").endswith("Z")
    assert empty == {"has_host": False, "total_users": 0, "total_admins": 0}
    async with mia.connected() as on_mia, root.connected():
        await on_mia.say("control/request", {})
        await on_mia.until("control/host")
        async with mia.connected(), mia.connected():  # who takes over counts once
            stats = (await mia.get("/api/stats"))[1]
            assert (stats["total_users"], stats["total_admins"]) == (1, 1)
            assert (stats["has_host"], stats["host_id"]) == (True, "mia")
        assert (await root.post("/api/sessions/mia/disconnect"))[0] == 204
        stats = (await mia.get("/api/stats"))[1]
        assert (stats["total_users"], "last_user_left_at" in stats) == (0, True)
        assert "last_admin_left_at" not in stats
    wanda = await gateway.login("wanda")
    assert "last_user_left_at" not in (await wanda.get("/api/stats"))[1]
    await eventually(lambda: not gateway.node.replica.nodes[gateway.node.id])


PIXELS: list[tuple[str, str, object, int]] = [
    ("GET", "/api/room/screen", None, 200),
    ("GET", "/api/room/screen/configurations", None, 200),
    ("POST", "/api/room/screen", {"width": 1280, "height": 720, "rate": 30}, 200),
    ("POST", "/api/room/screen", {"width": 1}, 422),
    ("GET", "/api/room/screen/cast.jpg", None, 400),
    ("GET", "/api/room/screen/shot.jpg", None, 403),
    ("GET", "/api/room/broadcast", None, 200),
    ("POST", "/api/room/broadcast/start", {}, 400),
    ("POST", "/api/room/broadcast/start", {"url": "rtmp://x"}, 422),
    ("POST", "/api/room/broadcast/stop", None, 422),
    ("GET", "/api/room/clipboard", None, 200),
    ("POST", "/api/room/clipboard", {"text": "x"}, 403),
    ("GET", "/api/room/clipboard/image.png", None, 403),
    ("GET", "/api/room/keyboard/map", None, 200),
    ("POST", "/api/room/keyboard/map", {}, 403),
    ("GET", "/api/room/keyboard/modifiers", None, 200),
    ("POST", "/api/room/keyboard/modifiers", {}, 403),
    ("POST", "/api/room/upload/drop", None, 400),
    ("POST", "/api/room/upload/dialog", None, 422),
    ("DELETE", "/api/room/upload/dialog", None, 422),
]


async def test_what_only_moves_pixels_says_that_there_are_none(gateway: Gateway) -> None:
    """Reading shows an empty desktop, changing it is refused as neko refuses."""
    root = await gateway.login("root")
    async with root.connected():
        for method, path, body, _ in PIXELS:
            if "clipboard" in path or "keyboard" in path:
                assert (await root.send(method, path, json=body)).status_code == 403  # not host
        assert (await root.post("/api/room/control/request"))[0] == 204
        for method, path, body, status in PIXELS:
            response = await root.send(method, path, json=body)
            assert response.status_code == status, path
            assert status == 200 or response.json()["code"] == status


async def test_members_profile_survives_the_next_login(gateway: Gateway) -> None:
    """What an admin gives a member of the users file is kept for its next session."""
    root = await gateway.login("root")

    assert (await root.post("/api/members/mia", name="Mia", can_access_clipboard=False))[0] == 204
    mia = await gateway.login("mia")
    profile = (await mia.get("/api/whoami"))[1]["profile"]
    assert (profile["name"], profile["can_access_clipboard"]) == ("Mia", False)
    async with mia.connected():
        assert (await mia.post("/api/room/control/request"))[0] == 204
        assert (await mia.get("/api/room/clipboard"))[0] == 403
    kept = gateway.node.documents.get("neko.member", "mia")
    assert kept is not None
    assert kept["profile"]["name"] == Profile(name="Mia").name
