"""What neko's clients are shown, one golden file a state; SOURCES.md says where it is from."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.core.model import Closure, Connection, Profile, Session, Watch
from gateway.dialects.neko import render, schema
from tests.nodes import blank

GOLDEN = Path(__file__).parent / "golden"
T0 = 1_772_359_200_000  # 2026-03-01T10:00:00Z
HERE = Connection(id="c1", node="a:1", connected_at=T0 + 250)
MIA = Profile(
    name="Mia", can_login=True, can_connect=True, can_watch=True, can_host=True,
    can_share_media=True, can_access_clipboard=True, sends_inactive_cursor=True,
)  # fmt: skip
IDLE = blank("s1", created_at=T0, name="Mia", profile=MIA, grace_ms=5_000)
CONNECTED = replace(IDLE, connection=HERE, connected_at=T0 + 250)
WATCHING = replace(CONNECTED, watch=Watch(key="film"), watching_since=T0 + 1_000)
LEFT_AT = T0 + 300_500
AWAY = replace(CONNECTED, connection=replace(HERE, ended_at=LEFT_AT), disconnected_at=LEFT_AT)
LOST = replace(AWAY, settles_at=LEFT_AT + 5_000)
UNWATCHED = replace(CONNECTED, unwatched_at=T0 + 247_500)
CLOSED = replace(AWAY, closed=Closure(at=LEFT_AT, outcome="closed"))
NATIVE = blank("0199-native", created_at=T0)

STATES: dict[str, Session] = {
    "idle": IDLE,
    "connected": CONNECTED,
    "watching": WATCHING,
    "watching_alone": replace(WATCHING, connection=AWAY.connection, disconnected_at=LEFT_AT),
    "unwatched": UNWATCHED,
    "in_grace": LOST,
    "away": AWAY,
    "native": NATIVE,
}


def golden(name: str, shown: object) -> None:
    """Compare *shown* with a golden file; a new one is written and fails once."""
    path = GOLDEN / f"{name}.json"
    text = json.dumps(msgspec.to_builtins(shown), indent=1, sort_keys=True) + "\n"
    if not path.exists():
        path.write_text(text)
        pytest.fail(f"{path.name} is new: look at it")

    assert text == path.read_text()


@pytest.mark.parametrize("name", STATES)
def test_session_is_shown_as_recorded(name: str) -> None:
    """Each state of a session has neko's keys, and no key that neko would leave out."""
    golden(f"session_{name}", render.session_data("mia", STATES[name]))


def test_login_shows_the_token_and_cookies_do_not() -> None:
    """The token is a key of its own, left out where a cookie carries it."""
    shown = schema.SessionLoginResponse(
        id="mia", profile=MIA, state=render.state_of(IDLE), token="s1.x"
    )
    golden("login", shown)
    assert "token" not in msgspec.to_builtins(replace(shown, token=None))


@pytest.mark.parametrize(
    "name, before, after",
    [
        ("opened", None, IDLE),
        ("opened_connected", None, WATCHING),
        ("attached", IDLE, CONNECTED),
        ("replaced", CONNECTED, replace(CONNECTED, connection=replace(HERE, connected_at=T0 + 9))),
        ("lost", CONNECTED, LOST),
        ("returned", LOST, replace(CONNECTED, connection=replace(HERE, connected_at=T0 + 400_000))),
        ("settled", LOST, AWAY),
        ("left", CONNECTED, AWAY),
        ("watched", CONNECTED, WATCHING),
        ("stopped_watching", WATCHING, UNWATCHED),
        ("renamed", CONNECTED, replace(CONNECTED, name="Mimi")),
        ("relabelled", CONNECTED, replace(CONNECTED, labels={"a": "b"})),
        ("promoted", CONNECTED, replace(CONNECTED, profile=replace(MIA, is_admin=True))),
        ("closed_idle", IDLE, replace(IDLE, closed=CLOSED.closed)),
        ("closed_in_grace", LOST, replace(LOST, settles_at=None, closed=CLOSED.closed)),
        (
            "closed_watching",
            WATCHING,
            replace(UNWATCHED, connection=AWAY.connection, closed=CLOSED.closed),
        ),
    ],
)  # fmt: skip
def test_change_is_told_in_nekos_order(name: str, before: Session | None, after: Session) -> None:
    """Each commit becomes neko's events, in its order; what changes nothing it knows is silent."""
    first, last = render.told("mia", before, after)
    golden(f"change_{name}", [decoded(first), decoded(last)])


def decoded(texts: list[bytes]) -> list[Any]:
    """Read messages; each ends with a newline."""
    assert all(text.endswith(b"\n") for text in texts)
    return [json.loads(text) for text in texts]


def test_messages_of_the_room_have_nekos_keys() -> None:
    """Everything else that a client hears has the keys of neko's messages."""
    settings = schema.NekoSettings(plugins={"chat.enabled": True})
    init = schema.Init(
        session_id="mia",
        control_host=render.about("", render.control(None)),
        screen_size=schema.ScreenConfiguration(),
        sessions={"mia": render.session_data("mia", CONNECTED)},
        settings=settings,
    )
    stats = schema.NekoStats(
        has_host=True, host_id="mia", server_started_at="2026-03-01T10:00:00.000Z",
        total_users=0, last_user_left_at="2026-03-01T10:05:00.500Z", total_admins=1,
    )  # fmt: skip
    messages = [
        render.event("system/init", init),
        render.FOR_ADMINS,
        render.event("system/settings", render.about("root", settings)),
        render.event("system/disconnect", {"message": "session deleted"}),
        render.event("control/host", render.about("mia", render.control("mia"))),
        render.event("control/host", render.about("mia", render.control(None))),
        render.event("control/request", {"id": "bo"}),
        render.event("send/unicast", schema.Said("mia", "s", {"a": None}, "bo")),
        render.event("send/broadcast", schema.Said("mia", "s", [1])),
        *render.PLUGINS,
        render.HEARTBEAT,
    ]
    golden("messages", decoded(messages))
    golden("stats", [stats, render.control("mia"), render.control(None)])
    golden("error", schema.ErrorMessage(404, "session not found"))
