"""Query: what MaxScale's common parameters ask for: form, fields, filters and pages.

Unknown parameters are ignored, because MaxScale ignores them and its clients count on that. Names
are read whatever their case, except in brackets; of a repeated parameter the first one counts.
Pure. Facts: MaxScale REST API, *Common Parameters*; JSON:API 1.1, *Fetching Data*.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, urlencode

from msgspec import UNSET, Struct, UnsetType

from gateway.core.errors import BadRequest
from gateway.dialects.maxscale.filters import (
    FILTERS_MAX,
    STEPS_MAX,
    DocumentFilter,
    Json,
    by_path,
    by_pointer,
)
from gateway.dialects.maxscale.render import NO_SERVICE
from gateway.dialects.maxscale.schema import PageLinks
from gateway.http.request import read_pairs

FIELDS_MAX: Final = 256  # paths in one fields[TYPE]
PAGE_MAX: Final = 2**31 - 1  # rows a page, and pages
DIGITS_MAX: Final = 18  # of a number that are read; more is as good as endless

_OFF: Final = frozenset({"false", "off", "no", "0"})
_ON: Final = frozenset({"true", "on", "yes", "1"})
_COUNT: Final = re.compile(r"[0-9]+")
_SERVICE: Final = (("relationships",), ("services",), ("data",), ("0",), ("id",))

FieldTree = dict[str, "FieldTree"]  # the names to keep; an empty tree keeps all below


class NumberedPage(Struct, frozen=True):
    """A page of ``size`` rows, after ``number`` pages of as many."""

    size: int
    number: int


class CommonParameters(Struct, frozen=True):
    """The parameters of a request, each with the first value it came with.

    Args:
        values: By name; the part in front of a bracket in lower case.
    """

    values: Mapping[str, str]

    @classmethod
    def parse(cls, query_string: bytes) -> "CommonParameters":
        """Return the parameters of a query.

        Raises:
            BadRequest: It cannot be read, or has too many.
        """
        values: dict[str, str] = {}
        for name, value in read_pairs({"query_string": query_string}):
            family, bracket, rest = name.partition("[")
            values.setdefault(family.lower() + bracket + rest, value)
        return cls(values)

    def is_pretty(self, *, default: bool) -> bool:
        """Whether the reply is to be indented; ``pretty`` may stand bare."""
        value = self.values.get("pretty")
        return default if value is None else value.lower() not in _OFF

    def is_on(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.values.get(name, "").lower() in _ON

    def seconds(self, name: str) -> int | None:
        """Return a whole number of seconds; ``None``: there is none, or something else."""
        value = self.values.get(name, "")
        return int(value[:DIGITS_MAX]) if _COUNT.fullmatch(value) else None

    def filters(self) -> tuple[DocumentFilter, ...]:
        """Return the filters, all of which a resource must match.

        Raises:
            BadRequest: One cannot be read, or there are too many.
        """
        found = [by_pointer(self.values.get("filter", ""))]
        found.extend(by_path(path, value) for path, value in self._family("filter"))
        wanted = tuple(filter(None, found))
        if len(wanted) > FILTERS_MAX:
            raise BadRequest(f"A request has at most {FILTERS_MAX} filters.")
        return wanted

    def fields(self, kind: str) -> FieldTree | None:
        """Return what is kept of a resource of *kind*, ``None`` if everything is.

        Raises:
            BadRequest: There are too many paths, or one is too long.
        """
        text = dict(self._family("fields")).get(kind)
        if text is None:
            return None
        paths = [tuple(filter(None, path.split("/"))) for path in text.split(",")]
        if len(paths) > FIELDS_MAX or any(len(path) > STEPS_MAX for path in paths):
            raise BadRequest("There are too many fields, or too long ones.")
        tree: FieldTree = {}
        # A short path keeps what a longer one would choose from, so that it has to come last.
        for path in sorted(filter(None, paths), key=len, reverse=True):
            branch = tree
            for name in path[:-1]:
                branch = branch.setdefault(name, {})
            branch[path[-1]] = {}
        return tree

    def page(self) -> NumberedPage | None:
        """Return the page that is asked for; ``None`` without a positive ``page[size]``."""
        size, number = (_count(self.values.get(f"page[{name}]", "")) for name in ("size", "number"))
        return NumberedPage(size, number) if size else None

    def links(self, collection: str, page: NumberedPage | None, total: int) -> PageLinks:
        """Return the links of a collection; each repeats the other parameters (JSON:API)."""
        others = [(name, value) for name, value in self.values.items() if name[:5] != "page["]

        def link(number: int | None) -> str:
            pages = []
            if page and number is not None:
                pages = [("page[size]", f"{page.size}"), ("page[number]", f"{number}")]
            text = urlencode([*others, *pages], quote_via=quote)
            return f"{collection}?{text}" if text else collection

        if page is None:
            return PageLinks(self_=link(None))
        last = max(total - 1, 0) // page.size
        prev: str | UnsetType = UNSET
        if 0 < page.number <= last:
            prev = link(page.number - 1)
        return PageLinks(
            self_=link(page.number),
            first=link(0),
            prev=prev,
            next=link(page.number + 1) if page.number < last else UNSET,
            last=link(last),
        )

    def _family(self, family: str) -> Iterable[tuple[str, str]]:
        start = f"{family}["
        for name, value in self.values.items():
            if name.startswith(start) and name.endswith("]"):
                yield name[len(start) : -1], value


def service_asked_for(filters: Iterable[DocumentFilter]) -> str | None:
    """Return the one service whose sessions can match, as the vendor's GUI asks; else ``None``."""
    for wanted in filters:
        name = wanted.equal_to
        if wanted.path == _SERVICE and isinstance(name, str) and name != NO_SERVICE:
            return name
    return None


def pruned(resource: dict[str, Json], kept: FieldTree) -> dict[str, Json]:
    """Return a resource with only the *kept* attributes and relationships, if any are left.

    A path that ends at a list, or goes on below one, keeps the whole list.
    """
    result = dict(resource)
    for part in ("attributes", "relationships"):
        whole = result.pop(part, UNSET)
        left = _kept(whole, kept) if kept else UNSET
        if left is not UNSET:
            result[part] = left
    return result


def _kept(value: Json, kept: FieldTree) -> Json:
    """Return the part of a value that is kept, ``UNSET`` if nothing is."""
    if not kept or isinstance(value, list | tuple):
        return value
    if not isinstance(value, dict):
        return UNSET
    parts = {name: _kept(value[name], below) for name, below in kept.items() if name in value}
    return {name: part for name, part in parts.items() if part is not UNSET} or UNSET


def _count(text: str) -> int:
    return min(int(text[:DIGITS_MAX]), PAGE_MAX) if _COUNT.fullmatch(text) else 0
