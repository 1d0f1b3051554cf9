"""The Python client: be a session, follow sessions, or call the REST API.

Be a session; the client reconnects by itself when the connection drops::

    async with connect("https://gateway.example", token=token, name="Ann") as me:
        await me.watch("movie/42", title="A film", state="playing")
        await me.wait_closed()

Follow sessions; a dropped feed is resumed, or starts over with a ``resync`` and a snapshot::

    fold = Fold()
    async for item in events("https://gateway.example", token=token, filter=Filter(state="away")):
        fold.apply(item)

Call the REST API::

    async with Gateway("https://gateway.example", token=token) as gateway:
        await gateway.close("0199", after_s=30, reason="maintenance")

Sessions and events are the JSON objects of the gateway, as ``dict``, with all fields that the
gateway sends. Failures are raised as a class of :mod:`gateway.client.errors`, whose ``retry`` says
whether the same request may work later.
"""

from gateway.client.disconnect import Closed
from gateway.client.feed import events
from gateway.client.rest import Gateway
from gateway.client.session import SessionClient, connect
from gateway.client.session_runner import LinkState
from gateway.client.state import Changes, Event, Fold, Heartbeat, Item, Resync, Session, Snapshot
from gateway.core import errors
from gateway.core.errors import CloseCode, GatewayError
from gateway.core.protocol import (
    CloseCancelledNotice,
    CloseExtendedNotice,
    ClosingNotice,
    MessageNotice,
    StopStream,
)
from gateway.core.query import Filter, Sort

__all__ = [
    "Changes",
    "CloseCancelledNotice",
    "CloseCode",
    "CloseExtendedNotice",
    "Closed",
    "ClosingNotice",
    "Event",
    "Filter",
    "Fold",
    "Gateway",
    "GatewayError",
    "Heartbeat",
    "Item",
    "LinkState",
    "MessageNotice",
    "Resync",
    "Session",
    "SessionClient",
    "Snapshot",
    "Sort",
    "StopStream",
    "connect",
    "errors",
    "events",
]
