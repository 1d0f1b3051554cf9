"""Filters: which resources of a collection are shown, in MaxScale's filter language.

A filter is ``filter=POINTER=EXPR`` (RFC 6901) or ``filter[PATH]=EXPR`` (a part of JSONPath). A
resource must match all filters; several values at one path are alternatives, and a resource without
the member does not match. ``EXPR`` is a JSON literal or ``eq ne lt le gt ge`` of one, joined by
``and or not``. Pure.

Whatever MaxScale accepts is accepted. Three things are better here: numbers are compared by value,
so that ``gt(60)`` fits a real; ``le`` and ``ge`` of different types do not match; and ``true``,
``false`` and ``null`` may stand alone.

Facts: MaxScale REST API, *Common Parameters*, 24.02.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final, NoReturn

from msgspec import Struct

from gateway.core.errors import BadRequest, excerpt
from gateway.core.model import same_json

DEPTH_MAX: Final = 16  # expressions within each other
STEPS_MAX: Final = 32  # of a path; documents are less deep
FILTERS_MAX: Final = 32  # of one request

Json = Any
Step = tuple[str, ...] | None  # names or indexes of which each is followed; None follows all
Path = tuple[Step, ...]
Predicate = Callable[[Json], bool]

_RELATIONS: Final = {"eq": eq, "ne": ne, "lt": lt, "le": le, "gt": gt, "ge": ge}
_JUNCTIONS: Final[Mapping[str, Callable[[Iterable[bool]], bool]]] = {
    "and": all,
    "or": any,
    "not": lambda truths: not any(truths),
}
_CALL: Final = re.compile(r"([a-z]+)\(")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_STEP: Final = re.compile(
    r"""\.?(?P<name>[^.\[\]*'"\s]+)
      | \.?(?P<all>\*) | \[(?P<every>\*)\]
      | \[(?P<quoted>'[^']*'|"[^"]*")\]
      | \[(?P<indexes>[0-9]{1,9}(?:,[0-9]{1,9})*)\]""",
    re.VERBOSE,
)


class DocumentFilter(Struct, frozen=True):
    """One filter of a request.

    Args:
        path: Where the values are.
        holds: Whether a value is one that is asked for.
        equal_to: The value that is asked for, if the expression is just that value.
    """

    path: Path
    holds: Predicate
    equal_to: Json = None

    def matches(self, resource: Json) -> bool:
        """Whether a value in *resource* (maps, lists and what they hold) is what is asked for."""
        return any(map(self.holds, _found(resource, self.path)))


def by_pointer(text: str) -> DocumentFilter | None:
    """Return the filter ``POINTER=EXPR``; ``None`` if there is no second part.

    Raises:
        BadRequest: The expression cannot be read.
    """
    pointer, equals, expression = text.partition("=")
    if not equals:
        return None
    names = pointer.removeprefix("/").split("/")
    steps = tuple((name.replace("~1", "/").replace("~0", "~"),) for name in names)
    return _filter(steps, pointer, expression)


def by_path(path: str, expression: str) -> DocumentFilter:
    """Return the filter of ``filter[path]=expression``.

    Raises:
        BadRequest: One of the two cannot be read.
    """
    steps: list[Step] = []
    place = 1 if path.startswith("$") else 0
    rooted = place == 1
    while place < len(path):
        step = _STEP.match(path, place)
        # Only the very first name may stand without the dot in front of it.
        if step is None or (step["name"] and path[place] != "." and (steps or rooted)):
            raise BadRequest(f"Not a valid JSON path: {excerpt(path)}")
        place = step.end()
        match step.lastgroup:
            case "name":
                steps.append((step["name"],))
            case "quoted":
                steps.append((step["quoted"][1:-1],))
            case "indexes":
                steps.append(tuple(step["indexes"].split(",")))
            case _:
                steps.append(None)
    return _filter(tuple(steps), path, expression)


def _filter(steps: Path, path: str, expression: str) -> DocumentFilter:
    if len(steps) > STEPS_MAX:
        raise BadRequest(f"A path has at most {STEPS_MAX} steps: {excerpt(path)}")
    reader = _Reader(expression)
    return DocumentFilter(steps, reader.whole(), reader.equal_to)


class _Reader:
    """Reads one expression; nothing is skipped, not even blanks."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._literals = json.JSONDecoder(parse_constant=self._refuse)  # no NaN, no Infinity
        self.equal_to: Json = None  # if the whole expression asks for this value alone

    def whole(self) -> Predicate:
        """Return whether a value is one that the text asks for, as a function."""
        found = self._expression(0)
        if self._place != len(self._text):
            self._refuse()
        return found

    def _expression(self, depth: int) -> Predicate:
        call = _CALL.match(self._text, self._place)
        if call is None:
            return self._comparison("eq", depth)
        if depth >= DEPTH_MAX:
            self._refuse()
        self._place = call.end()
        if call[1] in _RELATIONS:
            found = self._comparison(call[1], depth)
        elif call[1] in _JUNCTIONS:
            found = self._junction(_JUNCTIONS[call[1]], depth)
        else:
            self._refuse()
        if not self._text.startswith(")", self._place):
            self._refuse()
        self._place += 1
        return found

    def _comparison(self, relation: str, depth: int) -> Predicate:
        wanted = self._literal()
        if relation == "eq" and depth == 0:
            self.equal_to = wanted
        return lambda value: _relates(relation, value, wanted)

    def _junction(self, joined: Callable[[Iterable[bool]], bool], depth: int) -> Predicate:
        parts = [self._expression(depth + 1)]
        while self._text.startswith(",", self._place):
            self._place += 1
            parts.append(self._expression(depth + 1))
        return lambda value: joined(part(value) for part in parts)

    def _literal(self) -> Json:
        try:
            value, self._place = self._literals.raw_decode(self._text, self._place)
        except (ValueError, RecursionError):
            self._refuse()
        return value

    def _refuse(self, _constant: str = "") -> NoReturn:
        raise BadRequest(f"Not a valid filter expression: {excerpt(self._text)}")


def _found(value: Json, path: Path) -> Iterator[Json]:
    """Yield each value at *path* below *value*."""
    if not path:
        yield value
        return
    step, rest = path[0], path[1:]
    if isinstance(value, dict):
        names = value.keys() if step is None else (name for name in step if name in value)
        for name in names:
            yield from _found(value[name], rest)
    elif isinstance(value, list | tuple):
        if step is None:
            for inner in value:
                yield from _found(inner, rest)
        else:
            for index in step:
                if _INDEX.fullmatch(index) and int(index) < len(value):
                    yield from _found(value[int(index)], rest)


def _relates(relation: str, value: Json, wanted: Json) -> bool:
    if relation in ("eq", "ne"):
        return _equal(value, wanted) == (relation == "eq")
    if (_is_number(value) and _is_number(wanted)) or (
        isinstance(value, str) and isinstance(wanted, str)
    ):
        return bool(_RELATIONS[relation](value, wanted))
    return relation in ("le", "ge") and _equal(value, wanted)


def _equal(one: Json, other: Json) -> bool:
    if _is_number(one) and _is_number(other):
        return bool(one == other)
    return same_json(one, other)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
