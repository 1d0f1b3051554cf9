"""HTTP: uvicorn's httptools protocol, with bounds on what comes before an application is asked.

Uvicorn waits for a head without end, takes headers of any size, counts no silent connections, reads
a WebSocket's request twice, and warns about every bad byte. Here a head has a deadline and caps, a
connection counts from its beginning, and a WebSocket goes on from what was parsed. Bodies, answers
and keep-alive are uvicorn's.
"""

import asyncio
import logging
from typing import Any, ClassVar, Final
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.transport.admission import AdmissionControl, Verdict
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
from gateway.transport.websocket import WebSocket

HEAD_MAX_BYTES: Final = URL_MAX_BYTES + HEADERS_MAX_BYTES

METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"  # that some path here takes

log = logging.getLogger(__name__)

_calm: Final = ENHANCE_YOUR_CALM[0]
httptools_impl.STATUS_LINE[_calm] = b"HTTP/1.1 %d %b\r\n" % (_calm, phrase(_calm))


class Http(HttpToolsProtocol):
    """One connection, from its beginning; a WebSocket goes on as another object."""

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
        self._answering: RequestResponseCycle | None = None  # self.cycle is of the newest request
        self._in_head = False
        self._in_body = False
        self._head_bytes = 0  # of whole headers, and trailers
        self._unread_bytes = 0  # that came since the last head, piece of a body or end of a request

    # --- TCP

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and give it a deadline.

        Uvicorn's own asks the socket for its addresses, which uvloop makes anew for each question.
        """
        self.connections.add(self)
        match self.admission.judge(len(self.connections), transport):
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
        """Parse what came."""
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
        """Watch a client that does not take its answer."""
        super().pause_writing()
        if self._stall_detector is None:
            self._stall_detector = StallDetector(
                lambda: -unacknowledged_bytes(self.transport),
                self.transport.abort,
                self.limits.stalled_s,
            )

    def resume_writing(self) -> None:
        """Go on."""
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
        """Take a part of the address."""
        super().on_url(url)
        if len(self.url) > URL_MAX_BYTES:
            raise RequestRefused(URL_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers count, but are none (RFC 9110 section 6.5.1)."""
        size = len(name) + len(value)
        self._head_bytes += size
        if (
            size > HEADER_MAX_BYTES
            or self._head_bytes > HEADERS_MAX_BYTES
            or len(self.headers) >= HEADERS_MAX
        ):
            raise RequestRefused(HEADERS_TOO_LARGE)
        if self._in_head:  # httptools leaves the blanks behind a value (RFC 9112 section 5.1)
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Ask the application, unless the head is refused or asks for another protocol."""
        scope, version = self.scope, self.parser.get_http_version()
        method = self.parser.get_method().decode("ascii")
        self.url = check_head(method, version, self.url, self.headers)
        self._in_head = False
        self._in_body = True
        self._unread_bytes = 0
        self._forget_deadline()
        path, _, query = self.url.partition(b"?")
        scope["method"], scope["http_version"] = method, version
        scope["raw_path"] = self.root_path.encode("ascii") + path
        scope["path"] = self.root_path + unquote(path.decode("ascii"))
        scope["query_string"] = query
        if self.parser.should_upgrade():
            return  # see _upgrade
        before, self.cycle = self.cycle, self._cycle(version)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # its answer has to wait
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
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._in_body = False
        self._unread_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request; its head has its time from here if it is not whole."""
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
            app = _describe_server
        super()._start_asgi_task(cycle, _Complete(app, cycle))  # type: ignore[arg-type]  # see above

    # --- the end of HTTP

    def _get_upgrade(self) -> bytes | None:
        """Return the protocol that is asked for; both headers may come in several lines."""
        asked = dict.fromkeys((b"connection", b"upgrade"), b"")
        for name, value in self.headers:
            if name in asked:
                asked[name] += value.lower() + b","
        connection, upgrade = (
            [token.strip() for token in value.split(b",")] for value in asked.values()
        )
        if b"upgrade" not in connection:
            return None
        return b"websocket" if b"websocket" in upgrade else upgrade[0]

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
        if self.flow.write_paused:  # by the answer before; who is told so from now on is the other
            websocket.pause_writing()
        websocket.begin(self.app, scope, early)

    def _ignore_upgrade(self, early: bytes) -> None:
        """Read the request again without it (RFC 9110 section 7.8); the parser skips its body."""
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
        """Answer what is being read, and end; without a word if that might be misunderstood."""
        log.debug("refused %s: %d %s", self.client, refusal.status, refusal.reason)
        self._forget_deadline()
        self._unset_keepalive_if_required()
        may_answer = self._may_answer()
        self._disconnect()
        if not may_answer:
            self.transport.abort()
            return
        self.transport.write(refusal.response(self.server_state.default_headers))
        self._lingering_close = LingeringClose(self.transport)

    def _may_answer(self) -> bool:
        """Return whether what is written now is taken for the answer to what is being read."""
        answering = self._answering
        if self._in_body:
            return self.cycle is answering and not answering.response_started
        return answering is None or answering.response_complete

    def _disconnect(self) -> None:
        """Tell the application that its client is gone; what waits behind never reaches it."""
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.waiting_for_100_continue = False  # nothing may be written any more
            self._answering.message_event.set()


def _address(name: object) -> tuple[str, int] | None:
    """Return an address as ASGI has it; none for a Unix socket."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


class _Complete:
    """An application whose answers are never left half done: then the connection breaks instead."""

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        cycle = self._cycle
        if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
            log.debug("an answer was cut short")
            cycle.disconnected = True
            cycle.transport.abort()


async def _describe_server(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer ``OPTIONS *``, which asks about no path (RFC 9110 section 9.3.7)."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", METHODS)]})
    await send({"type": "http.response.body"})
