"""Tabs with the browser client in them, driven and read by tests."""

import asyncio
import json
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2

from gateway.core.model import Session
from tests.browser import Browser, Page
from tests.server.conftest import ADMIN, Gateway
from tests.support import S, eventually
from tests.web.oracle import Json, Oracle

NAME: Final = "Ann"
"""What the sessions of pages are called."""


class Tab:
    """A tab that has loaded the client and recorded all since.

    Args:
        page: The tab.
        feeds: Filters of its feeds, by a name each.
    """

    def __init__(self, page: Page, feeds: dict[str, Json]) -> None:
        self.page = page
        self.oracles = {name: Oracle(name) for name in feeds}
        self._feeds = feeds

    @classmethod
    async def open(
        cls, window: Browser, origin: str, url: str, *, feeds: Json | None = None, **asked: object
    ) -> Self:
        """Open the page of the tests.

        Args:
            window: Where.
            origin: Of the page.
            url: Of the gateway.
            feeds: Filters of the feeds to follow, by a name each.
            asked: What else it is asked to do; ``pages/page.js`` reads it.
        """
        feeds = feeds or {}
        query = quote(json.dumps({"url": url, "token": ADMIN, "feeds": feeds, **asked}))
        tab = cls(await window.page(f"{origin}/page.html?{query}"), feeds)
        await tab.loaded()
        return tab

    async def loaded(self, condition: str = "told.some(({loaded}) => loaded)") -> None:
        """Wait until the page is there, which may be another one than a moment ago."""

        async def there() -> bool:
            return bool(await self.page.run(f"typeof told !== 'undefined' && {condition}"))

        await eventually(there, within=5 * S)

    async def reload(self) -> None:
        """Load the page anew, as its user would."""
        await self.page.run("told.length = 0")
        await self.page.call("Page.reload")
        await self.loaded()

    async def leave(self, url: str) -> None:
        """Go to another page in the same tab."""
        await self.page.call("Page.navigate", url=url)

        async def gone() -> bool:
            return bool(
                await self.page.run("document.readyState === 'complete' && !globalThis.told")
            )

        await eventually(gone, within=5 * S)

    async def back(self, pages: int = 1) -> None:
        """Go back in the tab's history to a page of the tests, which must have been cached."""
        await self.page.run(f"history.go(-{pages})")
        await self.loaded("told.some(({pageshow}) => pageshow)")

    async def run(self, script: str) -> Any:  # noqa: ANN401 - JSON
        """Return what the JavaScript expression is, or what its promise becomes."""
        return await self.page.run(script)

    async def until(self, condition: str, *, within: float = 5 * S) -> None:
        """Wait until a JavaScript expression is true; it is asked after all that is recorded."""
        try:
            async with asyncio.timeout(within):
                await self.page.run(f"until(() => {condition})")
        except TimeoutError:
            last = await self.page.run("[told.slice(-5), wrong]")
            raise AssertionError(f"not true in time: {condition}; {last}") from None

    async def live(self, *names: str) -> None:
        """Wait until these feeds, or the session, hold what is so now."""
        lives = ", ".join("me" if name == "me" else f"feeds.{name}" for name in names)
        await self.until(f"[{lives}].every(({{state}}) => state === 'live')")

    async def told(self) -> list[Json]:
        """Return what was recorded since the last time; nothing may have gone wrong."""
        told: list[Json]
        told, wrong = await self.page.run("[told.splice(0), wrong]")
        assert wrong == []
        for oracle in self.oracles.values():
            oracle.take(told)
        return told

    async def rejects(self, promise: str) -> str:
        """Return the code of the error that a promise of the client is rejected with."""
        code: str = await self.page.run(
            f"{promise}.then(String, (error) => error instanceof GatewayError && error.code)"
        )
        return code

    async def agrees(self, http: httpx2.AsyncClient) -> None:
        """Compare all, once nothing moves: what frames, batches, the Map and a list add up to."""
        for name, oracle in self.oracles.items():
            position, listed = await _all(http, self._feeds[name])
            await self.until(f"feeds.{name}.position === '{position}'")
            await self.told()
            held = await self.page.run(f"JSON.stringify([...feeds.{name}.sessions])")
            assert position == oracle.position
            assert dict(json.loads(held)) == oracle.shown == oracle.sessions == listed


async def _all(http: httpx2.AsyncClient, filter_: Json) -> tuple[str, dict[str, Json]]:
    """Return the position and the sessions of all pages of a list."""
    found: dict[str, Json] = {}
    query = {"limit": 1000, **filter_}
    while True:
        reply = (await http.get("/v1/sessions", params=query)).json()
        found |= {session["id"]: session for session in reply["sessions"]}
        if "next" not in reply:
            return reply["position"], found
        query["cursor"] = reply["next"]


async def attended(gateway: Gateway, state: str = "connected", within: float = 5 * S) -> Session:
    """Return the one open session of a page, once it is in this state."""

    def found() -> Session | None:
        pages = [session for session in gateway.node.sessions.values() if session.name == NAME]
        return pages[0] if [session.state for session in pages] == [state] else None

    return await eventually(found, within=within)


async def outcome(gateway: Gateway, session_id: str) -> str:
    """Return how a session ended, once it has."""
    async with gateway.http() as http:

        async def closed() -> str | None:
            reply = await http.get(f"/v1/sessions/{session_id}")
            ended: Json = reply.json().get("session", {}).get("closed", {})
            return ended.get("outcome")

        return await eventually(closed, within=5 * S)
