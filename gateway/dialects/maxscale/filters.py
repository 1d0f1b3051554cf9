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
from collections.abc import Callable, Iterator, Mapping
from operator import ge, gt, le, lt
from typing import Any, Final, Literal, NoReturn, assert_never, get_args

from msgspec import Struct

from gateway.core.errors import BadRequest, excerpt
from gateway.core.model import same_json

DEPTH_MAX: Final = 16  # expressions within each other
STEPS_MAX: Final = 32  # of a path; documents are less deep
FILTERS_MAX: Final = 32  # of one request

Json = Any
Step = tuple[str, ...] | None  # names or indexes of which each is followed; None follows all
Path = tuple[Step, ...]
Relation = Literal["eq", "ne", "lt", "le", "gt", "ge"]
Junction = Literal["and", "or", "not"]

_ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {"lt": lt, "le": le, "gt": gt, "ge": ge}
_RELATIONS: Final[Mapping[str, Relation]] = {name: name for name in get_args(Relation)}
_JUNCTIONS: Final[Mapping[str, Junction]] = {name: name for name in get_args(Junction)}
_CALL: Final = re.compile(r"([a-z]+)\(")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_STEP: Final = re.compile(
    r"""\.?(?P<name>[^.\[\]*'"\s]+)
      | \.?(?P<all>\*) | \[(?P<every>\*)\]
      | \[(?P<quoted>'[^']*'|"[^"]*")\]
      | \[(?P<indexes>[0-9]{1,9}(?:,[0-9]{1,9})*)\]""",
    re.VERBOSE,
)


class Comparison(Struct, frozen=True):
    """A value in relation to a literal."""

    relation: Relation
    wanted: Json


class Joined(Struct, frozen=True):
    """Expressions that all, some or none of which must be true."""

    junction: Junction
    parts: tuple["Comparison | Joined", ...]


Expression = Comparison | Joined


class DocumentFilter(Struct, frozen=True):
    """One filter of a request."""

    path: Path
    expression: Expression

    def matches(self, resource: Json) -> bool:
        """Whether a value in *resource* (maps, lists and what they hold) is what is asked for."""
        return any(_is_true(self.expression, value) for value in _found(resource, self.path))


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
    return DocumentFilter(_bounded(steps, pointer), _Reader(expression).whole())


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
    return DocumentFilter(_bounded(tuple(steps), path), _Reader(expression).whole())


def _bounded(steps: Path, text: str) -> Path:
    if len(steps) > STEPS_MAX:
        raise BadRequest(f"A path has at most {STEPS_MAX} steps: {excerpt(text)}")
    return steps


class _Reader:
    """Reads one expression; nothing is skipped, not even blanks."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._literals = json.JSONDecoder(parse_constant=self._constant)

    def whole(self) -> Expression:
        """Return the expression that the text is."""
        found = self._expression(0)
        if self._place != len(self._text):
            self._refuse()
        return found

    def _expression(self, depth: int) -> Expression:
        call = _CALL.match(self._text, self._place)
        if call is None:
            return Comparison("eq", self._literal())
        if depth >= DEPTH_MAX:
            self._refuse()
        self._place = call.end()
        if relation := _RELATIONS.get(call[1]):
            compared = Comparison(relation, self._literal())
            self._take(")")
            return compared
        junction = _JUNCTIONS.get(call[1])
        if junction is None:
            self._refuse()
        parts = [self._expression(depth + 1)]
        while self._text.startswith(",", self._place):
            self._place += 1
            parts.append(self._expression(depth + 1))
        self._take(")")
        return Joined(junction, tuple(parts))

    def _literal(self) -> Json:
        try:
            value, self._place = self._literals.raw_decode(self._text, self._place)
        except (ValueError, RecursionError):
            self._refuse()
        return value

    def _take(self, sign: str) -> None:
        if not self._text.startswith(sign, self._place):
            self._refuse()
        self._place += len(sign)

    def _constant(self, _text: str) -> NoReturn:
        self._refuse()  # NaN and Infinity are no JSON

    def _refuse(self) -> NoReturn:
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


def _is_true(expression: Expression, value: Json) -> bool:
    match expression:
        case Comparison(relation, wanted):
            return _relates(relation, value, wanted)
        case Joined("and", parts):
            return all(_is_true(part, value) for part in parts)
        case Joined("or", parts):
            return any(_is_true(part, value) for part in parts)
        case Joined("not", parts):
            return not any(_is_true(part, value) for part in parts)
    assert_never(expression)  # type: ignore[arg-type] # mypy does not narrow the junction


def _relates(relation: Relation, value: Json, wanted: Json) -> bool:
    if relation == "eq":
        return _equal(value, wanted)
    if relation == "ne":
        return not _equal(value, wanted)
    if (_is_number(value) and _is_number(wanted)) or (
        isinstance(value, str) and isinstance(wanted, str)
    ):
        return _ORDER[relation](value, wanted)
    return relation in ("le", "ge") and _equal(value, wanted)


def _equal(one: Json, other: Json) -> bool:
    if _is_number(one) and _is_number(other):
        return bool(one == other)
    return same_json(one, other)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
