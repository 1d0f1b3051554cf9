"""Indexes: the keys of all open sessions, in each sort order and by each field that filters use.

The sessions of a view are looked up in the smallest of the sets that must contain them, by the
current sizes: a label that every session has is no help.

Not here: the sessions themselves (``replica``), the index keys of a session (``core.query``).
"""

from collections.abc import Iterator, Mapping
from typing import Final

from sortedcontainers import SortedList

from gateway.core.model import Session
from gateway.core.query import Index, Page, SortKey, View, indexes_of, sort_key

ORDERS: Final = ("created_at", "number", "closes_at")
_EMPTY: Final[SortedList[SortKey]] = SortedList()


class Indexes:
    """The sort orders and index sets of all open sessions."""

    def __init__(self) -> None:
        self._orders: dict[str, SortedList[SortKey]] = {name: SortedList() for name in ORDERS}
        self._sets: dict[Index, SortedList[SortKey]] = {}  # each in the order of ``created_at``

    def move(self, before: Session | None, after: Session | None) -> None:
        """Move a session from the keys of its old record to the keys of its new one."""
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
        """Return keys that include every session of a view, in the order of *page*.

        Args:
            view: The view.
            page: The order, and how many sessions are wanted.
            sessions: All open sessions.

        Returns:
            The smallest such list at hand, and whether it holds the sessions of the view only.
        """
        if view.visibility.by == "nothing":
            return _EMPTY, True
        field = page.sort.field
        all_keys, total = self._orders[field], len(sessions)
        sets = [
            members
            for index in view.equalities
            if len(members := self._members(index, sessions)) < total
        ]
        is_exact = view.is_equalities and len(sets) <= 1
        members = min(sets, key=len, default=all_keys)
        if not sets or field == "created_at":
            return members, is_exact
        # A small set is sorted; of a large one, a walk through all sessions soon meets enough.
        if len(members) ** 2 > (page.offset + page.limit) * len(all_keys):
            return all_keys, False
        keys = ((getattr(sessions[session_id], field), session_id) for _, session_id in members)
        return SortedList(key for key in keys if key[0] is not None), is_exact

    def _members(self, index: Index, sessions: Mapping[str, Session]) -> SortedList[SortKey]:
        """Return the keys in *index*, oldest first."""
        if index[0] != "id":
            return self._sets.get(index, _EMPTY)
        session = sessions.get(index[1])
        return SortedList([(session.created_at, session.id)]) if session else _EMPTY

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
