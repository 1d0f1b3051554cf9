"""Session client: reports activity, gets close warnings, and reconnects by itself.

This is the public API; ``session_runner`` keeps the connection, with its promises and bounds.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import UNSET, UnsetType

from gateway.client.connection import (
    CLOSE_WITHIN_S,
    GIVE_UP_AFTER_S,
    OPEN_WITHIN_S,
    Dialer,
    TokenSource,
)
from gateway.client.disconnect import Closed
from gateway.client.protocol import given, labels_query
from gateway.client.session_runner import CALL_WITHIN_S, LinkState, SessionRunner
from gateway.client.state import Session
from gateway.core import protocol
from gateway.core.errors import SessionClosed

N = TypeVar("N")
Handler = Callable[[N], object]
"""A function or coroutine function that is called with a notice, one notice at a time."""


class SessionClient:
    """One client's presence; made by :func:`connect`, used with ``async with``.

    Entering waits for the first connection. Leaving the block closes the connection: the session is
    ``away`` until its linger time is over, so that a program that is restarted finds it again;
    :meth:`leave` ends it at once.

    Every method that says something returns when the gateway has accepted it. It raises what the
    gateway answers (a class of :mod:`gateway.client.errors`); ``Unavailable`` if there was no
    connection in time, ``OutcomeUnknown`` if it was said and no answer came in time;
    ``PayloadTooLarge`` above 64 KiB; ``Overloaded`` if 256 others await their answer; and what the
    end means, such as ``SessionClosed``, once this client has ended.
    """

    def __init__(self, runner: SessionRunner) -> None:
        self._runner = runner
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> LinkState:
        """Where this client stands with the gateway."""
        return self._runner.state

    @property
    def session(self) -> Session:
        """The session as the last hello showed it, with all since folded in that was accepted."""
        return self._runner.session

    @property
    def id(self) -> str:
        """The session's id."""
        return str(self._runner.session["id"])

    @property
    def session_token(self) -> str | None:
        """With this another program can come back as this session; a secret."""
        return self._runner.session_token

    @property
    def notices_dropped(self) -> int:
        """How many notices came while 256 others waited for their handler."""
        return self._runner.notices_dropped

    @property
    def closed(self) -> Closed | None:
        """How this client ended for good; ``None`` while it has not."""
        return self._runner.closed

    async def wait_closed(self) -> Closed:
        """Wait until this client has ended for good and return how.

        That is: the gateway said not to come back, it was not reached for ``give_up_after_s``, or
        the block was left.
        """
        return await asyncio.shield(self._runner.over)

    async def watch(
        self,
        key: str,
        *,
        title: str | None = None,
        kind: str | None = None,
        state: str | None = None,
        position_ms: int | None = None,
        duration_ms: int | None = None,
        bandwidth: int | None = None,
        item: dict[str, Any] | None = None,
    ) -> None:
        """Say what this client looks at or plays now; replaces what it watched before."""
        await self._runner.send(
            protocol.WatchMessage(
                key=key,
                title=title,
                kind=kind,
                state=state,
                position_ms=position_ms,
                duration_ms=duration_ms,
                bandwidth=bandwidth,
                item=item,
            )
        )

    async def progress(
        self,
        position_ms: int | None = None,
        *,
        state: str | None = None,
        bandwidth: int | None = None,
    ) -> None:
        """Say where in it this client is; accepted at once, seen by others within 5 s.

        Raises:
            NotWatching: This client watches nothing.
        """
        await self._runner.send(
            protocol.ProgressMessage(position_ms=position_ms, state=state, bandwidth=bandwidth)
        )

    async def unwatch(self) -> None:
        """Say that this client looks at nothing."""
        await self._runner.send(protocol.UnwatchMessage())

    async def update(
        self,
        *,
        name: str | UnsetType | None = UNSET,
        labels: Mapping[str, str | None] | UnsetType | None = UNSET,
        attributes: Mapping[str, Any] | UnsetType | None = UNSET,
        client: Mapping[str, str | None] | UnsetType | None = UNSET,
    ) -> None:
        """Change what is given, as a merge patch: ``None`` removes, also inside a map."""
        changes = protocol.UpdateChanges(
            name=name,
            labels=dict(labels) if isinstance(labels, Mapping) else labels,
            attributes=dict(attributes) if isinstance(attributes, Mapping) else attributes,
            client=protocol.ClientChanges(**client) if isinstance(client, Mapping) else client,
        )
        await self._runner.send(protocol.UpdateMessage(changes=changes))

    async def stream(
        self,
        key: str,
        kind: str,
        *,
        state: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Start or change a related job; the state ``stopped`` ends it."""
        await self._runner.send(
            protocol.StreamMessage(key=key, kind=kind, state=state, data=dict(data or {}))
        )

    async def saving(self) -> None:
        """Answer a warning: heard, saving.

        Raises:
            NotClosing: No close is pending.
        """
        await self._runner.send(protocol.SavingMessage())

    async def need_more(self, ms: int) -> None:
        """Ask for *ms* milliseconds from now until the close.

        Raises:
            ExtensionRefused: The close may not be extended further.
            NotClosing: No close is pending.
        """
        await self._runner.send(protocol.NeedMoreMessage(ms=ms))

    async def saved(self) -> None:
        """Answer a warning: saved, close now. Returns when the session is closed.

        Raises:
            NotClosing: No close is pending.
        """
        await self._finish(protocol.SavedMessage())

    async def leave(self) -> None:
        """Close the session, now and for good."""
        await self._finish(protocol.LeaveMessage())

    async def _finish(self, message: protocol.FromClient) -> None:
        with suppress(SessionClosed):  # which is what was wanted
            await self._runner.send(message)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self.wait_closed()

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._runner.run()),
            asyncio.create_task(self._runner.handle()),
        ]
        try:
            await self._runner.started.wait()
            if closed := self._runner.closed:
                raise closed.error()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


def connect(
    url: str,
    *,
    token: TokenSource = None,
    session: str | None = None,
    session_token: str | None = None,
    name: str | None = None,
    workspace: str | None = None,
    labels: Mapping[str, str] | None = None,
    on_closing: Handler[protocol.ClosingNotice] | None = None,
    on_close_extended: Handler[protocol.CloseExtendedNotice] | None = None,
    on_close_cancelled: Handler[protocol.CloseCancelledNotice] | None = None,
    on_message: Handler[protocol.MessageNotice] | None = None,
    on_stop_stream: Handler[protocol.StopStream] | None = None,
    reopen: bool = False,
    open_within_s: float = OPEN_WITHIN_S,
    give_up_after_s: float = GIVE_UP_AFTER_S,
    call_within_s: float = CALL_WITHIN_S,
) -> SessionClient:
    """Be a session, as long as ``async with`` is not left.

    Args:
        url: Where the gateway is, such as ``https://gateway.example`` or ``wss://example/prefix``.
        token: A token with ``connect``, or a coroutine function that returns a fresh one: it is
            asked for each connection and before a JWT expires.
        session: The id of the session to be; without it a new one is opened.
        session_token: Proves that this may be that *session*; from an earlier ``me.session_token``.
        name: What others see; like *workspace* and *labels* for a new session only.
        workspace: Where a new session belongs.
        labels: By which others can filter it.
        on_closing: The session is to be closed: save, then ``saved()``, or ask with
            ``need_more()``.
        on_close_extended: The close was put off.
        on_close_cancelled: There will be no close.
        on_message: A message came.
        on_stop_stream: Another caller ended a stream, whose job should stop.
        reopen: When the session ended while this client was away, be a new one and say again what
            was said last, instead of ending with ``SessionClosed``.
        open_within_s: Seconds to try for the first connection; 0 is one attempt.
        give_up_after_s: Seconds to try for each later one.
        call_within_s: Seconds until something said fails without an answer.

    Raises:
        Invalid: *url* is no address.
        Unavailable: On entering: the gateway could not be reached in time.
        GatewayError: On entering: it refuses this client (``Unauthorized``, ``Forbidden``,
            ``SessionClosed``…).
    """
    return SessionClient(
        SessionRunner(
            Dialer(
                url,
                "/v1/connect",
                token,
                open_within_s=open_within_s,
                give_up_after_s=give_up_after_s,
            ),
            given(name=name, workspace=workspace) + labels_query(labels or {}),
            session_id=session,
            session_token=session_token,
            reopen=reopen,
            call_within_s=call_within_s,
            handlers={
                protocol.ClosingNotice: on_closing,
                protocol.CloseExtendedNotice: on_close_extended,
                protocol.CloseCancelledNotice: on_close_cancelled,
                protocol.MessageNotice: on_message,
                protocol.StopStream: on_stop_stream,
            },
        )
    )
