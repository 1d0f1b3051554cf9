"""Transport: uvicorn protocols of our own; what they do that stock ones cannot is in each module.

``uvicorn.Config(http=http_protocol(limits), ws="none", ...)``: WebSockets are part of the class.
Not here: what is served (``api``, ``dialects``), when to stop (``app``).
"""

from gateway.transport.http import Http, http_protocol
from gateway.transport.limits import Limits
from gateway.transport.websocket import WebSocket

__all__ = ["Http", "Limits", "WebSocket", "http_protocol"]
