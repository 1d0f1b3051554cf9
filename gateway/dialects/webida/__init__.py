"""Webida: its session API and its Socket.IO channel over the gateway's sessions.

A login mints the id of a session, which is opened when its socket connects. A lost client may
reconnect for as long as the product's clients try. A close is announced first, and keeps the client
out.
"""

from gateway.context import Context
from gateway.dialects.webida.routes import application

__all__ = ["application", "run"]


async def run(_: Context) -> None:
    """Do nothing: the notices of a session go directly to its socket."""
