"""Plex: the session API of Plex Media Server over the gateway's sessions.

Plex lists sessions that watch something. A watch ends and the session may go on; a player of Plex
that only reports (``/:/timeline``) is a session for as long as it does.
"""

from gateway.dialects.plex.describe import describe
from gateway.dialects.plex.playback import run
from gateway.dialects.plex.routes import routes

__all__ = ["describe", "routes", "run"]
