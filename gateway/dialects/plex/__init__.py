"""Plex: the session API of Plex Media Server over the gateway's sessions.

Plex lists the sessions that watch something. A session may continue after its watch; a player of
Plex that only reports (``/:/timeline``) is a session for as long as it reports.
"""

from gateway.dialects.plex.endpoints_timeline import run
from gateway.dialects.plex.routes import application

__all__ = ["application", "run"]
