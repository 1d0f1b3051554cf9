"""Engine.IO 3 and Socket.IO 1 and 2, the server's side of one WebSocket, sans-I/O.

Two layers in one text. Engine.IO puts a digit before every message: the server opens with ``0`` and
the times of its heartbeat, the client pings with ``2`` and wants ``3`` back, everything else is a
``4``. Behind the four stands a Socket.IO packet: another digit, a namespace unless it is ``/``, a
number if the sender wants an answer, and JSON. Every client is let into ``/`` first; one that wants
another namespace asks for it then, and may bring a query of its own.

Protocols: https://github.com/socketio/engine.io-protocol (revision 3) and
https://github.com/socketio/socket.io-protocol (revision 4). Texts go in by
:meth:`EngineSocket.receive`; what is to be sent waits in :meth:`EngineSocket.texts_to_send`.

Not here: long polling, which the clients of this dialect do not use; binary packets, which they are
never sent; time (the owner of the socket counts it); rights.
"""

import re
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl

from msgspec import DecodeError, Struct
from msgspec.json import decode, encode

from gateway.core.errors import BadRequest

PROTOCOL: Final = "3"  # of Engine.IO; what a client names in the query as ``EIO``
ROOT: Final = "/"
PARAMETERS_MAX: Final = 64  # in one query; clients send four to ten

_INVALID_NAMESPACE: Final = "Invalid namespace"  # in the words of socket.io's own server

# A type, for binary packets the number of attachments, a namespace, a number, the rest is JSON.
_PACKET: Final = re.compile(
    r"(?P<type>[0-6])(?P<attachments>\d{1,4}-)?(?P<namespace>/[^,]*)?,?(?P<ack>\d{1,15})?(?P<data>.*)",
    re.ASCII | re.DOTALL,
)


class Engine:
    """First characters of an Engine.IO text."""

    OPEN: Final = "0"
    CLOSE: Final = "1"
    PING: Final = "2"
    PONG: Final = "3"
    MESSAGE: Final = "4"
    UPGRADE: Final = "5"
    NOOP: Final = "6"


class Packet:
    """First characters of a Socket.IO packet."""

    CONNECT: Final = "0"
    DISCONNECT: Final = "1"
    EVENT: Final = "2"
    ERROR: Final = "4"


class OpenPacket(Struct, frozen=True):
    """The first packet of an Engine.IO server. Times in milliseconds, as the protocol has them."""

    sid: str
    upgrades: tuple[str, ...]
    pingInterval: int  # noqa: N815 - the protocol's names
    pingTimeout: int  # noqa: N815


class Joining(Struct, frozen=True):
    """The client asks for its namespace, with ``query``."""

    query: tuple[tuple[str, str], ...] = ()


class Sign(Enum):
    """Other packets of a client that matter.

    ``SAID``: an event, which is ignored here. ``LEFT``: the client leaves and does not reconnect.
    """

    SAID = "said"
    LEFT = "left"


Heard = Joining | Sign


class EngineSocket:
    """The protocol state of one connection.

    Args:
        sid: Its id, as both sides call it.
        namespace: The one that this server has beside ``/``, or ``/`` itself.
    """

    def __init__(self, sid: str, namespace: str) -> None:
        self._sid = sid
        self._namespace = namespace
        self._has_asked = False
        self._texts: list[str] = []

    def texts_to_send(self) -> list[str]:
        """Return the queued texts in order, and clear the queue."""
        texts, self._texts = self._texts, []
        return texts

    def open(self, interval_ms: int, timeout_ms: int) -> list[Heard]:
        """Queue the opening packets.

        Args:
            interval_ms: Between two pings of the client.
            timeout_ms: How long it waits for the answer to one.
        """
        opening = OpenPacket(self._sid, (), interval_ms, timeout_ms)
        self._texts.append(Engine.OPEN + encode(opening).decode())
        if self._namespace == ROOT:
            self._has_asked = True
            return [Joining()]
        self._say(ROOT, Packet.CONNECT)
        return []

    def receive(self, text: str) -> list[Heard]:
        """Parse a text of the client; queue the answer, if the protocol wants one.

        Raises:
            BadRequest: It is no text of the protocol.
        """
        kind, data = text[:1], text[1:]
        match kind:
            case Engine.PING:
                self._texts.append(Engine.PONG + data)
            case Engine.MESSAGE:
                return self._packet(data)
            case Engine.CLOSE:
                return [Sign.LEFT]
            case Engine.PONG | Engine.UPGRADE | Engine.NOOP:
                pass
            case _:
                raise BadRequest("This is no Engine.IO packet.")
        return []

    def _packet(self, text: str) -> list[Heard]:
        packet = _PACKET.fullmatch(text)
        if packet is None:
            raise BadRequest("This is no Socket.IO packet.")
        namespace, _, query = (packet["namespace"] or ROOT).partition("?")
        match packet["type"]:
            case Packet.CONNECT if namespace == self._namespace:
                return self._asked(query)
            case Packet.CONNECT if namespace != ROOT:
                self._say(namespace[:PARAMETERS_MAX], Packet.ERROR, _INVALID_NAMESPACE)
            case Packet.DISCONNECT if namespace == self._namespace:
                return [Sign.LEFT]
            case Packet.EVENT:
                _check_event(packet["data"])
                return [Sign.SAID]
            case _:
                pass
        return []

    def _asked(self, query: str) -> list[Heard]:
        if self._has_asked:
            return []
        self._has_asked = True
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX)
        except ValueError as error:
            raise BadRequest("The query of the namespace cannot be read.") from error
        return [Joining(tuple(pairs))]

    # --- packets of the server

    def accept(self) -> None:
        """Connect the client to its namespace."""
        self._say(self._namespace, Packet.CONNECT)

    def refuse(self, text: str) -> None:
        """Refuse the client and disconnect it."""
        self._say(self._namespace, Packet.ERROR, text)
        self.dismiss()

    def dismiss(self) -> None:
        """Disconnect the client from the namespace, after which it does not reconnect."""
        self._say(self._namespace, Packet.DISCONNECT)

    def emit(self, event: str, *args: object) -> None:
        """Send an event."""
        self._say(self._namespace, Packet.EVENT, [event, *args])

    def _say(self, namespace: str, kind: str, data: object = None) -> None:
        place = "" if namespace == ROOT else f"{namespace},"
        text = "" if data is None else encode(data).decode()
        self._texts.append(f"{Engine.MESSAGE}{kind}{place}{text}")


def _check_event(data: str) -> None:
    """Check the form of an event; its content is ignored.

    Raises:
        BadRequest: It is not a list that begins with a name.
    """
    try:
        said: object = decode(data)
    except (DecodeError, RecursionError) as error:
        raise BadRequest("An event cannot be read.") from error
    if not (isinstance(said, list) and said and isinstance(said[0], str)):
        raise BadRequest("An event begins with its name.")
