"""What goes wrong: a store that is away, a node that goes, requests that no honest client sends."""

import asyncio
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as some
from msgspec.json import decode, encode

from gateway.core.errors import BadRequest
from gateway.core.model import Stream
from gateway.dialects.maxscale.facts import ProxyFacts
from gateway.dialects.maxscale.query import CommonParameters, pruned
from gateway.dialects.maxscale.render import document
from gateway.http import request as http_request
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from tests.dialects.maxscale.build import SCENE, SEED, as_json, created
from tests.dialects.maxscale.conftest import ADMIN, MaxScale, basic, served
from tests.nodes import running_node
from tests.support import MS, Proxy, S, eventually

BOUNDED = bounds(derandomize=True, max_examples=150, deadline=None, database=None)

JSON = some.recursive(
    some.booleans() | some.integers(-(2**40), 2**70) | some.text(max_size=8) | some.floats(-9, 9),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(
                ["queries", "memory", "client", "total", "backends", "cipher", "completed", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FACTS = some.dictionaries(
    some.sampled_from([*ProxyFacts.__struct_fields__]),
    JSON,
)


@BOUNDED
@given(told=FACTS | JSON, data=some.dictionaries(some.sampled_from(["server", "cipher"]), JSON))
def test_whatever_a_session_carries_it_can_be_shown(told: Any, data: Any) -> None:  # noqa: ANN401
    """Neither attributes nor streams make a session one that cannot be listed."""
    backend = Stream(key="k", kind="backend", data=data)
    session = created(attributes={"maxscale": told}, streams=(backend,))

    for scene in (SCENE, SEED):
        assert as_json(document(session, None, scene))["data"]["id"] == "41"


@BOUNDED
@given(
    name=some.sampled_from(["filter", "filter[id]", "fields[sessions]", "page[size]", "pretty"])
    | some.text(max_size=20).map(lambda path: f"filter[{path}]"),
    value=some.text(max_size=30)
    | some.text('eqnotrgl()",[]{}0123456789.-/=', max_size=30)
    | JSON.map(lambda value: "/attributes/memory=eq(" + encode(value).decode() + ")"),
)
def test_whatever_a_query_says_it_is_read_or_refused(name: str, value: str) -> None:
    """A query is understood or refused, and never breaks what reads it."""
    resource = as_json(document(created(), None, SCENE))["data"]
    try:
        query = CommonParameters({name: value})
        for wanted in query.filters():
            wanted.matches(resource)
        kept = query.fields("sessions")
        assert pruned(resource, kept or {})["id"] == "41"
        assert query.links("http://gw/", query.page(), 3).self_
    except BadRequest:
        return


async def raw(url: str, request: bytes) -> tuple[int, Any]:
    """Send bytes and return the status and the JSON of the reply."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5 * S)
    writer.close()
    await writer.wait_closed()
    head, _, text = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), decode(text) if text else None


LOGIN = f"Authorization: {basic('admin', ADMIN)['Authorization']}".encode()


@pytest.mark.parametrize(
    "lines, status",
    [
        ([b"GET /v1/sessions/%ff HTTP/1.1", b"Host: a", LOGIN], 400),
        ([b"GET /v1/sessions?a=%ff HTTP/1.1", b"Host: a", LOGIN], 400),
        ([b"GET /v1/sessions?" + b"a=1&" * 300 + b" HTTP/1.1", b"Host: a", LOGIN], 400),
        ([b"GET /v1/sessions?" + b"a" * 9000 + b" HTTP/1.1", b"Host: a", LOGIN], 414),
        ([b"GET /v1/sessions HTTP/1.1", b"Host: a", LOGIN, LOGIN], 400),
        ([b"GET /v1 HTTP/1.1", b"Host: a", LOGIN, *[b"X-HTTP-Method-Override: PUT"] * 2], 400),
        ([b"GET /v1/sessions/a%0Ab HTTP/1.1", b"Host: a", LOGIN], 400),
        ([b"GET /v1/sessions/1 HTTP/1.1", b"Host: a", *[b"X-Requested-With: a"] * 2], 401),
        ([b"GET /v1/nowhere HTTP/1.1", b"Host: a", LOGIN, *[b"Origin: https://a"] * 2], 404),
        ([b"PATCH /v1/sessions/1 HTTP/1.1", b"Host: a", LOGIN, b"Content-Length: 9999999"], 413),
        ([b"PATCH /v1/sessions/1 HTTP/1.1", b"Host: a", LOGIN, b"Content-Length: 5"], 400),
    ],
)
async def test_strange_request_is_refused_in_maxscales_words(
    maxscale: MaxScale, monkeypatch: pytest.MonkeyPatch, lines: list[bytes], status: int
) -> None:
    """What no client sends gets the body that every refusal has."""
    monkeypatch.setattr(http_request, "BODY_WITHIN_S", 50 * MS)
    await maxscale.open("one")
    request = b"\r\n".join([*lines, b"Connection: close", b"", b""])

    found, body = await raw(maxscale.url, request)
    assert found == status
    assert body["errors"][0]["detail"]


async def test_client_without_a_host_gets_links_all_the_same(maxscale: MaxScale) -> None:
    """HTTP/1.0 knows no hosts; a session is shown anyway."""
    await maxscale.open("one")
    status, body = await raw(maxscale.url, b"GET /v1/sessions/1 HTTP/1.0\r\n" + LOGIN + b"\r\n\r\n")

    assert status == 200
    assert body["links"]["self"] == "http://localhost/v1/sessions/1/"


async def test_mount_may_be_spelled_otherwise(maxscale: MaxScale) -> None:
    """An address whose prefix is percent-encoded is the same address."""
    await maxscale.open("one")
    request = b"GET /max%73cale/v1/sessions/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"

    assert (await raw(maxscale.url, request + LOGIN + b"\r\n\r\n"))[0] == 200


async def test_client_that_hangs_up_changes_nothing(maxscale: MaxScale) -> None:
    """A body that ends too early is no body."""
    session = await maxscale.open("one")
    host, port = maxscale.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = b"PATCH /v1/sessions/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n"
    writer.write(head + LOGIN + b'\r\n\r\n{"data":')
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    async with maxscale.http() as http:
        assert (await http.get("/v1/sessions/1")).status_code == 200
    assert maxscale.node.replica.sessions["one"] == session


async def test_two_who_end_the_same_session_at_once(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """A session ends once; who comes second hears that there is none."""
    for number in range(1, 6):
        await maxscale.open(f"s{number}")
        replies = await asyncio.gather(*(http.delete(f"/v1/sessions/{number}") for _ in range(3)))

        assert sorted(reply.status_code for reply in replies) == [200, 404, 404]


async def test_failure_of_ours_is_500_without_details(
    maxscale: MaxScale, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we did not foresee is told in MaxScale's shape and says nothing of our insides."""

    def fail(_number: int) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(maxscale.node.replica, "numbered", fail)
    response = await http.get("/v1/sessions/1")

    assert response.status_code == 500
    assert response.json() == {"errors": [{"detail": "Internal error"}]}


async def test_node_that_goes_says_so(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """The health check of a node that is going sends its callers elsewhere."""
    maxscale.node.is_draining = True
    response = await http.get("/v1/")

    assert response.status_code == 503
    assert response.json() == {"errors": [{"detail": "MaxScale is shutting down"}]}
    assert response.headers["Retry-After"]


async def test_store_that_is_away_stops_changes_not_reads(
    settings: Settings, valkey: EmbeddedValkey, prefix: str
) -> None:
    """Without the store sessions are shown, with a warning, and changes are 503; nothing hangs."""
    async with (
        Proxy(valkey.url) as proxy,
        running_node(proxy.url, prefix) as node,
        served(settings, node) as maxscale,
        maxscale.http() as http,
    ):
        await maxscale.open("one")
        await maxscale.open("two")
        async with proxy.cut():
            await eventually(lambda: node.replicator.lag_ms() > 0, within=5 * S)
            shown = await http.get("/v1/sessions/1")
            ended, every = await asyncio.gather(
                http.delete("/v1/sessions/1"), http.post("/v1/sessions/restart")
            )

            assert shown.status_code == 200
            assert "the store does not answer" in shown.headers["Mxs-Warning"]
            assert int(shown.headers["Gateway-Lag-Ms"]) > 0
            for refused in (ended, every):
                assert refused.status_code == 503
                assert refused.headers["Retry-After"]
                assert refused.json()["errors"][0]["detail"]
