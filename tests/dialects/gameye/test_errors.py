"""Gameye's one shape of an error: who gets which, and that nothing else is ever sent."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx2
import jsonschema
import pytest
from msgspec.json import encode
from msgspec.json import format as indented
from msgspec.structs import replace

from gateway.auth.rate_limit import RateLimiter
from gateway.core.errors import ERRORS, GatewayError
from gateway.dialects.gameye.schema import Failure, Violation
from gateway.dialects.gameye.style import row_of
from gateway.settings import Settings
from tests.dialects.gameye.conftest import ADMIN, START, Served, begin, serving

REQUIRED: Final = {
    *("statusCode", "code", "message", "details"),
    *("path", "timestamp", "identifier"),
}
GOLDEN: Final = Path(__file__).parent / "golden"
DOCUMENTED: Final = {400, 401, 402, 403, 404, 409, 420, 422, 500, 503, 504}

FAILURE: Final = {
    "type": "object",
    "required": sorted(REQUIRED),
    "additionalProperties": False,
    "properties": {
        **{name: {"type": "string", "minLength": 1} for name in REQUIRED - {"statusCode"}},
        "statusCode": {"type": "integer"},
        "timestamp": {"pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
        "violations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "description"],
                "additionalProperties": False,
                "properties": {
                    "field": {"type": "string", "minLength": 1},
                    "description": {"type": "string", "minLength": 1},
                },
            },
        },
    },
}


def failure(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """Check that *answer* is Gameye's error and return its body."""
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    jsonschema.validate(body, FAILURE)
    assert (answer.status_code, body["statusCode"], body["code"]) == (status, status, code)
    assert UUID(body["identifier"]).version == 4
    return body


def test_error_is_written_as_documented() -> None:
    """An error has Gameye's names, and violations only where there are some."""
    found = Failure(
        status_code=422,
        code="INVALID_REQUEST",
        message="The request is not acceptable.",
        details="See the violations.",
        path="/session",
        timestamp="2026-01-01T00:33:00Z",
        identifier="4b0b7c1e-9f64-4c0f-8a39-6f5d6f1d1c55",
        violations=(Violation(field="playerCount[lt]", description="must be an integer"),),
    )

    text = indented(encode(found).decode(), indent=2) + "\n"
    assert text == (GOLDEN / "failure.json").read_text()


async def test_request_without_a_token_is_unauthorized(served: Served) -> None:
    """No token is 401 with every required field and the product's own path, without its query."""
    for base in ("/gameye", ""):
        async with served.http(token=None, base=base) as http:
            answer = await http.get("/session?filter[secret]=1")
        assert failure(answer, 401, "UNAUTHORIZED")["path"] == "/session"
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_wrong_token_is_unauthorized(served: Served) -> None:
    """Only a good token after Bearer lets anybody in; not a cookie, not the query."""
    async with served.http(token=None) as http:
        for headers in (
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": ADMIN},
            {"Authorization": "Basic YWRtaW46YWRtaW4="},
            {"Cookie": f"gateway_token={ADMIN}"},
        ):
            answer = await http.get(f"/session?token={ADMIN}", headers=headers)
            failure(answer, 401, "UNAUTHORIZED")


async def test_scope_decides_before_anything_else(served: Served) -> None:
    """A token without the scope is 403, whether there is such a session or not."""
    for token, method, path, allowed in (
        ("reader", "GET", "/session", True),
        ("reader", "POST", "/session", False),
        ("reader", "DELETE", "/session/s1", False),
        ("reader", "PUT", "/session/player/join", False),
        ("reader", "DELETE", "/session/player/leave", False),
        ("reader", "GET", "/logs?id=s1", True),
        ("starter", "POST", "/session", True),
        ("starter", "DELETE", "/session/s1", False),
        ("stopper", "DELETE", "/session/s1", True),
        ("stopper", "POST", "/session", False),
        ("blind", "GET", "/session", False),
        ("blind", "GET", "/tag/a/b/c", False),
    ):
        async with served.http(token) as http:
            answer = await http.request(method, path)
        if allowed:
            assert answer.status_code not in {401, 403}
        else:
            failure(answer, 403, "FORBIDDEN")


async def test_unknown_path_or_method_is_told_in_gameyes_words(http: httpx2.AsyncClient) -> None:
    """What does not exist is answered with the same shape."""
    for method, path, status, code in (
        ("GET", "/", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/query/match", 404, "RESOURCE_NOT_FOUND"),
        ("POST", "/action/start-match", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/session/a/b/c", 404, "RESOURCE_NOT_FOUND"),
        ("PATCH", "/session", 405, "METHOD_NOT_ALLOWED"),
        ("PUT", "/session/s1", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/health", 405, "METHOD_NOT_ALLOWED"),
    ):
        answer = await http.request(method, path)
        assert failure(answer, status, code)["path"] == path
        assert ("allow" in answer.headers) == (status == 405)


async def test_path_with_a_control_character_is_told_in_gameyes_shape(
    http: httpx2.AsyncClient,
) -> None:
    """What no id holds is refused with the object that every error is."""
    for path in ("/session/a%0Ab", "/session/%00", "/available-location/a%7F"):
        failure(await http.get(path), 400, "BAD_REQUEST")


async def test_who_asks_too_often_is_told_420(settings: Settings, served: Served) -> None:
    """Gameye's word for too many requests is 420, also for those whose token is wrong."""
    for token, first in ((ADMIN, 200), ("wrong", 401)):
        strict = replace(served.context, settings=replace(settings, requests_per_s=0.5))
        strict = replace(strict, rate_limiter=RateLimiter())
        async with serving(strict) as url, Served(url, strict).http(token) as http:
            answers = [await http.get("/session") for _ in range(3)]

        assert answers[0].status_code == first
        failure(answers[-1], 420, "CAPACITY_UNAVAILABLE")
        assert int(answers[-1].headers["retry-after"]) > 0


async def test_head_and_options_are_answered(http: httpx2.AsyncClient) -> None:
    """HEAD is GET without its body, OPTIONS tells the methods."""
    head = await http.head("/session")
    options = await http.options("/session")

    assert (head.status_code, head.content) == (200, b"")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


async def test_bad_query_names_the_parameter(http: httpx2.AsyncClient) -> None:
    """A query that cannot be understood is 422 with a violation."""
    for query, field in (
        ("playerCount[lt]=eight", "playerCount[lt]"),
        ("playerCount%5Beq%5D=8", "playerCount[eq]"),
        ("all=maybe", "all"),
    ):
        body = failure(await http.get(f"/session?{query}"), 422, "INVALID_REQUEST")
        assert [violation["field"] for violation in body["violations"]] == [field]


async def test_query_that_cannot_be_read_is_malformed(http: httpx2.AsyncClient) -> None:
    """Bytes that are no query are 400."""
    for query in ("%ff", "a=%ff", "&".join(f"a{n}=1" for n in range(300)), "a=" + "x" * 8192):
        failure(await http.get(f"/session?{query}"), 400, "BAD_REQUEST")


async def test_bad_start_names_every_field(served: Served, http: httpx2.AsyncClient) -> None:
    """A start that is not acceptable is 422, names all that is wrong, and starts nothing."""
    answer = await http.post("/session", json={**START, "image": "", "ttl": "soon", "verison": "1"})

    body = failure(answer, 422, "INVALID_REQUEST")
    assert {violation["field"] for violation in body["violations"]} == {"image", "ttl", "verison"}
    assert not served.node.replica.sessions


async def test_missing_fields_are_all_named(http: httpx2.AsyncClient) -> None:
    """An empty object lacks what is required, and says so of each."""
    body = failure(await http.post("/session", json={}), 422, "INVALID_REQUEST")

    assert body["violations"] == [
        {"field": "location", "description": "is required"},
        {"field": "image", "description": "is required"},
    ]


async def test_body_that_is_no_object_is_refused(http: httpx2.AsyncClient) -> None:
    """Whatever bytes come as a body, the answer is Gameye's 422."""
    for raw in (
        *(b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"a\xff": 1}'),
        b'{"location":' + b"[" * 50_000,
        b" " * 70_000,
    ):
        failure(await http.post("/session", content=raw), 422, "INVALID_REQUEST")


async def test_endless_body_is_refused(http: httpx2.AsyncClient) -> None:
    """A body without an announced length is refused, and its rest is not the next request."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b" " * 1024

    answer = await http.post("/session", content=endless())
    failure(answer, 422, "INVALID_REQUEST")
    assert (await http.get("/session")).json() == {"sessions": []}


async def test_field_that_is_not_utf_8_is_named(http: httpx2.AsyncClient) -> None:
    """Text of another encoding is a violation of its field."""
    raw = b'{"image": "\xff", "location": "x"}'
    body = failure(await http.post("/session", content=raw), 422, "INVALID_REQUEST")

    assert [violation["field"] for violation in body["violations"]] == ["image"]


async def test_record_that_would_be_too_large_is_refused(http: httpx2.AsyncClient) -> None:
    """A start whose parts are each acceptable and together too much is 422."""
    labels = {f"{n:064}": "\N{GRINNING FACE}" * 256 for n in range(32)}

    failure(await http.post("/session", json={**START, "labels": labels}), 422, "INVALID_REQUEST")


async def test_body_needs_no_media_type(http: httpx2.AsyncClient) -> None:
    """A hand-written request whose type is that of a form is read as the JSON it is."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await http.post("/session", content=json.dumps(START), headers=headers)

    assert answer.status_code == 201


@pytest.mark.parametrize("kind", ERRORS.values(), ids=list(ERRORS))
def test_every_error_of_ours_has_a_status_of_gameyes(kind: type[GatewayError]) -> None:
    """No error of ours reaches Gameye's clients with a status that they do not know."""
    row = row_of(kind)

    assert row.status in DOCUMENTED | {405}
    assert row.code.isupper()
    assert (row.status >= 500) == (kind.status >= 500) or row.status == 420


async def test_what_nobody_foresaw_tells_nothing(
    served: Served,
    http: httpx2.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault of ours is 500 in Gameye's shape; what it was stands only in the log, by its id."""

    async def read(*_: object) -> None:
        raise RuntimeError("hush")

    monkeypatch.setattr(served.node.store, "read", read)
    with caplog.at_level(logging.INFO):
        answer = await http.get("/session/unknown")

    body = failure(answer, 500, "INTERNAL_ERROR")
    assert "hush" not in answer.text
    assert "hush" in caplog.text
    assert any(body["identifier"] in vars(record).values() for record in caplog.records)


async def test_conflict_says_no_time_to_come_again(http: httpx2.AsyncClient) -> None:
    """A repeat of a conflict makes no sense, so none is suggested."""
    await begin(http, id="s1")
    answer = await http.post("/session", json={**START, "id": "s1"})

    failure(answer, 409, "CONFLICT")
    assert "retry-after" not in answer.headers
