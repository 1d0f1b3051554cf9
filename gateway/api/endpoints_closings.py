"""Bulk closing over REST: close every session of a filter, at a rate, and tell how far it came.

The reply is a stream of lines (NDJSON): one each second, and a last one. A caller that accepts JSON
only gets the last one. The closing stops when its caller hangs up or when this node stops; what was
closed by then stays closed. A repeat with the same Idempotency-Key goes on with the sessions that
there were at the first time.
"""

import asyncio
import logging
import math
from collections import Counter
from typing import Any, ClassVar, Final, Literal

from msgspec.json import encode
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from gateway.api.access import closing_command, do
from gateway.api.idempotency import NativeCall, idempotency_key, identity, operation_of
from gateway.api.operator_schema import BulkClosing, BulkProgress
from gateway.api.schema import given
from gateway.auth.principals import Principal, Scope
from gateway.connections.lifecycle import ClientClosed, ConnectionEnded, ServerClose
from gateway.core.errors import (
    Forbidden,
    GatewayError,
    IdempotencyMismatch,
    NotFound,
    Overloaded,
    SessionClosed,
    Unavailable,
)
from gateway.core.query import View
from gateway.http.endpoint import JSON, AnyEndpoint, Call, Endpoint, Nothing, paced
from gateway.node import Documents
from gateway.realtime.stream import UNBUFFERED, StreamConnection, StreamedReply

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

CACHE_CONTROL: Final = "no-store, no-transform"  # nor may a proxy pack the lines together

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
        headers = {"Cache-Control": CACHE_CONTROL, **UNBUFFERED}
        return Response(encode(last) + b"\n", headers=headers, media_type=call.media)
    return _ClosingReply(call, view, wanted)


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


class _ClosingReply(StreamedReply):
    """The reply: closes the sessions while it is sent.

    Args:
        call: The request.
        view: The sessions that match.
        wanted: Their ids when it began.

    Raises:
        Overloaded: ``RUNNING_MAX`` others run on this node.
        GatewayError: As :class:`StreamedReply`.
    """

    running: ClassVar[int] = 0

    def __init__(
        self, call: Call[Principal, Nothing, BulkClosing], view: View, wanted: list[str]
    ) -> None:
        if _ClosingReply.running >= RUNNING_MAX:
            raise Overloaded("Other bulk closings run on this node.", retry_after_s=1)
        super().__init__(call.context, call.caller, call.media, CACHE_CONTROL)
        self._call = call
        self._view = view
        self._wanted = wanted

    async def __call__(self, _scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Close the sessions, and send lines meanwhile."""
        run = _BulkClosing(self._call, self._view, self._wanted, receive, send)
        _ClosingReply.running += 1
        try:
            with self._call.context.connections.registered(run):
                await self.begin(run, send)
                await run.run()
        finally:
            _ClosingReply.running -= 1


class _AllDone(ConnectionEnded):
    """Nothing is left to close."""


class _BulkClosing(StreamConnection):
    """A bulk closing that runs."""

    def __init__(
        self,
        call: Call[Principal, Nothing, BulkClosing],
        view: View,
        wanted: list[str],
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(call.context, receive, send, PROGRESS_S)
        self._call = call
        self._view = view
        self._wanted = wanted
        self._closed = self._skipped = 0
        self._failed: Counter[str] = Counter()
        self._began_s = self._loop.time()

    async def run(self) -> None:
        """Close all that is wanted, and tell about it to the end."""
        self._closing = self.spawn(self._close_all())
        ended = await (self.serve(self._tell()) if self._call.media == NDJSON else self.serve())
        is_done = isinstance(ended, _AllDone)
        await self.close(self._line("done" if is_done else "aborted", _why(ended)))

    async def on_end(self, ended: ConnectionEnded) -> None:
        """Let the closes in flight finish, and tell the log how far it came."""
        await asyncio.wait([self._closing], timeout=FINISH_S)
        about = {"selected": len(self._wanted), "closed": self._closed, "reason": _why(ended)}
        log.info("sessions were closed in bulk", extra=about)

    def _on_heartbeat(self, *, is_due: bool) -> None:
        """Nothing: a line is sent each second."""

    async def _close_all(self) -> None:
        rate = self._call.body.rate_per_s
        size = max(1, min(CONCURRENT, int(rate * STEP_S)))
        for start in range(0, len(self._wanted), size):
            due_s = self._loop.time() + size / rate  # a store that stalled is not caught up with
            await asyncio.gather(*map(self._close_one, self._wanted[start : start + size]))
            if start + size < len(self._wanted):
                wait_s = max(0.0, due_s - self._loop.time())
                await asyncio.wait({self._ended}, timeout=wait_s)
            if self._ended.done():
                return
        self.end(_AllDone())

    async def _close_one(self, session_id: str) -> None:
        call, body = self._call, self._call.body
        try:
            session = await call.node.find(session_id)
            if not self._view.matches(session):  # it changed since it was selected
                raise NotFound
            command = closing_command(call, body.after_s, given(body.reason))
            await do(call, session, command)
        except (SessionClosed, NotFound):
            self._skipped += 1
        except GatewayError as error:
            self._failed[error.code] += 1
            if isinstance(error, Unavailable):
                self.end(self.closing_of(error))
        else:
            self._closed += 1

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            await self.write(self._line("progress"))

    def _line(
        self, kind: Literal["progress", "done", "aborted"], reason: str | None = None
    ) -> bytes:
        line = BulkProgress(
            type=kind,
            selected=len(self._wanted),
            closed=self._closed,
            skipped=self._skipped,
            failed=dict(self._failed),
            elapsed_s=round(self._loop.time() - self._began_s, 3),
            reason=reason,
        )
        return encode(line) + b"\n"


def _why(ended: ConnectionEnded) -> str | None:
    """Return why a bulk closing was aborted, for programs."""
    if isinstance(ended, ServerClose):
        return ended.reason
    return "hung_up" if isinstance(ended, ClientClosed) else None


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "POST", "/v1/closings", close_sessions, "Close every session of a filter",
        body=BulkClosing, returns={200: BulkProgress}, produces=(NDJSON, JSON),
        errors=(Forbidden, IdempotencyMismatch, Overloaded), scope=Scope.CLOSE,
        tag="sessions", headers=("Idempotency-Key",),
    ),
)  # fmt: skip
