"""A page whose session is asked to close: it saves, asks for time, or is called off."""

from typing import Final

import pytest
from msgspec.structs import replace

from gateway.settings import Settings
from tests.browser import Browser
from tests.server.conftest import Gateway, serving
from tests.support import Proxy, S, eventually
from tests.web.tabs import NAME, Tab, attended, outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(30)]

WORK: Final = "event.waitUntil(new Promise((done, fail) => { work = {done, fail}; }))"
"""A listener whose work the test ends."""


async def asked(
    gateway: Gateway, window: Browser, origin: str, on_closing: str, url: str | None = None
) -> tuple[Tab, str]:
    """Return a page that listens, and the id of its session."""
    me = {"name": NAME, "labels": {"team": "red"}}
    tab = await Tab.open(window, origin, url or gateway.url, me=me, on_closing=on_closing)
    await tab.live("me")
    session = await attended(gateway)
    assert session.labels == {"team": "red"}
    return tab, session.id


async def close(gateway: Gateway, session_id: str, after_s: float, **more: object) -> None:
    """Ask a session to close."""
    async with gateway.http() as http:
        body = {"after_s": after_s, "reason": "maintenance", **more}
        reply = await http.put(f"/v1/sessions/{session_id}/closing", json=body)
        assert reply.status_code == 200


async def saving(gateway: Gateway, session_id: str) -> None:
    """Wait until the page has said that it is saving."""

    def said() -> bool:
        closing = gateway.node.sessions[session_id].closing
        return closing is not None and closing.saving_at is not None

    await eventually(said, within=5 * S)


async def test_page_saves_and_the_session_closes_at_once(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """``waitUntil`` says ``saving``, and ``saved`` when all that it was given is done."""
    second = "event.waitUntil(new Promise((done) => { second = done; }))"
    tab, mine = await asked(gateway, window, origin, f"{WORK}; {second}")

    await close(gateway, mine, 30, extend_max_s=5)
    await saving(gateway, mine)
    assert await tab.run("[closing.reason, closing.extendMaxMs]") == ["maintenance", 5000]
    assert 0 < await tab.run("closing.remainingMs") <= 30_000
    assert await tab.run("me.closing.reason") == "maintenance"
    await tab.run("work.done()")
    assert mine in gateway.node.sessions
    await tab.run("second()")

    assert await outcome(gateway, mine) == "saved"
    assert await tab.run("me.finished.then(({code}) => code)") == "session_closed"
    assert await tab.run("[me.state, closing.signal.aborted]") == ["closed", True]
    assert [message["type"] for message in await tab.run("sent")] == ["saving", "saved"]
    await tab.told()


async def test_page_whose_work_fails_is_closed_at_its_deadline(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """A rejection is no ``saved``: the session ends unsaved, at its deadline."""
    reject = "event.waitUntil(Promise.reject(new Error('no room')))"
    tab, mine = await asked(gateway, window, origin, reject)

    await close(gateway, mine, 0.3 * S)

    assert await outcome(gateway, mine) == "unsaved"
    assert await tab.run("me.finished.then(({code, closeCode}) => [code, closeCode])") == [
        "session_closed",
        4500,
    ]
    assert await tab.run("[me.state, closing.signal.aborted]") == ["closed", True]
    assert [message["type"] for message in await tab.run("sent")] == ["saving"]
    await tab.told()


async def test_close_that_is_called_off_aborts_the_work(
    gateway: Gateway, origin: str, window: Browser
) -> None:
    """The signal aborts and a late ``done`` closes nothing; the next close is one of its own."""
    tab, mine = await asked(gateway, window, origin, WORK)
    await close(gateway, mine, 30)
    await saving(gateway, mine)
    await tab.run("void (first = closing, late = work)")

    async with gateway.http() as http:
        assert (await http.delete(f"/v1/sessions/{mine}/closing")).status_code == 200
    await tab.until("told.some(({type}) => type === 'close-cancelled')")
    assert await tab.run("[first.signal.aborted, me.closing === undefined]") == [True, True]
    await tab.run("late.done()")
    assert await tab.rejects("first.needMore(1000)") == "not_closing"

    await close(gateway, mine, 30)
    await saving(gateway, mine)
    assert await tab.run("[closing === first, closing.signal.aborted]") == [False, False]
    assert mine in gateway.node.sessions
    await tab.run("work.done()")
    assert await outcome(gateway, mine) == "saved"
    said = [message["type"] for message in await tab.run("sent")]
    assert said == ["saving", "need_more", "saving", "saved"]
    await tab.told()


async def test_page_asks_for_more_time(gateway: Gateway, origin: str, window: Browser) -> None:
    """``needMore`` resolves with the new deadline; beyond the budget it is refused."""
    tab, mine = await asked(gateway, window, origin, WORK)
    await close(gateway, mine, 10, extend_max_s=20)
    await saving(gateway, mine)

    moved = await tab.run("closing.needMore(25_000).then((at) => at - Date.now())")
    assert 20_000 < moved <= 25_000
    await tab.until("told.some(({type}) => type === 'close-moved')")
    assert await tab.run("Math.abs(me.closing.at - Date.now() - 25_000) < 5_000")
    await tab.run("closing.needMore(60_000).catch(() => 0)")  # to the end of the budget
    assert await tab.rejects("closing.needMore(60_000)") == "extension_refused"
    await tab.run("work.done()")
    assert await outcome(gateway, mine) == "saved"
    await tab.told()


async def test_page_saves_on_another_node(
    gateway: Gateway, settings: Settings, origin: str, window: Browser
) -> None:
    """A node that is drained while a page saves costs nothing: it is asked once, and saves once."""
    other_settings = replace(settings, node_name="node-b")
    async with serving(other_settings) as other, Proxy(other.url) as proxy:
        tab, mine = await asked(gateway, window, origin, WORK, proxy.url)
        await close(gateway, mine, 60)
        await saving(gateway, mine)
        proxy.lead_to(gateway.url)
        await other.context.connections.drain(0.05)
        await tab.until("me.state === 'stale'")
        await tab.run("work.done()")

        assert await outcome(gateway, mine) == "saved"
        assert await tab.run("me.finished.then(({code}) => code)") == "session_closed"
        types = [entry.get("type") for entry in await tab.told()]
        assert types.count("closing") == 1
