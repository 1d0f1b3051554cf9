"""uvicorn's internals: everything below its public surface that the transport stands on.

No other file of the transport imports uvicorn. ``OVERRIDDEN`` names the methods that ``Http``
replaces, and ``USED`` the attributes that are read or set; tests compare both with ``Http`` and
with the installed uvicorn. :mod:`gateway.versions` refuses to start with another version.
"""

from typing import Final

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

__all__ = [
    "OVERRIDDEN",
    "STATUS_LINE",
    "USED",
    "ClientDisconnected",
    "Config",
    "FlowControl",
    "HttpToolsProtocol",
    "RequestResponseCycle",
    "ServerState",
]

OVERRIDDEN: Final = frozenset(
    {
        *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
        *("on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body"),
        *("on_message_complete", "on_response_complete"),
        *("_get_upgrade", "_should_upgrade", "_start_asgi_task", "_unset_keepalive_if_required"),
    }
)
"""Methods of ``HttpToolsProtocol``; its other methods and its parser callbacks call them."""

USED: Final = {
    HttpToolsProtocol: frozenset(
        {
            *("access_log", "access_logger", "app", "asgi_version", "client", "connections"),
            *("cycle", "expect_100_continue", "flow", "headers", "logger", "loop", "parser"),
            *("pipeline", "root_path", "scheme", "scope", "server", "server_state"),
            *("timeout_keep_alive", "timeout_keep_alive_task", "transport"),
        }
    ),
    RequestResponseCycle: frozenset(
        {
            *("chunked_encoding", "disconnected", "expected_content_length", "keep_alive"),
            *("message_event", "more_body", "response_complete", "response_started"),
            *("scope", "transport", "waiting_for_100_continue"),
        }
    ),
    FlowControl: frozenset({"pause_reading", "write_paused"}),
    ServerState: frozenset({"connections", "default_headers", "tasks"}),
}
"""Attributes by class."""
