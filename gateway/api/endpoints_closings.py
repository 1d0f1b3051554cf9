"""Bulk closing over REST: close every session of a filter, at a rate, and tell how far it came.

The reply is a stream of lines (NDJSON): one each second, and a last one. Who wants JSON gets that
one only. Whoever hangs up stops it,
and so does the end of this node; what was closed by then stays closed. A repeat with the same
Idempotency-Key goes on with the sessions that there were at the first time.
"""

import asyncio
import logging
import math
from collections import Counter
from contextlib import suppress
from typing import Any, ClassVar, Final

from msgspec.json import encode
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.api.idempotency import NativeCall, idempotency_key, identity, operation_of
from gateway.api.operator_schema import BulkClosing, BulkProgress
from gateway.api.schema import given
from gateway.auth.principals import Principal, Scope
from gateway.connections.lifecycle import (
    CLOSE_WITHIN_S,
    SEND_WITHIN_S,
    ClientClosed,
    ConnectionEnded,
    LiveConnection,
    ServerClose,
)
from gateway.core.command import AnyCommand, Close, RequestClose
from gateway.core.errors import (
    CloseCode,
    Forbidden,
    GatewayError,
    IdempotencyMismatch,
    NotFound,
    Overloaded,
    SessionClosed,
    Unavailable,
)
from gateway.http.endpoint import JSON, AnyEndpoint, Call, Endpoint, Nothing, paced
from gateway.node import Documents

NDJSON: Final = "application/x-ndjson"
PROGRESS_S: Final = 1.0  # between two lines
STEP_S: Final = 0.05  # sessions of so much time are closed together, because they share commits
CONCURRENT: Final = 64  # but at most so many
FINISH_S: Final = 2.0  # for those in flight, when it is stopped; they count
RUNNING_MAX: Final = 2  # bulk closings of a node at a time; one more is refused with Overloaded
SAMPLE: Final = 20  # ids that a dry run shows
KEPT_MS: Final = 86_400_000  # for which a key is remembered, as long as closed ids are
KEPT_MAX: Final = 1_000  # keys that are remembered; the oldest is forgotten first
KIND: Final = "closing"  # of the documents that remember them

HEADERS: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
"""So that no proxy holds lines back."""

log = logging.getLogger(__name__)


async def close_sessions(call: Call[Principal, Nothing, BulkClosing]) -> Response:
    """Close every session of a filter, and tell how far it came."""
    body, node = call.body, call.node
    view = call.caller.view(body.filter.filter())
    opened_by = await _begun_at(call) if not body.dry_run else math.inf
    wanted = [
        session.id
        async for session in paced(node.all_in(view))
        if call.caller.covers(session.workspace) and session.created_at <= opened_by
    ]
    if body.dry_run:
        last = BulkProgress(
            type="done", dry_run=True, selected=len(wanted), sample=tuple(wanted[:SAMPLE])
        )
        return Response(encode(last) + b"\n", headers=HEADERS, media_type=call.media)
    return _Stream(call, wanted)


async def _begun_at(call: NativeCall) -> float:
    """Return when this bulk closing began: now, or when its key came for the first time.

    Raises:
        IdempotencyMismatch: The key came with another request.
        GatewayError: As ``Documents.write``.
    """
    key, now_ms = idempotency_key(call), call.node.now_ms()
    if key is None:
        return now_ms
    said = operation_of(call, None)
    documents = call.node.documents
    owner = "/".join(part or "" for part in identity(call.caller))
    name = f"{owner}#{key}"
    if documents.get(KIND, name) is None:
        await _forget(documents, now_ms)

    def begin(known: dict[str, Any]) -> dict[str, Any]:
        if known and known["said"] != said:
            raise IdempotencyMismatch
        return known or {"said": said, "at": now_ms}

    body = await documents.write(KIND, name, begin)
    return float(body["at"])


async def _forget(documents: Documents, now_ms: int) -> None:
    """Delete the keys that are too old, or too many."""
    known = sorted(documents.all(KIND), key=lambda found: int(found[1]["at"]))
    for number, (key, body) in enumerate(known):
        if body["at"] < now_ms - KEPT_MS or number <= len(known) - KEPT_MAX:
            await documents.write(KIND, key, lambda _: {})


class _Stream(Response):
    """The reply: closes the sessions while it is sent.

    Args:
        call: The request.
        wanted: The ids of the sessions.

    Raises:
        Overloaded: ``RUNNING_MAX`` others run on this node.
        GatewayError: As ``ConnectionRegistry.check_capacity``.
    """

    running: ClassVar[int] = 0

    def __init__(self, call: Call[Principal, Nothing, BulkClosing], wanted: list[str]) -> None:
        call.context.connections.check_capacity()
        if _Stream.running >= RUNNING_MAX:
            raise Overloaded("Other bulk closings run on this node.", retry_after_s=1)
        super().__init__(headers=HEADERS, media_type=call.media)
        del self.headers["content-length"]
        self._call = call
        self._wanted = wanted

    async def __call__(self, _scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Close the sessions, and send lines meanwhile."""
        context = self._call.context
        run = _Run(self._call, self._wanted, receive, send)
        _Stream.running += 1
        try:
            with context.connections.registered(run):
                start = {"type": "http.response.start", "status": self.status_code}
                await send({**start, "headers": self.raw_headers})
                run.expire_at(self._call.caller.expires_at, context.wall_ms)
                await run.run()
        finally:
            _Stream.running -= 1


class _Run(LiveConnection):
    """One bulk closing; ends when all is done, or by whoever ends its connection."""

    def __init__(
        self,
        call: Call[Principal, Nothing, BulkClosing],
        wanted: list[str],
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(call.context.connections.chance, PROGRESS_S)
        self._call = call
        self._view = call.caller.view(call.body.filter.filter())
        self._wanted = wanted
        self._receive = receive
        self._send = send
        self._done = self._skipped = 0
        self._failed: Counter[str] = Counter()
        self._began_s = self._loop.time()
        self._ended: asyncio.Future[ConnectionEnded | None] = self._loop.create_future()

    def end(self, ended: ConnectionEnded | None) -> None:
        """Stop as soon as possible; the first call decides why."""
        if not self._ended.done():
            self._ended.set_result(ended)

    def _on_heartbeat(self, *, is_due: bool) -> None:
        """Nothing: a line is sent each second."""

    async def run(self) -> None:
        """Close all that is wanted, and tell about it to the end."""
        works = [
            self._loop.create_task(work)
            for work in (self._close_all(), self._listen(), self._tell())
        ]
        ended: ConnectionEnded | None = ServerClose(CloseCode.DRAINING, "draining")
        try:
            ended = await self._ended
        finally:  # also when it is cancelled, because this process stops
            self.stop_timers()
            for work in works[1:]:
                work.cancel()
            await asyncio.wait(works[:1], timeout=FINISH_S)
            works[0].cancel()
            await asyncio.gather(*works, return_exceptions=True)
            about = {"selected": len(self._wanted), "closed": self._done}
            log.info("sessions were closed in bulk", extra={**about, "reason": _why(ended)})
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                last = self._line("done" if ended is None else "aborted", _why(ended))
                await self._send({"type": "http.response.body", "body": last})

    async def _close_all(self) -> None:
        rate = self._call.body.rate_per_s
        size = max(1, min(CONCURRENT, int(rate * STEP_S)))
        for start in range(0, len(self._wanted), size):
            due_s = self._loop.time() + size / rate  # a store that stalled is not caught up with
            lot = self._wanted[start : start + size]
            failures = await asyncio.gather(*map(self._close, lot), return_exceptions=True)
            if (failure := next((one for one in failures if one is not None), None)) is not None:
                assert isinstance(failure, Exception)  # noqa: S101 - nobody cancels them
                self.end(self.closing_of(failure))
            if start + size < len(self._wanted):
                wait_s = max(0.0, due_s - self._loop.time())
                await asyncio.wait({self._ended}, timeout=wait_s)
            if self._ended.done():
                return
        self.end(None)

    async def _close(self, session_id: str) -> None:
        call = self._call
        try:
            session = await call.node.find(session_id)
            if not self._view.matches(session):  # it changed since it was selected
                raise NotFound
            await call.node.apply(session_id, self._command(), op=operation_of(call, session))
        except (SessionClosed, NotFound):
            self._skipped += 1
        except Unavailable as error:
            self._failed[error.code] += 1
            raise
        except GatewayError as error:
            self._failed[error.code] += 1
        else:
            self._done += 1

    def _command(self) -> AnyCommand:
        body, by = self._call.body, self._call.caller.name
        if body.after_s == 0:
            return Close(reason=given(body.reason), by=by)
        at = self._call.node.now_ms() + round(body.after_s * 1000)
        return RequestClose(at=at, reason=given(body.reason), by=by)

    async def _tell(self) -> None:
        while self._call.media == NDJSON:
            await asyncio.sleep(PROGRESS_S)
            line = {"type": "http.response.body", "body": self._line("progress"), "more_body": True}
            try:
                async with asyncio.timeout(SEND_WITHIN_S):
                    await self._send(line)
            except (TimeoutError, OSError):
                self.end(ClientClosed("lost"))

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.end(ClientClosed("clean"))

    def _line(self, kind: Any, reason: str | None = None) -> bytes:  # noqa: ANN401 - a Literal
        line = BulkProgress(
            type=kind,
            selected=len(self._wanted),
            closed=self._done,
            skipped=self._skipped,
            failed=dict(self._failed),
            elapsed_s=round(self._loop.time() - self._began_s, 3),
            reason=reason,
        )
        return encode(line) + b"\n"


def _why(ended: ConnectionEnded | None) -> str | None:
    """Return why a bulk closing was aborted, for programs."""
    if ended is None:
        return None
    return ended.reason if isinstance(ended, ServerClose) else "hung_up"


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "POST", "/v1/closings", close_sessions, "Close every session of a filter",
        body=BulkClosing, returns={200: BulkProgress}, produces=(NDJSON, JSON),
        errors=(Forbidden, IdempotencyMismatch, Overloaded), scope=Scope.CLOSE,
        tag="sessions", headers=("Idempotency-Key",),
    ),
)  # fmt: skip
