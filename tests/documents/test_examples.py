"""The examples in the documents are true: pages work in a browser, JSON has the right shape."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final, get_args

import msgspec
import pytest
from msgspec.structs import replace

from gateway.core.protocol import ClientMessage, ObserverMessage, SessionSocketMessage
from gateway.http.problems import Problem
from gateway.settings import Settings
from tests.browser import browser
from tests.documents.fences import Fence, of
from tests.documents.test_commands import examples, local
from tests.server.conftest import Gateway, serving
from tests.support import S, eventually

MESSAGES: Final = {
    kind.__struct_config__.tag: kind
    for union in (ClientMessage, SessionSocketMessage, ObserverMessage)
    for kind in get_args(union)
    if kind.__name__ != "ObserverHello"  # of the two that are a ``hello`` the documents show one
}
PRINTED: Final = {
    example for fence in of("json") for example in examples(fence.page).values()
}  # compared with what the command before them prints


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder as a site of its own, as ``python3 -m http.server`` does; yield its origin."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def page_with(text: str) -> Fence:
    """Return the one page of the documents that has a text in it, and is not the README's."""
    [found] = [fence for fence in of("html") if text in fence.code and fence.page != "README"]
    return found


async def opened(gateway: Gateway, name: str) -> str:
    """Open a session and return its id."""
    async with gateway.http("K") as http:
        body = {"name": name, "workspace": "ws-7", "labels": {"team": "red"}}
        reply = await http.post("/v1/sessions", json=body)
        return str(reply.json()["id"])


@pytest.mark.parametrize(
    "fence", [fence for fence in of("html") if 'id="online"' in fence.code], ids=str
)
@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_page_shows_who_is_online(
    settings: Settings, chromium: str, tmp_path: Path, fence: Fence
) -> None:
    """The page shows who comes, what they are called from now on, and no more who has gone."""
    site = tmp_path / "site"
    site.mkdir()
    with web_server(site) as origin:
        settings = replace(settings, admin_key="K", allowed_origins=(origin,))
        async with serving(settings) as gateway, browser(chromium, tmp_path / "profile") as window:
            port = gateway.url.rpartition(":")[2]
            (site / "online.html").write_text(local(fence.code, port))
            tab = await window.page(f"{origin}/online.html")
            other = await window.page(f"{gateway.url}/livez")

            async def shows(*names: str) -> None:
                async def seen() -> bool:
                    text = await tab.run("document.getElementById('online').innerText")
                    return sorted(text.split("\n")) == sorted(names)

                await eventually(seen, within=5 * S)

            await opened(gateway, "Idle")
            offers = "['gateway.v1', 'bearer.K']"
            url = f"ws://127.0.0.1:{port}/v1/connect?name=Ann"
            await other.run(f"window.socket = new WebSocket('{url}', {offers}); 0")
            await shows("Ann")
            rename = '{"type":"update","changes":{"name":"Anna","labels":{"a":"b"}}}'
            await other.run(f"socket.send('{rename}')")
            await shows("Anna")
            second = url.replace("Ann", "Ben")
            await other.run(f"window.second = new WebSocket('{second}', {offers}); 0")
            await shows("Anna", "Ben")
            await other.run("socket.close()")
            await shows("Ben")
            await other.run('second.send(\'{"type":"leave"}\')')
            await shows("")


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_page_is_a_session(settings: Settings, chromium: str, tmp_path: Path) -> None:
    """The page is a session, the same one after a reload, and answers a warning with ``saved``."""
    fence = page_with('id="status"')
    site = tmp_path / "site"
    site.mkdir()
    with web_server(site) as origin:
        settings = replace(settings, admin_key="K", allowed_origins=(origin,))
        async with serving(settings) as gateway, browser(chromium, tmp_path / "profile") as window:
            (site / "me.html").write_text(local(fence.code, gateway.url.rpartition(":")[2]))
            tab = await window.page(f"{origin}/me.html")

            async def watching(connections: int) -> dict[str, Any] | None:
                async with gateway.http("K") as http:
                    found = (await http.get("/v1/sessions?watching=true")).json()["sessions"]
                if len(found) != 1 or found[0]["revision"] < connections:
                    return None
                session: dict[str, Any] = found[0]
                return session if session["is_connected"] else None

            first = await eventually(lambda: watching(1), within=5 * S)
            await tab.run("location.reload(); 0")
            again = await eventually(lambda: watching(first["revision"] + 1), within=5 * S)
            assert again["id"] == first["id"]
            assert again["connection"]["id"] != first["connection"]["id"]

            async with gateway.http("K") as http:
                closing = await http.delete(f"/v1/sessions/{first['id']}?close_after=30")
                assert closing.status_code == 202

                async def outcome() -> str | None:
                    final = await http.get(f"/v1/sessions/{first['id']}")
                    closed = final.json().get("session", {}).get("closed", {})
                    return str(closed["outcome"]) if closed else None

                assert await eventually(outcome, within=5 * S) == "saved"
            text = await tab.run("document.getElementById('status').innerText")
            assert text.startswith("4500")


def typed(example: dict[str, Any]) -> type[msgspec.Struct]:
    """Return the type that an example must be of."""
    return Problem if example["type"].startswith("/docs#") else MESSAGES[example["type"]]


@pytest.mark.parametrize("fence", [fence for fence in of("json") if fence not in PRINTED], ids=str)
def test_example_is_a_message_that_is_sent(fence: Fence) -> None:
    """An example of a message or a problem has no member that its type does not have."""
    example = json.loads(fence.code)

    kind = typed(example)
    again = msgspec.json.decode(msgspec.json.encode(msgspec.convert(example, kind)))
    assert again == {name: value for name, value in example.items() if value is not None}


def test_every_page_for_a_browser_is_tried() -> None:
    """No page of HTML is in the documents that these tests do not open."""
    known = ('id="online"', 'id="status"')

    assert all(any(text in fence.code for text in known) for fence in of("html"))
