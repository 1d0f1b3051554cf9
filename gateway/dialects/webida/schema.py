"""Schema: the objects of Webida's API, as types. Pure.

The API has two generations. In *A* (0.2 to 0.5, July 2016) a lost client may reconnect: it is
``LOSING`` until ``willLoseAt``. In *C* (0.8, August 2016, which the published client uses) a
session that is disconnected is ``TERMINATED``. Dates are those of ECMAScript, with milliseconds and
``Z``: the published client replaces the ``T`` by a blank and would read a date without a zone as
local. It also turns ``null`` into the text "null", so what is unset is left out; only
``disconnectedAt``, which A requires, is null before the first loss.

Not here: how a session becomes one of them (``render``).
"""

from enum import StrEnum
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from gateway.core.model import Name


class StateA(StrEnum):
    """States of generation A."""

    NORMAL = "NORMAL"
    LOSING = "LOSING"
    CLOSING = "CLOSING"


class StateC(StrEnum):
    """States of generation C."""

    NORMAL = "NORMAL"
    CLOSING = "CLOSING"
    TERMINATED = "TERMINATED"


class SessionA(Struct, frozen=True, kw_only=True, rename="camel"):
    """A session in generation A.

    ``workspace_id`` is left out when there is none, ``disconnected_at`` is null while the client is
    connected. ``will_close_at`` stands only while a close is pending, ``will_lose_at`` while a lost
    client may come back.
    """

    id: str
    name: str
    state: StateA
    workspace_id: str | UnsetType = UNSET
    client_address: str
    connected_at: str
    disconnected_at: str | None = None
    will_close_at: str | UnsetType = UNSET
    will_lose_at: str | UnsetType = UNSET


class SessionC(Struct, frozen=True, kw_only=True, rename="camel"):
    """A session in generation C."""

    id: str
    name: str
    state: StateC
    workspace_id: str | UnsetType = UNSET
    client_address: str
    connected_at: str
    will_close_at: str | UnsetType = UNSET


class Token(Struct, frozen=True, kw_only=True, rename="camel"):
    """A token and its claims; ``session_id`` stands in every ACCESS token of ours."""

    text: str
    token_type: Literal["MASTER", "ACCESS"]
    expires_at: str
    issued_at: str
    session_id: str | UnsetType = UNSET
    workspace_id: str | UnsetType = UNSET


class WebidaUser(Struct, frozen=True, kw_only=True):
    """The logged-in user."""

    id: str
    email: str | UnsetType = UNSET
    name: str


class RestOK(Struct, frozen=True):
    """The reply to a successful change."""

    message: str


class RestError(Struct, frozen=True):
    """The reply to a refused request; people and programs read ``message``."""

    code: str
    message: str


# --- what a request says


class WorkspaceQuery(Struct, frozen=True, kw_only=True, rename="camel"):
    """The workspace whose sessions are meant; in generation C ``*`` is every workspace."""

    workspace_id: Name | None = None


class DeleteQuery(WorkspaceQuery, frozen=True, kw_only=True, rename="camel"):
    """After how many seconds to close; 0 is now."""

    close_after: int


class TokenQuery(WorkspaceQuery, frozen=True, kw_only=True, rename="camel"):
    """Which kind of token is wanted, and for which workspace only."""

    type: Literal["MASTER", "ACCESS"]


class LoginBody(Struct, frozen=True, kw_only=True, rename="camel"):
    """A login by id and password, or by a MASTER token, beside which they are ignored."""

    login_id: str
    login_password: str
    master_token: str | None = None
