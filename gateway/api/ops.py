"""Ops: what a load balancer asks: is the process alive, should it get traffic.

Neither tells anything about sessions, so neither asks for a token.
Not here: metrics.
"""

from typing import Final

from starlette.responses import Response

from gateway.api.operation import AnyOperation, Call, Operation, reply
from gateway.api.reading import Nothing
from gateway.api.shapes import Health
from gateway.core.errors import Draining, StoreUnavailable, Unavailable
from gateway.node import UNREADY_MS


async def livez(_call: Call[Nothing, Nothing]) -> Response:
    """Say that this process answers; restart it if it does not."""
    return reply(Health())


async def readyz(call: Call[Nothing, Nothing]) -> Response:
    """Say whether this node should get traffic, and if not why.

    Raises:
        Draining: It is going.
        StoreUnavailable: It does not hear its store.
        Unavailable: It has not read everything yet.
    """
    node = call.node
    if node.is_ready:
        return reply(Health())
    if node.is_draining:
        raise Draining
    if node.feed.silent_ms() >= UNREADY_MS:
        raise StoreUnavailable
    raise Unavailable("This node is still loading.")


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/livez",
        handler=livez,
        query=Nothing,
        body=Nothing,
        returns={200: Health},
        is_public=True,
        summary="Is the process alive?",
        tag="operations",
    ),
    Operation(
        method="GET",
        path="/readyz",
        handler=readyz,
        query=Nothing,
        body=Nothing,
        returns={200: Health},
        errors=(Draining, StoreUnavailable, Unavailable),
        is_public=True,
        summary="Should this node get traffic?",
        tag="operations",
    ),
)
