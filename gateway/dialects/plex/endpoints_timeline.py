"""Timeline: ``/:/timeline``, the reports of Plex players, which have no socket.

A playback is one client, or one of several playbacks that a client distinguishes
(``X-Plex-Session-Identifier``), under one account. Its handle leads to the session, which ends
after ``KEEPALIVE_MS`` without a report. If another caller ended a playback, the answer to each
later report says so for as long as the tombstone exists, and reports never open it again. A client
that names no playback begins a new one with another item, or after a stop.

Positions are reported often and written at most every 5 s; everything else is written at once.
"""

import asyncio
import logging
import secrets
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from starlette.responses import Response

from gateway.auth.principals import Principal, Scope
from gateway.context import Context
from gateway.core import errors
from gateway.core.command import Close, Progress, StartWatch, Unwatch, Update
from gateway.core.errors import BadRequest, GatewayError, SessionClosed
from gateway.core.model import Client, Deadline, Private, Session, Watch, new_session
from gateway.dialects.plex.query import TimelineQuery
from gateway.dialects.plex.render import ADDRESS, ITEM_PATH, extra_of
from gateway.dialects.plex.schema import TERMINATED, TimelineContainer
from gateway.dialects.plex.state import PlexEndpoints
from gateway.dialects.plex.style import PlexCall, container
from gateway.node import CLAIM_MS, Node

HANDLE: Final = "plex.playback"  # the kind of the documents that lead to sessions
KEEPALIVE_MS: Final = 180_000  # real servers drop a player after this silence
JUMP_MS: Final = 5_000  # a position so far from where it should be is a seek
ATTEMPTS: Final = 5  # to begin a playback that another node begins as well
CLAIMED_S: Final = 0.1  # between two of them
SWEEP_S: Final = 600.0  # between two sweeps of handles without a session

_STATES: Final = ("playing", "paused", "buffering", "stopped")

log = logging.getLogger(__name__)


class PlayerReport(Struct, frozen=True, kw_only=True):
    """A report of a player: the item, its state and its position."""

    said: TimelineQuery
    watch: Watch


def read_report(said: TimelineQuery) -> PlayerReport:
    """Return the report in a request.

    Raises:
        BadRequest: Something is missing, or is not what it should be.
    """
    if said.state not in _STATES:
        raise BadRequest(f"state must be one of {', '.join(_STATES)}")
    item = said.rating_key or (said.key or "").removeprefix(ITEM_PATH)
    if not (item.isascii() and item.isdecimal() and len(item) <= 18):  # noqa: PLR2004 - 63 bits
        raise BadRequest("ratingKey must be a number")
    queued = said.play_queue_item_id
    watch = Watch(
        key=f"{ITEM_PATH}{item}",
        title=said.title,
        kind=said.type,
        state=said.state,
        position_ms=said.time,
        duration_ms=said.duration or None,
        bandwidth=said.bandwidth,
        item=None if queued is None else {"playQueueItemID": queued},
    )
    return PlayerReport(said=said, watch=watch)


class TimelineEndpoints(PlexEndpoints):
    """The playbacks that are reported to this node."""

    async def report(self, call: PlexCall) -> Response:
        """Take a player's report; the answer says if its playback was ended."""
        principal = call.caller
        may_play = principal.has(Scope.CONNECT) or principal.has(Scope.WRITE)
        if not may_play or principal.session is not None:  # a session's own token opens nothing
            raise errors.Forbidden("This token may not play")
        report = read_report(call.query)
        handle = _handle(principal, report)
        async with self._plex.turns.setdefault(handle, asyncio.Lock()):
            ended = await self._take(call, report, handle)
        reply = TimelineContainer()
        if ended is not None:
            reply = replace(reply, termination_code=TERMINATED, termination_text=_why(ended))
        return container(call, reply)

    async def _take(self, call: PlexCall, report: PlayerReport, handle: str) -> Session | None:
        """Do what a report says; return the closed session if somebody ended this playback."""
        for _ in range(ATTEMPTS):
            try:
                session = await self._find(handle)
            except SessionClosed as error:
                session = error.record if isinstance(error.record, Session) else None
            try:
                if session is None or session.closed:
                    return await self._after(session, call, report, handle)
                if report.said.state != "stopped":
                    await self._go_on(session, report)
                    return None
                position_ms = _ended_at(session, report)
                if report.said.continuing in ("1", "true"):  # another item follows at once
                    await self._node.apply(session.id, Unwatch(position_ms=position_ms))
                    return None
                left = Close(outcome="left", by=call.caller.name, position_ms=position_ms)
                await self._node.apply(session.id, left)
                await forget(self._node, handle, session.id)
                return None
            except SessionClosed:  # just now, by another caller
                continue
            except errors.IdUnavailable:  # another node began this playback at the same time
                await asyncio.sleep(CLAIMED_S)
        raise errors.Conflict

    async def _find(self, handle: str) -> Session | None:
        known = self._node.documents.get(HANDLE, handle)
        try:
            return await self._node.find(known["session"]) if known else None
        except errors.NotFound:
            return None

    async def _after(
        self, closed: Session | None, call: PlexCall, report: PlayerReport, handle: str
    ) -> Session | None:
        """Begin a playback, unless it is the one that was ended."""
        ended = closed if closed and _was_ended(closed) and _is_same(closed, report) else None
        if report.said.state == "stopped":
            if closed and report.said.session_identifier is None:
                await forget(self._node, handle, closed.id)
            return ended
        if ended is None:
            await self._begin(call, report, handle)
        return ended

    async def _begin(self, call: PlexCall, report: PlayerReport, handle: str) -> None:
        node, context, principal = self._node, call.context, call.caller
        peer, said = context.peer(call.request.scope), report.said
        extra: dict[str, Any] = {
            "item": report.watch.key,
            "secure": peer.tls,
            "platformVersion": said.platform_version,
            "vendor": said.device_vendor,
            "profile": said.client_profile_name,
        }
        session_id = secrets.token_hex(12)
        session = new_session(
            session_id,
            account=principal.account,
            workspace=principal.workspace,
            name=said.device_name or said.product or said.client_identifier,
            client=Client(
                key=said.client_identifier,
                product=said.product,
                version=said.version,
                platform=said.platform,
                device=said.device,
                model=said.model,
            ),
            attributes={"plex": {name: fact for name, fact in extra.items() if fact is not None}},
            keepalive_ms=KEEPALIVE_MS,
            watch=report.watch,
            private=Private(environment={ADDRESS: peer.address} if peer.address else None),
        )
        await node.documents.claim(HANDLE, handle, session.id)
        try:
            await node.open(session)
        except GatewayError:
            with suppress(GatewayError):
                await forget(node, handle, session.id)
            raise

    async def _go_on(self, session: Session, report: PlayerReport) -> None:
        node, before, now = self._node, session.watch, report.watch
        if before is None or before.key != now.key:
            if report.said.session_identifier is None:
                patch = {"attributes": {"plex": {"item": now.key}}}
                await node.apply(session.id, Update(patch=patch))
            await node.apply(session.id, StartWatch(watch=now))
            return
        watch = _merged(before, now)
        if _is_expected(before, watch, node.now_ms()):
            progress = Progress(position_ms=watch.position_ms, bandwidth=watch.bandwidth)
            with suppress(errors.NotWatching):
                await node.report(session.id, progress)
        else:
            await node.apply(session.id, StartWatch(watch=watch))


def _handle(principal: Principal, report: PlayerReport) -> str:
    """Return the name of a playback; nobody reports for the playback of another account."""
    name = principal.name if principal.account is None else ""
    player = (report.said.client_identifier, report.said.session_identifier)
    parts = (principal.account, principal.workspace, name, *player)
    return sha256(repr(parts).encode()).hexdigest()


def _ended_at(session: Session, report: PlayerReport) -> int | None:
    """Return where the watch ended, if the report that ends it is about what is watched."""
    is_same = session.watch is not None and session.watch.key == report.watch.key
    return report.watch.position_ms if is_same else None


def _merged(before: Watch, now: Watch) -> Watch:
    """Return how the same item goes on: what a report leaves out stays."""
    position = now.position_ms
    return replace(
        now,
        title=now.title or before.title,
        kind=now.kind or before.kind,
        position_ms=before.position_ms if position is None else position,
        position_at=before.position_at if position is None else None,
        duration_ms=now.duration_ms or before.duration_ms,
        bandwidth=before.bandwidth if now.bandwidth is None else now.bandwidth,
        item=now.item or before.item,
    )


def _is_expected(before: Watch, now: Watch, now_ms: int) -> bool:
    """Whether a report changes nothing but the time."""
    if before.position_ms is None or before.position_at is None or now.position_ms is None:
        return False
    played_ms = now_ms - before.position_at if before.state == "playing" else 0
    moved = {"position_ms": now.position_ms, "position_at": now.position_at}
    jump_ms = abs(now.position_ms - before.position_ms - played_ms)
    return jump_ms <= JUMP_MS and replace(before, **moved, bandwidth=now.bandwidth) == now


def _was_ended(closed: Session) -> bool:
    """Whether somebody ended this session; not its player, and not silence."""
    end = closed.closed
    if end is None or end.outcome == "left":
        return False
    return not (end.outcome == "expired" and end.reason == Deadline.KEEPALIVE)


def _is_same(closed: Session, report: PlayerReport) -> bool:
    """Whether a report is of the playback that was *closed*."""
    is_named = report.said.session_identifier is not None
    return is_named or extra_of(closed).get("item") == report.watch.key


def _why(closed: Session) -> str:
    """Return what the player of a session that was ended shows."""
    reason = closed.closed.reason if closed.closed else None
    return f"Admin terminated playback{f' with reason: {reason}' if reason else '.'}"


# --- upkeep


async def forget(node: Node, handle: str, session_id: str) -> None:
    """Delete a handle if it still leads to *session_id*."""
    left = lambda body: {} if body.get("session") == session_id else body  # noqa: E731
    await node.documents.write(HANDLE, handle, left)


async def sweep(node: Node, now_ms: int) -> int:
    """Delete handles of sessions that nobody remembers; return how many."""
    found = [
        (handle, body["session"])
        for handle, body in node.documents.all(HANDLE)
        if body["session"] not in node.sessions
        and node.tombstone(body["session"]) is None
        and body["at"] < now_ms - CLAIM_MS
    ]
    for handle, session_id in found:
        await forget(node, handle, session_id)
    return len(found)


async def run(context: Context) -> None:
    """Sweep from time to time, on one of all nodes."""
    node = context.node
    while True:
        await asyncio.sleep(SWEEP_S)
        if node.is_owner("plex.sweep"):
            try:
                await sweep(node, node.now_ms())
            except GatewayError as error:
                log.debug("a sweep of playbacks failed", extra={"reason": error.code})
