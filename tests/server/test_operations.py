"""The operations port: metrics and health of all workers, or of one, without a credential."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway import __version__
from tests.processes import heard
from tests.server.command import KEY, Served, serve
from tests.server.test_workers import on_both, open_socket, told
from tests.support import S, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),  # processes that import a whole server
]

FLAGS = ("--admin-key", KEY, "--node-name", "a", "--ops-port", "0")
LOAD, LEAVING, WATCHERS = 40, 10, 4


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A gateway of two workers with an operations port."""
    with serve(tmp_path, *FLAGS, "--workers", "2", lines=2) as gateway:
        yield gateway


@asynccontextmanager
async def operator(served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """Return a client of the operations port."""
    url = served.greeting[1].split()[-1]
    async with httpx2.AsyncClient(base_url=url, timeout=5 * S) as client:
        yield client


async def health(client: httpx2.AsyncClient, path: str) -> tuple[int, dict[str, str]]:
    """Return the status of a probe, and what it says of each node."""
    reply = await client.get(path)
    found: dict[str, Any] = reply.json()
    return reply.status_code, found["nodes"]


async def samples(client: httpx2.AsyncClient, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a metric by the values of their labels."""
    text = (await client.get("/metrics")).text
    return {
        tuple(labels.values()): value
        for family in text_string_to_metric_families(text)
        for found, labels, value, *_ in family.samples
        if found == name
    }


async def test_one_scrape_has_all_workers(served: Served) -> None:
    """What each worker counts has its name; the sessions of the whole gateway are told once."""
    async with operator(served) as client, on_both(served, "/v1/connect") as clients:
        connections = await samples(client, "gateway_connections")
        opened = await samples(client, "gateway_connects_total")
        sessions = await samples(client, "gateway_sessions")

    assert set(connections) == {("a-1",), ("a-2",)}
    assert sum(connections.values()) == sum(opened.values()) == sessions["connected",]
    assert sessions["connected",] >= len(clients)
    assert set(sessions) == {("idle",), ("connected",), ("away",), ("closing",)}


async def test_sums_over_workers_are_what_clients_counted(served: Served) -> None:
    """A load on two workers: the metrics of both together, the counts and the clients agree."""
    events: Counter[str] = Counter()

    async def watch(watcher: ClientConnection) -> None:
        ended = 0
        while ended < LEAVING:
            types = [event["type"] for event in json.loads(await watcher.recv()).get("events", ())]
            events.update(types)
            ended += types.count("session.closed")
        await watcher.close()

    async def leave(socket: ClientConnection) -> None:
        await socket.send('{"type": "leave", "ref": "1"}')
        with suppress(ConnectionClosed):
            while True:
                await socket.recv()

    headers = {"Authorization": f"Bearer {KEY}", "Connection": "close"}  # each asks any worker
    async with (
        operator(served) as client,
        httpx2.AsyncClient(base_url=served.url, headers=headers) as http,
        AsyncExitStack() as stack,
    ):

        async def connected(path: str, first: str) -> ClientConnection:
            socket = await stack.enter_async_context(open_socket(served, path))
            await heard(socket, first)
            return socket

        async def summed(name: str) -> float:
            return sum((await samples(client, name)).values())

        watchers = [await connected("/v1/events", "snapshot") for _ in range(WATCHERS)]
        async with asyncio.TaskGroup() as group:
            for watcher in watchers:
                group.create_task(watch(watcher))
            sockets = [await connected("/v1/connect", "hello") for _ in range(LOAD)]
            counted = (await http.get("/v1/stats")).json()["sessions"]
            assert await summed("gateway_sessions") == counted == LOAD
            assert await summed("gateway_connections") == WATCHERS + LOAD
            await asyncio.gather(*map(leave, sockets[:LEAVING]))

        async def all_have_ended() -> bool:
            return await summed("gateway_closes_total") == WATCHERS + LEAVING

        await eventually(all_have_ended)
        assert await summed("gateway_sessions") == LOAD - LEAVING
        assert await summed("gateway_connects_total") == WATCHERS + LOAD
        assert await summed("gateway_session_ends_total") == LEAVING
        assert await summed("gateway_deliveries_total") == events.total()


async def test_any_node_tells_the_state_of_all(served: Served) -> None:
    """The list of nodes has what only the node itself knows, whichever worker answers."""
    headers = {"Authorization": f"Bearer {KEY}", "Connection": "close"}  # each asks any worker
    async with (
        on_both(served, "/v1/connect"),
        operator(served) as client,
        httpx2.AsyncClient(base_url=served.url, headers=headers) as http,
    ):
        answered: set[str] = set()
        while answered != {"a-1", "a-2"}:

            async def agrees() -> bool:
                nodes = (await http.get("/v1/nodes")).json()["nodes"]
                answered.update(node["name"] for node in nodes if node["is_this"])
                told = {(node["name"],): node["sockets"] for node in nodes}
                assert {node["version"] for node in nodes} == {__version__}
                return told == await samples(client, "gateway_connections")

            await eventually(agrees)


async def test_probe_asks_every_worker_or_the_one_that_it_names(served: Served) -> None:
    """A worker that hangs fails the probe of all and its own, not that of the other one."""
    async with operator(served) as client:
        assert await health(client, "/readyz") == (200, {"a-1": "ok", "a-2": "ok"})
        worker = worker_of(served, "a-1")
        os.kill(worker, signal.SIGSTOP)
        try:
            assert await health(client, "/livez") == (503, {"a-1": "silent", "a-2": "ok"})
            assert await health(client, "/readyz?node=a-1") == (503, {"a-1": "silent"})
            assert await health(client, "/readyz?node=a-2") == (200, {"a-2": "ok"})
            assert await health(client, "/readyz?node=a-3") == (404, {})
        finally:
            os.kill(worker, signal.SIGCONT)
        os.kill(worker, signal.SIGKILL)
        assert (await health(client, "/livez"))[0] == 503

        async def is_back() -> bool:
            return (await health(client, "/readyz"))[0] == 200

        await eventually(is_back)


async def test_only_operations_are_served(served: Served) -> None:
    """The port that asks for no credential shows no session, and takes no write."""
    async with operator(served) as client:
        for path in ("/", "/v1/sessions", "/v1/stats", "/docs", "/neko/api/sessions"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/livez")).status_code == 405


async def test_drain_is_told_until_the_end(served: Served) -> None:
    """While its workers drain, a gateway is alive and not ready, and then it is gone."""
    async with operator(served) as client, on_both(served, "/v1/connect"):
        served.process.send_signal(signal.SIGTERM)
        said: list[int] = []

        async def is_gone() -> bool:
            try:
                said.append((await client.get("/readyz")).status_code)
            except httpx2.HTTPError:
                return True
            return False

        await eventually(is_gone)
        assert said[-1] == 503
        assert served.process.wait(8 * S) == 0


async def test_gateway_of_one_process_serves_the_port_by_itself(tmp_path: Path) -> None:
    """One worker needs no process beside it, and answers the same."""
    with serve(tmp_path, *FLAGS, lines=2) as gateway:
        async with operator(gateway) as client:
            assert await health(client, "/readyz") == (200, {"a": "ok"})
            assert await samples(client, "gateway_store_up") == {("a",): 1.0}


def worker_of(served: Served, name: str) -> int:
    """Return the process of a worker, which says its number in the log when it starts."""
    number = name.rpartition("-")[2]
    pid = served.process.pid
    children = map(int, told(pid, f"task/{pid}/children").split())
    return [child for child in children if "valkey" not in told(child, "cmdline")][int(number) - 1]
