"""Gameye: sessions as the Gameye Session API shows them.

Its clients are fleet managers, matchmakers and scripts that start, list and stop game servers.
"""

from gateway.context import Context
from gateway.dialects.gameye.routes import application

__all__ = ["application", "run"]


async def run(_context: Context) -> None:
    """Do nothing: Gameye's clients poll, so there is nothing to send unasked."""
