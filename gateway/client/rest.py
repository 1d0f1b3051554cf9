"""A thin client of the REST API: one method per request, JSON in and out, problems as exceptions.

It repeats no request by itself; the ``retry`` of an error says whether that makes sense. Every
reply is bounded in time and size.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import httpx2
from msgspec import DecodeError, to_builtins
from msgspec.json import Decoder

from gateway.client.connection import USER_AGENT, Tokens, TokenSource
from gateway.client.protocol import (
    Object,
    Query,
    address,
    filter_query,
    given,
    refusal,
    with_query,
)
from gateway.client.state import Session
from gateway.core.errors import OutcomeUnknown, Unavailable
from gateway.core.query import LIMIT_DEFAULT, Filter, Sort

REPLY_WITHIN_S: Final = 15.0  # for each step of a request: connect, send, next bytes
REPLY_MAX_BYTES: Final = 16 * 1024 * 1024  # of a reply; 1000 sessions of the largest size
_REDIRECTS_FROM: Final = 300  # not followed: a token goes to one place only
_READS: Final = frozenset({"GET", "HEAD"})

_object: Final = Decoder(Object)


class Gateway:
    """A gateway's REST API; use it with ``async with``.

    Every method raises what the gateway answers (a class of :mod:`gateway.client.errors`),
    ``Unavailable`` if it cannot be reached, and ``OutcomeUnknown`` if a write was sent and no reply
    came.

    Args:
        url: Where the gateway is, such as ``https://gateway.example``.
        token: A token, or a coroutine function that returns one: it is asked for each request.

    Attributes:
        position: The newest ``Gateway-Position`` of a reply. A read with this as ``at`` sees at
            least as much, on any node.

    Raises:
        Invalid: *url* is no address.
    """

    def __init__(self, url: str, *, token: TokenSource = None) -> None:
        self._root = address(url, "", socket=False)
        self._tokens = Tokens(token)
        self._http = httpx2.AsyncClient(
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            timeout=REPLY_WITHIN_S,
        )
        self.position: str | None = None

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def list_sessions(
        self,
        filter: Filter = Filter(),  # noqa: A002, B008 - the wire's word; immutable
        *,
        sort: Sort = Sort.CREATED_AT,
        limit: int = LIMIT_DEFAULT,
        at: str | None = None,
    ) -> AsyncIterator[Session]:
        """Yield every open session that matches *filter*, fetching *limit* at a time."""
        query = filter_query(filter) + given(sort=sort.value, limit=limit, at=at)
        async for session in self._pages("/v1/sessions", "sessions", query):
            yield session

    async def list_history(
        self,
        filter: Filter = Filter(),  # noqa: A002, B008 - the wire's word; immutable
        **parameters: str | int | None,
    ) -> AsyncIterator[Object]:
        """Yield closed sessions (``kind="session"``) or finished watches (``kind="watch"``).

        Args:
            filter: Whose; only its owners, labels and ``q`` are known to the history.
            **parameters: Those of the request, such as ``since``.
        """
        query = filter_query(filter) + given(**parameters)
        async for row in self._pages("/v1/history", "history", query):
            yield row

    async def get(self, session_id: str, *, at: str | None = None) -> Session:
        """Return a session.

        Raises:
            SessionClosed: It is closed; ``extra['session']`` is how it was last.
            NotFound: There is none of this id in view.
        """
        return await self._ask("GET", _path(session_id), given(at=at))

    async def open(self, body: Object, *, idempotency_key: str | None = None) -> Object:
        """Open a session without a connection; the answer holds its ``session_token``."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        return await self._ask("POST", "/v1/sessions", body=body, headers=headers)

    async def patch(
        self, session_id: str, changes: Object, *, revision: int | None = None
    ) -> Session:
        """Change a session by a merge patch and return it.

        Raises:
            RevisionMismatch: It no longer has this *revision*.
        """
        headers = {"If-Match": f'"{revision}"'} if revision is not None else None
        return await self._ask("PATCH", _path(session_id), body=changes, headers=headers)

    async def close(
        self,
        session_id: str,
        *,
        after_s: float | None = None,
        reason: str | None = None,
        extend_max_s: float | None = None,
    ) -> Object:
        """Close a session now, or warn it and close it *after_s* seconds later.

        Args:
            session_id: Which one.
            after_s: Seconds from now; a pending close is moved.
            reason: What its client and its watchers are told.
            extend_max_s: How much more its client may ask for, in seconds.
        """
        if extend_max_s is None:
            return await self._ask(
                "DELETE", _path(session_id), given(close_after=after_s, reason=reason)
            )
        body: Object = {"after_s": after_s or 0, "extend_max_s": extend_max_s}
        if reason is not None:
            body["reason"] = reason
        return await self._ask("PUT", _path(session_id, "closing"), body=body)

    async def close_all(
        self,
        filter: Filter,  # noqa: A002 - the wire's word
        *,
        after_s: float = 0,
        reason: str | None = None,
        rate_per_s: float | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> AsyncIterator[Object]:
        """Close every session of a filter, and yield how far it came; leaving the loop stops it.

        Each is ``{type: progress | done | aborted, selected, closed, …}``; the last is no
        ``progress``. A dry run only counts.
        """
        body = {"filter": filter, "after_s": after_s, "dry_run": dry_run}
        more = {"reason": reason, "rate_per_s": rate_per_s}
        body |= {name: value for name, value in more.items() if value is not None}
        headers = {"Accept": "application/x-ndjson"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        sent = to_builtins(body)
        async with self._reply("POST", "/v1/closings", None, sent, headers) as reply:
            async for line in reply.aiter_lines():
                yield _decoded(line)

    async def closing(self, session_id: str) -> Object:
        """Return the pending close of a session."""
        return await self._ask("GET", _path(session_id, "closing"))

    async def cancel(self, session_id: str) -> Object:
        """Cancel the pending close of a session.

        Raises:
            NotClosing: None is pending.
        """
        return await self._ask("DELETE", _path(session_id, "closing"))

    async def kick(self, session_id: str) -> Object:
        """End the connection of a session; the session stays.

        Raises:
            NotConnected: It has none.
        """
        return await self._ask("DELETE", _path(session_id, "connection"))

    async def send_message(
        self,
        topic: str,
        body: object = None,
        *,
        session: str | None = None,
        workspace: str | None = None,
    ) -> Object:
        """Say something to who is connected: one session, a workspace, or (neither given) all."""
        message = {"to": dict(given(session=session, workspace=workspace)), "topic": topic}
        return await self._ask(
            "POST", "/v1/messages", body=message if body is None else {**message, "body": body}
        )

    async def stats(self, *, window: int | None = None) -> Object:
        """Return the counts in this token's view; with ``admin`` also rates of *window* seconds."""
        return await self._ask("GET", "/v1/stats", given(window=window))

    async def nodes(self) -> Object:
        """Return the nodes and their leases; needs ``admin``."""
        return await self._ask("GET", "/v1/nodes")

    async def _pages(self, path: str, name: str, query: Query) -> AsyncIterator[Object]:
        cursor: str | None = None
        while True:
            page = await self._ask("GET", path, query + given(cursor=cursor))
            for row in page[name]:
                yield row
            cursor = page.get("next")
            if not cursor:
                return

    async def _ask(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Object:
        async with self._reply(method, path, query, body, headers) as reply:
            content = await _content(reply)
        self.position = reply.headers.get("Gateway-Position", self.position)
        return _decoded(content) if content else {}

    @asynccontextmanager
    async def _reply(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: object,
        headers: dict[str, str] | None,
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request, and yield the reply, which is no refusal, to be read."""
        token = await self._tokens.get()
        sent = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        url = with_query(self._root + path, query or [])
        try:
            async with self._http.stream(method, url, json=body, headers=sent) as reply:
                if reply.status_code >= _REDIRECTS_FROM:
                    raise refusal(reply.status_code, reply.headers, await _content(reply))
                yield reply
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise Unavailable(f"The gateway cannot be reached: {error}") from error
        except httpx2.RequestError as error:
            lost = Unavailable if method in _READS else OutcomeUnknown
            raise lost(f"There was no reply: {str(error) or type(error).__name__}") from error


async def _content(reply: httpx2.Response) -> bytes:
    content = bytearray()
    async for chunk in reply.aiter_bytes():
        content += chunk
        if len(content) > REPLY_MAX_BYTES:
            raise Unavailable(f"The reply has more than {REPLY_MAX_BYTES} bytes.")
    return bytes(content)


def _decoded(text: str | bytes) -> Object:
    try:
        return _object.decode(text)
    except DecodeError as error:
        raise Unavailable("The reply is no JSON object.") from error


def _path(session_id: str, *more: str) -> str:
    return "/".join(("/v1/sessions", quote(session_id, safe=""), *more))
