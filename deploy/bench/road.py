"""Measure the main road: commits, latency to watchers, lateness of deadlines, memory.

Two gateways of their own on free ports of the loopback, over one embedded Valkey in a temporary
folder; every load is bounded. Prints one table; compare within one run only.

    scripts/bench [--sessions 5000] [--closes 10000]
"""

import argparse
import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import uvloop
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from gateway.core.command import Update
from gateway.core.model import Session
from gateway.node import Node
from gateway.store.clock import RedisClock
from gateway.store.embedded import EmbeddedValkey
from gateway.store.store import Store

KEY = secrets.token_hex(24)  # an option may not begin with a dash
LEAN: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
WAYS = 64  # requests or commits at once
ROUNDS = 300  # of the latency measurements
ON_TIME_S = 30.0  # more than this and something is broken


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def quantiles(values: Iterable[float]) -> str:
    """Return median, 99th percentile and maximum as text."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return " / ".join(f"{ordered[round(last * share)]:.2f}" for share in (0.5, 0.99, 1))


async def spread(work: Iterable[Awaitable[object]], ways: int = WAYS) -> None:
    """Await everything, *ways* at a time."""
    queue = iter(work)

    async def worker() -> None:
        for one in queue:
            await one

    async with asyncio.TaskGroup() as group:
        for _ in range(ways):
            group.create_task(worker())


# --- one node, in this process


async def commits(url: str, count: int) -> list[tuple[str, str]]:
    """Measure ``Node.apply``: opens and updates, all in this process, 512 at once."""
    clock = RedisClock(lambda: time.monotonic() * 1000)
    store = Store(url, clock, prefix="bench-commits")
    await store.open(lambda: secrets.token_hex(16))
    node = Node(
        store, clock, name="bench", boot=secrets.token_hex(4), token=lambda: secrets.token_hex(16)
    )
    await node.start()
    run = asyncio.create_task(node.run())
    await node.replicator.caught_up()
    rows = []

    async def measured(name: str, one: Callable[[int], Awaitable[object]]) -> None:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        await spread((one(number) for number in range(count)), 512)
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        rows.append((name, f"{count / took_s:,.0f} /s, {cpu_s / count * 1e6:.0f} µs CPU each"))

    def blank(number: int) -> Session:
        return Session(id=f"s{number}", number=0, revision=0, created_at=0, workspace="bench")

    await measured("Node.open", lambda number: node.open(blank(number)))
    await measured("Node.apply", lambda number: node.apply(f"s{number}", Update(name="new")))
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await store.close()
    return rows


# --- two nodes, each a process


class Gateway:
    """A gateway in a process of its own."""

    def __init__(self, name: str, data_dir: Path) -> None:
        self.port = free_port()
        self.http = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gateway", "serve", "--port", str(self.port)),
                *("--node-name", name, "--admin-key", KEY, "--data-dir", str(data_dir)),
                *("--log-level", "error"),
            ],
            env={k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")},
        )

    async def ready(self, client: httpx2.AsyncClient) -> None:
        """Wait until it serves."""
        until_s = time.monotonic() + ON_TIME_S
        while time.monotonic() < until_s:
            try:
                if (await client.get(f"{self.http}/readyz")).status_code == httpx2.codes.OK:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{self.http} does not get ready")

    def pss_kib(self) -> int:
        """Return its proportional memory in KiB (Linux)."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        [line] = [line for line in rollup.splitlines() if line.startswith("Pss:")]
        return int(line.split()[1])


@asynccontextmanager
async def watching(gateway: Gateway) -> AsyncIterator[ClientConnection]:
    """Watch everything, from after the snapshot."""
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{gateway.ws}/v1/events"
    async with connect(url, additional_headers=headers, **LEAN) as socket:
        while True:
            message = json.loads(await socket.recv())
            if message["type"] == "snapshot" and not message["more"]:
                break
        yield socket


async def latency(nodes: list[Gateway]) -> list[tuple[str, str]]:
    """Measure from a client's first byte, and from its ``update``, to watchers on both nodes."""
    headers = {"Authorization": f"Bearer {KEY}"}
    connects: list[list[float]] = [[], []]
    updates: list[list[float]] = [[], []]
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(watching(node)) for node in nodes]

        async def heard(watcher: ClientConnection, kind: str) -> float:
            while True:
                message = json.loads(await watcher.recv())
                if any(event["type"] == kind for event in message.get("events", ())):
                    return time.perf_counter()

        for _ in range(ROUNDS):
            ears = [
                asyncio.create_task(heard(watcher, "session.connected")) for watcher in watchers
            ]
            began_s = time.perf_counter()
            url = f"{nodes[0].ws}/v1/connect"
            async with connect(url, additional_headers=headers, **LEAN) as client:
                for which, heard_s in enumerate(await asyncio.gather(*ears)):
                    connects[which].append((heard_s - began_s) * 1000)
                ears = [asyncio.create_task(heard(w, "session.updated")) for w in watchers]
                began_s = time.perf_counter()
                await client.send('{"type":"update","changes":{"name":"new"}}')
                for which, heard_s in enumerate(await asyncio.gather(*ears)):
                    updates[which].append((heard_s - began_s) * 1000)
                await client.send('{"type":"leave"}')
                await client.wait_closed()
    unit = "ms (p50 / p99 / max)"
    return [
        ("connect to event, watcher on the same node", f"{quantiles(connects[0])} {unit}"),
        ("connect to event, watcher on the other node", f"{quantiles(connects[1])} {unit}"),
        ("update to event, watcher on the same node", f"{quantiles(updates[0])} {unit}"),
        ("update to event, watcher on the other node", f"{quantiles(updates[1])} {unit}"),
    ]


async def lateness(
    nodes: list[Gateway], client: httpx2.AsyncClient, count: int
) -> list[tuple[str, str]]:
    """Measure *count* closes due within one second, two nodes at work."""
    headers = {"Authorization": f"Bearer {KEY}"}
    due: dict[str, str] = {}

    async def prepare(number: int) -> None:
        node = nodes[number % 2].http
        opened = await client.post(f"{node}/v1/sessions", json={}, headers=headers)
        session_id = opened.json()["id"]
        after_s = max(at_s + number / count - time.monotonic(), 1)
        answer = await client.put(
            f"{node}/v1/sessions/{session_id}/closing", json={"after_s": after_s}, headers=headers
        )
        due[session_id] = answer.json()["closes_at"]

    at_s = time.monotonic() + 10 + count / 200
    async with watching(nodes[0]) as first, watching(nodes[1]) as second:
        reading = [asyncio.create_task(closes(watcher, count)) for watcher in (first, second)]
        await spread(prepare(number) for number in range(count))
        async with asyncio.timeout(at_s - time.monotonic() + ON_TIME_S):
            heard = await asyncio.gather(*reading)
    rows = []
    for which, closed in zip(("one", "the other"), heard, strict=True):
        late_ms = [milliseconds(closed[known]) - milliseconds(at) for known, at in due.items()]
        if min(late_ms) < 0:
            raise AssertionError(f"a session was closed {-min(late_ms)} ms early")
        rows.append(
            (
                f"{count:,} closes due within 1 s, seen on {which} node",
                f"late {quantiles(late_ms)} ms (p50 / p99 / max), each once, none early",
            )
        )
    return rows


async def closes(watcher: ClientConnection, count: int) -> dict[str, str]:
    """Return when each of *count* sessions was closed, as a watcher hears it."""
    closed: dict[str, str] = {}
    while len(closed) < count:
        message = json.loads(await watcher.recv())
        for event in message.get("events", ()):
            if event["type"] == "session.closed":
                if event["session_id"] in closed:
                    raise AssertionError(f"{event['session_id']} was closed twice")
                closed[event["session_id"]] = event["at"]
    return closed


def milliseconds(text: str) -> int:
    """Return an RFC 3339 time in milliseconds since the Unix epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def memory(node: Gateway, count: int) -> list[tuple[str, str]]:
    """Measure what an idle session with its socket costs a node."""
    headers = {"Authorization": f"Bearer {KEY}"}
    before_kib = node.pss_kib()
    sockets: list[ClientConnection] = []

    async def one() -> None:
        url = f"{node.ws}/v1/connect"
        client = await connect(url, additional_headers=headers, **LEAN)
        await client.recv()
        sockets.append(client)

    began_s = time.perf_counter()
    await spread(one() for _ in range(count))
    took_s = time.perf_counter() - began_s
    each_kib = (node.pss_kib() - before_kib) / count
    await spread(client.close() for client in sockets)
    return [
        ("idle session with its socket", f"{each_kib:.1f} KiB PSS, over {count:,}"),
        ("sessions opened by socket", f"{count / took_s:,.0f} /s (client and server on 2 cores)"),
    ]


async def main(options: argparse.Namespace) -> None:
    """Measure everything and print it."""
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedValkey(Path(folder) / "one") as valkey:
            rows += await commits(valkey.url, options.commits)
        nodes = [Gateway(name, Path(folder) / "two") for name in ("one", "other")]
        try:
            limits = httpx2.Limits(max_connections=WAYS)
            async with httpx2.AsyncClient(limits=limits, timeout=ON_TIME_S) as client:
                for node in nodes:
                    await node.ready(client)
                rows += await latency(nodes)
                rows += await lateness(nodes, client, options.closes)
                rows += await memory(nodes[0], options.sessions)
        finally:
            for node in nodes:
                node.process.terminate()
            for node in nodes:
                node.process.wait(timeout=ON_TIME_S)
    table = Table("what", "measured")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def parsed(arguments: list[str]) -> Any:  # noqa: ANN401 - argparse
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--closes", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=2_000)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    uvloop.run(main(parsed(sys.argv[1:])))
