"""Probes by the public API: feeds by WebSocket and SSE, and lists.

Not here: what the results mean (``checker``), Redis (``redis_probe``).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from itertools import cycle
from typing import Final, NoReturn

import httpx2
from msgspec import DecodeError
from msgspec.json import Decoder

from gateway.audit.checker import FeedCheck, PromiseChecker, Revisions
from gateway.client import (
    Changes,
    Event,
    Filter,
    Gateway,
    Heartbeat,
    Item,
    Resync,
    Snapshot,
    events,
)
from gateway.client.protocol import Object, address, given, refusal, with_query
from gateway.core.errors import BadRequest, NotFound, SessionClosed, Unavailable
from gateway.core.position import Position

PAGE: Final = 1000  # sessions a request
RESUME_EVERY_S: Final = 1.0  # how long the feed that comes and goes stays
SETTLE_S: Final = 1.0  # a feed that has not reached a position by then had no event up to it
SETTLE_POLL_S: Final = 0.01
EVENT_MAX_BYTES: Final = 16 * 1024 * 1024  # of one SSE event: a page of a snapshot
AGAIN_S: Final = 0.2  # before a stream that broke is opened again
SILENT_S: Final = 40.0  # without a heartbeat a stream is dead
ASKED_MAX: Final = 20  # closed sessions that are asked for at the end
_OK: Final = 200

_object: Final = Decoder(Object)


async def follow(feed: FeedCheck, url: str, token: str | None, wanted: Filter) -> None:
    """Read a WebSocket feed."""
    async with aclosing(events(url, token=token, filter=wanted, open_within_s=0)) as items:
        async for item in items:
            feed.hear(item)


async def come_and_go(feed: FeedCheck, urls: list[str], token: str | None) -> NoReturn:
    """Read a WebSocket feed that disconnects again and again, and resumes on the next node."""
    for url in cycle(urls):
        since, restarts = feed.fold.position, feed.restarts.total()
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(RESUME_EVERY_S),
                aclosing(events(url, token=token, since=since, open_within_s=0)) as items,
            ):
                async for item in items:
                    feed.hear(item)
        feed.resumes += since is not None and feed.restarts.total() == restarts
    raise AssertionError("there is always another one")


async def stream(feed: FeedCheck, url: str, token: str | None) -> NoReturn:
    """Read an SSE feed; after a break it is resumed by its last id."""
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}" if token else ""}
    async with httpx2.AsyncClient(timeout=SILENT_S) as http:
        while True:
            since = feed.fold.position
            target = with_query(address(url, "/v1/events", socket=False), given(since=since))
            try:
                async with http.stream("GET", target, headers=headers) as reply:
                    if reply.status_code != _OK:
                        raise refusal(reply.status_code, reply.headers, await reply.aread())
                    async for item in sse_items(reply.aiter_bytes(), resumed=since is not None):
                        feed.hear(item)
            except httpx2.RequestError as error:
                if since is None:
                    raise Unavailable(f"There was no stream: {error}") from error
            await asyncio.sleep(AGAIN_S)


async def sse_items(chunks: AsyncIterator[bytes], *, resumed: bool) -> AsyncIterator[Item]:
    """Yield the items of an event stream (WHATWG HTML, *Server-sent events*).

    Only the last event of a commit has an ``id``; the events up to it become one item.

    Args:
        chunks: The reply, as it comes.
        resumed: Whether it was asked to go on from a position.

    Raises:
        BadRequest: This is no stream of a gateway.
    """
    waiting: list[Event] = []
    first = True
    async for kind, data, position in _sse(chunks):
        match kind:
            case "hello":
                if resumed and data.get("mode") != "resume":
                    yield Resync(reason=str(data.get("reason") or ""))
            case "snapshot":
                more = bool(data.get("more"))
                yield Snapshot(
                    sessions=data["sessions"],
                    first=first,
                    more=more,
                    position=None if more else str(data["position"]),
                )
                first = not more
            case "resync":
                waiting, first = [], True
                yield Resync(reason=str(data.get("reason") or ""))
            case "heartbeat":
                if position:
                    yield Heartbeat(position=position, at=str(data["at"]))
            case "bye":
                return
            case _ if kind.startswith(("session.", "stream.")):
                waiting.append(data)
                if position:
                    yield Changes(events=waiting, position=position)
                    waiting = []


async def _sse(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, Object, str]]:
    """Yield type, data and id of each event; by bytes: U+2028 ends lines of text, too."""
    waiting = b""
    async for chunk in chunks:
        *blocks, waiting = (waiting + chunk).split(b"\n\n")
        if len(waiting) > EVENT_MAX_BYTES:
            raise BadRequest(f"An event has more than {EVENT_MAX_BYTES} bytes.")
        for block in blocks:
            fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
            if b"data" not in fields:
                continue  # "retry", or a comment
            try:
                data = _object.decode(fields[b"data"])
            except (DecodeError, UnicodeDecodeError) as error:
                raise BadRequest("This is no event stream of a gateway.") from error
            yield fields.get(b"event", b"").decode(), data, fields.get(b"id", b"").decode()


async def read_list(
    checker: PromiseChecker, name: str, gateway: Gateway, at: str | None
) -> Revisions:
    """Read the list of all sessions, at least as new as position *at*."""
    found: Revisions = {}
    async for session in gateway.list_sessions(limit=PAGE, at=at):
        if session["id"] in found:
            checker.violated(1, f"{name}: {session['id']} is in the list twice")
        found[session["id"]] = session["revision"]
        checker.shows(name, session)
    return found


async def settle(feeds: list[FeedCheck], upto: str) -> None:
    """Wait until *feeds* have reached a position, at most ``SETTLE_S``.

    A feed learns a position only from an event or a heartbeat.
    """
    target = Position.parse(upto)
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_S):
            while not all(_covers(feed, target) for feed in feeds):  # noqa: ASYNC110 - pure feeds
                await asyncio.sleep(SETTLE_POLL_S)


def _covers(feed: FeedCheck, target: Position) -> bool:
    return feed.fold.position is not None and Position.parse(feed.fold.position).covers(target)


async def ask_for_closed(checker: PromiseChecker, gateway: Gateway) -> None:
    """Read sessions that were closed; the gateway must answer that they are closed."""
    for session_id in sorted(checker.ended)[:ASKED_MAX]:
        checker.checked(4, "closed sessions asked for")
        try:
            await gateway.get(session_id)
            checker.violated(4, f"REST shows {session_id}, which was closed")
        except SessionClosed:
            pass
        except NotFound:
            checker.violated(4, f"REST does not know {session_id}, which was closed")
