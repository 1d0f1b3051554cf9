"""Health: whether the process is alive, and whether it should get traffic.

Neither says anything about sessions, so neither needs a token.

Not here: the metrics (``endpoints_metrics``).
"""

from typing import Final

from starlette.responses import Response

from gateway.api.operator_schema import Health
from gateway.auth.principals import Principal
from gateway.core.errors import Draining, StoreUnavailable, Unavailable
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing, reply
from gateway.node import UNREADY_MS


async def livez(_call: Call[Principal, Nothing, Nothing]) -> Response:
    """Say that this process answers; restart it if it does not."""
    return reply(Health())


async def readyz(call: Call[Principal, Nothing, Nothing]) -> Response:
    """Say whether this node should get traffic, and if not why.

    Raises:
        Draining: It is going.
        StoreUnavailable: It does not hear its store, or that takes no writes.
        Unavailable: It has not read everything yet.
    """
    node = call.node
    if node.is_ready:
        return reply(Health())
    if node.is_draining:
        raise Draining
    if node.silent_ms() >= UNREADY_MS:
        raise StoreUnavailable
    if (refusal := node.store_refusal) is not None:
        raise StoreUnavailable(f"The store takes no writes: {refusal}")
    raise Unavailable("This node is still loading.")


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "GET", "/livez", livez, "Is the process alive?", returns={200: Health}, is_public=True,
        tag="operations",
    ),
    Endpoint(
        "GET", "/readyz", readyz, "Should this node get traffic?", returns={200: Health},
        errors=(Draining, StoreUnavailable, Unavailable), is_public=True, tag="operations",
    ),
)  # fmt: skip
