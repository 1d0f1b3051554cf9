"""Indexes: the keys of everything open, in each order and in each set that a filter can ask for.

A view's sessions are looked for in the smallest of the sets in all of which they must stand, by
the sizes as they are now: a label that everybody has keeps nobody out.

Not here: the sessions themselves (``replica``), which sets a session stands in (``core.query``).
"""

from collections.abc import Iterator, Mapping
from typing import Final

from sortedcontainers import SortedList

from gateway.core.model import Session
from gateway.core.query import Index, Page, SortKey, View, indexes_of, sort_key

ORDERS: Final = ("created_at", "number", "closes_at")
_NOBODY: Final[SortedList[SortKey]] = SortedList()


class Indexes:
    """Who stands where."""

    def __init__(self) -> None:
        self._orders: dict[str, SortedList[SortKey]] = {name: SortedList() for name in ORDERS}
        self._sets: dict[Index, SortedList[SortKey]] = {}  # each in the order of ``created_at``

    def move(self, before: Session | None, after: Session | None) -> None:
        """Take a session out of where it stood, and put it to where it stands."""
        session = after or before
        if session is None:
            return
        for name, order in self._orders.items():
            old = sort_key(before, name) if before else None
            new = sort_key(after, name) if after else None
            if old != new:
                if old is not None:
                    order.remove(old)
                if new is not None:
                    order.add(new)
        old_indexes = indexes_of(before) if before else []
        new_indexes = indexes_of(after) if after else []
        if old_indexes == new_indexes:
            return
        key = (session.created_at, session.id)
        for index in set(old_indexes).difference(new_indexes):
            members = self._sets.get(index)
            if members is not None:
                members.discard(key)
                if not members:
                    del self._sets[index]
        for index in set(new_indexes).difference(old_indexes):
            if index[0] != "id":
                self._sets.setdefault(index, SortedList()).add(key)

    def order(
        self, view: View, page: Page, sessions: Mapping[str, Session]
    ) -> tuple[SortedList[SortKey], bool]:
        """Return keys among which all of a view are, in the order of *page*.

        Args:
            view: Who is looked for.
            page: How they are sorted and how many are wanted.
            sessions: Everything open.

        Returns:
            As few keys as are at hand, and whether they are the view and nobody else.
        """
        if view.visibility.by == "nothing":
            return _NOBODY, True
        field = page.sort.field
        everybody, total = self._orders[field], len(sessions)
        sets = [
            members
            for index in view.equalities
            if len(members := self._members(index, sessions)) < total
        ]
        is_exact = view.is_equalities and len(sets) <= 1
        members = min(sets, key=len, default=everybody)
        if not sets or field == "created_at":
            return members, is_exact
        # Few are sorted; of many, enough for a page are soon met on the way through everybody.
        if len(members) ** 2 > (page.offset + page.limit) * len(everybody):
            return everybody, False
        keys = ((getattr(sessions[session_id], field), session_id) for _, session_id in members)
        return SortedList(key for key in keys if key[0] is not None), is_exact

    def _members(self, index: Index, sessions: Mapping[str, Session]) -> SortedList[SortKey]:
        """Return who stands in *index*, oldest first."""
        if index[0] != "id":
            return self._sets.get(index, _NOBODY)
        session = sessions.get(index[1])
        return SortedList([(session.created_at, session.id)]) if session else _NOBODY

    def numbered(self, number: int) -> str | None:
        """Return the id of the open session with this number."""
        for found, session_id in self._orders["number"].irange((number, ""), (number + 1, "")):
            if found == number:
                return session_id
        return None


def keys_from(order: SortedList[SortKey], page: Page) -> Iterator[SortKey]:
    """Return the keys of *order* from where *page* starts."""
    if page.after is None:
        return reversed(order) if page.sort.descending else iter(order)
    if page.sort.descending:
        return order.irange(maximum=page.after, inclusive=(True, False), reverse=True)
    return order.irange(minimum=page.after, inclusive=(False, True))
