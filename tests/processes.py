"""Gateways for tests, each a process of its own, started by the command that users run."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from tests.canaries import folder
from tests.support import TLS, S, eventually

ADMIN: Final = "the-admin-key-of-the-process-tests"
AUTH: Final = {"Authorization": f"Bearer {ADMIN}"}


_reserved: Final[list[socket.socket]] = []


def reserved_port() -> int:
    """Return a port of the loopback that only a server that names it will get.

    It stays bound by a socket that does not listen, until this process ends: the system gives it
    to nobody who asks for any port, while a server that sets ``SO_REUSEADDR`` may have it.
    """
    free = socket.socket()
    _reserved.append(free)
    free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    free.bind(("127.0.0.1", 0))
    port: int = free.getsockname()[1]
    return port


class Process:
    """One ``gateway serve``."""

    def __init__(self, *options: str, name: str = "a", port: int | None = None) -> None:
        self.port = port or reserved_port()
        self.http = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}"
        self._lines = (folder() / f"{name}-{self.port}.log").open("ab")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gateway", "serve", "--port", str(self.port)),
                *("--admin-key", ADMIN, "--node-name", name, *options),
            ],
            env={
                **{known: value for known, value in os.environ.items() if "GATEWAY" not in known},
                "GATEWAY_LOG_FORMAT": "json",
                "GATEWAY_LOG_LEVEL": "debug",
            },
            stdout=self._lines,
            stderr=self._lines,
        )

    async def ready(self) -> None:
        """Wait until it serves."""

        async def answers() -> bool:
            try:
                return (await self.get("/readyz")).status_code == httpx2.codes.OK
            except httpx2.TransportError:
                assert self._process.poll() is None
                return False

        await eventually(answers, within=15 * S)

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:  # noqa: ANN401
        """Ask it something as the admin."""
        async with httpx2.AsyncClient(headers=AUTH, timeout=8 * S, verify=TLS) as client:
            return await client.request(method, self.http + path, **options)

    async def get(self, path: str) -> httpx2.Response:
        """Read from it as the admin."""
        return await self.request("GET", path)

    @asynccontextmanager
    async def socket(self, path: str) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket to it as the admin."""
        async with connect(self.ws + path, additional_headers=AUTH, max_size=None) as client:
            yield client

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; return its exit code."""
        self._process.send_signal(sent)
        return self._process.wait(timeout=8 * S)

    def end(self) -> None:
        """End it whatever it is doing."""
        if self._process.poll() is None:
            self.kill()
        self._lines.close()


@asynccontextmanager
async def gateways(
    *names: str, data_dir: Path, options: tuple[str, ...] = ()
) -> AsyncIterator[list[Process]]:
    """Run a gateway a name, all on one data directory or on the ``--redis-url`` of *options*."""
    found = [Process("--data-dir", str(data_dir), *options, name=name) for name in names]
    try:
        for process in found:
            await process.ready()
        yield found
    finally:
        for process in found:
            process.end()


async def heard(client: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next message of this type, or the message with the next event of this type."""
    while True:
        message: dict[str, Any] = json.loads(await client.recv())
        if message["type"] == kind:
            return message
        for event in message.get("events", ()):
            if event["type"] == kind:
                return dict(event)
