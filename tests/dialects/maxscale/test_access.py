"""Who may come in and what they may do: passwords, tokens, cookies, methods, pages of others."""

from base64 import urlsafe_b64decode
from http.cookies import SimpleCookie
from typing import Any

import httpx2
import pytest
from msgspec.json import decode
from msgspec.structs import replace

from gateway.auth.principals import Scope, hash_secret
from gateway.core.model import Private, Session
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from tests.dialects.maxscale.conftest import ADMIN, MaxScale, basic, bearer, served
from tests.nodes import running_node

DENIED = {"errors": [{"detail": "Access denied"}]}
PASSWORD = "correct horse"


@pytest.fixture
async def session(maxscale: MaxScale) -> Session:
    """A session of one workspace, beside one of another."""
    await maxscale.open("other", workspace="ws-2")
    return await maxscale.open("one", workspace="ws-1", account="ann")


def claims(token: str) -> dict[str, object]:
    """Return what a token says."""
    payload = token.split(".")[1]
    said: dict[str, object] = decode(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return said


async def shown(http: httpx2.AsyncClient) -> list[str]:
    """Return which sessions somebody sees."""
    response = await http.get("/v1/sessions")
    assert response.status_code == 200, response.text
    return [row["id"] for row in response.json()["data"]]


NOBODY: list[dict[str, Any]] = [
    {},
    basic("admin", "wrong"),
    basic("nobody", ADMIN),
    basic("admin", ""),
    {"Authorization": "Basic"},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Basic " + "YQ=="},
    {"Authorization": "Basic //8="},
    {"Authorization": "Basic " + "A" * 5000},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer nonsense"},
    {"Authorization": "Bearer a.b.c"},
    {"Authorization": b"Bearer \xff.\xfe.\xfd"},
    {"Authorization": "Digest x"},
    {"Cookie": "token_sig=nonsense"},
    {"Cookie": "token=nonsense"},
]


async def test_who_is_nobody_is_told_so(maxscale: MaxScale) -> None:
    """Without a good credential every address is 401 with MaxScale's challenge and words."""
    for headers in NOBODY:
        paths = ["/v1/sessions"] if headers else ["/", "/v1/sessions/1", "/nowhere", "/v1/auth"]
        async with maxscale.http(headers) as http:
            for path in paths:
                response = await http.get(path)

                assert response.status_code == 401, headers
                assert response.json() == DENIED
                assert response.headers["WWW-Authenticate"] == 'Basic realm="maxscale"'


async def test_page_that_asks_by_script_gets_no_challenge(maxscale: MaxScale) -> None:
    """A script's 401 opens no login window of the browser."""
    async with maxscale.http({"X-Requested-With": "XMLHttpRequest"}) as http:
        response = await http.get("/v1/sessions")

    assert response.status_code == 401
    assert "WWW-Authenticate" not in response.headers


async def test_health_check_is_empty(http: httpx2.AsyncClient) -> None:
    """Who may log in hears that the server is there; MaxCtrl asks so before it asks several."""
    for path in ("/", "/v1", "/v1/"):
        response = await http.get(path)
        assert (response.status_code, response.content) == (200, b"")


async def test_people_of_the_users_file_log_in(maxscale: MaxScale, session: Session) -> None:
    """A name and a password are good for what the users file says."""
    assert session.number == 2
    maxscale.users.add("op", PASSWORD, scopes=[Scope.READ, Scope.CLOSE], workspace="ws-1")
    maxscale.users.add("ann", PASSWORD)
    async with (
        maxscale.http(basic("op", PASSWORD)) as op,
        maxscale.http(basic("ann", PASSWORD)) as ann,
    ):
        assert await shown(op) == ["2"]
        assert await shown(ann) == ["2"]
        assert (await op.get("/v1/sessions/1")).status_code == 404
        assert (await ann.delete("/v1/sessions/2")).status_code == 403
        assert (await op.delete("/v1/sessions/2")).status_code == 200


@pytest.mark.parametrize(
    "token, expected", [("reader", ["1", "2"]), ("ws-1", ["2"]), ("nothing", [])]
)
async def test_tokens_of_the_gateway_are_good_here(
    maxscale: MaxScale, session: Session, token: str, expected: list[str]
) -> None:
    """A bearer token shows what it shows at every door."""
    assert session.number == 2
    async with maxscale.http(bearer(token)) as http:
        assert await shown(http) == expected


async def test_session_token_shows_its_session(maxscale: MaxScale) -> None:
    """Who holds a session's own token sees that session, and may not end it here."""
    secret = "s" * 43
    await maxscale.open("other")
    await maxscale.open("mine", private=Private(token_hash=hash_secret(secret)))
    async with maxscale.http(bearer(f"mine.{secret}")) as http:
        assert await shown(http) == ["2"]
        assert (await http.delete("/v1/sessions/2")).status_code == 403


async def test_reader_changes_nothing(maxscale: MaxScale, session: Session) -> None:
    """Who may only read gets 403 with MaxScale's words for every change."""
    async with maxscale.http(bearer("reader")) as http:
        for method, path in (
            ("DELETE", "/v1/sessions/2"),
            ("DELETE", "/v1/sessions/999"),
            ("PATCH", "/v1/sessions/2"),
            ("PATCH", "/v1/sessions/2/relationships/filters"),
            ("POST", "/v1/sessions/2/restart"),
            ("POST", "/v1/sessions/restart"),
        ):
            response = await http.request(method, path, content=b"{}")

            assert response.status_code == 403
            assert response.json()["errors"][0] == {"detail": "Administrative access required"}
    assert maxscale.node.replica.sessions["one"] == session


async def test_right_is_that_of_the_effective_method(maxscale: MaxScale, session: Session) -> None:
    """A method in a header is the one that is done, and the one that must be allowed."""
    override = {"X-HTTP-Method-Override": "DELETE"}
    async with maxscale.http(bearer("reader")) as reader, maxscale.http() as admin:
        refused = await reader.get("/v1/sessions/2", headers=override)
        still_there = session.id in maxscale.node.replica.sessions
        read = await admin.post("/v1/sessions/2", headers={"X-HTTP-Method-Override": "get"})
        unknown = await admin.get("/v1/sessions/2", headers={"X-HTTP-Method-Override": "BREW"})
        done = await admin.get("/v1/sessions/2", headers=override)

    assert (refused.status_code, still_there) == (403, True)
    assert (read.status_code, read.json()["data"]["id"]) == (200, "2")
    assert unknown.status_code == 405
    assert (done.status_code, done.content) == (200, b"")
    assert session.id not in maxscale.node.replica.sessions


async def test_right_ends_at_the_workspace(maxscale: MaxScale, session: Session) -> None:
    """The same account in another workspace is somebody else: its session is not there."""
    assert session.workspace == "ws-1"
    maxscale.users.add("ann", PASSWORD, scopes=[Scope.WRITE, Scope.CLOSE], workspace="ws-2")
    async with maxscale.http(basic("ann", PASSWORD)) as http:
        assert await shown(http) == []
        assert (await http.delete("/v1/sessions/2")).status_code == 404
        assert (await http.post("/v1/sessions/2/restart")).status_code == 404
        assert (await http.post("/v1/sessions/restart")).status_code == 200
    assert maxscale.node.replica.sessions["one"] == session


async def test_login_gives_a_token(maxscale: MaxScale, session: Session) -> None:
    """A password becomes a token of MaxScale's shape, good for as much and no longer."""
    assert session.number == 2
    maxscale.users.add("op", PASSWORD, scopes=[Scope.READ], workspace="ws-1")
    async with maxscale.http(basic("op", PASSWORD)) as http:
        reply = await http.get("/v1/auth?max-age=100")
        token = reply.json()["meta"]["token"]
    said = claims(token)

    assert reply.headers["Cache-Control"] == "no-store"
    assert (said["iss"], said["sub"]) == ("maxscale", "op")
    assert said["exp"] == maxscale.wall.now_ms // 1000 + 100
    async with maxscale.http(bearer(token)) as http:
        assert await shown(http) == ["2"]
        assert (await http.delete("/v1/sessions/2")).status_code == 403
        assert (await http.get("/v1/auth")).status_code == 401
        maxscale.wall.now_ms += 110_000
        assert (await http.get("/v1/sessions")).status_code == 401


@pytest.mark.parametrize(
    "query, life_s",
    [
        ("", 28_800),
        ("max-age=60", 60),
        ("max-age=0", 28_800),
        ("max-age=x", 28_800),
        ("max-age=9999999", 86_400),
    ],
)
async def test_life_of_a_token_is_bounded(
    maxscale: MaxScale, http: httpx2.AsyncClient, query: str, life_s: int
) -> None:
    """A token lives eight hours, or as asked, a day at most."""
    said = claims((await http.get(f"/v1/auth?{query}")).json()["meta"]["token"])

    assert said["exp"] == maxscale.wall.now_ms // 1000 + life_s


async def test_token_is_good_on_every_node(
    maxscale: MaxScale, settings: Settings, valkey: EmbeddedValkey, prefix: str
) -> None:
    """What one node signed, another node of the same store believes, and another store does not."""
    async with maxscale.http() as http:
        token = (await http.get("/v1/auth")).json()["meta"]["token"]
    async with (
        running_node(valkey.url, prefix, name="b") as node,
        served(settings, node) as other,
        other.http(bearer(token)) as http,
    ):
        assert (await http.get("/v1/sessions")).status_code == 200
    async with (
        running_node(valkey.url, prefix + "x") as node,
        served(settings, node) as stranger,
        stranger.http(bearer(token)) as http,
    ):
        assert (await http.get("/v1/sessions")).status_code == 401


async def test_configured_key_signs_tokens_for_all_doors(
    settings: Settings, valkey: EmbeddedValkey, prefix: str
) -> None:
    """A gateway that has a key signs with it, so that the token is good at all its doors."""
    keyed = replace(settings, jwt_key="k" * 40, jwt_issuer="us")
    async with running_node(valkey.url, prefix) as node, served(keyed, node) as maxscale:
        async with maxscale.http() as http:
            token = (await http.get("/v1/auth")).json()["meta"]["token"]
        async with maxscale.http(bearer(token)) as http:
            assert (await http.get("/v1/sessions")).status_code == 200
    assert claims(token)["iss"] == "us"


async def test_persistent_login_is_a_cookie(maxscale: MaxScale) -> None:
    """``persist`` puts the token into a cookie that scripts and other sites cannot use."""
    async with maxscale.http(path="/maxscale") as http:
        kept = await http.get(
            "/v1/auth?persist=yes&max-age=90", headers={"X-Forwarded-Proto": "https"}
        )
        brief = await http.get("/v1/auth?persist=yes")
    cookie = SimpleCookie(kept.headers["Set-Cookie"])["token_sig"]

    assert (kept.status_code, kept.content) == (204, b"")
    assert cookie["path"] == "/maxscale"
    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"].lower() == "strict"
    assert cookie["max-age"] == "90"
    assert "max-age" not in brief.headers["Set-Cookie"].lower()
    assert "secure" not in brief.headers["Set-Cookie"].lower()
    async with maxscale.http({"Cookie": f"a=b; token_sig; token_sig={cookie.value}; c"}) as http:
        assert (await http.get("/v1/sessions")).status_code == 200


@pytest.mark.parametrize(
    "page, status",
    [
        ({}, 204),
        ({"Sec-Fetch-Site": "same-origin"}, 204),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example.com"}, 204),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
async def test_page_of_somebody_else_logs_nobody_in(
    maxscale: MaxScale, page: dict[str, str], status: int
) -> None:
    """A link with a name and a password in it does not leave its author's cookie behind."""
    async with maxscale.http({**basic("admin", ADMIN), **page}) as http:
        response = await http.get("/v1/auth?persist=yes")
        token = await http.get("/v1/auth")

    assert response.status_code == status
    assert ("Set-Cookie" in response.headers) == (status == 204)
    assert token.status_code == 200


async def test_logout_needs_no_login_and_removes_the_cookie(maxscale: MaxScale) -> None:
    """Who logs out loses the cookie, whoever it is."""
    async with maxscale.http({}) as http:
        response = await http.get("/v1/auth?logout=yes")
    cookie = SimpleCookie(response.headers["Set-Cookie"])["token_sig"]

    assert (response.status_code, response.content) == (200, b"")
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/")


async def test_cookie_counts_before_a_header_unless_it_is_old(maxscale: MaxScale) -> None:
    """The cookie of a login is taken first; one that is not good any more is passed over."""
    async with maxscale.http() as http:
        token = (await http.get("/v1/auth")).json()["meta"]["token"]
    good = {"Cookie": f"token_sig={token}", **bearer("reader")}
    async with maxscale.http(good) as http:
        assert (await http.post("/v1/sessions/restart")).status_code == 403  # cookie: whose page?
    async with maxscale.http({**good, "Sec-Fetch-Site": "same-origin"}) as http:
        assert (await http.post("/v1/sessions/restart")).status_code == 200
    async with maxscale.http({"Cookie": "token_sig=old", **bearer("reader")}) as http:
        assert (await http.get("/v1/sessions")).status_code == 200


@pytest.mark.parametrize("login", ["cookie", "basic"])
@pytest.mark.parametrize(
    "page, status",
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example.com"}, 200),
    ],
)
async def test_pages_of_others_cannot_use_the_browsers_login(
    maxscale: MaxScale, login: str, page: dict[str, str], status: int
) -> None:
    """What a browser adds by itself is good for our pages and those that are allowed."""
    async with maxscale.http() as http:
        token = (await http.get("/v1/auth")).json()["meta"]["token"]
    logins = {"basic": basic("admin", ADMIN), "cookie": {"Cookie": f"token_sig={token}"}}
    async with maxscale.http({**logins[login], **page}) as http:
        assert (await http.post("/v1/sessions/restart")).status_code == status
        overridden = await http.get(
            "/v1/sessions/restart", headers={"X-HTTP-Method-Override": "POST"}
        )
        assert overridden.status_code == status
        assert (await http.get("/v1/sessions")).status_code == 200


async def test_allowed_page_may_ask_before_it_asks(maxscale: MaxScale) -> None:
    """A preflight of an allowed page needs no login and hears what may be sent."""
    async with maxscale.http({"Origin": "https://app.example.com"}) as http:
        response = await http.request("OPTIONS", "/v1/sessions/1")
    async with maxscale.http({"Origin": "https://evil.example"}) as http:
        refused = await http.request("OPTIONS", "/v1/sessions/1")

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert response.headers["Access-Control-Allow-Methods"] == response.headers["Allow"]
    assert "If-Match" in response.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in refused.headers


@pytest.mark.parametrize(
    "path, methods",
    [
        ("/v1/sessions", "GET, HEAD, OPTIONS"),
        ("/v1/sessions/1", "GET, HEAD, PATCH, DELETE, OPTIONS"),
        ("/v1/sessions/1/restart", "POST, OPTIONS"),
        ("/v1/sessions/1/relationships/filters", "GET, HEAD, PATCH, OPTIONS"),
    ],
)
async def test_options_tells_every_verb(http: httpx2.AsyncClient, path: str, methods: str) -> None:
    """OPTIONS tells what works, in MaxScale's header and in HTTP's."""
    response = await http.request("OPTIONS", path)

    assert response.headers["Accept"] == response.headers["Allow"] == methods


async def test_replies_carry_maxscales_headers(http: httpx2.AsyncClient) -> None:
    """Replies, refusals too, may not be framed or kept without asking."""
    for path in ("/v1/sessions", "/nowhere"):
        headers = (await http.get(path)).headers

        assert headers["Cache-Control"] == "no-cache"
        assert headers["X-Frame-Options"] == "Deny"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Content-Type"] == "application/json"
