"""Query: what the parameters of a request ask for, and which sessions a list is to show.

Gameye writes maps and comparisons with brackets: ``filter[mode]=duel``, ``playerCount[lt]=8``. An
unknown parameter is ignored, as Gameye ignores it; a known one in an unknown form is refused, so
that a slip never lists everything.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from gateway.core.query import Filter
from gateway.dialects.gameye.render import FIELDS, GameSession
from gateway.dialects.gameye.schema import ListParameters, Violation, violated

EXACT: Final = ("location", "image", "tag", "host")  # parameters that are values of fields

Pairs = list[tuple[str, str]]
T = TypeVar("T")
S = TypeVar("S", bound=Struct)

_FLAGS: Final = {"1": True, "true": True, "": False, "0": False, "false": False}
_ENCODINGS: Final = {text: text for text in ("object", "string")}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_BRACKETS: Final = re.compile(r"([A-Za-z]+)\[([^\[\]]*)\]")
_PLACE: Final = re.compile(r"[0-9]*", re.ASCII)  # of filter[]=key and filter[0]=key


class LabelFilter(NamedTuple):
    """One pair of ``filter`` or ``filterNot``; without a value the label need only be there."""

    key: str
    value: str | None

    def holds(self, seen: GameSession) -> bool:
        """Whether it is true of a session: of its label, else of its field of that name."""
        label = seen.session.labels.get(self.key)
        if self.value is None:
            return label is not None
        return (seen.field(self.key) if label is None else label) == self.value


class SessionListQuery(ListParameters, frozen=True, kw_only=True):
    """What a list is to show.

    Args:
        fewer_than: Sessions with fewer players.
        more_than: Sessions with more players.
        having: What must all be true.
        lacking: What must all be false.
    """

    fewer_than: int | None = None
    more_than: int | None = None
    having: tuple[LabelFilter, ...] = ()
    lacking: tuple[LabelFilter, ...] = ()

    def matches(self, seen: GameSession) -> bool:
        """Whether a session is asked for."""
        players = len(seen.session.members)
        return (
            (self.all or not seen.is_ended)
            and all(getattr(self, name) in (None, seen.field(name)) for name in EXACT)
            and (self.fewer_than is None or players < self.fewer_than)
            and (self.more_than is None or players > self.more_than)
            and all(wanted.holds(seen) for wanted in self.having)
            and not any(wanted.holds(seen) for wanted in self.lacking)
        )

    @property
    def index(self) -> Filter:
        """A filter of ours that lets through at least what matches, and is fast."""
        return Filter(
            labels={
                wanted.key: wanted.value
                for wanted in self.having
                if wanted.value is not None and wanted.key not in FIELDS
            }
        )


class _Reader:
    """Takes parameters out of pairs, and collects what is wrong with them."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = list(pairs)
        self.violations: list[Violation] = []

    def blame(self, field: str, description: str) -> None:
        self.violations.append(Violation(field=field, description=description))

    def text(self, name: str) -> str | None:
        values = [text for known, text in self._pairs if known == name]
        if len(values) > 1:
            self.blame(name, "must not be given more than once")
        return values[0] if values else None

    def parameters(self, kind: type[Struct]) -> dict[str, Any]:
        """Return the parameters that are fields of *kind*, by name."""
        return {known.name: self._parameter(known) for known in fields(kind)}

    def _parameter(self, known: FieldInfo) -> str | bool | None:
        name = known.name
        if known.default is None:
            return self.text(name)
        if isinstance(known.default, bool):
            return self.read(name, _flag, "true or false") or False
        if not known.required:
            return self.read(name, _ENCODINGS.get, "object or string") or "object"
        text = self.text(name)
        if not text:
            self.blame(name, "is required")
        return text or ""

    def read(self, name: str, parse: Callable[[str], T | None], what: str) -> T | None:
        text = self.text(name)
        value = None if text is None else parse(text)
        if text is not None and value is None:
            self.blame(name, f"must be {what}")
        return value

    def brackets(self, name: str, operators: frozenset[str] | None = None) -> Pairs:
        """Return what stands in the brackets after *name*, and the value."""
        found = []
        for known, text in self._pairs:
            match = _BRACKETS.fullmatch(known)
            if match and match[1] == name and (operators is None or match[2] in operators):
                found.append((match[2], text))
            elif known == name or known.startswith(f"{name}["):
                wanted = "|".join(sorted(operators)) if operators else "<key>"
                self.blame(known[:64], f"must be {name}[{wanted}]=<value>")
        return found

    def wanted(self, name: str) -> tuple[LabelFilter, ...]:
        return tuple(
            LabelFilter(text, None) if _PLACE.fullmatch(key) else LabelFilter(key, text)
            for key, text in self.brackets(name)
        )

    def finish(self) -> None:
        if self.violations:
            raise violated(*self.violations)


def read_list(pairs: Iterable[tuple[str, str]]) -> SessionListQuery:
    """Return what a list is asked for.

    Raises:
        Invalid: Parameters cannot be understood; it says which.
    """
    reader = _Reader(pairs)
    reader.brackets("playerCount", frozenset({"lt", "gt"}))
    query = SessionListQuery(
        fewer_than=reader.read("playerCount[lt]", _integer, "an integer"),
        more_than=reader.read("playerCount[gt]", _integer, "an integer"),
        having=reader.wanted("filter"),
        lacking=reader.wanted("filterNot"),
        **reader.parameters(ListParameters),
    )
    reader.finish()
    return query


def read_parameters(pairs: Iterable[tuple[str, str]], kind: type[S]) -> S:
    """Return the parameters that are fields of *kind*.

    Raises:
        Invalid: One is missing, repeated or not acceptable; it says which.
    """
    reader = _Reader(pairs)
    query = kind(**reader.parameters(kind))
    reader.finish()
    return query


def _flag(text: str) -> bool | None:
    return _FLAGS.get(text.lower())  # Python's clients say True


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None
