"""A page and the nodes behind one address: one is killed, one is drained, and the page goes on."""

import pytest
from msgspec.structs import replace

from gateway.settings import Settings
from tests.browser import Browser
from tests.processes import ADMIN, Process
from tests.server.conftest import Gateway, serving
from tests.server.talk import opened
from tests.support import Proxy, S
from tests.web.tabs import NAME, Tab, attended

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A gateway that can be a node beside one in a process of its own."""
    return replace(settings, admin_key=ADMIN, key_prefix=settings.key_prefix.rstrip(":"))


async def page_at(window: Browser, origin: str, url: str) -> Tab:
    """Return a page that is a session and follows all."""
    asked = {"token": ADMIN, "me": {"name": NAME}}
    tab = await Tab.open(window, origin, url, feeds={"all": {}}, **asked)
    await tab.live("me", "all")
    return tab


async def goes_on(gateway: Gateway, tab: Tab, mine: str, close_code: int) -> None:
    """Check that the page is the same session here, and has missed and repeated nothing."""
    await opened(gateway, "other")
    await tab.until(f"told.some((entry) => entry.close_code === {close_code})", within=9 * S)
    session = await attended(gateway, within=9 * S)
    assert session.id == mine
    await tab.live("me", "all")
    session = await attended(gateway)
    assert session.connection is not None
    assert session.connection.node == gateway.node.id
    assert len(await tab.run("Promise.all(writes)")) == 2
    async with gateway.http(ADMIN) as http:
        await tab.agrees(http)
        told = (await http.get(f"/v1/sessions/{mine}/events")).json()["events"]
    kinds = [event["type"] for event in told]
    assert (kinds.count("session.watching"), kinds.count("session.updated")) == (1, 1)
    assert tab.oracles["all"].resyncs == []


async def test_page_whose_node_is_killed_goes_on_at_another(
    gateway: Gateway, settings: Settings, origin: str, window: Browser
) -> None:
    """After a kill the page is the same session; what it was writing is done, and done once."""
    options = ("--redis-url", str(settings.redis_url), "--key-prefix", settings.key_prefix)
    process = Process(*options, "--allowed-origins", origin, name="b")
    try:
        await process.ready()
        async with Proxy(process.http) as proxy:
            tab = await page_at(window, origin, proxy.url)
            mine = (await attended(gateway)).id
            proxy.lead_to(gateway.url)
            await tab.run("void (writes = [me.watch('movie/42')])")
            process.kill()
            await tab.run("void writes.push(me.update({labels: {a: 'b'}}))")

            await goes_on(gateway, tab, mine, 1006)
    finally:
        process.end()


async def test_page_whose_node_is_drained_goes_on_at_another(
    gateway: Gateway, settings: Settings, origin: str, window: Browser
) -> None:
    """A node that stops sends its pages away, to be the same sessions elsewhere."""
    other_settings = replace(settings, node_name="node-b")
    async with serving(other_settings) as other, Proxy(other.url) as proxy:
        tab = await page_at(window, origin, proxy.url)
        mine = (await attended(gateway)).id
        proxy.lead_to(gateway.url)
        await tab.run("void (writes = [me.watch('movie/42')])")
        await other.context.connections.drain(0.05)
        await tab.run("void writes.push(me.update({labels: {a: 'b'}}))")

        await goes_on(gateway, tab, mine, 4001)
