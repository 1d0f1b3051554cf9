"""Who may see and change what over REST; what is hidden is not there."""

import httpx2
import pytest

from tests.server.conftest import ALLOWED_ORIGIN, Gateway
from tests.server.test_api_sessions import opened

HIDDEN = (
    ("GET", "", None),
    ("PATCH", "", {"name": "x"}),
    ("DELETE", "", None),
    ("GET", "/closing", None),
    ("PUT", "/closing", {"after_s": 1}),
    ("DELETE", "/closing", None),
    ("DELETE", "/connection", None),
    ("PUT", "/watch", {"key": "m"}),
    ("DELETE", "/watch", None),
    ("PUT", "/streams/t1", {"kind": "k"}),
    ("DELETE", "/streams/t1", None),
    ("PUT", "/members/Ann", None),
    ("DELETE", "/members/Ann", None),
)


def told(reply: httpx2.Response) -> tuple[int, dict[str, object]]:
    """Return a problem without what names the request."""
    problem = reply.json()
    problem.pop("request_id")
    return reply.status_code, problem


@pytest.mark.parametrize("token", [None, "wrong", "ADMIN-KEY-OF-THE-TESTS", "x.y.z"])
async def test_no_good_token_is_a_401_that_tells_nothing(
    gateway: Gateway, token: str | None
) -> None:
    """No token, an unknown one and a forged one are answered alike."""
    async with gateway.http(token) as http:
        reply = await http.get("/v1/sessions")

    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem = reply.json()
    assert problem["code"] == "unauthorized"
    assert problem["detail"] == "A valid token is required."


async def test_session_token_for_an_unknown_session_is_like_a_wrong_one(gateway: Gateway) -> None:
    """A session token says nothing about whether its session exists."""
    async with gateway.http() as admin:
        await opened(admin, id="s-1")
    replies = []
    for session_id in ("s-1", "s-2"):
        async with gateway.http(f"{session_id}.{'x' * 43}") as http:
            replies.append(told(await http.get("/v1/sessions")))

    assert replies[0] == replies[1]
    assert replies[0][0] == 401


@pytest.mark.parametrize("token", ["ws-2", "bob", "nothing"])
@pytest.mark.parametrize("closed", [False, True])
async def test_hidden_session_is_answered_like_an_unknown_one(
    gateway: Gateway, token: str, closed: bool
) -> None:
    """Whatever is asked of a session that one may not see, it is as if it never was."""
    async with gateway.http() as admin, gateway.http(token) as http:
        await opened(admin, id="s-1", account="ann", workspace="ws-1")
        if closed:
            await admin.delete("/v1/sessions/s-1")
        for method, path, body in HIDDEN:
            hidden = await http.request(method, f"/v1/sessions/s-1{path}", json=body)
            unknown = await http.request(method, f"/v1/sessions/s-2{path}", json=body)
            assert told(hidden) == told(unknown), (method, path)
            assert hidden.status_code == 404
        listed = (await http.get("/v1/sessions?q=s-1")).json()
        stats = (await http.get("/v1/stats")).json()
        history = (await http.get("/v1/history")).json()

    assert listed["sessions"] == []
    assert stats["sessions"] == 0
    assert history["history"] == []


async def test_reader_sees_everything_and_changes_nothing(gateway: Gateway) -> None:
    """``read`` shows sessions, without addresses and profiles, and lets nobody write."""
    async with gateway.http() as admin, gateway.http("reader") as http:
        await opened(admin, id="s-1", profile={"can_host": True})

        seen = (await http.get("/v1/sessions/s-1")).json()
        for method, path, body in HIDDEN:
            if method != "GET":
                reply = await http.request(method, f"/v1/sessions/s-1{path}", json=body)
                assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")
        opening = await http.post("/v1/sessions", json={})
        nodes = await http.get("/v1/nodes")
        by_node = await http.get("/v1/sessions?node=node-a")
        saying = await http.post("/v1/messages", json={"topic": "t"})

    assert "profile" not in seen
    assert [reply.status_code for reply in (opening, nodes, by_node, saying)] == [403] * 4


async def test_client_says_of_itself_what_it_may_and_no_more(gateway: Gateway) -> None:
    """With ``connect`` a client names itself; its account and workspace are its token's."""
    async with gateway.http("ann") as http:
        session = await opened(
            http,
            name="Ann",
            labels={"a": "b"},
            attributes={"x": 1},
            client={"product": "P"},
            watch={"key": "m"},
            streams=[{"key": "t1", "kind": "k"}],
        )
        mine = f"/v1/sessions/{session['id']}"
        allowed = [
            await http.patch(mine, json={"name": "A", "labels": {"a": None}}),
            await http.put(f"{mine}/watch", json={"key": "n"}),
            await http.put(f"{mine}/streams/t2", json={"kind": "k"}),
            await http.delete(f"{mine}/streams/t1"),
            await http.delete(f"{mine}/watch"),
        ]
        refused = [
            await http.patch(mine, json={"phase": "x"}),
            await http.patch(mine, json={"profile": {"is_admin": True}}),
            await http.patch(mine, json={"linger_ms": 5}),
            await http.put(f"{mine}/members/Ann"),
            await http.put(f"{mine}/closing", json={"after_s": 5}),
            await http.delete(f"{mine}/connection"),
            await http.delete(mine),
            await http.post("/v1/sessions", json={"id": "s-1"}),
            await http.post("/v1/sessions", json={"linger_ms": 5}),
            await http.post("/v1/sessions", json={"service": "x"}),
            await http.post("/v1/sessions", json={"account": "bob"}),
            await http.post("/v1/sessions", json={"workspace": "ws-2"}),
        ]

    assert (session["account"], session["workspace"]) == ("ann", "ws-1")
    assert [reply.status_code for reply in allowed] == [200] * len(allowed)
    assert [reply.status_code for reply in refused] == [403] * len(refused)


async def test_session_token_is_good_for_its_session_alone(gateway: Gateway) -> None:
    """Who holds a session's token sees that session and speaks for it, open or closed."""
    async with gateway.http() as admin:
        token = (await opened(admin, id="s-1"))["session_token"]
        await opened(admin, id="s-2")
        async with gateway.http(token) as http:
            seen = [one["id"] for one in (await http.get("/v1/sessions")).json()["sessions"]]
            renamed = await http.patch("/v1/sessions/s-1", json={"name": "me"})
            other = await http.get("/v1/sessions/s-2")
            opening = await http.post("/v1/sessions", json={})
            await admin.delete("/v1/sessions/s-1")
            gone = await http.get("/v1/sessions/s-1")

    assert seen == ["s-1"]
    assert (renamed.status_code, other.status_code, opening.status_code) == (200, 404, 403)
    assert (gone.status_code, gone.json()["session"]["id"]) == (410, "s-1")


async def test_scopes_of_a_workspace_are_good_for_it_alone(gateway: Gateway) -> None:
    """A token for one workspace opens, writes and speaks in it, and nowhere else."""
    async with gateway.http("ws-1") as http:
        session = await opened(http, id="s-1")
        elsewhere = await http.post("/v1/sessions", json={"workspace": "ws-2"})
        closed = await http.delete("/v1/sessions/s-1")
        said = [
            (await http.post("/v1/messages", json={"topic": "t", "to": to})).status_code
            for to in ({"workspace": "ws-1"}, {"workspace": "ws-2"}, {})
        ]

    assert session["workspace"] == "ws-1"
    assert (elsewhere.status_code, closed.status_code) == (403, 200)
    assert said == [204, 403, 403]


async def test_writing_does_not_include_closing(gateway: Gateway) -> None:
    """``write`` changes sessions; ending them, or a connection, takes ``close``."""
    async with gateway.http("writer") as http:
        await opened(http, id="s-1")
        changed = await http.patch("/v1/sessions/s-1", json={"phase": "x"})
        refused = [
            await http.delete("/v1/sessions/s-1"),
            await http.put("/v1/sessions/s-1/closing", json={"after_s": 5}),
            await http.delete("/v1/sessions/s-1/closing"),
            await http.delete("/v1/sessions/s-1/connection"),
        ]

    assert changed.status_code == 200
    assert [reply.status_code for reply in refused] == [403] * 4


async def test_token_in_the_address_is_refused(gateway: Gateway) -> None:
    """Addresses end up in logs; a token in one is an error even if it is good."""
    async with gateway.http(None) as http:
        reply = await http.get("/v1/sessions", params={"token": gateway.token})

    assert (reply.status_code, reply.json()["code"]) == (400, "bad_request")
    assert gateway.token not in reply.text


async def test_cookie_writes_only_for_our_own_pages(gateway: Gateway) -> None:
    """A browser sends its cookie for any page; only ours may change something with it."""
    cookie = {"Cookie": f"gateway_token={gateway.token}"}
    async with gateway.http(None) as http:
        own = {**cookie, "Sec-Fetch-Site": "same-origin"}
        statuses = [
            (await http.post("/v1/sessions", json={}, headers=headers)).status_code
            for headers in (
                own,
                cookie,
                {**cookie, "Sec-Fetch-Site": "cross-site"},
                {**cookie, "Sec-Fetch-Site": "same-site"},
                {**cookie, "Origin": "https://evil.example"},
                {**cookie, "Origin": gateway.url},
            )
        ]
        reading = await http.get("/v1/sessions", headers=cookie)

    assert statuses == [201, 403, 403, 403, 403, 201]
    assert reading.status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        f"{ALLOWED_ORIGIN}.evil.example",
        ALLOWED_ORIGIN.replace("https", "http"),
        f"{ALLOWED_ORIGIN}:8443",
    ],
)
async def test_foreign_origin_gets_no_permission(gateway: Gateway, origin: str) -> None:
    """Pages of origins that are not listed, however alike, may not read replies."""
    async with gateway.http() as http:
        replies = [
            await http.get("/v1/sessions", headers={"Origin": origin}),
            await http.options("/v1/sessions", headers={"Origin": origin}),
        ]

    for reply in replies:
        assert not any(name.startswith("access-control-") for name in reply.headers)


async def test_listed_origin_may_read_replies_and_errors(gateway: Gateway) -> None:
    """Pages of a listed origin may ask, with credentials, and read every header they need."""
    origin = {"Origin": ALLOWED_ORIGIN}
    async with gateway.http() as http, gateway.http(None) as nobody:
        preflight = await nobody.options(
            "/v1/sessions", headers={**origin, "Access-Control-Request-Method": "POST"}
        )
        replies = [await http.get("/v1/sessions", headers=origin)]
        replies.append(await nobody.get("/v1/sessions", headers=origin))

    assert preflight.status_code == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    for reply in (preflight, *replies):
        assert reply.headers["Access-Control-Allow-Origin"] == ALLOWED_ORIGIN
        assert reply.headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in reply.headers["Vary"]
    assert "Gateway-Position" in replies[0].headers["Access-Control-Expose-Headers"]


async def test_two_origins_are_none(gateway: Gateway) -> None:
    """A request that names two origins comes from no page that we know."""
    async with gateway.http() as http:
        twice = [("Origin", ALLOWED_ORIGIN), ("Origin", ALLOWED_ORIGIN)]
        reply = await http.get("/v1/sessions", headers=twice)

    assert "Access-Control-Allow-Origin" not in reply.headers
