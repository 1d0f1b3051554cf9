"""Limits of one connection and of all together, each with its reason."""

from typing import Final

from msgspec import Struct, field

from gateway.core.frames import Caps

CONNECTIONS_MAX: Final = 16_384  # of all kinds, silent ones too; each is a file descriptor
HANDSHAKE_WITHIN_S: Final = 5.0  # for a TLS handshake, from the accepted connection
HEAD_WITHIN_S: Final = 5.0  # for a request's head, from the connection or the answer before
KEEP_ALIVE_S: Final = 75.0  # between two requests; load balancers close after 60 (AWS ALB, nginx)
URL_MAX_BYTES: Final = (
    16 * 1024
)  # twice what the doors take, so that they refuse in their own style
HEADER_MAX_BYTES: Final = 8 * 1024  # name and value of one header
HEADERS_MAX_BYTES: Final = 32 * 1024  # of all headers
HEADERS_MAX: Final = 100  # headers
PIPELINE_MAX: Final = 100  # requests that wait for the answers before them
HEARTBEAT_S: Final = 15.0  # between two pings, give or take a tenth
PONG_S: Final = 5.0  # for the answer to a ping
STALLED_S: Final = 10  # a client that takes nothing for so long while much is unsent is cut
UNFINISHED_S: Final = 10.0  # for the last fragment of a message, from the first
CLOSE_WITHIN_S: Final = 5.0  # for the client's answer to our close frame
USER_TIMEOUT_MS: Final = 15_000  # for the other side's TCP to acknowledge what was sent (RFC 5482)


class Limits(Struct, frozen=True, kw_only=True):
    """The limits that can be set; the others are constants.

    Args:
        connections: Open TCP connections; one more is turned away.
        handshake_s: Seconds for a TLS handshake.
        head_s: Seconds for a request's head.
        keep_alive_s: Seconds that a connection may be idle between two requests.
        heartbeat_s: Seconds between two pings of a WebSocket, give or take a tenth.
        pong_s: Seconds for the answer.
        stalled_s: Seconds without taking anything after which a client is given up.
        unfinished_s: Seconds for the fragments of a message.
        caps: What a WebSocket's client may send.
    """

    connections: int = CONNECTIONS_MAX
    handshake_s: float = HANDSHAKE_WITHIN_S
    head_s: float = HEAD_WITHIN_S
    keep_alive_s: float = KEEP_ALIVE_S
    heartbeat_s: float = HEARTBEAT_S
    pong_s: float = PONG_S
    stalled_s: float = STALLED_S
    unfinished_s: float = UNFINISHED_S
    caps: Caps = field(default_factory=Caps)
