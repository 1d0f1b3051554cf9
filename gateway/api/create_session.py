"""Create session: ``POST /v1/sessions`` opens a session without a connection.

With an Idempotency-Key the id and the secret are derived from the key and the caller, so a repeat
finds the session and returns the same ``session_token``, although only its hash is stored.

Not here: opening by a socket (``connect``).
"""

import hmac
import secrets
from base64 import urlsafe_b64encode
from typing import Final

from msgspec import UNSET, to_builtins
from msgspec.json import encode
from msgspec.structs import asdict
from starlette.responses import Response

from gateway.api.access import OWN_FIELDS, listed, owner_of
from gateway.api.idempotency import NativeCall, idempotency_key, identity, operation_of
from gateway.api.schema import NewSession, OpenedSession, given
from gateway.auth.principals import Principal, Scope, hash_secret, mint_session_secret
from gateway.core.errors import Forbidden, IdUnavailable, LimitExceeded, NotFound, SessionClosed
from gateway.core.model import (
    STREAMS_MAX,
    Client,
    Private,
    Profile,
    Session,
    Stream,
    Watch,
    new_session,
)
from gateway.core.public import render_session
from gateway.http.endpoint import Call, Nothing, reply

_AS_GIVEN: Final = (
    *("name", "service", "phase"),
    *("linger_ms", "grace_ms", "keepalive_ms", "ttl_ms"),
)


async def open_session(call: Call[Principal, Nothing, NewSession]) -> Response:
    """Open a session without a connection."""
    node, body, principal = call.node, call.body, call.caller
    may_all = principal.has(Scope.WRITE)
    if principal.session is not None or not (may_all or principal.has(Scope.CONNECT)):
        raise Forbidden("The scope connect or write is needed to open a session.")
    named = frozenset(to_builtins(body))
    if not may_all and not named <= OWN_FIELDS | {"account", "workspace"}:
        forbidden = named - OWN_FIELDS - {"account", "workspace"}
        raise Forbidden(f"The scope write is needed to set {listed(forbidden)}.")
    account, workspace = owner_of(principal, given(body.account), given(body.workspace))
    op = operation_of(call, None)
    session_id, secret = _identifiers(call, given(body.id))
    wanted = _new_session(body, session_id, account, workspace, hash_secret(secret))
    try:
        session = await node.open(wanted, op=op)
    except IdUnavailable:
        await _check_repeat(call, session_id)
        raise
    opened = asdict(render_session(session, full=principal.is_full))
    location = f"{call.request.scope.get('root_path', '')}/v1/sessions/{session.id}"
    return reply(
        OpenedSession(**opened, session_token=f"{session.id}.{secret}"),
        201,
        {"ETag": f'"{session.revision}"', "Location": location},
    )


def _identifiers(call: NativeCall, wanted: str | None) -> tuple[str, str]:
    """Return the id and secret of a new session; an Idempotency-Key gives the same ones again."""
    key = idempotency_key(call)
    if key is None:
        return wanted or uuid7(call.node.now_ms(), secrets.randbits(74)), mint_session_secret()

    def derived(purpose: str) -> bytes:
        text = encode([purpose, key, wanted, *identity(call.caller)])
        return hmac.digest(call.node.secret, text, "sha256")

    secret = urlsafe_b64encode(derived("session secret")).rstrip(b"=").decode()
    # Not the current time, so that a later repeat gets the same id.
    return wanted or derived("session id").hex()[:32], secret


def uuid7(now_ms: int, random: int) -> str:
    """Return a UUID of version 7 (RFC 9562 section 5.7) as text.

    Args:
        random: 74 random bits.
        now_ms: Milliseconds since the Unix epoch.
    """
    high, low = random >> 62, random & ((1 << 62) - 1)
    number = (now_ms << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


async def _check_repeat(call: NativeCall, session_id: str) -> None:
    """Say what is wrong with an id that is taken, if it is by the same Idempotency-Key.

    Raises:
        IdempotencyMismatch: The record remembers the key with another request.
    """
    try:
        found = await call.node.find(session_id)
    except SessionClosed as error:
        if not isinstance(error.record, Session):
            raise
        found = error.record
    except NotFound:
        return
    if call.caller.visibility().allows(found) or call.caller.owns(found):
        operation_of(call, found)


def _new_session(
    body: NewSession, session_id: str, account: str | None, workspace: str | None, token_hash: str
) -> Session:
    fields = {name: value for name in _AS_GIVEN if (value := getattr(body, name)) is not UNSET}
    return new_session(
        session_id,
        account=account,
        workspace=workspace,
        labels=body.labels,
        attributes=body.attributes,
        profile=Profile(**asdict(body.profile)) if body.profile is not UNSET else None,
        client=Client(**to_builtins(body.client)) if body.client is not UNSET else None,
        members=tuple(dict.fromkeys(body.members)),
        watch=Watch(**to_builtins(body.watch)) if body.watch is not UNSET else None,
        streams=_streams(body),
        private=Private(token_hash=token_hash),
        **fields,
    )


def _streams(body: NewSession) -> tuple[Stream, ...]:
    streams = {stream.key: Stream(**to_builtins(stream)) for stream in body.streams}
    if len(streams) > STREAMS_MAX:
        raise LimitExceeded(f"A session has at most {STREAMS_MAX} streams.")
    return tuple(streams.values())
