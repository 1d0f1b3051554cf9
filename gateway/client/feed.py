"""Event feed: yields a snapshot, then every change, over as many connections as that takes.

Promises: no change is missed or yielded twice; if the feed cannot resume after a drop, a ``resync``
and a new snapshot follow.

Not here: the sessions that result (``state``).
"""

from collections.abc import AsyncGenerator

from gateway.client.connection import GIVE_UP_AFTER_S, OPEN_WITHIN_S, Dialer, TokenSource
from gateway.client.disconnect import Closed
from gateway.client.protocol import EventsFrame, SnapshotFrame, filter_query
from gateway.client.state import Changes, Heartbeat, Item, Resync, Snapshot
from gateway.core import protocol
from gateway.core.query import Filter


async def events(
    url: str,
    *,
    token: TokenSource = None,
    filter: Filter = Filter(),  # noqa: A002, B008 - the wire's word; immutable
    since: str | None = None,
    open_within_s: float = OPEN_WITHIN_S,
    give_up_after_s: float = GIVE_UP_AFTER_S,
) -> AsyncGenerator[Item, None]:
    """Follow the sessions that match *filter*.

    You can leave the loop at any time; use ``contextlib.aclosing`` if that must close the
    connection at once. If you take items too slowly, the gateway closes the connection, and the
    feed resumes or yields a ``Resync``.

    Args:
        url: Where the gateway is, such as ``https://gateway.example``.
        token: A token with ``read``, or a coroutine function that returns a fresh one.
        filter: Which sessions.
        since: The ``position`` of an earlier item, to resume there; without it a snapshot comes
            first.
        open_within_s: Seconds to try for the first connection; 0 is one attempt.
        give_up_after_s: Seconds to try for each later one.

    Yields:
        ``Snapshot``, ``Changes``, ``Resync`` and ``Heartbeat`` items.

    Raises:
        Invalid: *url* is no address.
        Unavailable: The gateway could not be reached for so long.
        GatewayError: The gateway refuses this client (``Unauthorized``, ``Forbidden``,
            ``BadRequest``…).
    """
    dialer = Dialer(
        url, "/v1/events", token, open_within_s=open_within_s, give_up_after_s=give_up_after_s
    )
    wanted = filter_query(filter)
    position = since
    while True:
        connection = await dialer.dial([*wanted, ("since", position)] if position else wanted)
        if isinstance(connection, Closed):
            raise connection.error()
        closed: Closed | None = None
        try:
            if connection.hello.mode != "resume" and position:
                yield Resync(reason=connection.hello.reason or "")
            first, whole = True, connection.hello.mode == "resume"
            while not closed:
                match await connection.receive():
                    case SnapshotFrame() as page:
                        whole = not page.more
                        if whole:
                            position = page.position
                        yield Snapshot(
                            sessions=page.sessions,
                            first=first,
                            more=page.more,
                            position=page.position if whole else None,
                        )
                        first = whole
                    case EventsFrame() as frame:
                        position = frame.position
                        yield Changes(events=frame.events, position=position)
                    case protocol.ResyncMessage() as resync:
                        first, whole = True, False
                        yield Resync(reason=resync.reason)
                    case protocol.ServerHeartbeat() as beat if whole:
                        position = beat.position
                        yield Heartbeat(position=position, at=beat.at)
                    case Closed() as end:
                        closed = end
                    case _:
                        pass
        finally:
            await connection.close()
        if not dialer.connection_lost(connection, closed):
            raise closed.error()
