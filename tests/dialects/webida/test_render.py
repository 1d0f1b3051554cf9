"""Rendering: every state of a session, in both generations, against what the product says."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec import UNSET, to_builtins
from msgspec.structs import replace

from gateway.core.document import Message, Recipients
from gateway.core.model import Closing, Connection, Session
from gateway.dialects.webida.render import (
    WORDS,
    announced,
    session_a,
    session_c,
    warning,
    will_close,
)
from gateway.dialects.webida.schema import RestError, RestOK, Token, WebidaUser
from gateway.dialects.webida.style import TABLE

Golden = Callable[[str], Any]

CONNECTED_AT: Final = 1_467_950_706_789  # 2016-07-08T04:05:06.789Z
LOST_AT: Final = 1_467_951_000_000  # 04:10:00
LOSE_AT: Final = 1_467_951_150_000  # 04:12:30
CLOSE_AT: Final = 1_467_951_630_000  # 04:20:30

HERE: Final = Connection(
    id="4f5e", node="a:1", connected_at=CONNECTED_AT, address="198.51.100.23", port=51_514
)
GONE: Final = replace(HERE, ended_at=LOST_AT)
NORMAL: Final = Session(
    id="rJx4kQ2",
    number=1,
    revision=1,
    created_at=CONNECTED_AT,
    name="ann",
    account="ann",
    workspace="ws-7",
    connection=HERE,
    connected_at=CONNECTED_AT,
)
LOSING: Final = replace(NORMAL, connection=GONE, disconnected_at=LOST_AT, linger_at=LOSE_AT)
CLOSING: Final = replace(
    NORMAL, closing=Closing(at=CLOSE_AT, first_at=CLOSE_AT, requested_at=CLOSE_AT - 30_000)
)
POSTED: Final = replace(NORMAL, name=None, account=None, connection=None, connected_at=None)


@pytest.mark.parametrize(
    "name, session",
    [
        ("a_normal", NORMAL),
        ("a_losing", LOSING),
        ("a_lost_for_good", replace(LOSING, linger_at=None)),
        ("a_closing", CLOSING),
        (
            "a_closing_while_away",
            replace(LOSING, linger_at=None, closing=CLOSING.closing),
        ),
        ("a_of_another_door", POSTED),
    ],
)
def test_session_of_generation_a(golden: Golden, name: str, session: Session) -> None:
    """A session is shown with every time that its state has, and no other."""
    assert to_builtins(session_a(session, full=True)) == golden(name)


@pytest.mark.parametrize(
    "name, session",
    [
        ("c_normal", NORMAL),
        ("c_terminated", LOSING),
        ("c_closing", CLOSING),
        (
            "c_of_another_door",
            replace(NORMAL, name=None, workspace=None, connection=replace(HERE, address=None)),
        ),
    ],
)
def test_session_of_generation_c(golden: Golden, name: str, session: Session) -> None:
    """Generation C knows neither a loss nor its times."""
    assert to_builtins(session_c(session, full=True)) == golden(name)


def test_session_that_came_back_shows_no_loss() -> None:
    """What was lost and came back looks as if it had never been lost."""
    back = replace(LOSING, connection=replace(HERE, id="5a"), disconnected_at=None, linger_at=None)

    assert session_a(back, full=True) == session_a(NORMAL, full=True)


def test_address_is_for_those_who_may_see_it() -> None:
    """Who may only look is not told where others are."""
    assert session_a(NORMAL, full=False).client_address == "unknown"
    assert session_c(NORMAL, full=False).client_address == "unknown"


def test_tokens_and_users_are_spelled_as_the_product_does(golden: Golden) -> None:
    """Names of fields are the product's, and what is unset is left out."""
    access = Token(
        text="eyJ",
        token_type="ACCESS",
        expires_at="2016-07-08T04:10:00.000Z",
        issued_at="2016-07-08T04:05:06.789Z",
        session_id="rJx4kQ2",
        workspace_id="ws-7",
    )
    master = replace(access, token_type="MASTER", session_id=UNSET, workspace_id=UNSET)
    user = WebidaUser(id="ann@example.com", email="ann@example.com", name="ann")

    assert to_builtins(access) == golden("token_access")
    assert to_builtins(master) == golden("token_master")
    assert to_builtins(user) == golden("user")


def test_answers_are_spelled_as_the_product_does(golden: Golden) -> None:
    """A success has a message, an error a code and a message."""
    assert to_builtins(RestOK(will_close(["rJx4kQ2"], 30))) == golden("rest_ok")
    assert to_builtins(RestError("NotFoundError", "no session rJx4kQ2")) == golden("rest_error")


@pytest.mark.parametrize(
    "ids, after_s, text",
    [
        (["a"], 0, "session a closes now"),
        ([], 5, "0 sessions close in 5 seconds"),
        (["a", "b"], 0, "2 sessions close now"),
    ],
)
def test_close_is_told_in_a_sentence(ids: list[str], after_s: int, text: str) -> None:
    """The message says what closes and when."""
    assert will_close(ids, after_s) == text


@pytest.mark.parametrize("generation, name", [("A", "closing_a"), ("C", "closing_c")])
def test_warning_holds_what_the_generation_says(golden: Golden, generation: str, name: str) -> None:
    """A warns with a text and seconds, C with seconds alone."""
    assert list(warning(WORDS[generation], None, 29_998)) == golden(name)


def test_warning_says_why() -> None:
    """A reason that was given stands in place of the product's own text."""
    assert warning(WORDS["A"], "maintenance", -3) == ("maintenance", 0)


@pytest.mark.parametrize(
    "topic, body, said",
    [
        ("news", "hello", "hello"),
        ("news", {"a": 1}, {"a": 1}),
        ("lunch", None, "lunch"),
        ("neko:control/request", "x", None),
    ],
)
def test_message_is_an_announcement(topic: str, body: object, said: object) -> None:
    """A message is announced with what it holds, unless it means something to others only."""
    message = Message(to=Recipients(), topic=topic, body=body)

    assert announced(message) == said


def test_every_code_is_the_products() -> None:
    """Codes are words of the product's error library, not phrases of HTTP."""
    assert {row.code for row in TABLE.values()} >= {
        *("BadRequestError", "UnauthorizedError", "ForbiddenError", "NotFoundError"),
        *("ResourceNotFound", "MethodNotAllowedError", "InvalidArgument"),
        "ServiceUnavailableError",
    }
