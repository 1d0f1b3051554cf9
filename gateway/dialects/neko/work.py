"""Work: what neko does on a node while nobody asks: it follows every change, and tidies up."""

import logging

from gateway.context import Context
from gateway.core.errors import GatewayError
from gateway.dialects.neko.rooms import DIALECT, VIEW
from gateway.dialects.neko.service import service_of
from gateway.live.outbound import Restart

log = logging.getLogger(__name__)


async def run(context: Context) -> None:
    """Keep the rooms of this node, for ever; they are there before this first waits."""
    service = service_of(context)
    node, rooms = service.node, service.rooms
    node.hub.register(DIALECT, rooms.render)
    position = node.replica.position(VIEW.hash32)
    with node.subscribe(VIEW, position) as subscription:
        rooms.start()
        service.started.set()
        while True:
            if isinstance(await subscription.next(), Restart):
                rooms.start()
            for key, grant in rooms.take_ended():
                try:
                    await service.control.forget(key, grant)
                except GatewayError as error:
                    log.warning("a room still names a host that is gone: %s", error.code)
