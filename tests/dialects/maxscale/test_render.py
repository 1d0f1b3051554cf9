"""How a session looks in MaxScale's words: one golden file a state, and what else may be told."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.model import Closure, Session, State, Stream, Watch
from gateway.dialects.maxscale.facts import ProxyFacts, proxy_facts
from gateway.dialects.maxscale.render import (
    RenderContext,
    document,
    error_document,
    filters_of,
    heard_at,
    named,
    resource,
    service_of,
)
from tests.dialects.maxscale.build import (
    NOW_MS,
    OPENED_AT,
    PLAIN,
    SCENE,
    SEED,
    as_json,
    away,
    closing,
    connection,
    created,
    started,
    told,
)

Golden = Callable[[str], Any]
ACTIVE_AT = NOW_MS - 12_460


def attributes(session: Session, scene: RenderContext = SCENE, active_at: int | None = None) -> Any:  # noqa: ANN401
    """Return what is told of a session."""
    return as_json(resource(session, active_at, scene))["attributes"]


@pytest.mark.parametrize(
    "name, session, active_at, scene",
    [
        ("created", created(), None, SCENE),
        ("started", started(), ACTIVE_AT, SCENE),
        ("away", away(), ACTIVE_AT, SCENE),
        ("closing", closing(), ACTIVE_AT, SCENE),
        ("told", told(), ACTIVE_AT, SCENE),
        ("plain", told(), ACTIVE_AT, PLAIN),
        ("seed_created", created(), None, SEED),
        ("seed_started", started(), ACTIVE_AT, SEED),
        ("seed_closing", closing(), ACTIVE_AT, SEED),
        ("seed_told", told(), ACTIVE_AT, SEED),
    ],
)
def test_session_looks_like_its_golden_file(
    name: str, session: Session, active_at: int | None, scene: RenderContext, golden: Golden
) -> None:
    """A session in each state is the document that MaxScale would send."""
    assert as_json(document(session, active_at, scene)) == golden(name)


def test_every_state_has_a_word() -> None:
    """A closed session, which no reply shows, has a word as well."""
    closed = started(closed=Closure(at=NOW_MS, outcome="closed"))

    assert closed.state is State.CLOSED
    assert attributes(closed)["state"] == "Freed session"


@pytest.mark.parametrize(
    "work",
    [
        {"streams": (Stream(key="db-a", kind="backend"),)},
        {"streams": (Stream(key="t1", kind="transcode"),)},
        {"watch": Watch(key="101", state="playing")},
        {"unwatched_at": NOW_MS - 1},
        {"members": ("ann",)},
        {"phase": "running"},
    ],
)
def test_session_at_work_is_started_without_a_socket(work: dict[str, Any]) -> None:
    """Work that is reported from outside starts a session as a socket does, in both forms."""
    assert attributes(created(**work))["state"] == "Session started"
    assert attributes(created(**work), SEED)["state"] == "Session ready for routing"
    assert attributes(created(**work, closing=closing().closing))["state"] == "Stopping session"


def test_session_of_which_nothing_is_reported_is_created() -> None:
    """A session that was only opened, or whose process is not there yet, is not started."""
    assert attributes(created(name="Ann"))["state"] == "Session created"
    assert attributes(created(phase="created"))["state"] == "Session created"


def test_user_is_the_account_else_the_name() -> None:
    """A session without an account is known by its name, and by nothing if it has none."""
    assert attributes(created(account="ann", name="Ann"))["user"] == "ann"
    assert attributes(created(name="Ann"))["user"] == "Ann"
    assert "user" not in attributes(created())


def test_address_of_the_connection_is_for_those_who_may_write() -> None:
    """Who may only read does not learn addresses from connections."""
    assert attributes(started())["remote"] == "192.0.2.7"
    assert attributes(started())["port"] == 51514
    assert not {"remote", "port"} & attributes(started(), PLAIN).keys()


def test_address_that_a_proxy_tells_stands_in_for_an_unknown_one() -> None:
    """What a proxy tells of its client counts only where no connection says better."""
    facts = {"maxscale": {"remote": "198.51.100.9", "port": 4242}}
    reported = attributes(created(attributes=facts))
    connected = attributes(started(attributes=facts))
    unknown = attributes(started(attributes=facts, connection=connection(address=None)))

    assert (reported["remote"], reported["port"]) == ("198.51.100.9", 4242)
    assert (connected["remote"], connected["port"]) == ("192.0.2.7", 51514)
    assert (unknown["remote"], unknown["port"]) == ("198.51.100.9", 4242)


def test_port_of_another_address_is_not_shown() -> None:
    """A connection whose port is unknown does not borrow the one a proxy told."""
    facts = {"maxscale": {"port": 4242}}
    shown = attributes(started(attributes=facts, connection=connection(port=None)))

    assert shown["remote"] == "192.0.2.7"
    assert "port" not in shown


@pytest.mark.parametrize(
    "active_at, idle",
    [(None, 73.2), (OPENED_AT - 5, 73.2), (NOW_MS - 1990, 1.9), (NOW_MS + 50, 0.0)],
)
def test_idle_counts_from_the_last_sign_of_the_client(active_at: int | None, idle: float) -> None:
    """Idle is the time since the client spoke or came, in tenths of a second, never negative."""
    assert attributes(started(), active_at=active_at)["idle"] == idle


def test_idle_is_nothing_while_a_query_runs() -> None:
    """A session with an unfinished query is not idle, however long ago its client spoke."""
    running = {"maxscale": {"queries": [{"statement": "SELECT SLEEP(9)", "received": "now"}]}}

    assert attributes(created(attributes=running))["idle"] == 0.0
    assert "completed" not in attributes(created(attributes=running))["queries"][0]


def test_idle_of_a_client_never_heard_of_is_unknown() -> None:
    """A session whose client was never seen has no idle time."""
    assert heard_at(created(), None) is None
    assert "idle" not in attributes(created())
    assert attributes(created(), active_at=NOW_MS - 300)["idle"] == 0.3


def test_age_is_never_negative() -> None:
    """A session from a clock ahead of ours is new, not from the future."""
    assert attributes(created(created_at=NOW_MS + 10))["seconds_alive"] == 0.0


def test_client_describes_itself_where_no_proxy_does() -> None:
    """Program and platform of a native client are its connection attributes."""
    session = replace(told(), attributes={})

    assert attributes(session)["client"] == {
        "cipher": "TLS",
        "connection_attributes": {
            "_client_name": "libx",
            "_client_version": "3.1",
            "_platform": "x86_64",
            "program_name": "checkout",
        },
    }


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        [],
        "text",
        {"queries": 7, "memory": "much", "log": [1], "io_activity": -1, "thread": 1.5},
        {"client": [], "parameters": {"log_info": "yes"}, "filters": [""], "port": 70000},
        {"memory": {"total": 2**70}, "queries": [[]], "remote": 5},
    ],
)
def test_nonsense_in_attributes_is_as_if_it_were_not_there(nonsense: object) -> None:
    """A session can always be shown, whatever was written into its attributes."""
    spoilt = created(attributes={"maxscale": nonsense})

    assert proxy_facts(spoilt) == ProxyFacts()
    assert attributes(spoilt) == attributes(created())


def test_one_bad_fact_leaves_the_others() -> None:
    """A fact of the wrong type does not take the good ones with it."""
    facts = proxy_facts(created(attributes={"maxscale": {"thread": "x", "io_activity": 4}}))

    assert (facts.thread, facts.io_activity) == (0, 4)


def test_backend_with_nonsense_is_named_by_its_key() -> None:
    """A backend stream that tells nothing usable is still a connection."""
    stream = Stream(key="db-c", kind="backend", data={"connection_id": "many"})

    assert attributes(created(streams=(stream,)))["connections"] == [
        {"server": "db-c", "connection_id": 0, "cipher": ""}
    ]


def test_relationships_are_documents_of_their_own(golden: Golden) -> None:
    """What stands in a session is also what its relationship links answer."""
    whole = golden("told")["data"]["relationships"]

    assert as_json(service_of(told(), SCENE)) == whole["services"]
    assert as_json(filters_of(told(), SCENE)) == whole["filters"]
    assert as_json(filters_of(created(), SCENE))["data"] == []


def test_names_are_encoded_in_links(golden: Golden) -> None:
    """A service may be called anything; its address is one path segment."""
    assert as_json(named("services", "a/b c", 2, SCENE)) == golden("service")


def test_errors_tell_details_only(golden: Golden) -> None:
    """An error is MaxScale's list of details."""
    assert as_json(error_document("x is not a filter", "Could not restart all sessions")) == (
        golden("errors")
    )
