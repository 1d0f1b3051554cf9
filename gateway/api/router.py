"""The native API's addresses, all in one list: operations, sockets and the documents of both."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.routing import BaseRoute, WebSocketRoute

from gateway.api import (
    asyncapi,
    connect,
    events,
    history,
    messages,
    operation,
    ops,
    parts,
    reads,
    sessions,
)
from gateway.api.handshake import Entrance
from gateway.api.openapi import described
from gateway.api.operation import AnyOperation

OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    *sessions.OPERATIONS,
    *parts.OPERATIONS,
    *reads.OPERATIONS,
    *history.OPERATIONS,
    *messages.OPERATIONS,
    *events.OPERATIONS,
    *connect.OPERATIONS,
    *ops.OPERATIONS,
    *asyncapi.OPERATIONS,
)


def routes(fragments: Mapping[str, dict[str, Any]], below: str = "") -> list[BaseRoute]:
    """Return what serves the native API.

    Args:
        fragments: What the dialects add to its document.
        below: The path that it will be mounted at.
    """
    return [
        WebSocketRoute("/v1/connect", Entrance(connect.connect)),
        WebSocketRoute("/v1/events", Entrance(events.observe)),
        *operation.routes(described(OPERATIONS, fragments, below)),
    ]
