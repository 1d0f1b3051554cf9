"""A real browser for tests, driven through the Chrome DevTools Protocol."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support import S, eventually


class Page:
    """A tab. One command at a time."""

    def __init__(self, browser: "Browser", session_id: str, target_id: str) -> None:
        self._browser = browser
        self._session_id = session_id
        self._target_id = target_id

    async def call(self, method: str, **params: Any) -> Any:  # noqa: ANN401 - JSON
        """Send a command about the tab and return its result."""
        return await self._browser.call(method, self._session_id, **params)

    async def run(self, script: str) -> Any:  # noqa: ANN401 - JSON
        """Return what the JavaScript expression is, or what its promise becomes.

        Raises:
            AssertionError: It threw.
        """
        options = {"expression": script, "awaitPromise": True, "returnByValue": True}
        result = await self.call("Runtime.evaluate", userGesture=True, **options)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def close(self) -> None:
        """Close the tab, as its user would."""
        await self._browser.call("Target.closeTarget", targetId=self._target_id)


class Browser:
    """A Chromium; its tabs share cookies and storage with no other :class:`Browser`'s."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._context: dict[str, str] = {}
        self._ids = count(1)
        self._lock = asyncio.Lock()

    async def call(self, method: str, session_id: str | None = None, **params: Any) -> Any:  # noqa: ANN401
        """Send a command and return its result."""
        async with self._lock:
            number = next(self._ids)
            command = {"id": number, "method": method, "params": params}
            if session_id:
                command["sessionId"] = session_id
            await self._devtools.send(json.dumps(command))
            while True:
                answer = json.loads(await self._devtools.recv())
                if answer.get("id") == number:
                    assert "error" not in answer, answer
                    return answer["result"]

    async def isolate(self) -> None:
        """Keep its tabs apart from those of others, and close them when the connection ends."""
        self._context = await self.call("Target.createBrowserContext", disposeOnDetach=True)

    async def page(self, url: str) -> Page:
        """Open a tab at *url*."""
        target = await self.call("Target.createTarget", url="about:blank", **self._context)
        page = await self._attach(target["targetId"])
        await page.call("Page.navigate", url=url)

        async def loaded() -> bool:
            there = await page.run("[document.readyState, location.href]")
            return bool(there[0] == "complete" and there[1] == url)

        await eventually(loaded, within=5 * S)
        return page

    async def opened_by(self, page: Page, script: str) -> Page:
        """Return the tab that *script* opens when it runs in *page*."""
        known = await self._tabs()
        await page.run(script)

        async def new() -> str | None:
            return next(iter(await self._tabs() - known), None)

        return await self._attach(await eventually(new, within=5 * S))

    async def _tabs(self) -> set[str]:
        found = (await self.call("Target.getTargets"))["targetInfos"]
        return {tab["targetId"] for tab in found if tab["type"] == "page"}

    async def _attach(self, target: str) -> Page:
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        return Page(self, attached["sessionId"], target)


@contextmanager
def launched(chromium: str, profile: Path, *options: str) -> Iterator[None]:
    """Run a Chromium with this *profile* until the end of the block."""
    process = subprocess.Popen(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", "--remote-debugging-port=0", f"--user-data-dir={profile}"),
            *(*options, "about:blank"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def attached(profile: Path) -> AsyncIterator[Browser]:
    """Drive the Chromium that was launched with this *profile*."""
    announced = profile / "DevToolsActivePort"

    def address() -> str | None:
        lines = announced.read_text().split() if announced.exists() else []
        return f"ws://127.0.0.1:{lines[0]}{lines[1]}" if len(lines) > 1 else None

    url = await eventually(address, within=20 * S)
    async with connect(url, max_size=None) as devtools:
        yield Browser(devtools)


@asynccontextmanager
async def browser(chromium: str, profile: Path) -> AsyncIterator[Browser]:
    """Run a browser until the end of the block."""
    with launched(chromium, profile):
        async with attached(profile) as window:
            yield window
