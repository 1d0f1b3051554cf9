"""Connection state: the states of a WebSocket, and the table of what leads from one to the other.

States::

    CONNECTING ──start──▶ OPEN ──close──▶ CLOSING ──finish──▶ CLOSED
        │                   └─────────────finish────────────────▶
        └──close──▶ ABANDONED ──start──▶ CLOSING

``CONNECTING``: the handshake is not over; messages are kept. ``ABANDONED``: an end came meanwhile,
and the handshake comes to its own end first, so that nothing is left half done. ``OPEN``: a handler
serves it. ``CLOSING``: how it ends is decided; what the client sent before it left is still done,
or the answer to its last message goes out before our close. ``CLOSED`` is final. How a connection
ends is decided once, by the first one to say so. Any other transition raises and changes nothing.

Not here: what is done in a state (``connection``).
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final


class ConnectionState(Enum):
    """Where a connection is between its handshake and its end; see the module's docstring."""

    CONNECTING = auto()
    ABANDONED = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


class Transition(Enum):
    """What moves a connection on."""

    START = auto()
    CLOSE = auto()
    FINISH = auto()


TRANSITIONS: Final[Mapping[ConnectionState, Mapping[Transition, ConnectionState]]] = {
    ConnectionState.CONNECTING: {
        Transition.START: ConnectionState.OPEN,
        Transition.CLOSE: ConnectionState.ABANDONED,
        Transition.FINISH: ConnectionState.CLOSED,
    },
    ConnectionState.ABANDONED: {
        Transition.START: ConnectionState.CLOSING,
        Transition.FINISH: ConnectionState.CLOSED,
    },
    ConnectionState.OPEN: {
        Transition.CLOSE: ConnectionState.CLOSING,
        Transition.FINISH: ConnectionState.CLOSED,
    },
    ConnectionState.CLOSING: {Transition.FINISH: ConnectionState.CLOSED},
    ConnectionState.CLOSED: {},
}


class IllegalTransition(RuntimeError):
    """A connection was moved on in a state in which that means nothing: a bug of ours."""


def next_state(state: ConnectionState, transition: Transition) -> ConnectionState:
    """Return the state after *transition*.

    Raises:
        IllegalTransition: It means nothing in *state*.
    """
    try:
        return TRANSITIONS[state][transition]
    except KeyError:
        raise IllegalTransition(f"{transition.name} while {state.name}") from None
