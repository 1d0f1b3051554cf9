"""HTTP: uvicorn's httptools protocol, with bounds on everything before an application is asked.

uvicorn waits for a head without a deadline, takes headers of any size, does not count silent
connections, parses the request for a WebSocket twice, and logs a warning for every bad byte. Here a
head has a deadline, size limits and rules (``request_head``), a connection counts when it is
accepted (``admission``), and a WebSocket continues from what was parsed. uvicorn reads the bodies
and writes the responses.
"""

import asyncio
import logging
from typing import Any, ClassVar, Final
from urllib.parse import unquote

import httptools
from starlette.types import Scope

from gateway.logs.request import mark_in
from gateway.transport.admission import AdmissionControl, Verdict
from gateway.transport.asgi import WholeResponses, describe_server
from gateway.transport.handshake import read
from gateway.transport.limits import (
    HEADER_MAX_BYTES,
    HEADERS_MAX,
    HEADERS_MAX_BYTES,
    PIPELINE_MAX,
    URL_MAX_BYTES,
    Limits,
)
from gateway.transport.request_head import ASTERISK, check_head
from gateway.transport.responses import (
    BAD_REQUEST,
    ENHANCE_YOUR_CALM,
    HEADERS_TOO_LARGE,
    OVERLOADED,
    TOO_LATE,
    URL_TOO_LONG,
    Refusal,
    RequestRefused,
    phrase,
)
from gateway.transport.tcp import LingeringClose, StallDetector, tune, unacknowledged_bytes
from gateway.transport.uvicorn_internals import (
    STATUS_LINE,
    Config,
    FlowControl,
    HttpToolsProtocol,
    RequestResponseCycle,
    ServerState,
)
from gateway.transport.websocket import WebSocket

HEAD_MAX_BYTES: Final = URL_MAX_BYTES + HEADERS_MAX_BYTES

log = logging.getLogger(__name__)

_calm: Final = ENHANCE_YOUR_CALM[0]
STATUS_LINE[_calm] = b"HTTP/1.1 %d %b\r\n" % (_calm, phrase(_calm))


class Http(HttpToolsProtocol):
    """One HTTP connection; an upgrade hands its transport to a :class:`WebSocket`."""

    limits: ClassVar[Limits] = Limits()
    admission: ClassVar[AdmissionControl] = AdmissionControl(limits.connections)

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.timeout_keep_alive = self.limits.keep_alive_s  # type: ignore[assignment]  # an int there
        self._deadline: asyncio.TimerHandle | None = None
        self._lingering_close: LingeringClose | None = None
        self._stall_detector: StallDetector | None = None
        self._answering: RequestResponseCycle | None = None  # self.cycle belongs to the newest
        self._in_head = False
        self._in_body = False
        self._head_bytes = 0  # of complete headers and trailers of this request
        self._unread_bytes = 0  # received since the last head, body part or end of a request

    # --- TCP

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, decide whether it is served, and start the deadline of its head.

        uvicorn's own method asks the socket for its addresses, and each question makes a new socket
        object in uvloop.
        """
        self.connections.add(self)
        match self.admission.admit(len(self.connections), transport):
            case Verdict.SERVE:
                self._begin(transport)
            case Verdict.REFUSE:
                self._begin(transport)
                self._refuse(OVERLOADED)
            case Verdict.CUT:
                transport.abort()

    def _begin(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server = _address(transport.get_extra_info("sockname"))
        self.client = _address(transport.get_extra_info("peername"))
        self.scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        tune(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        if self._lingering_close is not None:
            self._lingering_close.discard(len(data))
            return
        self._unread_bytes += len(data)
        early = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            early = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.refusal if isinstance(cause, RequestRefused) else BAD_REQUEST)
            return
        if early is not None:
            self._upgrade(early)
        elif self._unread_bytes > HEAD_MAX_BYTES:  # one endless header, or trailer
            self._refuse(HEADERS_TOO_LARGE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self.transport is None:  # it was cut before it began
            self.connections.discard(self)
            return
        super().connection_lost(exc)
        self._disconnect()
        self._forget_deadline()
        self._stop_stall_detector()
        self._unset_keepalive_if_required()
        if self._lingering_close is not None:
            self._lingering_close.done()

    def pause_writing(self) -> None:
        """Watch whether the client still takes its response."""
        super().pause_writing()
        if self._stall_detector is None:
            self._stall_detector = StallDetector(
                lambda: -unacknowledged_bytes(self.transport),
                self.transport.abort,
                self.limits.stalled_s,
            )

    def resume_writing(self) -> None:
        """Stop watching: the write buffer drained."""
        super().resume_writing()
        self._stop_stall_detector()

    def _stop_stall_detector(self) -> None:
        if self._stall_detector is not None:
            self._stall_detector.stop()
            self._stall_detector = None

    # --- the head

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.head_s, self._miss_head)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _miss_head(self) -> None:
        if self._in_head:
            self._refuse(TOO_LATE)
        else:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self.pipeline) >= PIPELINE_MAX:
            raise RequestRefused(OVERLOADED)
        super().on_message_begin()
        self._unset_keepalive_if_required()
        if self._may_answer():
            self._expect_head()
        self._in_head = True
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Append a part of the target, within its limit."""
        super().on_url(url)
        if len(self.url) > URL_MAX_BYTES:
            raise RequestRefused(URL_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header; trailers are counted and dropped (RFC 9110 section 6.5.1)."""
        size = len(name) + len(value)
        self._head_bytes += size
        if (
            size > HEADER_MAX_BYTES
            or self._head_bytes > HEADERS_MAX_BYTES
            or len(self.headers) >= HEADERS_MAX
        ):
            raise RequestRefused(HEADERS_TOO_LARGE)
        if not self._in_head:
            return
        name = name.lower()
        value = value.rstrip(b" \t")  # httptools leaves them there (RFC 9112 section 5.1)
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head and start the application, unless the request is an upgrade."""
        scope, version = self.scope, self.parser.get_http_version()
        method = self.parser.get_method().decode("ascii")
        self.url = check_head(method, version, self.url, self.headers)
        self._in_head = False
        self._in_body = True
        self._unread_bytes = 0
        self._forget_deadline()
        raw_path, _, query = self.url.partition(b"?")
        path = raw_path.decode("ascii")
        scope["method"], scope["http_version"] = method, version
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["query_string"] = query
        if self.parser.should_upgrade():
            return  # see _upgrade
        before, self.cycle = self.cycle, self._cycle(version)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # responses keep the order of their requests
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _cycle(self, version: str) -> RequestResponseCycle:
        return RequestResponseCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=[*self.server_state.default_headers, mark_in(self.scope).header],
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )

    def on_body(self, body: bytes) -> None:
        """Hand a part of a body to the application."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body of a request."""
        self._in_body = False
        self._unread_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next request, or wait for it: a head that has begun gets its deadline here."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is None:
            return
        if self._in_head:
            self._unset_keepalive_if_required()
            self._expect_head()
        else:
            self.admission.add_idle(self)

    def _unset_keepalive_if_required(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.admission.remove_idle(self)
            super()._unset_keepalive_if_required()

    def _should_upgrade(self) -> bool:
        return True  # if the parser says so; see _upgrade

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        self._answering = cycle
        if cycle.scope["raw_path"] == ASTERISK:
            app = describe_server
        super()._start_asgi_task(cycle, WholeResponses(app, cycle, self._linger))  # type: ignore[arg-type]  # see above

    # --- the end of HTTP

    def _get_upgrade(self) -> bytes | None:
        """Return the protocol that the client asks for; both headers may come in several lines."""
        connection = upgrade = b""
        for name, value in self.headers:
            if name == b"connection":
                connection = connection + b"," + value if connection else value
            elif name == b"upgrade":
                upgrade = upgrade + b"," + value if upgrade else value
        if b"upgrade" not in _tokens(connection):
            return None
        asked = _tokens(upgrade)
        return b"websocket" if b"websocket" in asked else asked[0]

    def _upgrade(self, early: bytes) -> None:
        if self._get_upgrade() != b"websocket":
            self._ignore_upgrade(early)
            return
        if not self._may_answer():
            self._refuse(BAD_REQUEST)
            return
        found = read(self.scope["method"], self.scope["http_version"], self.headers)
        if isinstance(found, Refusal):
            self._refuse(found)
            return
        scope: Scope = {
            **self.scope,
            "type": "websocket",
            "asgi": {"version": self.asgi_version, "spec_version": "2.4"},
            "scheme": "wss" if self.scheme == "https" else "ws",
            "subprotocols": found.subprotocols,
        }
        del scope["method"]
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self._stop_stall_detector()
        self.parser = None  # type: ignore[assignment]  # it holds this object
        websocket = WebSocket(
            found, self.transport, loop=self.loop, state=self.server_state, limits=self.limits
        )
        self.transport.set_protocol(websocket)
        if self.flow.write_paused:  # by the response before: only the new protocol hears its end
            websocket.pause_writing()
        websocket.begin(self.app, scope, early)

    def _ignore_upgrade(self, early: bytes) -> None:
        """Parse the request again without its Upgrade (RFC 9110 section 7.8).

        The parser stops behind the head of an upgrade, so its body has not been read.
        """
        method = self.scope["method"]
        if method == "CONNECT":
            self._refuse(BAD_REQUEST)
            return
        head = [
            b"%b %b HTTP/%b\r\n" % (method.encode(), self.url, self.scope["http_version"].encode())
        ]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(b"".join(head) + b"\r\n" + early)

    def _refuse(self, refusal: Refusal) -> None:
        """Respond to the request being parsed and close; abort if another response is due first."""
        mark = mark_in(self.scope)
        refusal.tell(self.client, mark)
        self._forget_deadline()
        self._unset_keepalive_if_required()
        may_answer = self._may_answer()
        self._disconnect()
        if not may_answer:
            self.transport.abort()
            return
        self.transport.write(refusal.response([*self.server_state.default_headers, mark.header]))
        self._lingering_close = LingeringClose(self.transport)

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        if self._lingering_close is None and not self.transport.is_closing():
            self._lingering_close = LingeringClose(self.transport)

    def _may_answer(self) -> bool:
        """Return whether a response written now belongs to the request being parsed."""
        answering = self._answering
        if self._in_body:
            return self.cycle is answering and not answering.response_started
        return answering is None or answering.response_complete

    def _disconnect(self) -> None:
        """Tell the application that its client is gone, and drop the requests behind."""
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.waiting_for_100_continue = False  # nothing may be written any more
            self._answering.message_event.set()


def _tokens(value: bytes) -> list[bytes]:
    """Return the members of a list in a header, in lower case."""
    return [token.strip() for token in value.lower().split(b",")]


def _address(name: object) -> tuple[str, int] | None:
    """Return an address as ASGI has it; none for a Unix socket."""
    return (name[0], name[1]) if isinstance(name, tuple) else None
