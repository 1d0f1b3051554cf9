"""People in Webida's way: log in, who am I, another token."""

from typing import Final, Literal

from msgspec import UNSET
from starlette.responses import Response

from gateway.core.errors import BadRequest
from gateway.dialects.webida.door import Call, reply
from gateway.dialects.webida.reading import one, read_credential, workspace_of
from gateway.dialects.webida.shapes import User
from gateway.dialects.webida.tokens import Kind

TYPES: Final[dict[str, Kind]] = {"MASTER": "M", "ACCESS": "A"}

TokenType = Literal["MASTER", "ACCESS"]


async def login(call: Call) -> Response:
    """Return an ACCESS token to who shows a password or a MASTER token."""
    given = await read_credential(call.scope, call.receive)
    token = await call.access.login(
        call.scope, given.loginId, given.loginPassword, given.masterToken
    )
    return _secret(reply(token))


async def get_info(call: Call) -> Response:
    """Return who the caller is."""
    principal = call.principal
    known = principal.account or principal.name
    email = known if "@" in known else UNSET
    return reply(User(id=known, email=email, name=principal.name))


async def issue_token(call: Call) -> Response:
    """Return another token: a new ACCESS token of the same session, or a MASTER token."""
    text = one(call.pairs, "type")
    if text is None:
        raise BadRequest('"type" is required')
    kind = TYPES.get(text)
    if kind is None:
        raise BadRequest('"type" must be one of [MASTER, ACCESS]')
    token = await call.access.renew(call.caller, kind, workspace_of(call.pairs))
    return _secret(reply(token))


def _secret(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
