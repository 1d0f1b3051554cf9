"""``gateway token``: make and check tokens, with the settings at hand and no gateway."""

import asyncio
import secrets
import sys
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Final

from cyclopts import Parameter
from msgspec.structs import replace

from gateway.auth.principals import BOUND_ADMIN, Authenticator, Principal, is_bound_admin
from gateway.auth.tokens import Claims, create_token
from gateway.cli.options import (
    Account,
    Duration,
    Json,
    Scopes,
    TokenFlags,
    Workspace,
    kept_key,
    read_settings,
)
from gateway.cli.output import note, now_ms, put, put_document, put_table
from gateway.core.errors import Invalid
from gateway.core.public import rfc3339
from gateway.settings import Settings

EXPIRES_S: Final = 86_400.0  # a lost token stays valid for a day
API_KEY_BYTES: Final = 32  # 256 bits cannot be guessed

_STDIN: Final = "-"


def create(
    *,
    scope: Scopes = (),
    account: Account = None,
    workspace: Workspace = None,
    expires: Annotated[
        Duration, Parameter(help="How long it is good.", show_default="1d")
    ] = EXPIRES_S,
    api_key: Annotated[
        str | None, Parameter(metavar="NAME", help="Make an API key instead; it does not expire.")
    ] = None,
    json: Json = False,
    flags: TokenFlags | None = None,
) -> None:
    """Make a token.

    It is signed with jwt_key, and written to stdout alone. An API key needs no jwt_key; stderr has
    what to add to the settings for it.
    """
    if is_bound_admin(scope, workspace):
        raise Invalid(BOUND_ADMIN)
    if api_key is not None:
        _create_api_key(api_key, scope, account, workspace, json=json)
        return
    settings, _ = read_settings(flags)
    now = now_ms()
    expires_at = now + round(expires * 1000)
    claims = Claims(
        account=account, workspace=workspace, scopes=frozenset(scope), expires_at=expires_at
    )
    token = create_token(settings, claims, now)
    if json:
        put_document({"token": token, "expires_at": rfc3339(expires_at)})
    else:
        put(token)


def _create_api_key(
    name: str, scopes: Scopes, account: str | None, workspace: str | None, *, json: bool
) -> None:
    token = secrets.token_urlsafe(API_KEY_BYTES)
    said = {
        "name": name,
        "sha256": sha256(token.encode()).hexdigest(),
        "scopes": list(scopes),
        "workspace": workspace,
        "account": account,
    }
    row = {key: value for key, value in said.items() if value is not None}
    if json:
        put_document({"token": token, "api_key": row})
        return
    put(token)
    note("Add this to the settings' file; the key itself is told only now:")
    note("[[api_keys]]")
    for key, value in row.items():
        note(f"{key} = {_toml(value)}")


def _toml(value: str | Sequence[str]) -> str:
    if not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    # A basic string (TOML 1.0): what is no printable ASCII but these two needs no escape in a name
    # that the settings accept, which has no control characters.
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def verify(
    token: Annotated[
        str, Parameter(help="The token; - or nothing reads it from stdin, unseen by others.")
    ] = _STDIN,
    /,
    *,
    json: Json = False,
    flags: TokenFlags | None = None,
) -> None:
    """Say what a token is good for under these settings; a refused one exits with 1."""
    settings, _ = read_settings(flags)
    text = sys.stdin.readline().strip() if token == _STDIN else token
    who = asyncio.run(_principal(settings, text))
    told = {
        "name": who.name,
        "scopes": sorted(who.scopes),
        "account": who.account,
        "workspace": who.workspace,
        "expires_at": None if who.expires_at is None else rfc3339(who.expires_at),
    }
    if json:
        put_document({key: value for key, value in told.items() if value is not None})
    else:
        told["scopes"] = " ".join(sorted(who.scopes))
        put_table(("CLAIM", "VALUE"), [row for row in told.items() if row[1] is not None])


async def _principal(settings: Settings, token: str) -> Principal:
    if not settings.has_auth:
        settings = replace(settings, admin_key=kept_key(settings.data_dir))
    authenticator = Authenticator(settings)
    now = now_ms()
    await authenticator.start(now)
    return await authenticator.authenticate(token, now)
