"""Gateway: our own contestant. Its events are real commits, made by real sessions."""

import http.client
import json
import secrets
import sys
from pathlib import Path
from typing import Any, ClassVar

from machine import Broken, Process
from swarm import CHANNEL, EOF, MARK, NUMBER, TIME, Steps, text, upgrade

import gateway
from peers.base import Contestant

KEY = secrets.token_hex(24)  # an option may not begin with a dash
BEARER = b"Authorization: Bearer " + KEY.encode()
HANDSHAKE = b"\r\n\r\n"
PAGE = 1000  # the most that one page of the list holds


class Gateway(Contestant):
    """One node over a Redis of its own."""

    name = "gateway"
    uses_redis = True
    publishers: ClassVar[int] = 500  # sessions; the commands of one are done one by one
    workers: ClassVar[int] = 1
    options: ClassVar[dict[str, object]] = {}  # flags besides those below

    @classmethod
    def missing(cls) -> str | None:
        """Nothing."""
        return None

    @classmethod
    def version(cls) -> str:
        """Return our version."""
        return gateway.__version__

    def start(self, folder: Path) -> Process:
        """Start a node that does not limit what the benchmark does."""
        if self.redis is None:
            raise Broken("no Redis")
        options = {
            "port": self.port,
            "admin-key": KEY,
            "redis-url": self.redis.url,
            "data-dir": folder,
            "node-name": "bench",
            "messages-per-s": 1_000_000,
            "workers": self.workers,
            "log-level": "error",
            **self.options,
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return Process([sys.executable, "-m", "gateway", "serve", *flags], folder, "gateway")

    def is_ready(self) -> bool:
        """Return whether it says so."""
        try:
            if self.get("/readyz")[0] != http.client.OK:
                return False
            return len(json.loads(self.get("/v1/nodes")[2])["nodes"]) == self.workers
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of one request."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            line.request(method, path, headers={"Authorization": f"Bearer {KEY}"})
            answer = line.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read()
        finally:
            line.close()

    def listed(self, query: str) -> list[dict[str, Any]]:
        """Return all sessions that match, page by page."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            status, _, body = self.get(f"/v1/sessions?limit={PAGE}&{query}{cursor}")
            if status != http.client.OK:
                raise Broken(f"the list says {status}")
            page = json.loads(body)
            found += page["sessions"]
            if not page.get("next"):
                return found
            cursor = f"&cursor={page['next']}"

    def watch(self, channels: int) -> Steps:
        """Watch one workspace, from after its snapshot."""
        del channels
        path = b"/v1/events?workspace=c" + CHANNEL
        return [(upgrade(path, BEARER), HANDSHAKE), (b"", b'"more":false')]

    def publisher(self, channels: int) -> Steps:
        """Be a session of one workspace."""
        del channels
        path = b"/v1/connect?workspace=c" + CHANNEL
        return [(upgrade(path, BEARER), HANDSHAKE), (b"", b'"hello"')]

    def event(self) -> bytes:
        """Change the session's attributes."""
        return text(b'{"type":"update","changes":{"attributes":{"at":"' + MARK + TIME + b'"}}}')

    def session(self) -> Steps | None:
        """Open a session by its socket, and leave."""
        path = b"/v1/connect?workspace=c000&session=s" + NUMBER
        return [
            (upgrade(path, BEARER), HANDSHAKE),
            (b"", b'"hello"'),
            (text(b'{"type":"leave"}'), EOF),
        ]


class TwoWorkers(Gateway):
    """Two workers behind one port; not a contestant of its own."""

    workers: ClassVar[int] = 2
