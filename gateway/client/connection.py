"""One WebSocket to a gateway, from handshake to close code; the dialer opens the next one.

Promises: opening, the first message, closing and every wait are bounded. An end is a value
(``Closed``), not an exception, because every connection ends. A token that expires is replaced
while the connection lives, if the caller gave a function for that.

A connection answers the gateway's protocol pings and sends its own (the keepalive of websockets),
so it needs no ``heartbeat`` messages. If the reader is slow, at most ``FRAMES_MAX`` frames wait
here; then TCP holds the gateway back, which ends the connection as too slow and lets this client
resume.

Not here: what the messages mean (``session``, ``feed``), which end is final (``disconnect``).
"""

import asyncio
import logging
import random
import time
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from msgspec import DecodeError, Struct
from msgspec.json import Decoder
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from gateway import __version__
from gateway.client.disconnect import ABNORMAL, PROTOCOL_ERROR, Closed, delay_s
from gateway.client.protocol import (
    GatewayMessage,
    HelloFrame,
    Query,
    address,
    parse,
    refusal,
    render,
    retry_after_s,
    with_query,
)
from gateway.core import protocol
from gateway.core.errors import BadRequest, CloseCode, GatewayError, Unavailable

TokenSource = str | Callable[[], Awaitable[str]] | None

USER_AGENT: Final = f"session-gateway-client/{__version__}"
MESSAGE_MAX_BYTES: Final = 16 * 1024 * 1024  # of one message from the gateway; a longer one is 1009
FRAMES_MAX: Final = 4  # received and not yet read; more stays in the kernel and with the gateway
HANDSHAKE_WITHIN_S: Final = 10.0  # TCP, TLS and the upgrade
HELLO_WITHIN_S: Final = 10.0  # from the upgrade to the first message
CLOSE_WITHIN_S: Final = 2.0  # each step of the closing handshake; then the connection is dropped
PING_EVERY_S: Final = 15.0  # as the gateway does
PONG_WITHIN_S: Final = 10.0  # a connection without an answer is dead; twice the gateway's patience
TOKEN_WITHIN_S: Final = 10.0  # how long the token function may take
REFRESH_AHEAD_S: Final = 30.0  # a fresh token is sent this long before the old one expires
REFRESH_MIN_S: Final = 0.1  # between two looks for a fresh token
STABLE_AFTER_S: Final = 10.0  # a connection that lived this long forgets earlier failures
OPEN_WITHIN_S: Final = 30.0  # until the first connection
GIVE_UP_AFTER_S: Final = 3600.0  # without a connection, later

log: Final = logging.getLogger("gateway.client")


class Tokens:
    """The source of tokens.

    Args:
        source: A token, a coroutine function that returns a fresh one, or ``None``.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    @property
    def renewable(self) -> bool:
        """Whether the source can return a newer token."""
        return callable(self._source)

    async def get(self) -> str | None:
        """Return the token to use now.

        Raises:
            GatewayError: The token function raised it.
            Unavailable: The token function failed, or did not answer in time.
        """
        if not callable(self._source):
            return self._source
        try:
            async with asyncio.timeout(TOKEN_WITHIN_S):
                return await self._source()
        except GatewayError:
            raise
        except Exception as error:  # the caller's code may raise anything: there is no token now
            log.warning("the token function failed", exc_info=True)
            raise Unavailable("The token function failed.") from error


class _Claims(Struct):
    exp: float | None = None


_claims: Final = Decoder(_Claims, strict=False)


def expires_at_s(token: str) -> float | None:
    """Return when *token* expires, in seconds since the Unix epoch; ``None`` for an API key."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515 section 3.1: header, payload, signature
        return None
    try:
        payload = urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return _claims.decode(payload).exp
    except (ValueError, DecodeError, RecursionError):
        return None


def refresh_in_s(token: str, now_s: float) -> float | None:
    """Return after how many seconds a new token should be fetched; ``None`` is never.

    That is ``REFRESH_AHEAD_S`` before the expiry, or halfway to it if the token lives less than
    twice that long.
    """
    at_s = expires_at_s(token)
    if at_s is None or at_s <= now_s:
        return None
    left_s = at_s - now_s
    return max(REFRESH_MIN_S, left_s - min(REFRESH_AHEAD_S, left_s / 2))


class GatewayConnection:
    """An open WebSocket; made by :func:`open_connection`.

    Args:
        socket: The connection.
        hello: The gateway's first message.
    """

    def __init__(
        self, socket: ClientConnection, hello: HelloFrame, tokens: Tokens, token: str
    ) -> None:
        self.hello = hello
        self.opened_at_s = asyncio.get_running_loop().time()
        self._socket = socket
        self._refresher = (
            asyncio.create_task(self._refresh(tokens, token)) if tokens.renewable else None
        )

    async def receive(self) -> GatewayMessage | Closed:
        """Return the next known message, or finally how the connection ended."""
        return await _receive(self._socket)

    async def send(self, text: bytes) -> None:
        """Send one message; if the connection has ended, :meth:`receive` returns how."""
        with suppress(ConnectionClosed):
            await self._socket.send(text, text=True)

    async def close(self) -> None:
        """Close the connection within a bounded time, after all that was sent."""
        if self._refresher:
            self._refresher.cancel()
            await asyncio.wait([self._refresher])
        await self._socket.close()

    async def _refresh(self, tokens: Tokens, token: str) -> None:
        """Renew the token; if that fails, the connection ends with 4005 and is opened again."""
        try:
            while (wait_s := refresh_in_s(token, time.time())) is not None:
                await asyncio.sleep(wait_s)
                fresh = await tokens.get()
                if fresh and fresh != token:
                    token = fresh
                    await self.send(render(protocol.TokenMessage(ref="token", token=token)))
        except GatewayError as error:
            log.warning("no fresh token: %s", error)


async def _receive(socket: ClientConnection) -> GatewayMessage | Closed:
    while True:
        try:
            data = await socket.recv(decode=False)
        except ConnectionClosed as error:
            if error.rcvd:
                return Closed.from_close(error.rcvd.code, error.rcvd.reason)
            return Closed(ABNORMAL, error.sent.reason if error.sent else "")
        try:
            message = parse(data)
        except BadRequest as error:
            log.warning("%s", error)
            await socket.close(PROTOCOL_ERROR)
            return Closed(PROTOCOL_ERROR, error.detail)
        if isinstance(message, protocol.Bye):
            # The gateway must close first: from our close frame it would think that we left.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await socket.wait_closed()
            await socket.close()
            detail = message.detail or ""
            return Closed(message.code, message.reason, message.retry_after_ms, detail=detail)
        if message is not None:
            return message


async def open_connection(target: str, tokens: Tokens) -> GatewayConnection | Closed:
    """Open a WebSocket and wait for its hello.

    Args:
        target: The whole address, with its query.
        tokens: For the ``Authorization`` header.

    Returns:
        The connection, or why there is none.
    """
    try:
        token = await tokens.get()
        socket = await open_websocket(
            target,
            additional_headers={"Authorization": f"Bearer {token}"} if token else None,
            user_agent_header=USER_AGENT,
            compression=None,
            max_size=MESSAGE_MAX_BYTES,
            max_queue=FRAMES_MAX,
            open_timeout=HANDSHAKE_WITHIN_S,
            close_timeout=CLOSE_WITHIN_S,
            ping_interval=PING_EVERY_S,
            ping_timeout=PONG_WITHIN_S,
        )
    except GatewayError as error:
        return Closed.from_error(error)
    except InvalidStatus as refused:
        reply = refused.response
        cause = refusal(reply.status_code, reply.headers, bytes(reply.body or b""))
        return Closed.from_error(cause, retry_after_s(reply.headers))
    except (OSError, WebSocketException) as error:  # a TimeoutError is an OSError
        return Closed(ABNORMAL, str(error) or "no answer in time")
    try:
        async with asyncio.timeout(HELLO_WITHIN_S):
            first = await _receive(socket)
    except TimeoutError:
        first = Closed(ABNORMAL, "no hello in time")
    except asyncio.CancelledError:
        await socket.close()
        raise
    match first:
        case HelloFrame():
            return GatewayConnection(socket, first, tokens, token or "")
        case Closed():
            await socket.close()
            return first
        case _:
            await socket.close(PROTOCOL_ERROR)
            return Closed(PROTOCOL_ERROR, "The first message was no hello.")


class Dialer:
    """Opens one connection after another, with the waits in between.

    Args:
        url: Where the gateway is.
        path: Which of its sockets.
        token: See :class:`Tokens`.
        open_within_s: How long to try for the first connection; 0 is one attempt.
        give_up_after_s: How long to try for each later one.

    Raises:
        Invalid: *url* is no address.
    """

    def __init__(
        self,
        url: str,
        path: str,
        token: TokenSource,
        *,
        open_within_s: float = OPEN_WITHIN_S,
        give_up_after_s: float = GIVE_UP_AFTER_S,
    ) -> None:
        self._target = address(url, path, socket=True)
        self._tokens = Tokens(token)
        self._within_s = open_within_s
        self._give_up_after_s = give_up_after_s
        self._failures = 0
        self._delay_s = 0.0

    async def dial(self, query: Query) -> GatewayConnection | Closed:
        """Return the next connection, or its final end: refused, or out of reach for too long."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._within_s
        target = with_query(self._target, query)
        while True:
            await asyncio.sleep(self._delay_s)
            result = await open_connection(target, self._tokens)
            if isinstance(result, GatewayConnection):
                self._within_s = self._give_up_after_s
                return result
            if not self._should_retry(result) or loop.time() + self._delay_s > deadline_s:
                return result

    def connection_lost(self, connection: GatewayConnection, closed: Closed) -> bool:
        """Record how *connection* ended; return whether to dial again."""
        if asyncio.get_running_loop().time() - connection.opened_at_s >= STABLE_AFTER_S:
            self._failures = 0
        return self._should_retry(closed)

    def _should_retry(self, closed: Closed) -> bool:
        self._failures += 1
        self._delay_s = delay_s(closed, self._failures, chance=random.random())
        # The gateway would refuse the same expired token for ever.
        expired = closed.code == CloseCode.TOKEN_EXPIRED and not self._tokens.renewable
        again = closed.comes_back and not expired
        log.info(
            "connection ended: %d %s; %s",
            closed.code,
            closed.reason,
            f"next attempt in {self._delay_s:.1f} s" if again else "final",
        )
        return again
