"""Connection state: the states of a WebSocket and the table of their transitions.

States::

    CONNECTING ──start──▶ OPEN ──close──▶ CLOSING ──finish──▶ CLOSED
        │                   └─────────────finish────────────────▶
        └──close──▶ ABANDONED ──start──▶ CLOSING

``CONNECTING``: the handshake is not complete, and messages are kept. ``ABANDONED``: the connection
ended meanwhile, and the handshake is completed first, so that nothing is left half done. ``OPEN``:
a handler serves it. ``CLOSING``: how it ends is decided; messages that the client sent before are
still handled, or the answer to its last message is sent before our close. ``CLOSED`` is final. Any
other transition raises and changes nothing.

Not here: the actions of a state (``connection``).
"""

from collections.abc import Mapping
from enum import IntEnum, auto
from typing import Final


class ConnectionState(IntEnum):  # plain members hash in Python
    """The state of a connection; see the module's docstring."""

    CONNECTING = auto()
    ABANDONED = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


class Transition(IntEnum):  # plain members hash in Python
    """A transition between states."""

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
    """A transition that the state does not have: a bug of the gateway."""


def next_state(state: ConnectionState, transition: Transition) -> ConnectionState:
    """Return the state after *transition*.

    Raises:
        IllegalTransition: *state* has no such transition.
    """
    try:
        return TRANSITIONS[state][transition]
    except KeyError:
        raise IllegalTransition(f"{transition.name} while {state.name}") from None
