"""Arrival: how a client comes to its session, new or come back to.

It comes in once its namespace is asked for. The token says which session it is: unknown, it is
opened with this id; open and without a client, it is come back to.

Of two clients of one session the first one stays, as in the product. But a first one whose network
has gone looks alive until a ping is not answered, and a client that is refused stays away for ever.
So the second one contests the session: the node that holds the first one pings it at once and says
when it has answered. The second one comes in as soon as the record says that the first has gone; it
is refused ``RACE_S`` after the first has proved that it lives. A page that is reloaded opens its
new socket before the old one is closed, so a refusal does not follow at once.

Not here: what is told to who may not come in (``visit``), tokens (``access``).
"""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from msgspec import ValidationError, convert
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import client_address, headers, networks
from gateway.auth.principals import Principal, Scope, may_attach
from gateway.connections.lifecycle import ServerClose
from gateway.context import Context, caller_key
from gateway.core.command import Connect
from gateway.core.document import Message, Recipients
from gateway.core.errors import (
    AlreadyConnected,
    BadRequest,
    CloseCode,
    Forbidden,
    IdUnavailable,
    LimitExceeded,
    NotFound,
    SessionClosed,
    Unauthorized,
)
from gateway.core.model import Client, Connection, Name, Session, SessionId
from gateway.dialects.webida.access import INVALID, Access, Caller, may_enter, new_id
from gateway.dialects.webida.line import EngineLine
from gateway.live.hub import Mailbox

LINGER_MS: Final = 150_000  # clients of the product come back for up to 149.5 s, then give up
JOIN_WITHIN_S: Final = 10.0  # for a client to ask for its namespace
OPEN_ATTEMPTS: Final = 2  # an id that somebody takes meanwhile is attached to the second time
RACE_S: Final = 1.0  # for a first client that lives to go, before the second one is refused
SLACK_S: Final = 1.0  # for the news that the first client is dead
CONTESTED: Final = "webida:contested"  # topics of messages that no client hears
ALIVE: Final = "webida:alive"
USER_AGENT_MAX: Final = 512  # characters that are kept of it
PRODUCT: Final = "Webida"

NO_TOKEN: Final = "need token"  # noqa: S105 - the product's words


class Arrival:
    """One client on its way into its session.

    Args:
        context: The node and its surroundings.
        access: Tokens.
        line: The connection.
        scope: The ASGI scope of its request.
        connection_id: What it is called in the record.
        pairs: The parameters of its request.
    """

    def __init__(
        self,
        *,
        context: Context,
        access: Access,
        line: EngineLine,
        scope: AsgiScope,
        connection_id: str,
        pairs: list[tuple[str, str]],
    ) -> None:
        self.connection_id = connection_id
        self.stack = ExitStack()  # closed when the connection has left the record
        self.tried: str | None = None  # the session whose record may name this connection
        self._context = context
        self._node = context.node
        self._access = access
        self._line = line
        self._scope = scope
        self._pairs = pairs
        self._commit: asyncio.Task[Session] | None = None

    async def settled(self) -> None:
        """Return when nothing is on its way to the store any more."""
        if self._commit is not None:
            await asyncio.wait({self._commit})

    async def come_in(self) -> tuple[Session, Mailbox]:
        """Return the session of this client, with this connection, and its news since then.

        Raises:
            Goodbye: The client did not ask for its namespace.
            RateLimited: Too many come of this caller, or too many bad tokens of its address.
            GatewayError: It may not come in, or not now.
        """
        try:
            async with asyncio.timeout(JOIN_WITHIN_S):
                joining = await self._line.joined
        except TimeoutError:
            raise ServerClose(CloseCode.BAD_REQUEST, "no_namespace") from None
        query = {**dict(self._pairs), **dict(joining.query)}
        if not query.get("token"):
            raise Unauthorized(NO_TOKEN)
        caller = await self._context.rate_limited(
            self._scope,
            self._access.visitor(query["token"]),
            lambda caller: caller_key(caller.principal),
        )
        self._line.expire_at(caller.principal.expires_at, self._context.wall_ms)
        wanted = _named(query, "sessionId", SessionId) or caller.principal.session
        workspace = _named(query, "workspaceId", Name)
        for attempt in range(OPEN_ATTEMPTS):
            session = await self._find(caller, wanted)
            if session is not None:
                if workspace not in (None, session.workspace):
                    raise Forbidden
                return await self._come_back(session, own=session.id == caller.principal.session)
            try:
                return await self._open(caller, wanted or new_id(), workspace)
            except IdUnavailable:  # somebody else opened it just now
                if attempt + 1 == OPEN_ATTEMPTS:
                    raise
        raise IdUnavailable

    async def _find(self, caller: Caller, session_id: str | None) -> Session | None:
        """Return the open session that the caller may attach to; ``None`` if it may open one.

        Raises:
            SessionClosed: It is closed, and was the caller's.
            Forbidden: It is somebody else's.
            Unauthorized: There is none, and the token has expired.
        """
        principal = caller.principal
        own = session_id is not None and session_id == principal.session
        session = None
        try:
            if session_id is not None:
                session = await self._node.find(session_id)
        except NotFound:
            pass
        except SessionClosed:
            if not own:
                raise Forbidden from None
            raise
        if caller.is_expired and not (own and session is not None):
            raise Unauthorized(INVALID)
        if session is None:
            if not own and session_id is not None and not principal.has(Scope.WRITE):
                raise Forbidden
        elif not (own and principal.covers(session.workspace)) and not may_attach(
            session, principal, None
        ):
            raise Forbidden
        return session

    async def _come_back(self, session: Session, *, own: bool) -> tuple[Session, Mailbox]:
        """Attach to *session* once no client is there.

        Raises:
            AlreadyConnected: One is, and alive.
            SessionClosing: It is closing, and its client was there when that was asked for.
            GatewayError: As ``Node.apply``.
        """
        settings = self._context.settings
        patience_s = settings.heartbeat_s + settings.pong_s + SLACK_S
        until_s = asyncio.get_running_loop().time() + patience_s
        connect = Connect(connection=self._connection(), displace=False, readmit=own)
        with self._attaching(session) as box:
            while True:
                try:
                    return await self._committed(self._node.apply(session.id, connect)), box
                except AlreadyConnected:
                    if not await self._first_goes(box, until_s):
                        raise

    async def _first_goes(self, box: Mailbox, until_s: float) -> bool:
        """Contest the session; return whether its client has gone, or stays.

        Args:
            box: What happens to the session.
            until_s: When to give up, by the loop's time, if the client does not prove to live.
        """
        loop, first = asyncio.get_running_loop(), self._first(box.session_id)
        if first is None:
            return True
        await self._node.publish(about(box.session_id, CONTESTED, first))
        try:
            async with asyncio.timeout_at(until_s) as patience:
                while True:
                    notice = await box.get()
                    said = notice.message
                    if said is None and self._first(box.session_id) != first:
                        return True
                    if said is not None and (said.topic, said.body) == (ALIVE, first):
                        patience.reschedule(min(until_s, loop.time() + RACE_S))
        except TimeoutError:
            return self._first(box.session_id) != first

    def _first(self, session_id: str) -> str | None:
        """Return the connection that a session has now."""
        session = self._node.replica.sessions.get(session_id)
        held = session.connection if session and session.is_connected else None
        return held.id if held else None

    async def _open(
        self, caller: Caller, session_id: str, workspace: str | None
    ) -> tuple[Session, Mailbox]:
        """Open the session with this connection.

        Raises:
            Forbidden: The token does not allow it, or not in that workspace.
            LimitExceeded: There are as many sessions as may be.
            GatewayError: As ``Node.open``.
        """
        principal = caller.principal
        workspace = workspace or principal.workspace
        if caller.is_session:
            raise Forbidden
        if not (principal.has(Scope.CONNECT) or principal.has(Scope.WRITE)):
            raise Forbidden
        if workspace is not None and not may_enter(principal, workspace):
            raise Forbidden
        if len(self._node.replica.sessions) >= self._context.settings.max_sessions:
            raise LimitExceeded
        session = _new_session(principal, session_id, workspace, self._connection())
        with self._attaching(session) as box:
            return await self._committed(self._node.open(session)), box

    @contextmanager
    def _attaching(self, session: Session) -> Iterator[Mailbox]:
        """Hear what happens to *session*, from now on or until attaching fails."""
        with ExitStack() as stack:
            stack.enter_context(self._node.holding(session.id, self.connection_id))
            box = stack.enter_context(self._node.hub.mailbox(session))
            self.tried = session.id
            yield box
            self.stack.enter_context(stack.pop_all())

    async def _committed(self, work: Coroutine[Any, Any, Session]) -> Session:
        """Return what *work* writes; a client that leaves meanwhile does not stop it halfway."""
        self._commit = asyncio.ensure_future(work)
        return await asyncio.shield(self._commit)

    def _connection(self) -> Connection:
        node, scope = self._node, self._scope
        peer = client_address(scope, networks(self._context.settings.trusted_proxies))
        agents = headers(scope, b"user-agent")
        return Connection(
            id=self.connection_id,
            node=node.id,
            connected_at=node.clock.now_ms(),
            address=peer.address,
            port=peer.port,
            tls=peer.tls,
            user_agent=agents[0][:USER_AGENT_MAX] if agents else None,
        )


def about(session_id: str, topic: str, connection_id: str) -> Message:
    """Return what the two sides of a contest say of the session's first connection."""
    return Message(to=Recipients(session=session_id), topic=topic, body=connection_id)


def _named(query: Mapping[str, str], name: str, kind: Any) -> str | None:  # noqa: ANN401 - a type
    text = query.get(name)
    if not text:
        return None
    try:
        found: str = convert(text, kind)
    except ValidationError as error:
        raise BadRequest(f'"{name}" is not acceptable') from error
    return found


def _new_session(
    principal: Principal, session_id: str, workspace: str | None, connection: Connection
) -> Session:
    return Session(
        id=session_id,
        number=0,
        revision=0,
        created_at=0,
        name=principal.name,
        account=principal.account,
        workspace=workspace,
        client=Client(product=PRODUCT),
        linger_ms=LINGER_MS,
        connection=connection,
    )
