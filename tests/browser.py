"""A real browser for tests, driven through the Chrome DevTools Protocol."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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

    async def run(self, script: str) -> Any:  # noqa: ANN401 - JSON
        """Return what the JavaScript expression is, or what its promise becomes.

        Raises:
            AssertionError: It threw.
        """
        options = {"expression": script, "awaitPromise": True, "returnByValue": True}
        result = await self._browser.call("Runtime.evaluate", self._session_id, **options)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def close(self) -> None:
        """Close the tab, as its user would."""
        await self._browser.call("Target.closeTarget", targetId=self._target_id)


class Browser:
    """A Chromium with a profile of its own."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
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

    async def page(self, url: str) -> Page:
        """Open a tab at *url*."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"], target)
        await self.call("Page.navigate", attached["sessionId"], url=url)

        async def loaded() -> bool:
            there = await page.run("[document.readyState, location.href]")
            return bool(there[0] == "complete" and there[1] == url)

        await eventually(loaded, within=5 * S)
        return page


@asynccontextmanager
async def browser(chromium: str, profile: Path) -> AsyncIterator[Browser]:
    """Run a browser until the end of the block."""
    process = subprocess.Popen(  # noqa: ASYNC220
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--disable-sync", "--remote-debugging-port=0", f"--user-data-dir={profile}"),
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        announced = profile / "DevToolsActivePort"

        def address() -> str | None:
            lines = announced.read_text().split() if announced.exists() else []
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}" if len(lines) > 1 else None

        url = await eventually(address, within=20 * S)
        async with connect(url, max_size=None) as devtools:
            yield Browser(devtools)
    finally:
        process.kill()
        process.wait()
