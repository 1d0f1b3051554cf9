"""Bad input over REST: every kind of it gets a documented error and changes nothing."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from gateway.store.embedded import EmbeddedValkey
from tests.server.conftest import Gateway, serving, settings_for
from tests.server.test_api_http import raw
from tests.server.test_api_sessions import opened

Json = dict[str, Any]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(valkey: EmbeddedValkey) -> AsyncIterator[Gateway]:
    """One gateway for the whole module: bad input leaves nothing behind."""
    async with serving(settings_for(valkey, "test-api-input:")) as running_gateway:
        async with running_gateway.http() as client:
            await opened(client, id="s-1")
        yield running_gateway


@pytest_asyncio.fixture(loop_scope="module")
async def http(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with all rights; whatever a test does with it, no session may have changed."""
    async with gateway.http() as client:
        before = (await client.get("/v1/sessions")).json()
        yield client
        assert (await client.get("/v1/sessions")).json() == before


def check_problem(reply: httpx2.Response, status: int, code: str) -> Json:
    """Look at a problem document and return it."""
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem: Json = reply.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"/docs#{code}"
    assert problem["title"]
    assert problem["request_id"]
    assert "Gateway-Position" in reply.headers
    return problem


async def test_unknown_address_is_a_problem(http: httpx2.AsyncClient) -> None:
    """An address that nobody serves is a 404; a slash too many is another address."""
    for path in (
        "/nothing",
        "/v1",
        "/v1/sessions/",
        "/v1/sessions/s-1/x",
        "/V1/sessions",
        "//v1/sessions",
    ):
        check_problem(await http.get(path), 404, "not_found")


async def test_unknown_method_names_those_that_are_known(http: httpx2.AsyncClient) -> None:
    """A method that a path does not take is a 405 with ``Allow``."""
    for method in ("PUT", "PATCH", "DELETE", "TRACE", "PURGE"):
        reply = await http.request(method, "/v1/sessions")
        check_problem(reply, 405, "method_not_allowed")
        assert reply.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


async def test_head_is_get_without_a_body(http: httpx2.AsyncClient) -> None:
    """HEAD answers with the headers of GET."""
    get, head = await http.get("/v1/sessions"), await http.head("/v1/sessions")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["ETag"] == get.headers["ETag"]
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize(
    "session_id",
    [
        *("x" * 129, "%00", "%2e%2e", "{}", "a%0D%0Ab", "a%0A", "a%20b", "%D0%B0", "%ED%A0%80"),
        *("%FF", "a;b", "a%2Fb", "x" * 4000),
    ],
)
async def test_impossible_id_is_refused(gateway: Gateway, session_id: str) -> None:
    """What cannot be an id is a 400, or another address."""
    for path in ("", "/closing", "/watch"):
        reply = await raw(
            gateway,
            b"GET /v1/sessions/%b%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: Bearer %b\r\n\r\n"
            % (session_id.encode(), path.encode(), gateway.token.encode()),
        )
        assert reply.split(b" ", 2)[1] in (b"400", b"404", b"405"), reply


@pytest.mark.parametrize(
    "query, named",
    [
        *(("limit=0", "limit"), ("limit=-1", "limit"), ("limit=1000000000", "limit")),
        *(("limit=abc", "limit"), ("limit=", "limit"), ("limit=1" + "0" * 400, "limit")),
        *(("limit=1&limit=2", "limit"), ("limit=NaN", "limit"), ("limit=1.5", "limit")),
        *(("colour=red", "colour"), ("Limit=1", "Limit"), ("labels=x", "labels")),
        *(
            ("state=open", "state"),
            ("connected=maybe", "connected"),
            ("connected=null", "connected"),
        ),
        *(("sort=name", "sort"), ("workspace=", "workspace"), ("q=" + "x" * 257, "q")),
        *(("label.a%20b=x", "labels"), ("label.=x", "labels"), ("label.a=1&label.a=2", "label.a")),
        *(("fields=id,secret", "fields"), ("fields=", "fields"), ("pretty=maybe", "pretty")),
        *(("offset=5", "offset"), ("at=x&at=y", "at"), ("since=x", "since")),
    ],
)
async def test_bad_parameter_is_named(http: httpx2.AsyncClient, query: str, named: str) -> None:
    """A parameter that is unknown, repeated or not acceptable is a 400 that names it."""
    problem = check_problem(await http.get(f"/v1/sessions?{query}"), 400, "bad_request")

    assert named in problem["detail"]


@pytest.mark.parametrize("query", ["a=%FF", "&".join(f"label.l{n}=x" for n in range(300)), "\xff="])
async def test_unreadable_query_is_refused(gateway: Gateway, query: str) -> None:
    """A query that is not UTF-8, or that has hundreds of parameters, is a 400."""
    reply = await raw(
        gateway,
        b"GET /v1/sessions?%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % (query.encode("latin-1"), gateway.token.encode()),
    )

    assert b" 400 " in reply.partition(b"\r\n")[0]


@pytest.mark.parametrize("cursor", ["x", "!!!", "W10", "bnVsbA", "WzEsImNyZWF0ZWRfYXQiLDEsIngiXQ"])
async def test_foreign_cursor_is_refused(http: httpx2.AsyncClient, cursor: str) -> None:
    """A cursor that was not issued, or for another list, is a 400."""
    for path in ("/v1/sessions", "/v1/streams", "/v1/history"):
        check_problem(await http.get(path, params={"cursor": cursor}), 400, "bad_position")


async def test_cursor_of_another_list_is_refused(gateway: Gateway) -> None:
    """A cursor is good for its own filter, order and caller."""
    async with gateway.http() as http, gateway.http("ws-1") as other:
        for _ in range(2):
            await opened(http, workspace="ws-1")
        cursor = (await http.get("/v1/sessions?limit=1")).json()["next"]

        for client, query in ((http, "sort=number"), (http, "workspace=ws-1"), (other, "limit=1")):
            reply = await client.get(f"/v1/sessions?{query}&cursor={cursor}")
            check_problem(reply, 400, "bad_position")


@pytest.mark.parametrize("at", ["x", "", "0-0-0", "zzzz-00000000-1", "\x00"])
async def test_unreadable_position_is_refused(http: httpx2.AsyncClient, at: str) -> None:
    """A position that this gateway did not issue is a 400."""
    check_problem(await http.get("/v1/sessions", params={"at": at}), 400, "bad_position")


async def test_position_of_another_number_of_partitions_is_refused(
    http: httpx2.AsyncClient, gateway: Gateway
) -> None:
    """A position with more offsets than there are partitions is not waited for."""
    at = f"{gateway.node.replica.position()}-1"

    check_problem(await http.get("/v1/sessions", params={"at": at}), 400, "bad_position")


@pytest.mark.parametrize(
    "body, status",
    [
        *(
            (b"", 400),
            (b"{", 400),
            (b'{"name":', 400),
            (b"\xef\xbb\xbf{}", 400),
            (b"\xff\xfe", 400),
        ),
        *((b'{"name":"\xff"}', 400), (b'{"name":"\\ud800"}', 400), (b"{} {}", 400), (b"'", 400)),
        *((b'{"attributes":{"x":NaN}}', 400), (b'{"attributes":{"x":Infinity}}', 400)),
        *(
            (b'{"attributes":' + b'{"x":' * 2000 + b"1" + b"}" * 2001, 400),
            (b'{"attributes":{"x":' + b"[" * 5000, 400),
        ),
        *((b'{"name":"a","name":"b"}', 400), (b'{"attributes":{"x":{"a":1,"a":2}}}', 400)),
        *((b"[]", 422), (b"null", 422), (b'"x"', 422), (b"1", 422), (b'{"colour":"red"}', 422)),
        *((b'{"name":1}', 422), (b'{"name":null}', 422), (b'{"name":""}', 422)),
        *((b'{"ttl_ms":true}', 422), (b'{"ttl_ms":-1}', 422), (b'{"ttl_ms":1.5}', 422)),
        *((b'{"ttl_ms":"1"}', 422), (b'{"ttl_ms":1' + b"0" * 400 + b"}", 422)),
        *((b'{"attributes":{"x":1e400}}', 422), (b'{"attributes":{"x":null}}', 422)),
        *((b'{"name":"a\\u0000b"}', 422), (b'{"attributes":{"x":"\\u0000"}}', 422)),
        *((b'{"attributes":{"x":["\\u0000"]}}', 422), (b'{"attributes":{"\\u0000":1}}', 422)),
        *((b'{"labels":{"a b":"x"}}', 422), (b'{"labels":{"a":1}}', 422)),
        *((b'{"labels":{"a":null}}', 422), (b'{"id":"a/b"}', 422), (b'{"id":"a\\n"}', 422)),
        *((b'{"attributes":{"x":"' + b"x" * 5000 + b'"}}', 422), (b'{"revision":7}', 422)),
        (b'{"attributes":' + b'{"x":' * 40 + b"1" + b"}" * 41, 422),
        (json.dumps({"labels": {f"l{n}": "x" for n in range(33)}}).encode(), 422),
        (json.dumps({"members": [f"m{n}" for n in range(257)]}).encode(), 422),
    ],
)
async def test_bad_body_is_refused(http: httpx2.AsyncClient, body: bytes, status: int) -> None:
    """What is no JSON is a 400; JSON with a value that is not acceptable is a 422."""
    reply = await http.post(
        "/v1/sessions", content=body, headers={"Content-Type": "application/json"}
    )

    check_problem(reply, status, "bad_request" if status == 400 else "invalid")


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"),
        *("application/json; charset=utf-16", "application/jsonp", "application/merge-patch+json"),
    ],
)
async def test_body_of_another_type_is_refused(http: httpx2.AsyncClient, content_type: str) -> None:
    """A body that does not say that it is JSON in UTF-8 is a 415."""
    headers = {"Content-Type": content_type} if content_type else {}
    reply = await http.post("/v1/sessions", content=b"{}", headers=headers)

    check_problem(reply, 415, "unsupported_media_type")


async def test_compressed_body_is_refused(http: httpx2.AsyncClient) -> None:
    """A compressed body is a 415: nobody can make us unpack a bomb."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    reply = await http.post("/v1/sessions", content=b"{}", headers=headers)

    check_problem(reply, 415, "unsupported_media_type")


async def test_body_over_the_limit_is_refused(http: httpx2.AsyncClient) -> None:
    """A body over 64 KiB is a 413, announced or not; the connection is not used again."""
    large = b'{"name":"' + b"x" * 65_536 + b'"}'

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 8192):
            yield large[start : start + 8192]

    for content in (large, in_pieces()):
        reply = await http.post(
            "/v1/sessions", content=content, headers={"Content-Type": "application/json"}
        )
        check_problem(reply, 413, "payload_too_large")
        assert reply.headers["Connection"] == "close"


async def test_body_where_none_is_read_is_refused(http: httpx2.AsyncClient) -> None:
    """A body on a request that takes none is a 400, not ignored."""
    for method, path in (("GET", ""), ("DELETE", ""), ("PUT", "/members/Ann")):
        reply = await http.request(method, f"/v1/sessions/s-1{path}", json={})
        check_problem(reply, 400, "bad_request")


@pytest.mark.parametrize("value", ["-1", "NaN", "inf", "1e9", "86401", "abc", "", "1e400", "null"])
async def test_impossible_delay_is_refused(http: httpx2.AsyncClient, value: str) -> None:
    """A delay is a number of seconds between 0 and a day."""
    in_query = await http.delete("/v1/sessions/s-1", params={"close_after": value})
    in_body = await http.put(
        "/v1/sessions/s-1/closing",
        content=b'{"after_s":%b}' % value.encode(),
        headers={"Content-Type": "application/json"},
    )

    problem = check_problem(in_query, 400, "bad_request")
    assert "close_after" in problem["detail"]
    assert in_body.status_code in (400, 422)


@pytest.mark.parametrize("accept", ["text/html", "application/xml, image/*", "*/*;q=0"])
async def test_impossible_accept_is_refused(http: httpx2.AsyncClient, accept: str) -> None:
    """Who takes no JSON cannot be served."""
    reply = await http.get("/v1/sessions", headers={"Accept": accept})

    check_problem(reply, 406, "not_acceptable")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "text/html, */*;q=0.1", "", "garbage;;, */*"]
)
async def test_possible_accept_is_served(http: httpx2.AsyncClient, accept: str) -> None:
    """Who takes anything, or says nothing, gets JSON."""
    reply = await http.get("/v1/sessions", headers={"Accept": accept})

    assert reply.headers["Content-Type"] == "application/json"


async def test_range_is_ignored(http: httpx2.AsyncClient) -> None:
    """There are no parts of a reply."""
    reply = await http.get("/v1/sessions", headers={"Range": "bytes=0-1"})

    assert reply.status_code == 200


async def test_long_address_is_refused(http: httpx2.AsyncClient) -> None:
    """An address over 8 KiB is a 414."""
    reply = await http.get("/v1/sessions", params={"q": "x" * 8192})

    check_problem(reply, 414, "uri_too_long")


async def test_strange_texts_come_back_as_they_were(gateway: Gateway) -> None:
    """Text of people is kept as it is and escaped by JSON; nothing in it is special."""
    name = "\r\n\x1b[2J</script>😀\u202e\u0410"
    async with gateway.http() as http:
        reply = await http.post("/v1/sessions", json={"name": name})

    assert reply.json()["name"] == name


@pytest.mark.parametrize("key", ["x" * 65, "a b", "a#b", "ä", ""])
async def test_bad_idempotency_key_is_refused(http: httpx2.AsyncClient, key: str) -> None:
    """A key is short, visible ASCII."""
    reply = await http.post(
        "/v1/sessions", json={}, headers=[(b"Idempotency-Key", key.encode("latin-1"))]
    )

    check_problem(reply, 400, "bad_request")


async def test_pretty_indents_replies_and_problems(http: httpx2.AsyncClient) -> None:
    """``pretty``, bare or true, indents any JSON reply and changes nothing else."""
    for query in ("pretty", "pretty=true", "pretty=1"):
        for path in ("/v1/sessions/s-1", "/v1/sessions/s-2"):
            plain, pretty = await http.get(path), await http.get(f"{path}?{query}")
            assert b'\n  "' in pretty.content
            assert {**plain.json(), "request_id": 0} == {**pretty.json(), "request_id": 0}
    assert b"\n" not in (await http.get("/v1/sessions/s-1?pretty=false")).content
