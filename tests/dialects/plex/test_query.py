"""The filters and orders of the history as clients write them."""

from urllib.parse import parse_qsl

import pytest

from gateway.core.errors import BadRequest
from gateway.dialects.plex.query import Condition, Order, conditions, orders

NOW_S = 1_760_000_000


def parsed(query: str) -> list[Condition]:
    """Return the filters of a raw query."""
    return conditions(parse_qsl(query, keep_blank_values=True), NOW_S)


@pytest.mark.parametrize(
    "query, operator, value",
    [
        ("viewedAt%3E=1760000000", ">=", 1_760_000_000),  # what python-plexapi and @ctrl/plex send
        ("viewedAt>=5", ">=", 5),
        ("viewedAt>>=5", ">", 5),
        ("viewedAt<=5", "<=", 5),
        ("viewedAt<<=5", "<", 5),
        ("viewedAt%3E%3D=5", ">=", 5),  # who builds a query from a dictionary
        ("viewedAt%3C%3D=5", "<=", 5),
        ("viewedAt=5", "=", 5),
        ("viewedAt!=5", "!=", 5),
        ("viewedAt=>=5", ">=", 5),  # who writes it by hand
        ("viewedAt=<=5", "<=", 5),
        ("viewedAt=%3E5", ">", 5),
        ("viewedAt=-3600", "=", NOW_S - 3_600),
        ("viewedAt>=-3d", ">=", NOW_S - 3 * 86_400),
        ("viewedAt>=-2w", ">=", NOW_S - 14 * 86_400),
        ("viewedAt>=-1mon", ">=", NOW_S - 30 * 86_400),
        ("viewedAt>=-1y", ">=", NOW_S - 365 * 86_400),
        ("viewedAt<=%2B1d", "<=", NOW_S + 86_400),
        ("viewedAt<=+1h", "<=", NOW_S + 3_600),  # a plus that was not encoded is a blank
    ],
)
def test_operator_of_a_date_is_understood(query: str, operator: str, value: int) -> None:
    """An operator is the end of the parameter's name, or the start of its value."""
    assert parsed(query) == [Condition("viewedAt", operator, (value,))]


@pytest.mark.parametrize(
    "query, field",
    [
        ("accountID=2", "accountID"),
        ("accountId=2", "accountID"),  # what generated clients send
        ("librarySectionID=2", "librarySectionID"),
        ("metadataItemID=2", "metadataItemID"),
        ("deviceID=2", "deviceID"),
    ],
)
def test_filter_of_a_number_is_understood(query: str, field: str) -> None:
    """Both spellings of the account, and every other filter, compare a number."""
    assert parsed(query) == [Condition(field, "=", (2,))]


def test_list_of_values_is_any_of_them() -> None:
    """Values in a comma list are alternatives; several filters must all hold."""
    first, second = parsed("accountID=2,3&viewedAt>=5")

    assert [first.holds([number]) for number in (1, 2, 3)] == [False, True, True]
    assert [second.holds([number]) for number in (4, 5)] == [False, True]


@pytest.mark.parametrize(
    "query, found, holds",
    [
        ("accountID!=2", [2], False),
        ("accountID!=2", [3], True),
        ("accountID!=2", [], True),
        ("accountID=2", [], False),
        ("accountID>>=2", [2], False),
        ("accountID>=2", [2], True),
        ("accountID<<=2", [2], False),
        ("accountID<=2", [2], True),
        ("metadataItemID=7", [5, 7], True),
    ],
)
def test_row_passes_as_its_numbers_compare(query: str, found: list[int], holds: bool) -> None:
    """A row without a value equals nothing and differs from everything."""
    assert parsed(query)[0].holds(found) is holds


@pytest.mark.parametrize(
    "query", ["filter=x", "sort=", "accountId=", "X-Plex-Token=t", "viewedAt~=5", "includeGuids=1"]
)
def test_what_is_no_filter_is_passed_over(query: str) -> None:
    """Empty filters, hints and everything else a client sends along filter nothing."""
    assert parsed(query) == []


@pytest.mark.parametrize(
    "query",
    [
        "accountID=ann",
        "accountID=1.5",
        "accountID=1,",
        "accountID=-3d",
        "accountID=" + "9" * 19,
        "viewedAt=2024-05-01",
        "viewedAt>=soon",
        "librarySectionID=%D9%A1",
        "accountID=" + ",".join(["1"] * 257),
        "&".join(["accountID=1"] * 33),
    ],
)
def test_filter_that_cannot_be_read_is_refused(query: str) -> None:
    """A value that is no number or date is an error, never an empty list."""
    with pytest.raises(BadRequest):
        parsed(query)


def test_order_is_understood() -> None:
    """Fields with a direction, ascending if none is named."""
    assert orders(None) == []
    assert orders("viewedAt:desc,accountID") == [Order("viewedAt", True), Order("accountID", False)]
    assert orders("title:asc") == [Order("title", False)]


@pytest.mark.parametrize(
    "text", ["bad", "viewedAt:down", "metadataItemID", "viewedAt:desc,", ",".join(["type"] * 9)]
)
def test_order_that_cannot_be_read_is_refused(text: str) -> None:
    """An unknown field or direction is an error."""
    with pytest.raises(BadRequest):
        orders(text)
