"""Gameye's bodies: what is read, and how every field that is wrong is named."""

from typing import Any

import pytest
from msgspec import UNSET
from msgspec.json import encode

from gateway.core.errors import Invalid
from gateway.dialects.gameye.coerce import read_body, ttl_ms
from gateway.dialects.gameye.schema import JoinBody, LeaveBody, StartBody
from tests.dialects.gameye.conftest import START


def blamed(caught: pytest.ExceptionInfo[Invalid]) -> list[str]:
    """Return the fields that an error blames."""
    return [violation.field for violation in caught.value.extra["violations"]]


def test_start_needs_only_image_and_location() -> None:
    """All else of a start may be left out."""
    body = read_body(encode(START), StartBody)

    assert (body.image, body.location, body.id) == ("arena", "eu-west-1", UNSET)


@pytest.mark.parametrize(
    "changes,fields",
    [
        ({"location": None}, ["location"]),
        ({"image": ""}, ["image"]),
        ({"image": 3, "location": []}, ["image", "location"]),
        ({"id": "a/b"}, ["id"]),
        ({"id": ""}, ["id"]),
        ({"version": ""}, ["version"]),
        ({"verison": "1"}, ["verison"]),
        ({"env": {"A": ""}}, ["env"]),
        ({"env": {"A=B": "c"}}, ["env"]),
        ({"env": {"A": 1}}, ["env"]),
        ({"env": {f"A{n}": "x" * 4096 for n in range(3)}}, ["env"]),
        ({"args": ["a", ""]}, ["args[1]"]),
        ({"args": ["x" * 4096]}, ["args"]),
        ({"labels": {"a b": "c"}}, ["labels"]),
        ({"labels": {"a": None}}, ["labels"]),
        ({"labels": {f"l{n}": "x" for n in range(33)}}, ["labels"]),
        ({"restart": "yes"}, ["restart"]),
        ({"ttl": "soon"}, ["ttl"]),
        ({"ttl": ""}, ["ttl"]),
        ({"ttl": "30s"}, ["ttl"]),
        ({"ttl": "0m"}, ["ttl"]),
        ({"ttl": "9999h"}, ["ttl"]),
        ({"ttl": -5}, ["ttl"]),
        ({"ttl": 1.5}, ["ttl"]),
        ({"ttl": "٣m"}, ["ttl"]),
        ({"external_id": ""}, ["external_id"]),
        ({"ttl": True}, ["ttl"]),
        ({"labels": [], "args": [""], "env": {"": "x"}}, ["labels", "args[0]", "env"]),
    ],
)
def test_bad_start_names_every_field(changes: dict[str, Any], fields: list[str]) -> None:
    """Every field that is not acceptable or not known is a violation."""
    with pytest.raises(Invalid) as caught:
        read_body(encode({**START, **changes}), StartBody)

    assert sorted(blamed(caught)) == sorted(fields)


@pytest.mark.parametrize(
    "body,field",
    [
        ({"players": ["ana"]}, "session"),
        ({"session": "s1"}, "players"),
        ({"session": "s1", "players": []}, "players"),
        ({"session": "s1", "players": "ana"}, "players"),
        ({"session": "s1", "players": ["ana", 3]}, "players[1]"),
        ({"session": "s1", "players": ["a\x00b"]}, "players[0]"),
        ({"session": "s1", "players": ["p"] * 257}, "players"),
        ({"session": 7, "players": ["ana"]}, "session"),
    ],
)
def test_join_that_makes_no_sense_names_the_field(body: dict[str, Any], field: str) -> None:
    """Every field that is missing or not acceptable is a violation."""
    with pytest.raises(Invalid) as caught:
        read_body(encode(body), JoinBody)

    assert blamed(caught) == [field]


def test_null_is_unset_where_a_field_may_be() -> None:
    """Go's clients write null for a map that is not there; what is required is not null."""
    nothing = dict.fromkeys(("id", "env", "args", "labels", "ttl"))

    body = read_body(encode({**START, **nothing}), StartBody)
    assert {getattr(body, name) for name in nothing} == {UNSET}
    with pytest.raises(Invalid) as caught:
        read_body(encode({**START, "image": None}), StartBody)
    assert blamed(caught) == ["image"]


def test_leave_takes_what_it_does_not_know() -> None:
    """Only a start refuses unknown fields."""
    body = read_body(b'{"players": ["ana"], "reason": "bored"}', LeaveBody)

    assert (body.players, body.session) == (("ana",), UNSET)


@pytest.mark.parametrize(
    "ttl,minutes",
    [("30m", 30), ("2h", 120), ("2h30m", 150), ("1m", 1), ("3600", 60), (90, 1.5), ("", None)],
)
def test_ttl_is_hours_and_minutes_or_seconds(ttl: str | int, minutes: float | None) -> None:
    """Both spellings of Gameye's documents are understood."""
    assert ttl_ms(ttl) == (None if minutes is None else minutes * 60_000)
