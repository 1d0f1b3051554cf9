"""neko: rooms that people watch together, over this gateway's sessions.

Speaks the REST API and the WebSocket of neko v3 (``m1k1o/neko``), so that its clients work against
the gateway as they are: a login opens a session, ``/api/ws`` attaches to it.

| file | holds |
|---|---|
| ``shapes`` | what is shown, pure |
| ``bodies`` | what clients send |
| ``errors`` | how it says no |
| ``login`` | what a session remembers of its login |
| ``members`` | who may log in |
| ``rooms`` | settings and control, and what every change means to whom |
| ``control`` | what a member may do in its room |
| ``service`` | who asks; logins; changes of sessions |
| ``operation`` | one request, the same way for all |
| ``sessions``, ``people``, ``room``, ``batch`` | the operations |
| ``socket`` | the WebSocket |
| ``describe``, ``routes`` | the document, the paths |
"""

from gateway.dialects.neko.routes import describe, routes
from gateway.dialects.neko.work import run

__all__ = ["describe", "routes", "run"]
