"""Plex: the session API of Plex Media Server over the gateway's sessions.

Plex lists sessions that watch something. A watch ends and the session may go on; a player of Plex
that only reports (``/:/timeline``) is a session for as long as it does.
"""

from gateway.dialects.plex.endpoints_timeline import run
from gateway.dialects.plex.routes import application

__all__ = ["application", "run"]
