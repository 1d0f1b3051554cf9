"""Peers: who takes part, and how each is started, watched and published to."""

from peers.base import Contestant
from peers.brokers import Centrifugo, Mosquitto, Nats, NatsTcp, Nchan
from peers.frameworks import Channels, PythonSocketIo, SocketIo, Starlette, Ws
from peers.gateway import Gateway, TwoWorkers

CONTESTANTS: tuple[type[Contestant], ...] = (
    Gateway,
    SocketIo,
    PythonSocketIo,
    Ws,
    Starlette,
    Channels,
    Nchan,
    Nats,
    NatsTcp,
    Mosquitto,
    Centrifugo,
)

__all__ = ["CONTESTANTS", "Contestant", "Gateway", "TwoWorkers"]
