"""Tenants: what a token that is bound to a workspace can do outside of it, through every door.

The session in question is of another workspace and of an account of the same name. Nothing tells
its bearer that there is one; who has no workspace speaks for the installation and sees both.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.auth.principals import Scope
from gateway.auth.tokens import Claims, create_token
from gateway.core.command import Close, StartWatch
from gateway.core.model import Stream
from gateway.core.model import Watch as WatchRecord
from gateway.settings import Settings
from tests.dialects.conftest import Build
from tests.dialects.house import LISTS, PASSWORD, House
from tests.dialects.neko.client import Neko
from tests.dialects.webida.client import Client
from tests.nodes import blank
from tests.server.conftest import ADMIN, api_key

Json = Any

ALICE, HERE, ELSEWHERE = "alice", "ws-a", "ws-b"
BOUND, EVERYWHERE, READER = "alice-of-a", "alice-of-all", "reader-of-a"  # keys, by their names
THEIRS, OURS, LOOSE = "of-ws-b", "of-ws-a", "of-no-workspace"  # sessions
FILM: Final = WatchRecord(key="film", title="A secret film", state="playing", duration_ms=9_000)


@pytest.fixture
def house_settings(house_settings: Settings) -> Settings:
    """The whole gateway, with alices of one workspace and of the installation."""
    keys = (
        api_key(BOUND, "connect", account=ALICE, workspace=HERE),
        api_key(EVERYWHERE, "connect", account=ALICE),
        api_key(READER, "connect", "read", account=ALICE, workspace=HERE),
    )
    return replace(house_settings, api_keys=keys)


@pytest.fixture
async def tenants(build: Build) -> AsyncIterator[House]:
    """A gateway with a session of alice in each workspace and in none, and one that is closed."""
    async with build() as house:
        users = house.gateway.context.users
        users.add("alice", PASSWORD, scopes=[Scope.CONNECT], workspace=HERE)
        for session_id, workspace in ((THEIRS, ELSEWHERE), (OURS, HERE), (LOOSE, None)):
            await opens(house, session_id, workspace)
            await opens(house, f"closed-{session_id}", workspace)
            await house.node.apply(f"closed-{session_id}", Close(reason="done"))
        yield house


async def opens(house: House, session_id: str, workspace: str | None) -> None:
    """Open a session of alice that watches something and has a stream."""
    stream = Stream(key="t1", kind="transcode", state="running")
    session = blank(session_id, account=ALICE, workspace=workspace, name="private")
    await house.node.open(replace(session, streams=(stream,)))
    await house.node.apply(session_id, StartWatch(watch=FILM))


NATIVE: Final = (
    ("GET", "", None),
    ("PATCH", "", {"name": "changed"}),
    ("DELETE", "", None),
    ("GET", "/closing", None),
    ("PUT", "/closing", {"after_s": 5}),
    ("DELETE", "/connection", None),
    ("PUT", "/watch", {"key": "other"}),
    ("DELETE", "/watch", None),
    ("PUT", "/streams/t1", {"kind": "transcode", "state": "running"}),
    ("DELETE", "/streams/t1", None),
    ("PUT", "/members/bob", None),
)


@pytest.mark.parametrize("token", [BOUND, READER])
async def test_native_sessions_of_another_workspace_are_not_there(
    tenants: House, token: str
) -> None:
    """Nothing can be read of them, changed or ended, open or closed: they are not there."""
    for method, path, body in NATIVE:
        for hidden in (THEIRS, LOOSE, f"closed-{THEIRS}", f"closed-{LOOSE}"):
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            answer = await tenants.ask(
                "native",
                method,
                f"/v1/sessions/{hidden}{path}",
                token=token,
                headers={"Content-Type": kind},
                content=b"" if body is None else json.dumps(body),
            )
            # Before it is said whether there is such a session, a token may lack the scope.
            assert answer.status_code in (404, 403), (method, path, hidden, answer.text)
            assert hidden not in answer.text.replace(f"/sessions/{hidden}", "")
    answer = await tenants.ask("native", "GET", f"/v1/sessions/{THEIRS}", token=token)
    assert answer.status_code == 404

    session = tenants.node.replica.sessions[THEIRS]
    assert (session.name, session.is_watching, session.closing) == ("private", True, None)


@pytest.mark.parametrize("token", [BOUND, READER])
async def test_native_lists_show_the_tokens_workspace_alone(tenants: House, token: str) -> None:
    """Lists, counts, streams, history and the pages of the feed hold nothing of another one."""
    listed = await tenants.read("native", "/v1/sessions?limit=1000", token=token)
    assert [session["id"] for session in listed["sessions"]] == [OURS]
    for path in (
        f"/v1/sessions?account={ALICE}",
        f"/v1/sessions?workspace={ELSEWHERE}",
        "/v1/streams",
        "/v1/history?kind=session",
        "/v1/history?kind=watch",
    ):
        told = json.dumps(await tenants.read("native", path, token=token))
        assert THEIRS not in told, path
        assert LOOSE not in told, path
        assert ELSEWHERE in path or OURS in told, path
    stats = await tenants.read("native", "/v1/stats", token=token)
    assert stats["sessions"] == 1

    start = await tenants.read("native", "/v1/events", token=token)
    await tenants.node.apply(THEIRS, StartWatch(watch=replace(FILM, title="theirs")))
    await tenants.node.apply(OURS, StartWatch(watch=replace(FILM, title="ours")))
    page = await tenants.read("native", f"/v1/events?since={start['position']}", token=token)
    assert {event["session_id"] for event in page["events"]} == {OURS}


async def test_native_feed_of_a_tenant_tells_nothing_of_others(tenants: House) -> None:
    """A socket hears of its own workspace, from the snapshot on."""
    url = tenants.gateway.url.replace("http", "ws") + f"/v1/events?token={BOUND}"
    async with connect(url, proxy=None) as socket:
        said = [await socket.recv(), await socket.recv()]
        for session_id in (THEIRS, LOOSE, OURS):
            await tenants.node.apply(session_id, StartWatch(watch=replace(FILM, title="next")))
        said.append(await socket.recv())
    heard = "".join(map(str, said))
    assert OURS in heard
    assert THEIRS not in heard
    assert LOOSE not in heard


@pytest.mark.parametrize("token", [BOUND, READER])
async def test_native_socket_takes_over_nothing_of_another_workspace(
    tenants: House, token: str
) -> None:
    """To attach by the account is refused alike, whether there is such a session or not."""
    for session_id in (THEIRS, LOOSE, f"closed-{THEIRS}", "unheard-of"):
        url = tenants.gateway.url.replace("http", "ws")
        async with connect(
            f"{url}/v1/connect?token={token}&session={session_id}", proxy=None
        ) as socket:
            said = json.loads(await socket.recv())
            assert said["type"] == "bye"
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4507
    assert not tenants.node.replica.sessions[THEIRS].is_connected


async def test_account_without_a_workspace_is_one_person_everywhere(tenants: House) -> None:
    """A token for the installation keeps what its account opened in any workspace."""
    listed = await tenants.read("native", "/v1/sessions", token=EVERYWHERE)
    assert {session["id"] for session in listed["sessions"]} == {THEIRS, OURS, LOOSE}
    url = tenants.gateway.url.replace("http", "ws")
    async with connect(
        f"{url}/v1/connect?token={EVERYWHERE}&session={THEIRS}", proxy=None
    ) as socket:
        assert json.loads(await socket.recv())["type"] == "hello"
    webida = await tenants.read("webida", "/api/sessions", token=EVERYWHERE)
    assert {session["id"] for session in webida} == {THEIRS, OURS, LOOSE}


@pytest.mark.parametrize(
    "door,path",
    [
        ("webida", "/api/sessions"),
        ("gameye", "/session"),
        ("plex", "/status/sessions/history/all"),
        ("maxscale", "/v1/sessions"),
    ],
)
@pytest.mark.parametrize("token", [BOUND, READER])
async def test_dialects_list_the_tokens_workspace_alone(
    tenants: House, door: str, path: str, token: str
) -> None:
    """What a product lists is what may be seen: nothing of another workspace."""
    answer = await tenants.ask(door, "GET", path, token=token)
    if (door, token) == ("maxscale", BOUND) and answer.status_code == 403:
        return  # a token that may not read is a basic user of nothing
    assert answer.status_code == 200, answer.text
    theirs = tenants.node.replica.sessions[THEIRS]
    assert THEIRS not in answer.text
    assert ELSEWHERE not in answer.text
    assert f'"id":"{theirs.number}"' not in answer.text.replace(" ", "")


@pytest.mark.parametrize("token", [BOUND, READER])
@pytest.mark.parametrize("hidden", [THEIRS, LOOSE, f"closed-{THEIRS}"])
async def test_dialects_answer_as_if_it_were_not_there(
    tenants: House, token: str, hidden: str
) -> None:
    """To look at one, to change it and to end it is answered as for an id that never was."""
    known = tenants.node.replica.sessions.get(hidden)
    number = known.number if known else tenants.node.replica.gone[hidden].number
    asked = (
        ("webida", "GET", f"/api/sessions/{hidden}"),
        ("webida", "DELETE", f"/api/sessions/{hidden}?closeAfter=1"),
        ("gameye", "GET", f"/session/{hidden}"),
        ("gameye", "DELETE", f"/session/{hidden}"),
        ("maxscale", "GET", f"/v1/sessions/{number}"),
        ("maxscale", "DELETE", f"/v1/sessions/{number}"),
        ("maxscale", "PATCH", f"/v1/sessions/{number}"),
        ("plex", "GET", f"/status/sessions/terminate?sessionId={hidden}&reason=x"),
        ("neko", "GET", f"/api/sessions/{hidden}"),
        ("neko", "DELETE", f"/api/sessions/{hidden}"),
        ("neko", "POST", f"/api/sessions/{hidden}/disconnect"),
    )
    for door, method, path in asked:
        answer = await tenants.ask(door, method, path, token=token)
        never = path.replace(hidden, "unheard-of").replace(f"/{number}", "/4711")
        reference = await tenants.ask(door, method, never, token=token)
        assert answer.status_code in (400, 403, 404, 405), (door, method, answer.text)
        assert answer.status_code == reference.status_code, (door, method, path)
    if known is not None:
        session = tenants.node.replica.sessions[hidden]
        assert (session.closing, session.is_watching) == (None, True)


async def test_member_of_neko_sees_its_own_workspace_alone(tenants: House) -> None:
    """A member whose session remembers its account sees nothing of the namesake's."""
    member = Neko(tenants.gateway.url + "/neko")
    status, found = await member.post("/api/login", username="alice", password=PASSWORD)
    assert status == 200
    answer = await tenants.ask("neko", "GET", "/api/sessions", token=found["token"])
    names = {session["id"] for session in answer.json()}
    assert names == {"alice", OURS}
    assert THEIRS not in answer.text


async def test_socket_of_webida_takes_over_nothing_of_another_workspace(tenants: House) -> None:
    """Neither the key of a tenant nor a restricted ACCESS token comes into the namesake's."""
    login = {"loginId": "alice", "loginPassword": PASSWORD}
    token = (await tenants.ask("webida", "POST", "/api/auth/login", json=login)).json()["text"]
    for shown in (BOUND, token):
        for session_id in (THEIRS, LOOSE, f"closed-{THEIRS}"):
            client = await Client.open(
                tenants.gateway.url, "A", shown, sessionId=session_id, workspaceId=HERE
            )
            assert await client.refused() == "insufficient access rights"
            client = await Client.open(tenants.gateway.url, "A", shown, sessionId=session_id)
            assert await client.refused() == "insufficient access rights"
    assert not tenants.node.replica.sessions[THEIRS].is_connected


async def test_restricted_token_of_webida_leaves_the_session_behind(tenants: House) -> None:
    """A token that is restricted to another workspace than its session's is another session's."""
    users = tenants.gateway.context.users
    users.add("eve", PASSWORD, scopes=[Scope.CONNECT, Scope.READ])
    login = {"loginId": "eve", "loginPassword": PASSWORD}
    first = (await tenants.ask("webida", "POST", "/api/auth/login", json=login)).json()
    client = await Client.open(tenants.gateway.url, "A", first["text"], workspaceId=ELSEWHERE)
    await client.join()
    narrow = await tenants.ask(
        "webida",
        "POST",
        f"/api/auth/token?type=ACCESS&workspaceId={HERE}",
        token=first["text"],
    )
    same = await tenants.ask(
        "webida",
        "POST",
        f"/api/auth/token?type=ACCESS&workspaceId={ELSEWHERE}",
        token=first["text"],
    )
    assert narrow.json()["sessionId"] != first["sessionId"] == same.json()["sessionId"]
    path = f"/api/sessions/{first['sessionId']}"
    for token, status in ((narrow, 404), (same, 200)):
        answer = await tenants.ask("webida", "GET", path, token=token.json()["text"])
        assert answer.status_code == status
    await client.leave()


async def test_notifications_of_plex_tell_a_tenant_nothing_of_others(tenants: House) -> None:
    """What plays in another workspace is not pushed to whoever has the same account name."""
    url = tenants.gateway.url.replace("http", "ws")
    async with connect(
        f"{url}/plex/:/websockets/notifications?X-Plex-Token={BOUND}", proxy=None
    ) as socket:
        for session_id in (THEIRS, LOOSE, OURS):
            paused = replace(FILM, state="paused")
            await tenants.node.apply(session_id, StartWatch(watch=paused))
        numbers = {tenants.node.replica.sessions[OURS].number}
        said = json.loads(await socket.recv())["NotificationContainer"]
        [state] = said["PlaySessionStateNotification"]
        assert int(state["sessionKey"]) in numbers


@pytest.mark.parametrize("door", ["native", *LISTS])
async def test_admin_of_one_workspace_is_refused_at_every_door(
    build: Build, house_settings: Settings, door: str
) -> None:
    """A JWT that grants ``admin`` within a workspace is no token; without the workspace it is."""
    async with build(jwt_key="k" * 40) as house:
        settings = replace(house_settings, jwt_key="k" * 40)
        now_ms = house.gateway.context.wall_ms()
        for workspace, statuses in ((HERE, (401,)), (None, (200,))):
            claims = Claims(
                account=ALICE,
                workspace=workspace,
                scopes=frozenset({"admin"}),
                expires_at=now_ms + 60_000,
            )
            token = create_token(settings, claims, now_ms)
            path = LISTS.get(door, "/v1/sessions")
            answer = await house.ask(door, "GET", path, token=token)
            assert answer.status_code in statuses, answer.text


async def test_admin_still_sees_everything(tenants: House) -> None:
    """Nothing is hidden from the administrator of the installation."""
    listed = await tenants.read("native", "/v1/sessions", token=ADMIN)
    assert {session["id"] for session in listed["sessions"]} == {THEIRS, OURS, LOOSE}
