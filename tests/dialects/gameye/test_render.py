"""Gameye's words, file by file: what a session looks like in each of its states."""

from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.json import decode, encode
from msgspec.json import format as indented

from gateway.core.model import Client, Closing, Closure, Connection, Session, Stream, Watch
from gateway.dialects.gameye.render import (
    ContainerFacts,
    HomeAddress,
    container_facts,
    description,
    game_session,
    listed,
    started,
    status,
    timestamp,
)
from gateway.dialects.gameye.schema import PortMapping, Roster, Status
from tests.nodes import blank

GOLDEN: Final = Path(__file__).parent / "golden"
HOME: Final = HomeAddress("192.0.2.44", 8443)
CREATED_AT: Final = 1_767_225_600_123
NOW_MS: Final = CREATED_AT + 60_000
ARENA: Final[dict[str, Any]] = {
    "image": "arena",
    "tag": "1.4.2",
    "location": "eu-west-1",
    "host": "192.0.2.45",
    "ports": [{"type": "udp", "container": 7777, "host": 20481}],
}
LINK: Final = Connection(id="c1", node="a:1", connected_at=CREATED_AT + 1)


def session(**facts: object) -> Session:
    """Return a session that came through Gameye's door."""
    return blank(
        "7d0c3f9e-2f0b-4c7e-9a51-1f6f0f7f2b10",
        **{
            "created_at": CREATED_AT,
            "workspace": "studio",
            "labels": {"mode": "duel"},
            "attributes": {"gameye": ARENA},
            "members": ("ana", "bo"),
            **facts,
        },
    )


def closing(at: int = NOW_MS + 10_000, saving_at: int | None = None) -> Closing:
    """Return a pending close, asked for now."""
    return Closing(at=at, first_at=at, requested_at=NOW_MS, saving_at=saving_at)


def closed(**facts: Any) -> Closure:  # noqa: ANN401 - an outcome and texts
    """Return an end."""
    return Closure(**{"at": NOW_MS, "outcome": "closed", **facts})


def golden(name: str, value: object) -> None:
    """Compare *value* as JSON with a file."""
    expected = (GOLDEN / f"{name}.json").read_text()

    assert expected == indented(encode(value).decode(), indent=2) + "\n"


STATES: Final = [
    ("created", session(members=())),
    ("running", session(connection=LINK)),
    ("restarting", session(phase="restarting")),
    ("draining", session(closing=closing())),
    ("shuttingdown", session(closing=closing(saving_at=NOW_MS))),
    ("exited", session(closed=closed())),
    ("dead", session(closed=closed(outcome="lost"))),
    ("server_unreachable", session(phase="server_unreachable")),
]


@pytest.mark.parametrize("name,found", STATES, ids=[name for name, _ in STATES])
def test_session_in_each_state_is_listed_as_documented(name: str, found: Session) -> None:
    """Each of Gameye's eight states is shown for what it is."""
    seen = game_session(found, HOME, NOW_MS)

    assert seen.status == Status(name)
    assert seen.is_ended == (name in {"exited", "dead"})
    golden(f"entry_{name}", listed(seen))


def test_every_state_has_a_golden_file() -> None:
    """No state of Gameye is left out above."""
    assert {name for name, _ in STATES} == set(Status)


def test_session_alone_has_players_instead_of_their_number() -> None:
    """Looked at alone a session has the players and not their number."""
    golden("description", description(game_session(session(closing=closing()), HOME, NOW_MS)))


def test_string_encoding_wraps_port_and_labels_as_in_the_sample() -> None:
    """In the string encoding two fields are JSON in a string, under their own name."""
    seen = game_session(session(), HOME, NOW_MS)

    golden("entry_as_text", listed(seen, as_text=True))
    as_text, as_objects = listed(seen, as_text=True), listed(seen)
    assert isinstance(as_text.port, str)
    assert isinstance(as_text.labels, str)
    assert decode(as_text.port) == {"port": as_objects.port}
    assert decode(as_text.labels) == {"labels": as_objects.labels}


def test_session_alone_in_string_encoding_wraps_the_same_fields() -> None:
    """The string encoding is the same for a session alone."""
    seen = game_session(session(), HOME, NOW_MS)

    assert description(seen, as_text=True).labels == listed(seen, as_text=True).labels


def test_session_of_another_door_is_shown_with_neutral_values() -> None:
    """A session that knows nothing of Gameye stands in the list all the same."""
    seen = game_session(blank("s1", created_at=CREATED_AT), HOME, NOW_MS)

    golden("entry_of_another_door", listed(seen))


def test_session_of_another_door_says_what_it_knows() -> None:
    """What a client says of itself stands in for an image and a build."""
    client = Client(product="Firefox", version="140.0")
    by_client = game_session(blank("s1", client=client), HOME, NOW_MS)
    by_service = game_session(blank("s1", client=client, service="billing"), HOME, NOW_MS)
    silent = game_session(blank("s1", client=Client()), HOME, NOW_MS)

    assert (by_client.image, by_client.tag) == ("Firefox", "140.0")
    assert by_service.image == "billing"
    assert (silent.image, silent.tag) == ("session", "latest")


@pytest.mark.parametrize("junk", ["text", {"ports": "80"}, {"image": 3}, {"image": ""}, []])
def test_attributes_that_are_no_facts_count_as_none(junk: object) -> None:
    """Whatever somebody wrote into the attributes, a session can be shown."""
    found = blank("s1", attributes={"gameye": junk})

    assert container_facts(found) == ContainerFacts()
    assert game_session(found, HOME, NOW_MS).image == "session"


def test_start_tells_the_ports_as_a_list() -> None:
    """A start is answered with id, host and a list of ports."""
    golden("started", started(game_session(session(), HOME, NOW_MS)))


def test_roster_is_a_number_and_names() -> None:
    """Joins and leaves are answered with a count and names."""
    golden("roster", Roster(count=3, players=("ana", "bo", "cy")))


@pytest.mark.parametrize(
    "left_ms,expected",
    [(10_000, "draining"), (3_001, "draining"), (3_000, "shuttingdown"), (-5, "shuttingdown")],
)
def test_draining_becomes_shuttingdown_three_seconds_before_the_end(
    left_ms: int, expected: str
) -> None:
    """A stop of ten seconds is shown as draining for seven of them."""
    found = session(closing=closing())

    assert status(found, NOW_MS + 10_000 - left_ms) == expected


def test_short_stop_is_draining_for_half_its_time() -> None:
    """However short a stop is, both of its states can be seen."""
    found = session(closing=closing(at=NOW_MS + 1_000))

    assert status(found, NOW_MS + 499) == Status.DRAINING
    assert status(found, NOW_MS + 500) == Status.SHUTTING_DOWN


@pytest.mark.parametrize(
    "facts,expected",
    [
        ({"outcome": "closed"}, "exited"),
        ({"outcome": "lost", "by": "admin"}, "exited"),
        ({"outcome": "lost"}, "dead"),
        ({"outcome": "left"}, "exited"),
        ({"outcome": "unsaved", "by": "admin"}, "exited"),
        ({"outcome": "expired", "reason": "ttl"}, "exited"),
        ({"outcome": "expired", "reason": "linger"}, "exited"),
        ({"outcome": "expired", "reason": "keepalive"}, "dead"),
        ({"outcome": "expired", "reason": "start"}, "dead"),
    ],
)
def test_end_is_dead_only_when_nobody_asked_and_nobody_answered(
    facts: dict[str, str], expected: str
) -> None:
    """A session that was stopped exited, however its client took it."""
    assert status(session(closed=closed(**facts)), NOW_MS) == expected


def test_dead_session_that_is_closed_stays_dead() -> None:
    """What its producer called dead did not exit when it was cleared away."""
    assert status(session(phase="dead", closed=closed()), NOW_MS) == Status.DEAD


def test_phase_that_gameye_does_not_know_is_not_shown() -> None:
    """A phase of another product is no state of Gameye's."""
    assert status(session(phase="warming up", members=()), NOW_MS) == Status.CREATED


def test_session_with_players_runs_without_a_socket() -> None:
    """Where players are, something runs, even if its producer never spoke."""
    assert status(session(), NOW_MS) == Status.RUNNING


@pytest.mark.parametrize(
    "work",
    [
        {"watch": Watch(key="101", state="playing")},
        {"streams": (Stream(key="t1", kind="transcode"),)},
        {"unwatched_at": NOW_MS - 1},
    ],
)
def test_session_at_work_through_another_door_runs(work: dict[str, Any]) -> None:
    """What is reported through any door is work, not only a socket or a player."""
    assert status(session(members=(), **work), NOW_MS) == Status.RUNNING


def test_session_waiting_for_its_client_runs() -> None:
    """A session in its reconnect hold is not dropped: its clients would forget it."""
    away = Connection(id="c1", node="a:1", connected_at=CREATED_AT, ended_at=NOW_MS)

    assert status(session(members=(), connection=away), NOW_MS) == Status.RUNNING


@pytest.mark.parametrize(
    "name", ["id", "image", "tag", "location", "region", "host", "status", "labels"]
)
def test_field_is_what_the_entry_shows(name: str) -> None:
    """A filter by a field compares what the list shows."""
    seen = game_session(session(), HOME, NOW_MS)
    expected = {"region": seen.location, "labels": None}

    assert expected.get(name, getattr(listed(seen), name, None)) == seen.field(name)


def test_timestamp_has_whole_seconds() -> None:
    """Times of errors are RFC 3339 in UTC, in seconds."""
    assert timestamp(CREATED_AT) == "2026-01-01T00:00:00Z"


def test_port_facts_come_back_from_attributes() -> None:
    """Ports that a producer wrote are read with their protocol."""
    assert container_facts(session()).ports == (PortMapping("udp", 7777, 20481),)
