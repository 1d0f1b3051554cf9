"""What browsers do to pages: they freeze, cache, duplicate, reload and close them."""

from typing import Final

import pytest
from msgspec.structs import replace

from gateway.settings import Settings
from tests.browser import Browser
from tests.server.conftest import Gateway, serving
from tests.server.talk import opened
from tests.support import S
from tests.web.oracle import Json
from tests.web.tabs import NAME, Tab, attended, outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(30)]

ME: Final = {"name": NAME, "remember": "tab"}
FEEDS: Final[Json] = {"all": {}}


async def freeze(tab: Tab, state: str) -> None:
    """Freeze a page (``frozen``), or let it go on (``active``)."""
    await tab.page.call("Page.setWebLifecycleState", state=state)


async def test_frozen_page_is_away_and_comes_back_as_the_same_session(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """A page that is frozen is not shown as there; awake it is the same session and up to date."""
    tab = await Tab.open(window, origin, gateway.url, me=ME, feeds=FEEDS)
    await tab.live("me", "all")
    before = await attended(gateway)

    await freeze(tab, "frozen")
    await attended(gateway, "away")
    await opened(gateway, "other")
    await freeze(tab, "active")

    assert (await attended(gateway)).id == before.id
    await tab.live("me", "all")
    async with gateway.http() as http:
        await tab.agrees(http)
    assert tab.oracles["all"].resyncs == []


async def test_frozen_page_that_is_asked_to_close_is_lost(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """A page that cannot save while it is frozen ends as lost, not as left, and then knows it."""
    tab = await Tab.open(window, origin, gateway.url, me=ME)
    await tab.live("me")
    mine = await attended(gateway)

    async with gateway.http() as http:
        await http.delete(f"/v1/sessions/{mine.id}?close_after=30")
        await tab.until("globalThis.closing")
        await freeze(tab, "frozen")
        assert await outcome(gateway, mine.id) == "lost"
    await freeze(tab, "active")

    assert await tab.run("me.finished.then(({code}) => code)") == "session_closed"


async def test_page_comes_back_from_the_page_cache(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """A page that is left can be cached; back from there it is the same session and up to date."""
    tab = await Tab.open(window, origin, gateway.url, me=ME, feeds=FEEDS)
    await tab.live("me", "all")
    before = await attended(gateway)

    await tab.leave(f"{origin}/record.js")
    await attended(gateway, "away")
    await opened(gateway, "other")
    await tab.back()

    assert (await attended(gateway)).id == before.id
    await tab.live("me", "all")
    async with gateway.http() as http:
        await tab.agrees(http)
    assert tab.oracles["all"].resyncs == []


async def test_two_cached_pages_of_a_tab_are_one_session(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """Two visits of a page in one tab are the same session, whichever is shown."""
    tab = await Tab.open(window, origin, gateway.url, me=ME)
    await tab.live("me")
    first = await attended(gateway)
    address = await tab.run("location.href")
    await tab.leave(f"{origin}/record.js")
    await tab.page.call("Page.navigate", url=address)
    await tab.loaded()
    await tab.live("me")
    assert (await attended(gateway)).id == first.id

    await tab.back(2)

    await tab.live("me")
    assert (await attended(gateway)).id == first.id
    assert not [entry for entry in await tab.told() if entry.get("state") == "refused"]


@pytest.mark.parametrize("how", ["locks", "no locks", "plain http"])
async def test_duplicated_tab_becomes_a_session_of_its_own(
    gateway: Gateway, origin: str, insecure_origin: str, window: Browser, how: str
) -> None:
    """Neither of two tabs with the same memory displaces the other; each stays itself on reload."""
    place = insecure_origin if how == "plain http" else origin
    first = await Tab.open(window, place, gateway.url, me=ME, no_locks=how == "no locks")
    await first.live("me")
    mine = await attended(gateway)
    assert mine.connection is not None
    assert await first.run("!navigator.locks") == (how != "locks")

    second = Tab(await window.opened_by(first.page, "void open(location.href)"), {})
    await second.loaded()
    await second.live("me")

    ids = [await tab.run("me.session.id") for tab in (first, second)]
    assert ids[0] == mine.id != ids[1]
    for tab in (second, first, second):
        await tab.reload()
        await tab.live("me")
    assert [await tab.run("me.session.id") for tab in (first, second)] == ids
    async with gateway.http() as http:
        listed = (await http.get("/v1/sessions")).json()["sessions"]
    assert sorted(session["id"] for session in listed) == sorted(ids)
    states = [entry.get("state") for tab in (first, second) for entry in await tab.told()]
    assert "refused" not in states
    assert "stale" not in states


async def test_closed_tab_is_gone_after_its_linger_time(
    settings: Settings, origin: str, window: Browser
) -> None:
    """The session of a tab that its user closes is away at once, and closes when nobody comes."""
    async with serving(replace(settings, linger_ms=int(300 * S))) as gateway:
        tab = await Tab.open(window, origin, gateway.url, me=ME)
        await tab.live("me")
        mine = await attended(gateway)

        await tab.page.close()

        await attended(gateway, "away")
        assert await outcome(gateway, mine.id) == "expired"


async def test_page_of_a_closing_session_that_is_closed_has_left(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """A user who closes the tab when asked to save ends the session there and then."""
    tab = await Tab.open(window, origin, gateway.url, me=ME)
    await tab.live("me")
    mine = await attended(gateway)
    async with gateway.http() as http:
        await http.delete(f"/v1/sessions/{mine.id}?close_after=30")
    await tab.until("globalThis.closing")

    await tab.page.close()

    assert await outcome(gateway, mine.id) == "left"
