"""Operations: metrics and health for machines, on a port of their own, without a credential.

A probe or a scrape of the main port meets a random worker. So with several workers a process beside
them serves this port and asks each of them over a socket in a private folder: ``/metrics`` of all,
``/livez`` and ``/readyz`` of all or, with ``?node=``, of one. A gateway of one process serves the
port by itself and asks itself the same way.

Nothing else is served here, and nobody is asked who they are: keep the port private.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx2
import uvicorn
from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.api import routes as native
from gateway.api.endpoints_metrics import OF_ALL
from gateway.app import server_config
from gateway.context import Context
from gateway.transport import Limits, http_protocol

ANSWER_WITHIN_S: Final = 2.0  # a node that has not answered by then counts as hanging
CONNECTIONS_MAX: Final = 64  # on the port, and to each worker
END_WITHIN_S: Final = 1  # for requests in flight when the server stops
TELL_EVERY_S: Final = 1.0  # between two signs of a loop that turns
LOOK_EVERY_S: Final = 0.1  # whether the workers have gone

Clients = Mapping[str, httpx2.AsyncClient]
"""What asks a node, by the name of the node."""


class _Answer(Struct):
    """What a node said; status 0 is no answer."""

    status: int
    text: str = ""


class _Merged(Collector):
    """The metrics of several nodes, each family once."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """Yield every family with the samples of all nodes."""
        families: dict[str, Metric] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text):
                known = families.setdefault(family.name, family)
                if known is not family and family.name not in OF_ALL:
                    known.samples += family.samples
        yield from families.values()


def operations(clients: Clients) -> ASGIApp:
    """Return the application of the port.

    Args:
        clients: Ask the nodes; all of them have to be alive and ready.
    """

    async def health(request: Request) -> Response:
        node = request.query_params.get("node")
        if node is not None and node not in clients:
            return JSONResponse({"status": "unknown", "nodes": {}}, 404)
        asked = clients if node is None else {node: clients[node]}
        answers = await _ask(asked, request.url.path)
        is_well = all(answer.status == 200 for answer in answers.values())  # noqa: PLR2004
        found = {
            "status": "ok" if is_well else "unavailable",
            "nodes": {name: _said(answer) for name, answer in answers.items()},
        }
        return JSONResponse(found, 200 if is_well else 503, {"Cache-Control": "no-store"})

    async def metrics(_request: Request) -> Response:
        answers = await _ask(clients, "/metrics")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Merged([answer.text for answer in answers.values() if answer.status]))
        headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        return Response(generate_latest(registry), headers=headers)

    return Starlette(
        routes=[
            Route("/livez", health),
            Route("/readyz", health),
            Route("/metrics", metrics),
        ]
    )


async def _ask(clients: Clients, path: str) -> dict[str, _Answer]:
    """Return what each node says, all asked at once."""

    async def ask(client: httpx2.AsyncClient) -> _Answer:
        try:
            reply = await client.get(path)
        except httpx2.HTTPError:
            return _Answer(0)
        return _Answer(reply.status_code, reply.text)

    answers = await asyncio.gather(*map(ask, clients.values()))
    return dict(zip(clients, answers, strict=True))


def _said(answer: _Answer) -> str:
    """Return the state of a node in a word: ``ok``, the code of its problem, or ``silent``."""
    if answer.status == 0:
        return "silent"
    found = json.loads(answer.text)
    word: str = found.get("code", found.get("status"))
    return word


class _Server(uvicorn.Server):
    """A server beside the one of this process, which leaves the signals to that."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


@asynccontextmanager
async def _served(app: ASGIApp, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Serve *app* within an ``async with`` block."""
    protocol = http_protocol(Limits(connections=CONNECTIONS_MAX))
    web = _Server(server_config(app, protocol, END_WITHIN_S))
    serving = asyncio.create_task(web.serve(sockets))
    try:
        yield
    finally:
        web.should_exit = True
        await serving


@asynccontextmanager
async def served_alone(context: Context, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Serve the port for the only node, which is in this process, within an ``async with`` block.

    Args:
        context: The node and its surroundings.
        sockets: The port; empty if there is none.
    """
    if not sockets:
        yield
        return
    own = httpx2.ASGITransport(native.operations(context))
    async with _client(own) as client, _served(operations({context.node.name: client}), sockets):
        yield


@asynccontextmanager
async def served_to_operations(context: Context, folder: Path | None) -> AsyncIterator[None]:
    """Serve the metrics and the health of this worker within an ``async with`` block.

    Args:
        context: The node and its surroundings.
        folder: A private folder for the sockets; ``None`` if nobody asks.
    """
    if folder is None:
        yield
        return
    path = _socket_path(folder, context.node.name)
    path.unlink(missing_ok=True)  # of a worker that was killed
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        async with _served(native.operations(context), [listening]):
            yield


async def serve_for_workers(
    folder: Path,
    names: list[str],
    sockets: list[socket.socket],
    tell: Callable[[], None],
    leaving: asyncio.Event,
) -> None:
    """Serve the port for all workers, until they are *leaving* and have gone.

    Args:
        folder: Where their sockets are.
        names: Their names.
        sockets: The port.
        tell: Called each second from when it serves.
        leaving: Set when the workers are told to leave.
    """
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(
                _client(httpx2.AsyncHTTPTransport(uds=str(_socket_path(folder, name))))
            )
            for name in names
        }
        await stack.enter_async_context(_served(operations(clients), sockets))
        while not leaving.is_set():
            tell()
            with suppress(TimeoutError):
                async with asyncio.timeout(TELL_EVERY_S):
                    await leaving.wait()
        while any(answer.status for answer in (await _ask(clients, "/livez")).values()):  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(LOOK_EVERY_S)


def _client(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=transport, base_url="http://worker", timeout=ANSWER_WITHIN_S
    )


def _socket_path(folder: Path, name: str) -> Path:
    """Return the path of a worker's socket, which a socket's address has room for."""
    return folder / name.rpartition("-")[2]
