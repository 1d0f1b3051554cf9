"""Acme Rooms: a made-up product, to show what a sixth one costs.

It lists rooms, shows one, closes one after a while, and has a socket on which a client says
``look`` and ``leave`` and hears ``welcome`` and ``closing``. What holds at every door it inherits.
"""

from collections.abc import Mapping
from secrets import token_hex
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import Decoder, encode
from starlette.responses import Response
from starlette.types import Scope as AsgiScope

from gateway.auth.credentials import read_credential
from gateway.auth.principals import Principal, Scope
from gateway.connections.lifecycle import ServerClose
from gateway.context import Context, caller_key
from gateway.core.command import Close, RequestClose, StartWatch
from gateway.core.errors import GatewayError, NotFound
from gateway.core.event import ClosingScheduled
from gateway.core.frames import TEXT, frame
from gateway.core.model import Session, Watch, new_session
from gateway.core.public import rfc3339
from gateway.core.query import View
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, EndpointTable, Nothing, reply
from gateway.http.openapi import Description, described
from gateway.http.pipeline import Application, Pipeline
from gateway.http.request import Request, read_pairs, read_query
from gateway.http.style import Reading, TableStyle, Traits
from gateway.node import Subscription
from gateway.realtime import handshake
from gateway.realtime.codec import Announcement, ClosingFrames, HeartbeatRule
from gateway.realtime.connection import WebSocketConnection
from gateway.realtime.session_socket import SessionSocket


class Room(Struct, frozen=True):
    """A session in the product's words."""

    room: str
    state: Literal["open", "closing"]


class Oops(Struct, frozen=True):
    """An error in the product's words."""

    oops: str


class After(Struct, frozen=True):
    """When a room is closed."""

    seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


class Said(Struct, frozen=True):
    """What a client says on the socket."""

    say: Literal["look", "leave"]
    at: str = ""


_Call = Call[Principal, Any, Any]

_said: Final = Decoder(Said)


def _room(session: Session) -> Room:
    return Room(room=session.id, state="closing" if session.closing else "open")


async def _seen(call: _Call) -> Session:
    session = await call.node.find(call.path["room"])
    if not call.caller.visibility().allows(session):
        raise NotFound
    return session


async def _list_rooms(call: _Call) -> Response:
    view = View(visibility=call.caller.visibility())
    return reply([_room(one) for one in call.node.all_in(view)])


async def _get_room(call: _Call) -> Response:
    return reply(_room(await _seen(call)))


async def _close_room(call: _Call) -> Response:
    session = await _seen(call)
    at = call.node.now_ms() + round(call.query.seconds * 1000)
    command = RequestClose(at=at) if call.query.seconds else Close()
    return reply(_room(await call.node.apply(session.id, command)))


def _row(method: str, path: str, handler: Any, returns: Any, **more: Any) -> AnyEndpoint:  # noqa: ANN401
    return Endpoint(method=method, path=path, handler=handler, returns={200: returns}, **more)


ENDPOINTS: Final = (
    _row("GET", "/rooms", _list_rooms, list[Room], scope=Scope.READ),
    _row("GET", "/rooms/{room}", _get_room, Room, errors=(NotFound,)),
    _row("DELETE", "/rooms/{room}", _close_room, Room, query=After, scope=Scope.CLOSE),
)
ABOUT: Final = Description(
    title="Acme Rooms",
    text="Rooms.",
    security_schemes={"token": {"type": "http", "scheme": "bearer"}},
    failure=Oops,
)


def _refusal(error: GatewayError, _where: object = None) -> Response:
    return reply(Oops(error.title), error.status)


class _Style(TableStyle[Principal]):
    traits = Traits(nobody=Principal(name="anybody"))

    def __init__(self, context: Context, table: EndpointTable) -> None:
        super().__init__(table)
        self._context = context

    async def credential(self, request: Request, _endpoint: AnyEndpoint | None) -> Principal:
        return await self._context.principal_of(read_credential(request.scope))

    async def read(
        self, endpoint: AnyEndpoint, request: Request, _names: Mapping[str, str]
    ) -> Reading:
        return Reading(read_query(read_pairs(request.scope), endpoint.query, ()), Nothing())

    def refuse(self, error: GatewayError, _request: Request, _who: Principal | None) -> Response:
        return _refusal(error)


class _Codec:
    shares_frames = False

    def receive(self, data: str | bytes) -> Said:
        try:
            return _said.decode(data)
        except MsgspecError:
            raise ServerClose(4503, "bad_request") from None

    def greet(self, subject: Session | Subscription, _token: str | None) -> bytes:
        return _frame(hear="welcome", room=subject.id if isinstance(subject, Session) else "")

    def notify(self, notice: Announcement) -> bytes:
        if isinstance(notice, ClosingScheduled):
            return _frame(hear="closing", at=rfc3339(notice.closing.at))
        return b""

    def heartbeat(self, _subscription: Subscription | None) -> bytes:
        return b""

    def close(self, ended: ServerClose) -> ClosingFrames:
        return ClosingFrames(code=int(ended.code), reason=ended.reason)


def _frame(**said: str) -> bytes:
    return frame(TEXT, encode(said))


class _Socket(SessionSocket[Said]):
    async def handle(self, message: Said) -> None:
        watch = StartWatch(watch=Watch(key=message.at or "room"), via=self.connection_id)
        leave = Close(outcome="left", via=self.connection_id)
        await self.node.apply(self.session.id, watch if message.say == "look" else leave)


def application(context: Context, root: str) -> Application:
    """Return what serves the product."""

    async def admit(scope: AsgiScope) -> handshake.Admission[Said]:
        credential = read_credential(scope)
        handshake.check_admissible(context, scope, credential)
        asking = context.principal_of(credential)
        principal = await context.rate_limited(scope, asking, caller_key)
        principal.require(Scope.CONNECT)

        async def serve(connection: WebSocketConnection[Said]) -> None:
            socket = _Socket(context, connection, handshake.new_connection(context, scope))
            await socket.open(
                new_session(token_hex(), account=principal.account, workspace=principal.workspace)
            )
            socket.begin()

        beat = HeartbeatRule(interval_s=context.settings.heartbeat_s)
        return handshake.Admission(codec=lambda _: _Codec(), serve=serve, heartbeat=beat)

    table = EndpointTable(described(ENDPOINTS, ABOUT, root))
    return Application(
        http=Pipeline(context, _Style(context, table)),
        sockets={"/socket": handshake.WebSocketEndpoint(context, admit, _refusal)},
    )


async def run(_: Context) -> None:
    """Do nothing beside."""
