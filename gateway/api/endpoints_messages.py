"""Messages over REST: sent once to the live connections of a session, a workspace or all.

A message is not stored, so clients that are not connected do not get it.
"""

from typing import Final

from msgspec.json import encode
from starlette.responses import Response

from gateway.api.schema import MessageBody, given
from gateway.auth.principals import Principal, Scope
from gateway.core.document import MESSAGE_MAX_BYTES, Message, Recipients
from gateway.core.errors import Invalid, NotFound, SessionClosed
from gateway.core.model import check_object
from gateway.http.endpoint import AnyEndpoint, Call, Endpoint, Nothing


async def send_message(call: Call[Principal, Nothing, MessageBody]) -> Response:
    """Say something once."""
    body, principal = call.body, call.caller
    session_id, workspace = given(body.to.session), given(body.to.workspace)
    if session_id is not None and workspace is not None:
        raise Invalid("A message goes to a session or to a workspace, not to both.")
    if session_id is not None:
        session = await call.node.find(session_id)
        if not principal.visibility().allows(session):
            raise NotFound
        principal.require_in(session.workspace)
    else:
        principal.require_in(workspace)
    check_object(body.body, "body", nulls=True)
    if len(encode(body.body)) > MESSAGE_MAX_BYTES:
        raise Invalid(f"`body` holds at most {MESSAGE_MAX_BYTES} bytes.")
    to = Recipients(session=session_id, workspace=workspace)
    sender = principal.account or principal.name
    await call.node.publish(Message(to=to, topic=body.topic, body=body.body, sender=sender))
    return Response(status_code=204)


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = (
    Endpoint(
        "POST", "/v1/messages", send_message, "Say something once to live connections",
        body=MessageBody, returns={204: None}, errors=(NotFound, SessionClosed), scope=Scope.WRITE,
        tag="messages",
    ),
)  # fmt: skip
