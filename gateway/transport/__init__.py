"""Transport: uvicorn protocols of our own; what they do that stock ones cannot is in each module.

``uvicorn.Config(http=http_protocol(limits), ws="none", ...)``: WebSockets are part of the class.

Not here: what is served (``api``, ``dialects``), when to stop (``app``).
"""

import ssl

from gateway.transport.admission import AdmissionControl
from gateway.transport.http import Http
from gateway.transport.limits import Limits
from gateway.transport.tls import Https, server_context
from gateway.transport.websocket import WebSocket

__all__ = ["Http", "Limits", "WebSocket", "http_protocol", "server_context"]


def http_protocol(limits: Limits, tls: ssl.SSLContext | None = None) -> type[Http]:
    """Return the protocol class for ``uvicorn.Config(http=...)`` that keeps *limits*.

    With *tls* it speaks TLS by itself: uvicorn is not told of certificates.
    """
    own = {"limits": limits, "admission": AdmissionControl(limits.connections)}
    return (
        type("Http", (Http,), own)
        if tls is None
        else type("Https", (Https,), {**own, "context": tls})
    )
