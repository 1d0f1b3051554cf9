"""The table of errors: each has a code, a status, a close code, and says whether to try again."""

import pytest

from gateway.core.errors import (
    ERRORS,
    EXCERPT_MAX,
    CloseCode,
    GatewayError,
    Invalid,
    NotFound,
    Unavailable,
    excerpt,
)


def classes(base: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    """Return *base* and everything derived from it."""
    children = [child for child in base.__subclasses__() if child.__module__ == base.__module__]
    return [base, *(found for child in children for found in classes(child))]


def test_codes_of_all_errors_are_unique() -> None:
    """A code names one error and its special cases, and the table holds every code."""
    naming = [error.code for error in classes() if "code" in vars(error)]

    assert sorted(ERRORS) == sorted(naming)


@pytest.mark.parametrize("error", classes(), ids=lambda error: error.__name__)
def test_error_is_complete_and_tells_clients_the_same_on_each_door(
    error: type[GatewayError],
) -> None:
    """An error has an HTTP status, words, and a close code that agrees with ``retry``."""
    assert 400 <= error.status < 600
    assert error.title.endswith(".")
    assert isinstance(error.close_code, CloseCode)
    assert error.__doc__
    if error.retry:
        assert error.close_code.reconnect


def test_temporary_error_says_when_to_repeat() -> None:
    """An error that may pass says after how many seconds; others say nothing."""
    assert Unavailable().retry_after_s == 1
    assert Unavailable(retry_after_s=7).retry_after_s == 7
    assert NotFound().retry_after_s is None


def test_detail_stands_before_the_title_and_extra_is_kept() -> None:
    """What is known of this case is said; without it the title is."""
    told = Invalid("`ms` is negative.", extra={"ref": "7"})

    assert (str(told), told.detail, told.extra) == ("`ms` is negative.",) * 2 + ({"ref": "7"},)
    assert str(NotFound()) == NotFound().detail == NotFound.title
    assert NotFound().extra == {}


def test_close_codes_below_4500_ask_the_client_back() -> None:
    """A client comes back after 4000 to 4499, and never after 4500 to 4999."""
    assert {code for code in CloseCode if code.reconnect} == {
        code for code in CloseCode if 4000 <= code < 4500
    }
    assert all(4000 <= code < 5000 for code in CloseCode)


def test_long_message_about_input_is_cut_in_the_middle() -> None:
    """A parser's message that quotes the input keeps its beginning and its end, not the input."""
    short = "Expected `str`, got `int` - at `$.key`"
    long = f"Invalid enum value '{'x' * 9000}' - at `$.filter.state`"

    assert excerpt(short) == short
    assert excerpt(long).startswith("Invalid enum value 'xxx")
    assert excerpt(long).endswith("at `$.filter.state`")
    assert len(excerpt(long)) <= EXCERPT_MAX
