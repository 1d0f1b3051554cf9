"""Limits of the REST API that an operator sets, and what happens without the store."""

import pytest
from msgspec.structs import replace

from gateway.auth.rate_limit import CALLERS_MAX, LoginLimiter, RateLimiter
from gateway.core.errors import RateLimited
from gateway.core.token_bucket import BURST_S
from gateway.http import request
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from tests.server.conftest import Gateway, serving
from tests.server.test_api_http import raw
from tests.server.test_api_sessions import opened
from tests.support import Proxy, S, eventually


async def test_open_beyond_the_limit_of_sessions_is_refused(settings: Settings) -> None:
    """The number of open sessions is bounded, and the bound is told."""
    async with serving(replace(settings, max_sessions=3)) as gateway, gateway.http() as http:
        for _ in range(3):
            await opened(http)
        reply = await http.post("/v1/sessions", json={})

    assert (reply.status_code, reply.json()["code"]) == (409, "limit_exceeded")


async def test_caller_over_the_rate_is_told_when_to_come_back(settings: Settings) -> None:
    """Each caller has its own rate; who has no good token shares that of its address."""
    async with serving(replace(settings, requests_per_s=0.5)) as gateway:
        for token, status in (("reader", 200), ("writer", 200), ("bad", 401), ("worse", 429)):
            async with gateway.http(token) as http:
                first = await http.get("/v1/sessions")
                second = await http.get("/v1/sessions", headers={"X-Forwarded-For": "192.0.2.1"})
                health = await http.get("/livez")
            assert first.status_code == status
            assert (second.status_code, second.json()["code"]) == (429, "rate_limited")
            assert 1 <= int(second.headers["Retry-After"]) <= 2
            assert health.status_code == 200


def test_bucket_fills_with_time() -> None:
    """A caller may send its rate for ever, and two seconds' worth at once after a silence."""
    limiter = RateLimiter()
    for _ in range(int(10 * BURST_S)):
        limiter.consume("ann", 10, 0)
    with pytest.raises(RateLimited):
        limiter.consume("ann", 10, 99)
    limiter.consume("ann", 10, 100)
    limiter.consume("bob", 10, 100)
    with pytest.raises(RateLimited) as refused:
        limiter.consume("ann", 10, 100)

    assert refused.value.retry_after_s == 1


def test_time_that_a_wrong_password_takes_gives_nothing() -> None:
    """However slow a check is, guesses one after the other use up what there is."""
    limiter = RateLimiter()
    now_ms = 0.0
    for _ in range(int(2 * BURST_S)):
        limiter.consume("address", 2, now_ms)
        now_ms += 900
        limiter.forfeit("address", now_ms)
    with pytest.raises(RateLimited):
        limiter.consume("address", 2, now_ms)
    limiter.consume("address", 2, now_ms + 500)
    limiter.give_back("address")
    limiter.consume("address", 2, now_ms + 500)
    limiter.forfeit("unknown", now_ms)
    limiter.give_back("unknown")


def test_name_is_guessed_no_faster_from_many_addresses() -> None:
    """A name has a rate of its own, but for where its owner has logged in; others have theirs."""
    limiter = LoginLimiter()
    limiter.begin("ann", "home", 1, 0)
    limiter.succeeded("ann", "home")
    for address in range(int(BURST_S)):
        limiter.begin("ann", address, 1, 0)
    limiter.failed("ann", 900)
    with pytest.raises(RateLimited):
        limiter.begin("ann", "elsewhere", 1, 900)
    limiter.begin("ann", "home", 1, 900)
    limiter.unchecked("ann", "home")
    limiter.begin("bob", "elsewhere", 1, 900)
    limiter.begin("ann", "elsewhere", 1, 2_000)
    limiter.unchecked("ann", "elsewhere")
    limiter.begin("ann", "elsewhere", 1, 2_000)
    with pytest.raises(RateLimited):
        limiter.begin("ann", "elsewhere", 1, 2_000)


def test_number_of_places_of_owners_is_bounded() -> None:
    """Where owners logged in is forgotten after many others did."""
    limiter = LoginLimiter()
    for number in range(CALLERS_MAX + 1):
        limiter.succeeded(f"n{number}", "home")
    for name, status in (("n0", False), ("n1", True)):
        limiter.begin(name, "home", 0.1, 0)
        if status:
            limiter.begin(name, "home", 0.1, 0)
        else:
            with pytest.raises(RateLimited):
                limiter.begin(name, "home", 0.1, 0)


def test_number_of_buckets_is_bounded() -> None:
    """Whoever sends from many addresses does not fill our memory."""
    limiter = RateLimiter()
    for caller in range(CALLERS_MAX + 5):
        limiter.consume(caller, 0.5, 0)
    limiter.consume(0, 0.5, 0)
    with pytest.raises(RateLimited):
        limiter.consume(CALLERS_MAX, 0.5, 0)


async def test_slow_body_is_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come in time ends the request and the connection."""
    monkeypatch.setattr(request, "BODY_WITHIN_S", 0.05 * S)

    reply = await raw(
        gateway,
        b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{" % gateway.token.encode(),
    )

    assert reply.startswith(b"HTTP/1.1 400 ")


async def test_without_the_store_reads_are_answered_and_writes_refused(
    settings: Settings, valkey: EmbeddedValkey
) -> None:
    """A node that lost its store shows what it knows, says how old that is, and writes nothing."""
    async with (
        Proxy(valkey.url) as proxy,
        serving(replace(settings, redis_url=proxy.url)) as gateway,
        gateway.http() as http,
    ):
        await opened(http, id="s-1")
        async with proxy.cut():
            written = await http.patch("/v1/sessions/s-1", json={"name": "Ann"})

            async def lagging() -> str | None:
                reply = await http.get("/v1/sessions/s-1")
                assert reply.status_code == 200
                return reply.headers.get("Gateway-Lag-Ms")

            lag_ms = await eventually(lagging, within=5 * S)

    assert written.status_code == 503
    assert written.json()["code"] in ("store_unavailable", "outcome_unknown")
    assert int(written.headers["Retry-After"]) >= 1
    assert int(lag_ms) > 0
