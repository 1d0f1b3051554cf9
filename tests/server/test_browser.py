"""Real pages in a real browser: each is a session, and sees the other."""

from pathlib import Path

import pytest

from tests.browser import browser
from tests.server.conftest import ADMIN, Gateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

HELPERS = """
    window.heard = [];
    window.open_socket = (path, ...more) => new Promise((resolve, reject) => {
        const url = location.origin.replace('http', 'ws') + path;
        const socket = new WebSocket(url, ['gateway.v1', 'bearer.%s', ...more]);
        socket.onmessage = message => {
            const said = JSON.parse(message.data);
            heard.push(said);
            if (said.type === 'hello') resolve(said);
        };
        socket.onclose = closed => { heard.push({type: 'close', code: closed.code}); reject(); };
        window.socket = socket;
    });
    window.wait_for = (wanted) => new Promise(resolve => {
        const look = () => {
            const found = heard.find(wanted) || heard.flatMap(m => m.events || []).find(wanted);
            if (found) resolve(found); else setTimeout(look, 5);
        };
        look();
    });
"""


async def test_two_pages_are_two_sessions_and_see_each_other(
    gateway: Gateway, chromium: str, tmp_path: Path
) -> None:
    """A page hears the other come, go when its tab is closed, and is itself closed politely."""
    async with browser(chromium, tmp_path) as window:
        ann = await window.page(f"{gateway.url}/livez")
        bob = await window.page(f"{gateway.url}/livez")
        for page in (ann, bob):
            await page.run(HELPERS % ADMIN)

        await bob.run("open_socket('/v1/events')")
        hello = await ann.run("open_socket('/v1/connect?name=Ann')")
        assert hello["session"]["name"] == "Ann"
        assert hello["session"]["state"] == "connected"
        assert await ann.run("socket.protocol") == "gateway.v1"

        seen = await bob.run("wait_for(e => e.type === 'session.opened')")
        assert seen["changes"]["name"] == "Ann"
        await ann.run("""socket.send('{"type":"watch","key":"movie/42"}')""")
        seen = await bob.run("wait_for(e => e.type === 'session.watching')")
        assert seen["changes"]["watch"]["key"] == "movie/42"

        await ann.close()
        seen = await bob.run("wait_for(e => e.type === 'session.disconnected')")
        assert seen["changes"]["state"] == "away"

        await bob.run("open_socket('/v1/connect?session=bob')")
        async with gateway.http() as http:
            await http.delete("/v1/sessions/bob?close_after=0.3&reason=tea")
        notice = await bob.run("wait_for(m => m.type === 'closing')")
        assert notice["reason"] == "tea"
        closed = await bob.run("wait_for(m => m.type === 'close')")
        assert closed["code"] == 4500
