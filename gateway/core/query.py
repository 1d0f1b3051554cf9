"""Filters, visibility, orders and pages: one language for lists, feeds and history.

A *view* is everything that decides what a caller sees: the filter, the visibility, the level of
detail and the dialect. Lists, feeds and positions all refer to a view.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import StrEnum
from typing import Annotated, Final, Literal
from zlib import crc32

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import decode, encode

from gateway.core.errors import BadPosition
from gateway.core.model import LabelName, LabelValue, Session, State

LIMIT_MAX: Final = 1000  # sessions a page
LIMIT_DEFAULT: Final = 100

Wanted = Annotated[str, Meta(min_length=1, max_length=256)]


class Filter(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The filter of a caller: a session must match everything that is set.

    Args:
        workspace: Sessions of this workspace.
        account: Sessions of this account.
        service: Sessions opened on this service.
        state: Sessions in this state.
        connected: Whether a live connection is attached.
        watching: Whether the session watches something.
        node: Sessions whose live connection is on this node, by name.
        member: Sessions with this member.
        labels: Label values that must all be equal.
        q: The id or name contains this, whatever the case.
    """

    workspace: Wanted | None = None
    account: Wanted | None = None
    service: Wanted | None = None
    state: State | None = None
    connected: bool | None = None
    watching: bool | None = None
    node: Wanted | None = None
    member: Wanted | None = None
    labels: Annotated[dict[LabelName, LabelValue], Meta(max_length=32)] = {}
    q: Wanted | None = None

    def matches(self, session: Session) -> bool:
        """Whether *session* matches the filter."""
        return (
            (self.workspace is None or session.workspace == self.workspace)
            and (self.account is None or session.account == self.account)
            and (self.service is None or session.service == self.service)
            and (self.connected is None or session.is_connected == self.connected)
            and (self.watching is None or session.is_watching == self.watching)
            and (self.state is None or session.state == self.state)
            and (self.member is None or self.member in session.members)
            and (self.node is None or node_of(session) == self.node)
            and self.labels.items() <= session.labels.items()
            and (self.q is None or _contains(session, self.q.casefold()))
        )


def node_of(session: Session) -> str | None:
    """Return the name of the node that holds the live connection."""
    if session.connection and session.is_connected:
        return session.connection.node.partition(":")[0]
    return None


def _contains(session: Session, text: str) -> bool:
    return text in session.id.casefold() or (
        session.name is not None and text in session.name.casefold()
    )


class Visibility(Struct, frozen=True, omit_defaults=True):
    """What a caller may see; an unset account or workspace equals nothing.

    Args:
        by: The field that must be equal, or ``all`` or ``nothing``.
        value: The workspace, account or session id that the field must equal.
        within: The only workspace in which an account is seen; empty is every one.
    """

    by: Literal["all", "workspace", "account", "session", "nothing"] = "nothing"
    value: str = ""
    within: str = ""

    def allows(self, session: Session) -> bool:
        """Whether *session* may be seen."""
        return self.allows_of(session.id, session.account, session.workspace)

    def allows_of(self, session_id: str, account: str | None, workspace: str | None) -> bool:
        """Whether a session may be seen of which only this much is known."""
        match self.by:
            case "all":
                return True
            case "workspace":
                return workspace == self.value
            case "account":
                return account == self.value and self.within in ("", workspace)
            case "session":
                return session_id == self.value
        return False


Index = tuple[str, str]  # a name and a value, such as ("workspace", "ws-7"), ("label", "env=prod")
_SELECTIVE: Final = (
    "id",
    "account",
    "member",
    "label",
    "workspace",
    "service",
    "state",
)  # most selective first


class View(Struct, frozen=True, omit_defaults=True):
    """A filter under a visibility, at a level, in a dialect."""

    filter: Filter = Filter()
    visibility: Visibility = Visibility()
    full: bool = False
    dialect: str = ""

    def matches(self, session: Session) -> bool:
        """Whether *session* is in this view."""
        return self.visibility.allows(session) and self.filter.matches(session)

    @property
    def key(self) -> bytes:
        """A text that is the same for equal views, in every process."""
        return encode(self, order="sorted")

    @property
    def hash32(self) -> int:
        """32 bits of the key, never 0; positions carry them."""
        return crc32(self.key) or 1

    @property
    def equalities(self) -> set[Index]:
        """The index keys that every session in this view has."""
        wanted, by = self.filter, self.visibility.by
        found = {
            (name, value)
            for name in ("account", "workspace", "service", "member")
            if (value := getattr(wanted, name)) is not None
        }
        if wanted.state:
            found.add(("state", wanted.state.value))
        found.update(("label", f"{name}={value}") for name, value in wanted.labels.items())
        if by in ("workspace", "account"):
            found.add((by, self.visibility.value))
            if self.visibility.within:
                found.add(("workspace", self.visibility.within))
        elif by == "session":
            found.add(("id", self.visibility.value))
        return found

    @property
    def is_equalities(self) -> bool:
        """Whether a session with all :attr:`equalities` is in this view without further checks."""
        wanted = self.filter
        return (
            self.visibility.by != "nothing"
            and wanted.connected is None
            and wanted.watching is None
            and wanted.node is None
            and wanted.q is None
            and not any("=" in name for name in wanted.labels)  # the index key is ambiguous
        )

    @property
    def index(self) -> Index | None:
        """The equality that is usually the most selective; ``None`` if there is none."""
        return min(
            self.equalities, key=lambda index: (_SELECTIVE.index(index[0]), index[1]), default=None
        )


def indexes_of(session: Session) -> list[Index]:
    """Return every index key of *session*."""
    found: list[Index] = [("id", session.id), ("state", session.state.value)]
    if session.account is not None:
        found.append(("account", session.account))
    if session.workspace is not None:
        found.append(("workspace", session.workspace))
    if session.service is not None:
        found.append(("service", session.service))
    if session.labels:
        found += [("label", f"{name}={value}") for name, value in session.labels.items()]
    if session.members:
        found += [("member", member) for member in session.members]
    return found


class Sort(StrEnum):
    """The orders of a list; a leading minus reverses. The id breaks ties."""

    CREATED_AT = "created_at"
    CREATED_AT_DESC = "-created_at"
    NUMBER = "number"
    NUMBER_DESC = "-number"
    CLOSES_AT = "closes_at"
    CLOSES_AT_DESC = "-closes_at"

    @property
    def field(self) -> str:
        """The session's field that is compared."""
        return self.value.removeprefix("-")

    @property
    def descending(self) -> bool:
        """Whether the largest comes first."""
        return self.value.startswith("-")


SortKey = tuple[int, str]  # the compared field and the id


def sort_key(session: Session, field: str) -> SortKey | None:
    """Return the sort key of *session*; ``None`` if it lacks the field and so is not listed."""
    value = getattr(session, field)
    return None if value is None else (value, session.id)


class Page(Struct, frozen=True, kw_only=True):
    """Which part of a list.

    Args:
        sort: The order.
        limit: At most this many.
        after: The sort key of the last session of the previous page, from its cursor.
        offset: How many sessions to skip, for dialects with offset paging.
        scan_limit: About how many sessions a page may scan; ``None`` is no limit.
    """

    sort: Sort = Sort.CREATED_AT
    limit: int = LIMIT_DEFAULT
    after: SortKey | None = None
    offset: int = 0
    scan_limit: int | None = None


def cursor(view: View, sort: Sort, last: SortKey) -> str:
    """Return the cursor that continues a list after *last*; it holds only what was shown."""
    return urlsafe_b64encode(encode((view.hash32, sort.value, *last))).rstrip(b"=").decode()


def parse_cursor(view: View, sort: Sort, text: str) -> SortKey:
    """Return the sort key after which the list continues.

    Raises:
        BadPosition: The text is no cursor, or of another list.
    """
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        hash32, order, value, last_id = decode(raw, type=tuple[int, str, int, str])
    except (MsgspecError, ValueError) as error:
        raise BadPosition("This cursor cannot be read.") from error
    if (hash32, order) != (view.hash32, sort.value):
        raise BadPosition("This cursor belongs to another list.")
    return value, last_id
