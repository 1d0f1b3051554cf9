"""House: the whole gateway with all its doors, and how each product's clients show a token."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from gateway.node import Node
from tests.server.conftest import ADMIN, Gateway
from tests.support import TLS, S

Json = Any

PASSWORD: Final = "correct horse"
NAME, ACCOUNT, WORKSPACE = "ann", "ann", "ws-1"  # of whoever opens a session here
ITEM: Final = "/library/metadata/101"
PREFIXES: Final = {
    "native": "",
    "neko": "/neko",
    "plex": "/plex",
    "webida": "/webida",
    "gameye": "/gameye",
    "maxscale": "/maxscale",
}

LISTS: Final = {
    "neko": "/api/sessions",
    "plex": "/status/sessions",
    "webida": "/api/sessions",
    "gameye": "/session",
    "maxscale": "/v1/sessions",
}
"""Where each product lists its sessions."""


def shown(door: str, token: str) -> dict[str, str]:
    """Return the headers with which clients of a product show a token."""
    match door:
        case "plex":
            return {"X-Plex-Token": token, "Accept": "application/json"}
        case "webida":
            return {"Authorization": token, "Content-Type": "application/json"}
        case "maxscale" if token == ADMIN:
            return {"Authorization": "Basic " + b64encode(f"admin:{token}".encode()).decode()}
        case _:
            return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True)
class House:
    """A gateway with all its doors.

    Args:
        gateway: It runs.
        prefixes: Where each product's own paths begin.
    """

    gateway: Gateway
    prefixes: Mapping[str, str] = field(default_factory=lambda: PREFIXES)

    @property
    def node(self) -> Node:
        """Its node."""
        return self.gateway.node

    async def ask(
        self,
        door: str,
        method: str,
        path: str,
        *,
        token: str = ADMIN,
        headers: Mapping[str, str] | None = None,
        **parts: Any,  # noqa: ANN401 - what httpx2 takes
    ) -> httpx2.Response:
        """Send a request to a product's own *path*."""
        url = f"{self.gateway.url}{self.prefixes[door]}{path}"
        return await self.send(method, url, {**shown(door, token), **(headers or {})}, **parts)

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        **parts: Any,  # noqa: ANN401 - what httpx2 takes
    ) -> httpx2.Response:
        """Send a request that is as it stands here."""
        async with httpx2.AsyncClient(verify=TLS, timeout=5 * S) as http:
            return await http.request(method, url, headers=dict(headers), **parts)

    async def read(self, door: str, path: str, *, token: str = ADMIN) -> Json:
        """Return what a product answers to a GET that succeeds."""
        answer = await self.ask(door, "GET", path, token=token)
        assert answer.status_code == 200, answer.text
        return answer.json()
