"""Webida: its session API and its Socket.IO channel over the gateway's sessions.

A session begins with a login, which mints its id, and exists once its socket connects. A lost
client may come back for as long as the product's clients try; a close is announced, waits, and
keeps the client out.
"""

from gateway.context import Context
from gateway.dialects.webida.routes import application

__all__ = ["application", "run"]


async def run(_: Context) -> None:
    """Do nothing: what happens to a session reaches its socket through the session's mailbox."""
