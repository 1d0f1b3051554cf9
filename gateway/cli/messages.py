"""``gateway messages send``: say something once to a session, a workspace or everybody."""

import sys
from typing import Annotated

from cyclopts import Parameter
from msgspec import DecodeError
from msgspec.json import decode

from gateway.cli.options import Reach
from gateway.cli.output import put
from gateway.client import Gateway
from gateway.core.errors import Invalid


async def send(
    topic: Annotated[str, Parameter(help="What the message is about.")],
    body: Annotated[
        str | None,
        Parameter(help="A JSON object; - reads it from stdin.", allow_leading_hyphen=True),
    ] = None,
    /,
    *,
    session: Annotated[str | None, Parameter(help="To the session of this id.")] = None,
    workspace: Annotated[str | None, Parameter(help="To all of this workspace.")] = None,
    everybody: Annotated[
        bool, Parameter(negative="", show_default=False, help="To all that are connected.")
    ] = False,
    reach: Reach = Reach(),  # noqa: B008 - immutable
) -> None:
    """Say something once to who is connected now; nobody else ever gets it."""
    if (session is not None) + (workspace is not None) + everybody != 1:
        raise Invalid("Say to whom: --session, --workspace or --everybody.")
    text = sys.stdin.read() if body == "-" else body
    try:
        said = None if text is None else decode(text)
    except DecodeError as error:
        raise Invalid(f"The body is not JSON: {error}") from None
    async with Gateway(reach.url, token=reach.shown_token()) as gateway:
        await gateway.send_message(topic, said, session=session, workspace=workspace)
    put("sent")
