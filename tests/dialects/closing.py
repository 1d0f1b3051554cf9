"""Closing: the request that closes a session at each door, at once or later."""

from dataclasses import dataclass
from typing import Final

import httpx2

from tests.dialects.house import House
from tests.dialects.opening import End, Opened
from tests.server.conftest import ADMIN

LATER_S: Final = 60
UNSAID: Final = End()


@dataclass(frozen=True)
class Close:
    """How a product closes a session.

    Args:
        door: The product.
        method: Of the request.
        path: In which ``{}`` is what the product calls a session.
        status: What it answers.
        end: What the session's client and watchers are told.
        body: Of the request.
    """

    door: str
    method: str
    path: str
    status: int
    end: End = UNSAID
    body: dict[str, object] | None = None

    async def ask(self, house: House, opened: Opened, token: str = ADMIN) -> httpx2.Response:
        """Send the request."""
        called = {"neko": opened.neko_id, "maxscale": str(opened.number)}
        path = self.path.format(called.get(self.door, opened.id))
        return await house.ask(self.door, self.method, path, token=token, json=self.body)

    async def do(self, house: House, opened: Opened) -> End:
        """Close *opened*; return how it ends."""
        answer = await self.ask(house, opened)
        assert answer.status_code == self.status, answer.text
        return self.end


CLOSERS: Final = {
    close.door: close
    for close in (
        Close("native", "DELETE", "/v1/sessions/{}?reason=Enough", 200, End("Enough")),
        Close("neko", "DELETE", "/api/sessions/{}", 204, End("deleted")),
        Close(
            *("plex", "GET", "/status/sessions/terminate?sessionId={}&reason=Enough", 200),
            end=End("Enough"),
        ),
        Close("webida", "DELETE", "/api/sessions/{}?closeAfter=0", 200),
        Close("gameye", "DELETE", "/session/{}", 204, End("stopped", warns=True)),
        Close("maxscale", "DELETE", "/v1/sessions/{}", 200),
    )
}
"""Every door closes sessions; Gameye's gives the client a moment."""

LATER: Final = {
    close.door: close
    for close in (
        Close("native", "PUT", "/v1/sessions/{}/closing", 200, body={"after_s": LATER_S}),
        Close("webida", "DELETE", f"/api/sessions/{{}}?closeAfter={LATER_S}", 200),
        Close("gameye", "DELETE", "/session/{}", 204),  # its time is a setting
        Close("maxscale", "DELETE", f"/v1/sessions/{{}}?ttl={LATER_S}", 200),
    )
}
"""Those that can close after a minute."""
