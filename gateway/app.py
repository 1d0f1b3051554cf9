"""App: builds everything in order, ends it in reverse, and owns the clock.

Only the command line and tests import this. Start: embedded Valkey (if there is no ``redis_url``),
store, node, doors. Stop: the node is not ready, clients are told to reconnect elsewhere, sessions
are away, the lease is given up; then tasks, connections and Valkey end. A task that fails ends the
process.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import FrameType
from typing import Final, Protocol

import uvicorn
from redis.exceptions import AuthenticationError, NoPermissionError
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import routes as native
from gateway.auth.credentials import Networks, forwarded_prefix, networks
from gateway.auth.principals import Authenticator
from gateway.auth.users import Users
from gateway.connections.registry import ConnectionRegistry
from gateway.context import NATIVE, Context
from gateway.core.errors import Unavailable
from gateway.core.frames import FRAMES_PER_S, Caps
from gateway.dialects import gameye, maxscale, neko, plex, webida
from gateway.http.pipeline import Application
from gateway.node import Node
from gateway.settings import Settings
from gateway.store.clock import RedisClock
from gateway.store.embedded import EmbeddedValkey
from gateway.store.store import Store
from gateway.transport import Http, Limits, http_protocol, server_context
from gateway.versions import check_versions

START_S: Final = 5.0  # the store has to answer within this time of the start
RETRY_S: Final = 0.1  # between two attempts of that
REFUSALS: Final = (AuthenticationError, NoPermissionError)  # of a store that is not asked again
SHED_AFTER_MS: Final = 45_000  # without the store, sockets are kept this long; then they are shed
SHED_EVERY_S: Final = 1.0
DRAIN_MIN_S: Final = 0.2  # for the last close frames to leave
DRAIN_MAX_S: Final = 20.0  # however many sockets there are
DRAIN_PER_S: Final = 450  # sockets closed per second, so that clients do not all reconnect at once
SPARE: Final = 384  # connections beside sockets: probes, plain requests
BELOW: Final = "/gateway"  # the native API's prefix while a product is at the root
AT_ROOT: Final = ("livez", "readyz", "dashboard")  # ours in any case
GRACEFUL_S: Final = 3  # for requests in flight when the server stops

log = logging.getLogger(__name__)


class Dialect(Protocol):
    """One product's session API; a package below ``dialects``."""

    def application(self, context: Context, root: str) -> Application:
        """Return the application of the product's own paths, mounted at *root*."""
        ...

    async def run(self, context: Context) -> None:
        """Run the dialect's background work; it may return."""
        ...


DIALECTS: Final[dict[str, Dialect]] = {
    "gameye": gameye,
    "maxscale": maxscale,
    "neko": neko,
    "plex": plex,
    "webida": webida,
}


def monotonic_ms() -> float:
    """Return a monotonic clock's milliseconds."""
    return time.monotonic() * 1000


def wall_ms() -> int:
    """Return milliseconds since the Unix epoch by this machine's clock."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Context]:
    """Run a node and all that it needs within an ``async with`` block.

    Raises:
        GatewayError: The store cannot be reached or used.
        UnexpectedVersion: A library has another version than the one that is expected.
        ExceptionGroup: A task died.
    """
    check_versions()
    async with AsyncExitStack() as stack:
        url = settings.redis_url
        embedded = None
        if url is None:
            embedded = await stack.enter_async_context(EmbeddedValkey(settings.data_dir))
            url = embedded.url
        clock = RedisClock(monotonic_ms)
        store = Store(url, clock, prefix=settings.key_prefix, partitions=settings.partitions)
        stack.push_async_callback(store.close)
        await _open(store)
        name, boot = settings.node_name, secrets.token_hex(4)
        connections = ConnectionRegistry(settings.max_connections, random.random)
        node = Node(
            store,
            clock,
            name=name,
            boot=boot,
            token=_token,
            max_sessions=settings.max_sessions,
            count_sockets=lambda: connections.count,
        )
        authenticator = Authenticator(settings)
        await authenticator.start(wall_ms())
        users = Users(settings.users_path, admin_key=settings.admin_key)
        stack.callback(users.close)
        stack.push_async_callback(connections.close)
        await node.start()
        context = Context(node, authenticator, connections, settings, users, wall_ms)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(node.run()), group.create_task(_shed(context))]
            if embedded:
                tasks.append(group.create_task(embedded.watch()))
            tasks.extend(group.create_task(dialect.run(context)) for dialect in DIALECTS.values())
            try:
                await node.caught_up()
                yield context
                await node.leave()
            finally:
                for task in tasks:
                    task.cancel()


async def _open(store: Store) -> None:
    """Open the store, and give one that is just starting some time."""
    until_ms = monotonic_ms() + START_S * 1000
    while True:
        try:
            return await store.open(_token)
        except Unavailable as error:
            if monotonic_ms() > until_ms or isinstance(error.__cause__, REFUSALS):
                raise
        await asyncio.sleep(RETRY_S)


def _token() -> str:
    return secrets.token_hex(16)


async def _shed(context: Context) -> None:
    """Close sockets in waves when this node has lost its store for good."""
    while True:
        await asyncio.sleep(SHED_EVERY_S)
        if context.node.silent_ms() > SHED_AFTER_MS:
            await context.connections.shed()


def create_app(context: Context) -> Starlette:
    """Return the ASGI application over a running node.

    Each dialect answers below its name. One may answer at the root as well: there the product wins,
    and the native API answers under ``/gateway`` (operations stay, ``/dashboard`` leads there).
    """
    below: dict[str, ASGIApp] = {
        name: dialect.application(context, f"/{name}") for name, dialect in DIALECTS.items()
    }
    if context.settings.dialect is None:
        root: ASGIApp = native.application(context, "")
    else:
        root = DIALECTS[context.settings.dialect.removesuffix("=/")].application(context, "")
        below |= {"gateway": native.application(context, BELOW)}
        below |= dict.fromkeys(AT_ROOT, native.beside_product(context, BELOW))
    app = _App()
    product = (context.settings.dialect or NATIVE).removesuffix("=/")
    trusted = networks(context.settings.trusted_proxies)
    app.router.default = _Prefixes(root, product, below, trusted)
    app.state.context = context
    return app


class _Prefixes:
    """Applications by the first segment of the path, as an ASGI application.

    Starlette's ``Mount`` is not used, because its pattern misses a path with a line break, which
    another door would then refuse.

    Args:
        root: The application for all other paths.
        door: The name of that API.
        below: By segment; an application sees the path below its prefix, but for ``AT_ROOT``.
        trusted: Proxies whose ``X-Forwarded-Prefix`` is put back before the path.
    """

    def __init__(
        self, root: ASGIApp, door: str, below: Mapping[str, ASGIApp], trusted: Networks
    ) -> None:
        self._root = root
        self._door = door
        self._below = below
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        segment = next(iter(scope["path"].split("/", 2)[1:2]), "")
        if prefix := forwarded_prefix(scope, self._trusted):
            scope["root_path"] = prefix
            scope["path"] = prefix + scope["path"]
            scope["raw_path"] = prefix.encode() + scope["raw_path"]
        app = self._below.get(segment)
        if app is None:
            scope["door"] = self._door
            await self._root(scope, receive, send)
        elif segment in AT_ROOT:
            await app(scope, receive, send)
        else:
            root_path = f"{scope.get('root_path', '')}/{segment}"
            door = segment if segment in DIALECTS else NATIVE
            await app({**scope, "root_path": root_path, "door": door}, receive, send)


class _App(Starlette):
    """Starlette, without its HTTP error pages for WebSockets."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] == "websocket":
            scope["app"] = self
            await self.router(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _Server(uvicorn.Server):
    """Uvicorn's server, which drains the sockets at the first signal."""

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self._context = context
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        """Drain at the first signal, stop at once at the second."""
        if self._draining is None and not self.should_exit:
            self._context.node.is_draining = True
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        context = self._context
        over_s = min(max(context.connections.count / DRAIN_PER_S, DRAIN_MIN_S), DRAIN_MAX_S)
        about = {"connections": context.connections.count, "over_s": over_s}
        log.info("draining", extra=about)
        try:
            await context.connections.drain(over_s)
        finally:
            self.should_exit = True


def server(context: Context) -> uvicorn.Server:
    """Return the HTTP and WebSocket server of a running node."""
    settings = context.settings
    protocol = http_protocol(
        Limits(
            connections=settings.max_connections + SPARE,
            keep_alive_s=settings.keep_alive_s,
            heartbeat_s=settings.heartbeat_s,
            pong_s=settings.pong_s,
            caps=Caps(frames_per_s=max(FRAMES_PER_S, 4 * settings.messages_per_s)),
        ),
        tls=server_context(settings.tls_cert, settings.tls_key) if settings.tls_cert else None,
    )
    config = server_config(create_app(context), protocol, GRACEFUL_S)
    config.host, config.port = settings.host, settings.port
    return _Server(config, context)


def server_config(app: ASGIApp, protocol: type[Http], graceful_s: int) -> uvicorn.Config:
    """Return how uvicorn serves *app*: by our own transport, and with nothing of its own.

    Args:
        app: The application.
        protocol: Of the transport, which has WebSockets and TLS as parts of it.
        graceful_s: Seconds for requests in flight when the server stops.
    """
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        timeout_graceful_shutdown=graceful_s,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
    )
