"""Logging in, in Webida's way: passwords and MASTER tokens in, ACCESS tokens out."""

from typing import Any

from msgspec.structs import replace

from gateway.auth.principals import Scope, hash_secret, mint_session_secret
from gateway.core.command import Close
from gateway.core.model import Private
from tests.dialects.webida.conftest import ADMIN, Webida, add_user
from tests.nodes import blank

Json = Any

ACCESS_S = 600
MASTER_S = 180 * 86_400


async def issued(webida: Webida, token: str, **query: str) -> Json:
    """Return the Token that *token* is renewed to."""
    async with webida.http(token) as http:
        answer = await http.post("/auth/token", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def status(webida: Webida, token: str) -> tuple[int, str]:
    """Return how a request with *token* is answered."""
    async with webida.http(token) as http:
        answer = await http.get("/auth/info")
        return answer.status_code, answer.json().get("message", "")


async def master_login(webida: Webida, master: str) -> tuple[int, Json]:
    """Log in with a MASTER token beside bogus values, as the product's clients do."""
    async with webida.http(None) as http:
        given = {"loginId": "x", "loginPassword": "y", "masterToken": master}
        answer = await http.post("/auth/login", json=given)
        return answer.status_code, answer.json()


async def test_login_answers_with_an_access_token(webida: Webida) -> None:
    """A login mints a token for minutes and the id of a session that is not there yet."""
    add_user(webida, "ann", Scope.CONNECT, Scope.READ)
    token = await webida.log_in("ann", "ann")

    assert set(token) == {"text", "tokenType", "expiresAt", "issuedAt", "sessionId"}
    assert token["tokenType"] == "ACCESS"
    assert token["issuedAt"] == "2026-01-02T03:04:05.000Z"
    assert token["expiresAt"] == "2026-01-02T03:14:05.000Z"
    assert token["sessionId"] not in webida.node.replica.sessions
    assert (await webida.log_in("ann", "ann"))["sessionId"] != token["sessionId"]


async def test_user_of_a_workspace_gets_a_restricted_token(webida: Webida) -> None:
    """Who belongs to a workspace is told so, and may not leave it."""
    add_user(webida, "ann", Scope.CONNECT, workspace="ws-1")
    token = await webida.log_in("ann", "ann")

    assert token["workspaceId"] == "ws-1"
    async with webida.http(token["text"]) as http:
        answer = await http.post("/auth/token", params={"type": "ACCESS", "workspaceId": "ws-2"})
    assert (answer.status_code, answer.json()["code"]) == (403, "ForbiddenError")


async def test_wrong_login_is_refused(webida: Webida) -> None:
    """Who is not known and who has the wrong password hear the same."""
    for name, password in (("admin", "wrong"), ("nobody", ADMIN), ("", ""), ("é😀", "x")):
        async with webida.http(None) as http:
            given = {"loginId": name, "loginPassword": password}
            answer = await http.post("/auth/login", json=given)

        assert answer.status_code == 401
        assert answer.json() == {"code": "UnauthorizedError", "message": "authentication failed"}


async def test_info_says_who_is_logged_in(webida: Webida) -> None:
    """A person is shown by id and name; an address is also an email."""
    add_user(webida, "ann@example.com", Scope.CONNECT)
    token = await webida.log_in("ann@example.com", "ann@example.com")
    async with webida.http(token["text"]) as http:
        answer = await http.get("/auth/info")

    known = "ann@example.com"
    assert answer.json() == {"id": known, "email": known, "name": known}


async def test_token_is_taken_with_and_without_a_scheme(webida: Webida) -> None:
    """The product sends the bare token; clients may put a word before it."""
    token = (await webida.log_in())["text"]
    for spelling in ("{}", "Bearer {}", "token {}"):
        assert (await status(webida, spelling.format(token)))[0] == 200
        assert (await status(webida, spelling.format("reader")))[0] == 200


async def test_wrong_token_is_refused(webida: Webida) -> None:
    """A token that is none is told so in the product's words."""
    for shown in ("wrong", "Basic YTpi", "a.b.c", "x" * 8_000):
        assert await status(webida, shown) == (401, "invalid token")


async def test_missing_token_is_told(webida: Webida) -> None:
    """Who shows nothing is told what is missing."""
    for shown in ("", "Bearer", "token"):
        async with webida.http(None) as http:
            answer = await http.get("/auth/info", headers={"Authorization": shown} if shown else {})
        assert (answer.status_code, answer.json()["message"]) == (401, "need access token")


async def test_access_token_expires(webida: Webida) -> None:
    """An ACCESS token is good for ten minutes."""
    token = (await webida.log_in())["text"]
    webida.wall.pass_s(ACCESS_S)

    assert (await status(webida, token))[0] == 200
    webida.wall.pass_s(6)
    assert await status(webida, token) == (401, "invalid token")


async def test_renewal_keeps_session_and_workspace(webida: Webida) -> None:
    """A renewed token is the same client's, however often it is renewed."""
    token = await webida.log_in()
    one = await issued(webida, token["text"], type="ACCESS", workspaceId="ws-7")
    webida.wall.pass_s(500)
    other = await issued(webida, one["text"], type="ACCESS")

    assert other["sessionId"] == one["sessionId"] == token["sessionId"]
    assert other["workspaceId"] == one["workspaceId"] == "ws-7"
    assert "workspaceId" not in token
    assert other["expiresAt"] > one["expiresAt"]


async def test_restricted_admin_is_no_admin_elsewhere(webida: Webida) -> None:
    """A token that is restricted to a workspace loses what goes beyond it."""
    token = await webida.log_in()
    narrow = await issued(webida, token["text"], type="ACCESS", workspaceId="ws-7")
    async with webida.http(narrow["text"]) as http:
        elsewhere = await http.get("/sessions", params={"workspaceId": "ws-8"})
        wider = await http.post("/auth/token", params={"type": "ACCESS", "workspaceId": "ws-8"})
        here = await http.get("/sessions", params={"workspaceId": "ws-7"})

    assert (elsewhere.status_code, wider.status_code, here.status_code) == (403, 403, 200)


async def test_master_token_logs_in_and_does_nothing_else(webida: Webida) -> None:
    """A MASTER token is good for half a year, for logging in only."""
    token = await webida.log_in()
    master = await issued(webida, token["text"], type="MASTER", workspaceId="ws-7")
    webida.wall.pass_s(MASTER_S - 60)
    code, again = await master_login(webida, master["text"])

    assert master["tokenType"] == "MASTER"
    assert "sessionId" not in master
    assert await status(webida, master["text"]) == (401, "invalid token type")
    assert code == 200
    assert again["tokenType"] == "ACCESS"
    assert again["workspaceId"] == "ws-7"
    assert again["sessionId"] != token["sessionId"]


async def test_expired_or_wrong_master_token_is_refused(webida: Webida) -> None:
    """Only a MASTER token of ours that is still good logs in."""
    token = await webida.log_in()
    master = await issued(webida, token["text"], type="MASTER")
    webida.wall.pass_s(MASTER_S + 10)

    for shown in (master["text"], token["text"], "reader", "x"):
        code, answer = await master_login(webida, shown)
        assert (code, answer["message"]) == (401, "authentication failed")


async def test_user_who_is_gone_gets_no_new_token(webida: Webida) -> None:
    """Who is removed, or has another password, is out when the last ACCESS token expires."""
    add_user(webida, "ann", Scope.CONNECT)
    add_user(webida, "bob", Scope.CONNECT)
    tokens = [await webida.log_in(name, name) for name in ("ann", "bob")]
    master = await issued(webida, tokens[0]["text"], type="MASTER")
    webida.context.users.remove("ann")
    webida.context.users.add("bob", "other", scopes=[Scope.CONNECT])

    for token in tokens:
        async with webida.http(token["text"]) as http:
            answer = await http.post("/auth/token", params={"type": "ACCESS"})
        assert (answer.status_code, answer.json()["message"]) == (401, "invalid token")
    assert (await master_login(webida, master["text"]))[0] == 401


async def test_renewal_takes_rights_of_today(webida: Webida) -> None:
    """Who is given less, or another workspace, has it with the next token."""
    add_user(webida, "ann", Scope.CONNECT, Scope.READ)
    token = await webida.log_in("ann", "ann")
    narrow = await issued(webida, token["text"], type="ACCESS", workspaceId="ws-1")
    users, path = webida.context.users, webida.context.settings.users_path
    kept = users.list()["ann"].hash
    users.add("ann", "ann", scopes=[Scope.CONNECT], workspace="ws-2")
    path.write_text(path.read_text().replace(users.list()["ann"].hash, kept))
    today = await issued(webida, token["text"], type="ACCESS")
    async with webida.http(narrow["text"]) as http:
        refused = await http.post("/auth/token", params={"type": "ACCESS"})

    assert today["workspaceId"] == "ws-2"
    assert refused.status_code == 401


async def test_token_of_a_key_ends_within_a_day(webida: Webida) -> None:
    """What follows from another token of the gateway cannot be renewed for ever."""
    token = await issued(webida, "ide", type="ACCESS")
    for _ in range(3):
        webida.wall.pass_s(550)
        token = await issued(webida, token["text"], type="ACCESS")
    master = await issued(webida, "ide", type="MASTER")
    last = await issued(webida, token["text"], type="MASTER")

    assert master["expiresAt"] == "2026-01-03T03:31:35.000Z"
    assert last["expiresAt"] == "2026-01-03T03:04:05.000Z"
    webida.wall.pass_s(86_400)
    assert (await master_login(webida, last["text"]))[0] == 401


async def test_session_token_is_no_login(webida: Webida) -> None:
    """No token is made of a session's own, so it opens nothing, also when the session is closed."""
    secret = mint_session_secret()
    private = Private(token_hash=hash_secret(secret))
    await webida.node.open(replace(blank("mine", workspace="ws-1"), private=private))
    shown = f"mine.{secret}"
    for _ in ("while it is open", "when it is closed"):
        async with webida.http(shown) as http:
            for kind in ("MASTER", "ACCESS"):
                answer = await http.post("/auth/token", params={"type": kind})
                assert (answer.status_code, answer.json()["code"]) == (403, "ForbiddenError")
        assert (await master_login(webida, shown))[0] == 401
        other = await webida.connect(shown, sessionId="other")
        assert await other.refused() == "insufficient access rights"
        await webida.node.apply("mine", Close(), op="once")  # the second time it is closed already

    again = await webida.connect(shown)
    assert await again.refused() == "session is closed"
    assert list(webida.node.replica.sessions) == []


async def test_users_that_cannot_be_read_are_a_failure_for_now(webida: Webida) -> None:
    """A broken file of users refuses logins for now; it says nothing of what is in it."""
    webida.context.settings.users_path.write_text("{")
    async with webida.http(None) as http:
        given = {"loginId": "admin", "loginPassword": ADMIN}
        answer = await http.post("/auth/login", json=given)

    assert (answer.status_code, answer.json()["code"]) == (503, "ServiceUnavailableError")


async def test_tokens_are_not_kept_by_caches(webida: Webida) -> None:
    """An answer with a token in it is stored nowhere."""
    async with webida.http() as http:
        given = {"loginId": "admin", "loginPassword": ADMIN}
        for answer in (
            await http.post("/auth/login", json=given),
            await http.post("/auth/token", params={"type": "ACCESS"}),
        ):
            assert answer.headers["Cache-Control"] == "no-store"
