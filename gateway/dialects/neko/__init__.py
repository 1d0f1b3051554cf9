"""neko: rooms that people watch together, over the gateway's sessions.

It implements the REST API and the WebSocket of neko v3 (``m1k1o/neko``), so that its clients work
unchanged: a login opens a session, and ``/api/ws`` attaches to it.
"""

from gateway.dialects.neko.routes import application
from gateway.dialects.neko.service import run

__all__ = ["application", "run"]
