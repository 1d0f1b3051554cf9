"""TLS: a connection counts when TCP accepts it, and its handshake has a deadline.

Both event loops call a TLS server's protocol only after the handshake, so clients that connect and
send nothing would not be counted. Here the server listens without TLS. The protocol is called when
a connection is accepted, counts it, and hands a duplicate of its socket back to the loop, which
makes the handshake and continues with the same protocol object. ``loop.start_tls`` does not work
here: uvloop may read the client's first bytes before it can be called.
"""

import asyncio
import logging
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from gateway.transport.admission import Verdict
from gateway.transport.http import Http
from gateway.transport.tcp import LINGER_S
from gateway.transport.uvicorn_internals import Config, ServerState

log = logging.getLogger(__name__)


def server_context(certificates: Path, key: Path | None) -> ssl.SSLContext:
    """Return the server's TLS context: TLS 1.2 or newer, HTTP/1.1, no renegotiation.

    Raises:
        OSError: A file cannot be read, or does not hold a certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificates, key)
    return context


class Https(Http):
    """One TLS connection: its handshake, then HTTP."""

    context: ClassVar[ssl.SSLContext]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._handshake: asyncio.Task[None] | None = None
        self._duplicate: socket.socket | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the handshake if *transport* is plain TCP, and HTTP if it is TLS."""
        if transport.get_extra_info("sslcontext") is not None:
            self._begin(transport)
            return
        self.connections.add(self)
        if self.admission.admit(len(self.connections), transport) is Verdict.SERVE:
            try:
                descriptor = os.dup(transport.get_extra_info("socket").fileno())
            except OSError as error:  # no descriptor is left, or the client has gone
                log.debug("a TLS handshake cannot begin", extra={"reason": str(error)})
            else:
                self._duplicate = socket.socket(fileno=descriptor)
                self._handshake = self.loop.create_task(self._shake_hands(self._duplicate))
        transport.abort()  # closes its descriptor; the connection lives on in the duplicate

    async def _shake_hands(self, duplicate: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(
                lambda: self,
                duplicate,
                ssl=self.context,
                ssl_handshake_timeout=self.limits.handshake_s,
                ssl_shutdown_timeout=LINGER_S,
            )
        except OSError as error:
            log.debug("a TLS handshake failed", extra={"reason": str(error)})
        finally:
            self._handshake = self._duplicate = None
            if self.transport is None:  # the handshake failed
                self.connections.discard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, unless only the plain transport was dropped for the TLS one."""
        if self.transport is not None:
            super().connection_lost(exc)
        elif self._handshake is None:
            self.connections.discard(self)

    def shutdown(self) -> None:
        """Close the connection because this server stops."""
        if self.transport is not None:
            super().shutdown()
        elif self._duplicate is not None:
            with suppress(OSError):  # the client has gone
                self._duplicate.shutdown(socket.SHUT_RDWR)
