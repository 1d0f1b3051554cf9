"""One state, five spellings: opened through one door, a session is seen and closed through all."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

import pytest

from tests.dialects.closing import CLOSERS, LATER, LATER_S, Close
from tests.dialects.conftest import Build
from tests.dialects.hearing import Ears, all_ears
from tests.dialects.house import ITEM, House
from tests.dialects.looking import LOOKS, is_gone
from tests.dialects.opening import OPENERS, End, Opened
from tests.support import eventually

Json = Any
Opener = Callable[[House], AbstractAsyncContextManager[Opened]]

GONE: Final = {
    "native": 410,
    "neko": 404,
    "plex": False,
    "webida": 404,
    "gameye": 200,  # an ended session can be looked at, but is not listed
    "gameye list": False,
    "maxscale": 404,
}
HIDDEN: Final = {**GONE, "native": 404, "gameye": 404}


async def seen_everywhere(house: House, opened: Opened, **changed: object) -> None:
    """Look through every door: each tells the same facts, as far as it knows them."""
    facts = {**opened.facts, **changed}
    facts["began_at_s"] = int(str(facts["began_at"])) // 1000
    for door, look in LOOKS.items():
        seen = await look(house, opened)
        assert seen == {name: facts[name] for name in seen}, door


async def heard_of_opening(ears: Ears, opened: Opened) -> None:
    """Each live channel tells of the new session: who it is, and whether its client is there."""
    told = await ears.native.hears(is_native("session.opened", opened))
    for name in ("name", "account", "workspace", "service"):
        assert told["changes"].get(name) == opened.facts[name]
    created = await ears.neko.hears(is_neko("session/created", opened))
    assert created["payload"]["profile"]["name"] == opened.facts["name"]
    if opened.facts["is_connected"]:
        there = is_neko("session/state", opened)
        await ears.neko.hears(lambda said: there(said) and said["payload"]["is_connected"])


def is_native(event: str, opened: Opened) -> Callable[[Json], bool]:
    """Return what tells our *event* about a session from all others."""
    return lambda said: said["type"] == event and said["session_id"] == opened.id


def is_neko(event: str, opened: Opened) -> Callable[[Json], bool]:
    """Return what tells neko's *event* about a session from all others."""
    return lambda said: said["event"] == event and said["payload"]["id"] == opened.neko_id


def is_playing(state: str, opened: Opened) -> Callable[[Json], bool]:
    """Return what tells Plex's news of a playback in *state* from all others."""

    def matches(said: Json) -> bool:
        [told] = said["NotificationContainer"].get("PlaySessionStateNotification", [{}])
        return (told.get("sessionKey"), told.get("state")) == (str(opened.number), state)

    return matches


async def watches(house: House, opened: Opened) -> None:
    """Let the session watch something, from outside, as any door may."""
    film = {"key": ITEM, "title": "A film", "state": "playing", "duration_ms": 90_000}
    answer = await house.ask("native", "PUT", f"/v1/sessions/{opened.id}/watch", json=film)
    assert answer.status_code == 200, answer.text


async def heard_of_end(ears: Ears, opened: Opened, end: End) -> None:
    """Each live channel tells of the end in its own words."""
    told = await ears.native.hears(is_native("session.closed", opened))
    assert told["changes"]["closed"].get("reason") == end.reason
    await ears.neko.hears(is_neko("session/deleted", opened))
    await ears.plex.hears(is_playing("stopped", opened))


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
async def test_session_is_seen_through_every_door(house: House, opener: Opener) -> None:
    """Whichever door opened a session, all tell the same facts, and live channels tell them now."""
    async with all_ears(house) as ears, opener(house) as opened:
        await seen_everywhere(house, opened)
        await heard_of_opening(ears, opened)

        await watches(house, opened)
        await seen_everywhere(house, opened, is_watching=True)
        if not opened.facts["is_watching"]:
            await ears.native.hears(is_native("session.watching", opened))
        seeing = is_neko("session/state", opened)
        await ears.neko.hears(lambda said: seeing(said) and said["payload"]["is_watching"])
        await ears.plex.hears(is_playing("playing", opened))


@pytest.mark.parametrize("closer", CLOSERS.values(), ids=CLOSERS)
@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
async def test_session_is_closed_through_every_door(
    house: House, opener: Opener, closer: Close
) -> None:
    """Whoever closes a session, its client and all watchers hear so in their own words, once."""
    async with all_ears(house) as ears, opener(house) as opened:
        await watches(house, opened)
        end = await closer.do(house, opened)

        await heard_of_end(ears, opened, end)
        await opened.ended(end)
        assert await is_gone(house, opened) == GONE
        for ear, which in (
            (ears.neko, is_neko("session/deleted", opened)),
            (ears.plex, is_playing("stopped", opened)),
        ):
            assert len(list(filter(which, ear.heard))) == 1


NEXT: Final = dict(
    zip(OPENERS, ("plex", "webida", "gameye", "maxscale", "neko", "native"), strict=True)
)


@pytest.mark.parametrize("name", OPENERS)
async def test_session_of_one_node_is_seen_and_closed_on_another(build: Build, name: str) -> None:
    """Opened on one node, a session is seen and closed on another one, and each hears it there."""
    async with (
        build() as here,
        build(node_name="node-b") as there,
        all_ears(there) as ears,
        OPENERS[name](here) as opened,
    ):
        await eventually(lambda: opened.id in there.node.replica.sessions)
        await heard_of_opening(ears, opened)
        await watches(there, opened)
        await seen_everywhere(there, opened, is_watching=True)

        end = await CLOSERS[NEXT[name]].do(there, opened)
        await heard_of_end(ears, opened, end)
        await eventually(lambda: opened.id in here.node.replica.gone)
        await opened.ended(end)
        assert await is_gone(there, opened) == GONE


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
async def test_hidden_session_is_unknown_through_every_door(house: House, opener: Opener) -> None:
    """Whoever may not see a session is told everywhere that there is none, and cannot close it."""
    async with opener(house) as opened:
        await watches(house, opened)
        assert await is_gone(house, opened, token="stranger") == HIDDEN
        nobody = Opened("nobody", {"number": 999_999}, opened.ended, neko_id="nobody")
        for closer in (*CLOSERS.values(), *LATER.values()):
            hidden = await closer.ask(house, opened, token="stranger")
            unknown = await closer.ask(house, nobody, token="stranger")
            assert hidden.status_code == unknown.status_code, closer
            assert hidden.status_code in (400, 404), closer  # neko's is 400
        await seen_everywhere(house, opened, is_watching=True)


@pytest.mark.parametrize("name", ["native-socket", "neko", "plex"])
async def test_session_that_its_client_ends_is_gone_everywhere(house: House, name: str) -> None:
    """A client that leaves in its own words ends the session at every door."""
    async with all_ears(house) as ears, OPENERS[name](house) as opened:
        await watches(house, opened)
        assert opened.leave is not None
        await opened.leave()

        told = await ears.native.hears(is_native("session.closed", opened))
        assert told["changes"]["closed"]["outcome"] in ("left", "closed")
        await ears.neko.hears(is_neko("session/deleted", opened))
        await ears.plex.hears(is_playing("stopped", opened))
        assert await is_gone(house, opened) == GONE


async def test_session_of_which_nothing_is_known_is_shown_by_every_door(house: House) -> None:
    """What a product needs and nobody said has a neutral value; what it need not is absent."""
    answer = await house.ask("native", "POST", "/v1/sessions", json={"id": "bare"})
    assert answer.status_code == 201, answer.text
    await house.ask("native", "PUT", "/v1/sessions/bare/watch", json={"key": "thing"})

    in_neko = await house.read("neko", "/api/sessions/bare")
    assert in_neko["profile"]["name"] == "bare"
    assert not in_neko["profile"]["is_admin"]
    [in_plex] = (await house.read("plex", "/status/sessions"))["MediaContainer"]["Metadata"]
    assert (in_plex["User"]["id"], in_plex["User"]["title"]) == ("1", "owner")
    assert (in_plex["title"], in_plex["Player"]["title"]) == ("thing", "bare")
    assert not [name for name in in_plex if name.startswith("librarySection")]
    in_webida = await house.read("webida", "/api/sessions/bare")
    assert (in_webida["name"], in_webida["clientAddress"]) == ("global/bare", "unknown")
    assert "workspaceId" not in in_webida
    in_gameye = await house.read("gameye", "/session/bare")
    assert (in_gameye["image"], in_gameye["tag"]) == ("session", "latest")
    assert (in_gameye["location"], in_gameye["host"]) == ("local", "127.0.0.1")
    [row] = (await house.read("maxscale", "/v1/sessions"))["data"]
    assert row["relationships"]["services"]["data"] == [{"id": "default", "type": "services"}]
    assert not {"user", "remote", "port"} & row["attributes"].keys()


# --- closed later


@pytest.mark.parametrize("close", LATER.values(), ids=LATER)
async def test_delayed_close_is_told_through_every_door(build: Build, close: Close) -> None:
    """Whoever schedules a close, each door shows it, clients are warned, it can be called off."""
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(build(gameye_stop_after_s=float(LATER_S)))
        ears = await stack.enter_async_context(all_ears(house))
        found = [await stack.enter_async_context(open_(house)) for open_ in OPENERS.values()]
        for opened in found:
            await watches(house, opened)
            await close.do(house, opened)

            told = await ears.native.hears(is_native("session.closing", opened))
            closes_at = told["changes"]["closes_at"]
            native = await house.read("native", f"/v1/sessions/{opened.id}")
            assert (native["state"], native["closes_at"]) == ("closing", closes_at)
            webida = await house.read("webida", f"/api/sessions/{opened.id}")
            assert (webida["state"], webida["willCloseAt"]) == ("CLOSING", closes_at)
            assert (await house.read("gameye", f"/session/{opened.id}"))["status"] == "draining"
            row = (await house.read("maxscale", f"/v1/sessions/{opened.number}"))["data"]
            assert row["attributes"]["state"] == "Stopping session"
            assert (await LOOKS["neko"](house, opened))["is_watching"]
            assert (await LOOKS["plex"](house, opened))["is_watching"]
            if opened.warned is not None:
                await opened.warned()

            path = f"/v1/sessions/{opened.id}/closing"
            assert (await house.ask("native", "DELETE", path)).status_code in (200, 204)
            await seen_everywhere(house, opened, is_watching=True)


@pytest.mark.parametrize("name", ["native-socket", "neko", "webida"])
async def test_lost_client_is_told_through_every_door(house: House, name: str) -> None:
    """A client that was lost is shown so by each door that has a word for it; it can be closed."""
    async with all_ears(house) as ears, OPENERS[name](house) as opened:
        assert opened.lose is not None
        opened.lose()

        async def away() -> Json:
            session = await house.read("native", f"/v1/sessions/{opened.id}")
            return session if session["state"] == "away" else None

        native = await eventually(away)
        ended_at = native["connection"]["ended_at"]
        webida = await house.read("webida", f"/api/sessions/{opened.id}")
        assert (webida["state"], webida["disconnectedAt"]) == ("LOSING", ended_at)
        assert webida["clientAddress"] == "127.0.0.1"
        assert ("willLoseAt" in webida) == (name != "neko")  # neko's sessions wait for ever
        assert (await house.read("gameye", f"/session/{opened.id}"))["status"] == "running"
        row = (await house.read("maxscale", f"/v1/sessions/{opened.number}"))["data"]
        assert row["attributes"]["state"] == "Session started"
        assert row["attributes"]["remote"] == "127.0.0.1"
        known = await house.read("neko", f"/api/sessions/{opened.neko_id}")
        assert known["state"]["is_connected"] == (name == "neko")  # which says so after 5 s
        if name != "neko":
            assert known["state"]["not_connected_since"] == ended_at
            told = is_neko("session/state", opened)
            await ears.neko.hears(lambda said: told(said) and not said["payload"]["is_connected"])

        await CLOSERS["webida"].do(house, opened)
        assert await is_gone(house, opened) == GONE
