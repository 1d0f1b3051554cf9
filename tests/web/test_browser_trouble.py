"""A page in trouble: its token expires, its clock is set, its network is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from msgspec.structs import replace

from gateway.auth.tokens import LEEWAY_MS
from gateway.settings import Settings
from tests.browser import Browser
from tests.server.conftest import ADMIN, Gateway, serving
from tests.server.talk import opened
from tests.server.test_handshake import SECRET, token
from tests.support import Proxy, S
from tests.web.tabs import NAME, Tab, attended, outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(30)]

ASKED: Final[dict[str, Any]] = {"me": {"name": NAME}, "feeds": {"all": {}}}
DAY_MS: Final = 86_400_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A gateway that also believes JWTs."""
    return replace(settings, jwt_key=SECRET)


@asynccontextmanager
async def offline(tab: Tab, proxy: Proxy) -> AsyncIterator[None]:
    """Be without a network: nothing arrives, and the browser knows."""
    await tab.page.call("Network.enable")
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    async with proxy.stalled():
        await tab.page.call("Network.emulateNetworkConditions", offline=True, **network)
        yield
    await tab.page.call("Network.emulateNetworkConditions", offline=False, **network)


async def whys(tab: Tab, of: str) -> list[str]:
    """Return why a token was asked for, each time."""
    return [entry["why"] for entry in await tab.run("told") if "why" in entry and entry["of"] == of]


async def test_token_is_renewed_before_it_expires(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """The page sends a new token in time, on the connection that it has."""
    lives_s = LEEWAY_MS / 1000 + 2 * S  # two seconds by the page's own reckoning
    tokens = [token(lives_s), token(60)]
    tab = await Tab.open(window, origin, gateway.url, tokens=tokens, **ASKED)
    await tab.live("me", "all")
    mine = await attended(gateway)

    await tab.until("sent.filter(({type}) => type === 'token').length === 2")
    assert await whys(tab, "me") == await whys(tab, "all") == ["start", "expired"]
    await tab.run("me.update({labels: {a: 'b'}})")
    assert (await attended(gateway)).connection == mine.connection
    assert await tab.run("sockets.length") == 2
    await tab.told()


async def test_token_that_has_expired_is_replaced(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """After 4005 the page asks for a new token, and goes on as the same session."""
    tokens = [token(1 * S), token(60)]  # the page cannot know: the gateway allows for other clocks
    tab = await Tab.open(window, origin, gateway.url, tokens=tokens, **ASKED)
    await tab.live("me", "all")
    mine = await attended(gateway)

    await tab.until("told.filter((entry) => entry.close_code === 4005).length === 2")
    await opened(gateway, "other")
    await tab.until("sockets.length === 4")
    await tab.live("me", "all")
    assert (await attended(gateway)).id == mine.id
    assert await whys(tab, "me") == await whys(tab, "all") == ["start", "expired"]
    async with gateway.http(tokens[-1]) as http:
        await tab.agrees(http)


async def test_token_that_is_refused_twice_is_the_end(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """A refused token is asked for once more; then the page is told, and asks no more."""
    tab = await Tab.open(window, origin, gateway.url, tokens=["wrong"], **ASKED)

    await tab.until("me.state === 'refused' && feeds.all.state === 'refused'")
    assert await tab.run("me.finished.then(({code}) => code)") == "unauthorized"
    assert await whys(tab, "me") == await whys(tab, "all") == ["start", "refused"]
    assert await tab.rejects("me.ready") == await tab.rejects("me.watch('m')") == "unauthorized"
    assert await tab.run("sockets.length") == 4
    await tab.told()


@pytest.mark.parametrize("shift_ms", [DAY_MS, -DAY_MS])
async def test_page_with_a_wrong_clock_works(
    gateway: Gateway, origin: str, window: Browser, shift_ms: int
) -> None:
    """A clock that is a day fast or slow changes no token, no deadline and no connection."""
    asked = {**ASKED, "tokens": [token(60)], "shift_ms": shift_ms}
    tab = await Tab.open(window, origin, gateway.url, **asked)
    await tab.live("me", "all")
    mine = await attended(gateway)

    async with gateway.http() as http:
        await http.delete(f"/v1/sessions/{mine.id}?close_after=60")
    await tab.until("globalThis.closing")
    assert 50_000 < await tab.run("closing.remainingMs") <= 60_000
    assert await whys(tab, "me") == ["start"]
    assert await tab.run("sockets.length") == 2


@pytest.mark.parametrize("shift_ms", [DAY_MS, -DAY_MS])
async def test_clock_that_is_set_ends_no_session(
    gateway: Gateway, origin: str, window: Browser, shift_ms: int
) -> None:
    """After the clock was set by a day, and the network was cut, the page is what it was."""
    async with Proxy(gateway.url) as proxy:
        asked = {**ASKED, "tokens": [token(60)]}
        tab = await Tab.open(window, origin, proxy.url, **asked)
        await tab.live("me", "all")
        mine = await attended(gateway)
        async with gateway.http() as http:
            await http.delete(f"/v1/sessions/{mine.id}?close_after=60")
            await tab.until("globalThis.closing")

            await tab.run(f"shiftMs = {shift_ms}; dispatchEvent(new Event('online'))")
            assert 50_000 < await tab.run("closing.remainingMs") <= 60_000
            assert await tab.run("me.update({labels: {a: 'b'}})") > mine.revision
            await http.delete(f"/v1/sessions/{mine.id}/closing")
            await tab.live("me", "all")
            async with proxy.cut():
                await tab.until("me.state === 'stale' && feeds.all.state === 'stale'")
            assert await tab.run("me.update({labels: {a: 'c'}})") > mine.revision
            await tab.live("me", "all")
            assert (await attended(gateway)).id == mine.id
            assert len(await whys(tab, "me")) <= 2


async def test_page_without_a_network_comes_back_as_the_same_session(
    settings: Settings, origin: str, window: Browser
) -> None:
    """Offline is told; within its linger time the session comes back, and all is up to date."""
    settings = replace(settings, heartbeat_s=0.5 * S, pong_s=0.4 * S, linger_ms=60_000)
    async with serving(settings) as gateway, Proxy(gateway.url) as proxy:
        tab = await Tab.open(window, origin, proxy.url, token=ADMIN, **ASKED)
        await tab.live("me", "all")
        mine = await attended(gateway)

        async with offline(tab, proxy):
            await attended(gateway, "away")
            await opened(gateway, "other")
            await tab.until("me.state === 'stale' && feeds.all.state === 'stale'", within=10 * S)
            await tab.run("void (write = me.update({labels: {a: 'b'}}))")
        assert (await attended(gateway)).id == mine.id
        assert await tab.run("write") == (await attended(gateway)).revision
        await tab.live("me", "all")
        async with gateway.http() as http:
            await tab.agrees(http)
        assert tab.oracles["all"].resyncs == []


async def test_page_that_is_offline_too_long_is_told_so(
    settings: Settings, origin: str, window: Browser
) -> None:
    """A session that has closed meanwhile stays so; what the page follows comes back."""
    settings = replace(settings, heartbeat_s=0.5 * S, pong_s=0.4 * S, linger_ms=0)
    async with serving(settings) as gateway, Proxy(gateway.url) as proxy:
        tab = await Tab.open(window, origin, proxy.url, token=ADMIN, **ASKED)
        await tab.live("me", "all")
        mine = (await attended(gateway)).id

        async with offline(tab, proxy):
            assert await outcome(gateway, mine) == "lost"
        assert await tab.run("me.finished.then(({code}) => code)") == "session_closed"
        await tab.live("all")
        async with gateway.http() as http:
            await tab.agrees(http)
