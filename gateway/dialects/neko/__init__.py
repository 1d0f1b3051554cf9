"""neko: rooms that people watch together, over this gateway's sessions.

Speaks the REST API and the WebSocket of neko v3 (``m1k1o/neko``), so that its clients work against
the gateway as they are: a login opens a session, ``/api/ws`` attaches to it.
"""

from gateway.dialects.neko.routes import application
from gateway.dialects.neko.service import run

__all__ = ["application", "run"]
