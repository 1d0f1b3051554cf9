"""Positions: opaque text outside, comparable inside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadPosition
from gateway.core.position import Position
from tests.core.build import BOUNDED

positions = st.builds(
    Position,
    epoch=st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=16),
    offsets=st.lists(st.integers(0, 10**16 - 1), min_size=1, max_size=16).map(tuple),
    view=st.integers(0, 2**32 - 1),
)


@BOUNDED
@given(positions)
def test_position_survives_its_text(position: Position) -> None:
    """What is read back from a position's text is that position."""
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "e",
        "e-00000000",
        "e-00000000-",
        "e-00000000-1-",
        "e-0000000-1",
        "e-0000000g-1",
        "E-00000000-1",
        "e-00000000--1",
        "e-00000000-1\n",
        " e-00000000-1",
        "e-00000000-1.5",
        "e-00000000-٣",
        "e-00000000-" + "9" * 17,
        "e" * 17 + "-00000000-1",
        "e-00000000" + "-1" * 257,
        "\x00",
        "\ud800",
    ],
)
def test_foreign_text_is_refused(text: str) -> None:
    """Text that was not issued as a position is a bad request, whatever it is."""
    with pytest.raises(BadPosition) as caught:
        Position.parse(text)

    assert caught.value.status == 400


@pytest.mark.parametrize(
    "mine, theirs, covered",
    [
        (("e", (5, 5)), ("e", (5, 5)), True),
        (("e", (6, 5)), ("e", (5, 5)), True),
        (("e", (6, 4)), ("e", (5, 5)), False),
        (("e", (9, 9)), ("f", (1, 1)), False),
        (("e", (9, 9)), ("e", (1,)), False),
    ],
)
def test_position_covers_what_it_has_seen_of_one_history(
    mine: tuple[str, tuple[int, ...]], theirs: tuple[str, tuple[int, ...]], covered: bool
) -> None:
    """A position covers another of its epoch if no partition is behind; views do not matter."""
    assert Position(*mine, view=1).covers(Position(*theirs, view=2)) is covered
