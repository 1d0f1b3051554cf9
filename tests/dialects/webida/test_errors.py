"""Bad input of any kind is answered in the product's way and changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

import httpx2
import pytest

from tests.dialects.webida.conftest import ADMIN, PAGE, Webida
from tests.nodes import blank


def told(answer: httpx2.Response) -> tuple[int, str, str]:
    """Return status, code and message of an error."""
    body = answer.json()
    assert set(body) == {"code", "message"}
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status_code, body["code"], body["message"]


TIMES: Final = [
    ("", "is required"),
    ("closeAfter=", "must be a number"),
    ("closeAfter=abc", "must be a number"),
    ("closeAfter=NaN", "must be a number"),
    ("closeAfter=Infinity", "must be a number"),
    ("closeAfter=1&closeAfter=2", "must be a number"),
    ("closeAfter=%D9%A1", "must be a number"),
    ("closeAfter=" + "9" * 100, "must be a number"),
    ("closeAfter=1.5", "must be an integer"),
    ("closeAfter=-1", "must be larger than or equal to 0"),
    ("closeAfter=86401", "must be less than or equal to 86400"),
    ("closeAfter=1e99", "must be less than or equal to 86400"),
]


async def test_close_after_is_checked(webida: Webida) -> None:
    """A close without a sensible time is refused in the words of the product's validator."""
    await webida.node.open(blank("a"))
    for query, message in TIMES:
        async with webida.http() as http:
            answer = await http.delete(f"/sessions/a?{query}")

        assert told(answer) == (400, "BadRequestError", f'"closeAfter" {message}')
        assert webida.session("a").closing is None


async def test_close_after_is_any_spelling_of_a_whole_number(webida: Webida) -> None:
    """The product's validator reads numbers as ECMAScript does."""
    await webida.node.open(blank("a"))
    for text in ("30", "+30", "30.0", "3e1"):
        async with webida.http() as http:
            answer = await http.delete("/sessions/a", params={"closeAfter": text})

        assert answer.json() == {"message": "session a closes in 30 seconds"}


WITHOUT_A_TOKEN: Final = [
    ("DELETE", "/sessions/a"),
    ("GET", "/sessions?workspaceId=1&workspaceId=2"),
    ("POST", "/auth/token"),
    ("GET", "/auth/info"),
]


async def test_who_comes_before_what(webida: Webida) -> None:
    """A request without a token is told so before anything is said of its parameters."""
    for method, path in WITHOUT_A_TOKEN:
        async with webida.http(None) as http:
            answer = await http.request(method, path)

        assert told(answer) == (401, "UnauthorizedError", "need access token")


PARAMETERS: Final = [
    ("GET", "/sessions?workspaceId=1&workspaceId=2", '"workspaceId" must be a string'),
    ("GET", "/sessions?workspaceId=%FF", "the query cannot be read"),
    ("GET", "/sessions?" + "a=1&" * 300, "the query cannot be read"),
    (
        *("GET", "/sessions?workspaceId=" + "a" * 300),
        '"workspaceId" must be a name of at most 256 characters',
    ),
    (
        *("GET", "/sessions?workspaceId=%00"),
        '"workspaceId" must be a name of at most 256 characters',
    ),
    ("POST", "/auth/token", '"type" is required'),
    ("POST", "/auth/token?type=access", '"type" must be one of [MASTER, ACCESS]'),
]


async def test_parameters_are_checked(http: httpx2.AsyncClient) -> None:
    """A parameter that cannot be read is named."""
    for method, path, message in PARAMETERS:
        assert told(await http.request(method, path)) == (400, "BadRequestError", message)


LOGINS: Final = [
    (b"", '"body" is required'),
    (b"{", '"body" must be an object'),
    (b"[]", '"body" must be an object'),
    (b"\xff", '"body" must be an object'),
    (b"[" * 10_000, '"body" must be an object'),
    (b"{}", '"loginId" is required'),
    (b'{"loginId":"a"}', '"loginPassword" is required'),
    (b'{"loginId":1,"loginPassword":"a"}', '"loginId" must be a string'),
    (b'{"loginId":"a","loginPassword":null}', '"loginPassword" must be a string'),
    (b'{"loginId":"a","loginPassword":"b","masterToken":3}', '"masterToken" must be a string'),
    (b'{"loginId":"\xff","loginPassword":"b"}', '"body" must be'),
]


async def test_login_is_checked(webida: Webida) -> None:
    """A body that is no Credential is refused, and what is wrong with it is named."""
    for body, message in LOGINS:
        async with webida.http(None) as http:
            status, code, said = told(await http.post("/auth/login", content=body))

        assert (status, code) == (400, "BadRequestError")
        assert said.startswith(message)


async def test_login_of_another_type_is_refused(webida: Webida) -> None:
    """A login is JSON, and one that says that it is something else is not read."""
    login = json.dumps({"loginId": "admin", "loginPassword": ADMIN}).encode()
    async with webida.http(None) as http:
        for kind, status in (("text/plain", 415), ("application/json; charset=utf-8", 200)):
            headers = {"Content-Type": kind}
            answer = await http.post("/auth/login", content=login, headers=headers)
            assert answer.status_code == status


async def test_dots_are_no_session(webida: Webida) -> None:
    """What means another place in a path is no id: none is found, and none is opened."""
    host, port = webida.url.removeprefix("http://").split(":")
    for dots in (b"%2E", b"%2e%2e", b".", b".."):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET /webida/api/sessions/%b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n"
            % (dots, ADMIN.encode())
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        writer.close()
        await writer.wait_closed()
    for text in (".", ".."):
        client = await webida.connect(ADMIN, sessionId=text)
        assert await client.refused() == '"sessionId" is not acceptable'


async def test_large_body_is_refused(webida: Webida) -> None:
    """A body is bounded, whether or not its length is told."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1_000

    async with webida.http(None) as http:
        for content in (b" " * 20_000, chunks()):
            answer = await http.post("/auth/login", content=content)
            assert told(answer)[:2] == (413, "RequestEntityTooLargeError")


async def test_long_address_is_refused(http: httpx2.AsyncClient) -> None:
    """An address is bounded."""
    answer = await http.get("/sessions", params={"workspaceId": "a" * 9_000})

    assert told(answer)[:2] == (414, "RequesturiTooLargeError")


async def test_body_that_nobody_wants_is_ignored(http: httpx2.AsyncClient) -> None:
    """The published client announces JSON with every request and often sends none."""
    headers = {"Content-Type": "application/json"}
    empty = await http.get("/sessions", headers=headers)
    nonsense = await http.request("GET", "/sessions", headers=headers, content=b"{")

    assert (empty.status_code, nonsense.status_code) == (200, 200)


async def test_unknown_path_is_told(http: httpx2.AsyncClient) -> None:
    """A path that is none is another thing than a session that is none."""
    for path in ("", "/", "/x", "/sessions/a/b", "/workspaces/ws-1", "/sessions/"):
        answer = await http.get(path)
        assert told(answer) == (404, "ResourceNotFound", "There is no such path.")


METHODS: Final = [
    ("POST", "/sessions", "GET, HEAD, OPTIONS"),
    ("PUT", "/sessions/a", "DELETE, GET, HEAD, OPTIONS"),
    ("GET", "/auth/login", "OPTIONS, POST"),
    ("PATCH", "/auth/info", "GET, HEAD, OPTIONS"),
]


async def test_wrong_method_is_told(http: httpx2.AsyncClient) -> None:
    """A path that takes other methods says which."""
    for method, path, allow in METHODS:
        answer = await http.request(method, path)

        assert told(answer) == (405, "MethodNotAllowedError", f"{method[:16]} is not allowed")
        assert answer.headers["Allow"] == allow


async def test_head_is_a_get_without_a_body(http: httpx2.AsyncClient) -> None:
    """HEAD says what GET would."""
    answer = await http.head("/sessions")

    assert (answer.status_code, answer.content) == (200, b"")


async def test_two_tokens_are_refused(webida: Webida) -> None:
    """Which of two headers counts is not guessed."""
    headers = [("Authorization", ADMIN), ("Authorization", "reader")]
    async with webida.http(None) as http:
        answer = await http.get("/sessions", headers=headers)

    assert told(answer)[0] == 400


async def test_token_in_the_address_is_none(webida: Webida) -> None:
    """REST takes a token in its header only; addresses are logged everywhere."""
    async with webida.http(None) as http:
        answer = await http.get("/sessions", params={"token": ADMIN})

    assert answer.status_code == 401


async def test_page_of_an_allowed_origin_may_call(webida: Webida) -> None:
    """A browser asks first; it is told yes for pages that are listed only."""
    async with webida.http(None) as http:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
        first = await http.options("/sessions/a", headers=asked)
        then = await http.get("/sessions", headers={"Origin": PAGE})
        other = await http.options("/sessions/a", headers={"Origin": "https://example.net"})
        twice = await http.get("/sessions", headers=[("Origin", PAGE), ("Origin", PAGE)])

    assert first.status_code == 204
    assert first.headers["Access-Control-Allow-Origin"] == PAGE
    assert first.headers["Access-Control-Allow-Methods"] == "DELETE, GET, HEAD, OPTIONS"
    assert "Authorization" in first.headers["Access-Control-Allow-Headers"]
    assert (then.status_code, then.headers["Access-Control-Allow-Origin"]) == (401, PAGE)
    for answer in (other, twice):
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_body_that_does_not_come_is_given_up(
    webida: Webida, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that announces a body and sends none is answered, not waited for."""
    monkeypatch.setattr("gateway.http.request.BODY_WITHIN_S", 0.05)
    host, port = webida.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    head = await reader.readuntil(b"\r\n")
    writer.close()
    await writer.wait_closed()

    assert head.startswith(b"HTTP/1.1 400")


async def test_failure_nobody_foresaw_is_told_without_details(
    webida: Webida, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours is an InternalError that tells nothing."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(webida.node.replica, "all_in", fail)
    async with webida.http() as http:
        answer = await http.get("/sessions")

    assert told(answer)[:2] == (500, "InternalError")
    assert "secret" not in answer.text


async def test_description_names_everything_once(webida: Webida) -> None:
    """The dialect describes all its operations, and every schema that it refers to."""
    async with httpx2.AsyncClient(base_url=webida.url) as http:
        described = (await http.get("/webida/openapi.json")).json()
    ids = [
        operation["operationId"]
        for path, methods in described["paths"].items()
        for operation in methods.values()
        if path.startswith("/api/")
    ]
    text = str(described)

    assert sorted(described["paths"]) == [
        *("/api/auth/info", "/api/auth/login", "/api/auth/token"),
        *("/api/sessions", "/api/sessions/{sessionId}", "/openapi.json"),
    ]
    assert len(set(ids)) == len(ids) == 6
    for name in ("SessionA", "Token", "WebidaUser", "RestOK", "RestError", "LoginBody"):
        assert name in described["components"]["schemas"]
        assert f"#/components/schemas/{name}" in text
