"""Engine.IO and Socket.IO: texts in, texts out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.dialects.webida.engineio import EngineSocket, Joining, Sign

OPENING = '0{"sid":"s1","upgrades":[],"pingInterval":15000,"pingTimeout":5000}'


def opened(namespace: str = "/session") -> EngineSocket:
    """Return a connection that has begun and said so."""
    engine = EngineSocket("s1", namespace)
    engine.open(15_000, 5_000)
    engine.texts_to_send()
    return engine


def test_opening_lets_a_client_into_the_root_at_once() -> None:
    """Everybody is let into the root before they ask for another namespace."""
    engine = EngineSocket("s1", "/session")

    assert engine.open(15_000, 5_000) == []
    assert engine.texts_to_send() == [OPENING, "40"]
    assert engine.texts_to_send() == []


def test_opening_of_the_root_itself_asks_first() -> None:
    """Where the root is the namespace, nobody is in it before that is allowed."""
    engine = EngineSocket("s1", "/")

    assert engine.open(15_000, 5_000) == [Joining()]
    assert engine.texts_to_send() == [OPENING]
    engine.accept()
    assert engine.texts_to_send() == ["40"]


@pytest.mark.parametrize(
    "said, answer", [("2", ["3"]), ("2probe", ["3probe"]), ("3", []), ("5", []), ("6", [])]
)
def test_packet_of_the_engine_is_answered(said: str, answer: list[str]) -> None:
    """A ping is answered with what it brought; nothing else is."""
    engine = opened()

    assert engine.receive(said) == []
    assert engine.texts_to_send() == answer


@pytest.mark.parametrize("said", ["40/session", "40/session,", "40/session?"])
def test_namespace_can_be_asked_for_without_a_query(said: str) -> None:
    """Old and new clients end the name of a namespace differently."""
    assert opened().receive(said) == [Joining()]


def test_namespace_is_asked_for_once() -> None:
    """A second request for the namespace means nothing."""
    engine = opened()

    assert engine.receive("40/session?token=a%2Cb&x=") == [Joining((("token", "a,b"), ("x", "")))]
    assert engine.receive("40/session?token=c") == []


def test_unknown_namespace_is_refused() -> None:
    """A namespace that is not there is told in the words of the product."""
    engine = opened("/")

    assert engine.receive("40/session?token=a") == []
    assert engine.texts_to_send() == ['44/session,"Invalid namespace"']
    assert engine.receive("40") == []


@pytest.mark.parametrize("said", ["1", "41/session", "41/session,"])
def test_client_that_leaves_is_heard(said: str) -> None:
    """A client leaves its namespace or the whole connection."""
    assert opened().receive(said) == [Sign.LEFT]


def test_client_that_leaves_another_namespace_stays() -> None:
    """Leaving the root does not end what goes on in the namespace."""
    assert opened().receive("41") == []


@pytest.mark.parametrize(
    "said",
    ['42/session,["a",1]', '42["a"]', '42/session,7["a"]', '427["a"]'],
)
def test_event_is_a_sign_of_life(said: str) -> None:
    """An event is heard, whether or not it wants an answer."""
    assert opened().receive(said) == [Sign.SAID]


@pytest.mark.parametrize("said", ["43/session,7[]", '451-/session,["a",{"_placeholder":true}]'])
def test_packet_that_means_nothing_is_ignored(said: str) -> None:
    """Answers and events with attachments are packets all the same."""
    assert opened().receive(said) == []


@pytest.mark.parametrize(
    "said",
    [
        *("", "7", "x", "\x00", "é"),
        *("4", "47", "4x", "42", '42"a"', "42[]", "42[1]", "42{", "42/session,"),
        "42" + "[" * 100_000,
        "40/session?" + "a=1&" * 100,
    ],
)
def test_nonsense_is_refused(said: str) -> None:
    """What is no text of the protocol is an error, never a crash."""
    with pytest.raises(BadRequest):
        opened().receive(said)


@given(st.text(max_size=40))
def test_any_text_is_understood_or_refused(said: str) -> None:
    """No text does anything else than those two."""
    for text in (said, "4" + said, "40" + said, "42" + said):
        try:
            opened().receive(text)
        except BadRequest:
            continue


def test_refusal_says_why_and_keeps_the_client_away() -> None:
    """A client that is disconnected from its namespace does not come back by itself."""
    engine = opened()
    engine.refuse('not "you"')

    assert engine.texts_to_send() == ['44/session,"not \\"you\\""', "41/session,"]


def test_events_are_emitted_in_the_namespace() -> None:
    """An event is a list that begins with its name."""
    engine = opened()
    engine.accept()
    engine.emit("closing", "text", 30)

    assert engine.texts_to_send() == ["40/session,", '42/session,["closing","text",30]']
