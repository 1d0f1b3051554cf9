"""What plays, and ending it; by whatever door a session came."""

import asyncio
from xml.etree import ElementTree as ET

import httpx2
import pytest
from msgspec.structs import replace

from gateway.core.command import Close, StartStream, StartWatch, Unwatch
from gateway.core.errors import SessionClosed
from gateway.core.model import Client, Session, Stream, Watch
from gateway.dialects.plex import state as numbers
from gateway.dialects.plex.state import DERIVED_FROM, ITEM, OWN_ITEMS, Numbers
from tests.dialects.plex.conftest import Plex
from tests.nodes import blank, connection, running_node


async def listed(
    http: httpx2.AsyncClient, path: str = "/status/sessions"
) -> list[dict[str, object]]:
    """Return the entries of a list."""
    reply = await http.get(path)
    assert reply.status_code == 200, reply.text
    container = reply.json()["MediaContainer"]
    name = "TranscodeSession" if path.startswith("/transcode") else "Metadata"
    entries: list[dict[str, object]] = container.get(name, [])
    assert container["size"] == len(entries)
    return entries


async def transcode(plex: Plex, session_id: str, key: str) -> Session:
    """Let a session have a transcode."""
    stream = Stream(key=key, kind="transcode", state="running", data={"progress": 2})
    return await plex.node.apply(session_id, StartStream(stream=stream))


async def test_only_sessions_that_watch_are_listed(plex: Plex, http: httpx2.AsyncClient) -> None:
    """A session appears with its watch and goes with it; its number is the key it goes by."""
    await plex.node.open(blank("s-1", name="Ann"))
    assert await listed(http) == []

    watching = await plex.node.apply("s-1", StartWatch(watch=Watch(key="lesson/3")))
    (entry,) = await listed(http)
    assert entry["sessionKey"] == str(watching.number)
    assert str(entry["ratingKey"]).isdigit()

    await plex.node.apply("s-1", Unwatch())
    assert await listed(http) == []


async def test_session_is_the_same_in_xml(plex: Plex) -> None:
    """Without JSON in Accept the same facts come as XML, a video as ``Video``."""
    await plex.play("s-1", Watch(key="song", kind="track", title='"R&B" <\x1f\tü'), account="ann")
    async with plex.http(accept="*/*") as http:
        reply = await http.get("/status/sessions/")
    root = ET.fromstring(reply.text)  # noqa: S314 - our own

    assert reply.headers["content-type"] == "text/xml;charset=utf-8"
    assert root.tag == "MediaContainer"
    (track,) = root
    assert (track.tag, track.get("title")) == ("Track", '"R&B" <\tü')
    assert track.find("User").get("title") == "ann"  # type: ignore[union-attr]
    assert track.find("Media/Part") is not None


@pytest.mark.parametrize(
    "token, seen", [("reader", {"a", "b"}), ("films", {"a"}), ("music", {"b"})]
)
async def test_readers_see_what_they_may(plex: Plex, token: str, seen: set[str]) -> None:
    """A token for one library section sees nothing of another, nor who is there."""
    await plex.play("a", account="ann", workspace="films", client=Client(key="dev-a"))
    await plex.play("b", account="bob", workspace="music", client=Client(key="dev-b"))
    await transcode(plex, "a", "t-a")
    await transcode(plex, "b", "t-b")
    async with plex.http(token) as http:
        entries = await listed(http)
        transcodes = await listed(http, "/transcode/sessions")
        root = (await http.get("/")).json()["MediaContainer"]
        accounts = (await http.get("/accounts")).json()["MediaContainer"]["Account"]
        devices = (await http.get("/devices")).json()["MediaContainer"]["Device"]

    assert {entry["Session"]["id"] for entry in entries} == seen  # type: ignore[index]
    assert {entry["key"] for entry in transcodes} == {f"/transcode/sessions/t-{s}" for s in seen}
    assert root["transcoderActiveVideoSessions"] == len(seen)
    names = {"a": "ann", "b": "bob"}
    assert {account["name"] for account in accounts} == {"owner", *(names[s] for s in seen)}
    assert {device["clientIdentifier"] for device in devices} == {f"dev-{s}" for s in seen}


async def test_players_of_one_key_are_told_by_what_the_caller_sees(plex: Plex) -> None:
    """Two workspaces may make up the same client key: neither sees what the other's player is."""
    for name, platform in (("films", "Linux"), ("music", "Windows")):
        client = Client(key="dev-1", platform=platform)
        await plex.play(name, workspace=name, client=client, name=f"desk of {name}")
        async with plex.http("reader") as reader:
            await listed(reader)  # it has its number, and the first of both is kept with it
    seen = {}
    for token in ("films", "music"):
        async with plex.http(token) as http:
            (seen[token],) = (await http.get("/devices")).json()["MediaContainer"]["Device"]

    assert {token: (device["name"], device["platform"]) for token, device in seen.items()} == {
        "films": ("desk of films", "Linux"),
        "music": ("desk of music", "Windows"),
    }
    created_at = plex.node.replica.sessions["music"].created_at // 1000
    assert seen["music"]["createdAt"] == created_at


@pytest.mark.parametrize("token, names", [("music", ["t1"]), ("reader", ["t1", "{number}-t1"])])
async def test_transcode_of_another_section_does_not_rename_ours(
    plex: Plex, token: str, names: list[str]
) -> None:
    """Which name a transcode has tells nothing of sessions that the caller does not see."""
    await plex.play("films", workspace="films")
    later = await plex.play("music", workspace="music")
    for session_id in ("films", "music"):
        await transcode(plex, session_id, "t1")
    async with plex.http(token) as http:
        jobs = await listed(http, "/transcode/sessions")

    expected = {f"/transcode/sessions/{name.format(number=later.number)}" for name in names}
    assert {job["key"] for job in jobs} == expected
    async with plex.http("music") as http:
        assert (await http.delete("/transcode/sessions/t1")).status_code == 204
    assert plex.node.replica.sessions["music"].streams == ()
    assert plex.node.replica.sessions["films"].streams != ()


@pytest.mark.parametrize(
    "path", ["/status/sessions", "/transcode/sessions", "/accounts", "/accounts/1", "/devices"]
)
async def test_who_only_plays_sees_no_lists(plex: Plex, path: str) -> None:
    """Players have no business with others: 403, as newer servers answer."""
    async with plex.http("ann") as http:
        assert (await http.get(path)).status_code == 403


async def test_addresses_are_for_those_who_may_write(plex: Plex) -> None:
    """A reader sees that a player is local, not where it is."""
    link = replace(connection(plex.node), address="8.8.8.8")
    await plex.play("s-1", connection=link)
    async with plex.http() as admin, plex.http("reader") as reader:
        full, plain = await listed(admin), await listed(reader)

    assert full[0]["Player"]["address"] == "8.8.8.8"  # type: ignore[index]
    assert "address" not in plain[0]["Player"]  # type: ignore[operator]
    assert plain[0]["Session"]["location"] == "wan"  # type: ignore[index]


@pytest.mark.parametrize("by_header", [True, False])
async def test_list_comes_in_pages(plex: Plex, http: httpx2.AsyncClient, by_header: bool) -> None:
    """A page tells its offset and the total; size 0 only counts; unpaged there is just a size."""
    for number in range(3):
        await plex.play(f"s-{number}")
    page = {"X-Plex-Container-Start": "1", "X-Plex-Container-Size": "1"}
    reply = await http.get(
        "/status/sessions",
        **({"headers": page} if by_header else {"params": page}),  # type: ignore[arg-type]
    )
    container = reply.json()["MediaContainer"]

    assert (container["size"], container["offset"], container["totalSize"]) == (1, 1, 3)
    assert container["Metadata"][0]["Session"]["id"] == "s-1"
    assert reply.headers["X-Plex-Container-Total-Size"] == "3"
    assert reply.headers["X-Plex-Container-Start"] == "1"

    counted = (await http.get("/status/sessions?X-Plex-Container-Size=0")).json()
    assert counted == {"MediaContainer": {"size": 0, "offset": 0, "totalSize": 3}}
    whole = (await http.get("/status/sessions")).json()["MediaContainer"]
    assert (whole["size"], "totalSize" in whole) == (3, False)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_terminate_closes_with_its_reason(
    plex: Plex, http: httpx2.AsyncClient, method: str
) -> None:
    """The session is closed at once, for good, with the reason and who asked; twice is unknown."""
    await plex.play("s-1")
    params = {"sessionId": "s-1", "reason": "Enough for today"}
    reply = await http.request(method, "/status/sessions/terminate", params=params)

    assert (reply.status_code, reply.content) == (200, b"")
    assert await listed(http) == []
    with pytest.raises(SessionClosed) as closed:
        await plex.node.find("s-1")
    end = closed.value.record.closed  # type: ignore[attr-defined]
    assert (end.reason, end.by, end.outcome) == ("Enough for today", "admin", "closed")
    again = await http.request(method, "/status/sessions/terminate", params=params)
    assert again.status_code == 404


@pytest.mark.parametrize(
    "token, status", [("ann", 403), ("reader", 403), ("music", 404), ("films", 200)]
)
async def test_terminate_needs_the_right_to_close(plex: Plex, token: str, status: int) -> None:
    """A session of another library section is unknown; without the scope it is forbidden."""
    await plex.play("s-1", workspace="films", account="ann")
    async with plex.http(token) as http:
        reply = await http.get("/status/sessions/terminate?sessionId=s-1")

    assert reply.status_code == status
    assert ("s-1" in plex.node.replica.sessions) is (status != 200)


async def test_transcode_belongs_to_its_session(plex: Plex, http: httpx2.AsyncClient) -> None:
    """A transcode is shown in its session and in the list, under one key; stopped, in neither."""
    await plex.play("s-1")
    await plex.node.apply("s-1", StartStream(stream=Stream(key="db", kind="backend")))
    await transcode(plex, "s-1", "tr/0001")
    (entry,) = await listed(http)
    (job,) = await listed(http, "/transcode/sessions")

    assert job["key"] == entry["TranscodeSession"]["key"] == "/transcode/sessions/tr%2F0001"  # type: ignore[index]
    assert job["progress"] == 2.0
    stopped = await http.delete(str(job["key"]))
    assert (stopped.status_code, stopped.content) == (204, b"")
    assert await listed(http, "/transcode/sessions") == []
    assert [stream.key for stream in plex.node.replica.sessions["s-1"].streams] == ["db"]
    assert (await http.delete(str(job["key"]))).status_code == 404


async def test_transcodes_of_one_key_are_told_apart(plex: Plex, http: httpx2.AsyncClient) -> None:
    """Two sessions may call a stream the same: the later one's has its number before it."""
    await plex.play("first")
    later = await plex.play("later")
    await transcode(plex, "later", "t1")
    await transcode(plex, "first", "t1")
    keys = {job["key"] for job in await listed(http, "/transcode/sessions")}
    assert keys == {"/transcode/sessions/t1", f"/transcode/sessions/{later.number}-t1"}

    assert (await http.delete(f"/transcode/sessions/{later.number}-t1/")).status_code == 204
    assert plex.node.replica.sessions["later"].streams == ()
    assert (await http.delete("/transcode/sessions/t1")).status_code == 204
    assert plex.node.replica.sessions["first"].streams == ()


@pytest.mark.parametrize("token, status", [("reader", 403), ("music", 404), ("films", 204)])
async def test_stopping_a_transcode_needs_the_right_to_close(
    plex: Plex, token: str, status: int
) -> None:
    """As ending the session itself."""
    await plex.play("s-1", workspace="films")
    await transcode(plex, "s-1", "t")
    async with plex.http(token) as http:
        assert (await http.delete("/transcode/sessions/t")).status_code == status


async def test_people_and_players_have_lasting_numbers(
    plex: Plex, http: httpx2.AsyncClient
) -> None:
    """A number is kept when the session is gone, and never another's; 1 is the owner."""
    facts = {"platform": "Linux", "product": "Demo"}
    await plex.play("a", account="ann", client=Client(key="dev-a", **facts), name="Ann's desk")
    (entry,) = await listed(http)
    await plex.node.apply("a", Close())
    await plex.play("b", account="bob", client=Client(key="dev-b"))
    accounts = (await http.get("/accounts")).json()["MediaContainer"]["Account"]
    devices = (await http.get("/devices")).json()["MediaContainer"]["Device"]

    names = {account["id"]: account["name"] for account in accounts}
    assert names[1] == "owner"
    assert names[int(entry["User"]["id"])] == "ann"  # type: ignore[index]
    assert set(names.values()) == {"owner", "ann", "bob"}
    ann = next(device for device in devices if device["clientIdentifier"] == "dev-a")
    assert (ann["name"], ann["platform"]) == ("Ann's desk", "Linux")
    assert ann["createdAt"] > 1_600_000_000
    for name, known in (("accounts", names), ("devices", [ann["id"]])):
        for number in known:
            reply = await http.get(f"/{name}/{number}")
            assert reply.json()["MediaContainer"]["size"] == 1


async def test_item_of_a_player_keeps_its_number(plex: Plex, http: httpx2.AsyncClient) -> None:
    """Rating keys of players are kept; what has none gets one that no player can have."""
    await plex.play("a", Watch(key="/library/metadata/101"))
    await plex.play("b", Watch(key="movie/101"))
    keys = [int(str(entry["ratingKey"])) for entry in await listed(http)]

    assert keys[0] == 101
    assert keys[1] > OWN_ITEMS


async def test_names_beyond_their_number_are_numbered_all_the_same(
    plex: Plex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When too many names are written down, a number is made from the name: as stable."""
    monkeypatch.setattr(numbers, "NAMES_MAX", 1)
    known = Numbers(plex.node.documents)
    first, second = await known.give(ITEM, "a"), await known.give(ITEM, "b")

    assert first == OWN_ITEMS + 1
    assert second > DERIVED_FROM
    assert second == await known.give(ITEM, "b") == known.known(ITEM, "b")
    assert len(list(known.all(ITEM))) == 1


async def test_server_has_one_lasting_identity(plex: Plex, http: httpx2.AsyncClient) -> None:
    """Anybody may ask who the server is; 40 hexadecimal digits, everywhere the same."""
    async with plex.http(None) as nobody:
        identity = (await nobody.get("/identity")).json()["MediaContainer"]
    root = (await http.get("/")).json()["MediaContainer"]

    assert len(identity["machineIdentifier"]) == 40
    assert root["machineIdentifier"] == identity["machineIdentifier"]
    assert root["ownerFeatures"] == "session_kick"
    async with plex.http("reader") as reader:
        assert (await reader.get("/")).json()["MediaContainer"]["ownerFeatures"] == ""


@pytest.mark.parametrize("path", ["/clients", "/activities", "/status/sessions/background"])
async def test_what_the_gateway_has_not_is_empty(http: httpx2.AsyncClient, path: str) -> None:
    """No players to control and no jobs: an empty container."""
    assert (await http.get(path)).json() == {"MediaContainer": {"size": 0}}


async def test_nodes_give_the_same_numbers(plex: Plex) -> None:
    """Two nodes that show the same names for the first time at once agree, and none clash."""
    settings = plex.context.settings
    async with running_node(settings.redis_url or "", settings.key_prefix, "b") as other:
        one, two = Numbers(plex.node.documents), Numbers(other.documents)
        names = [f"name-{number}" for number in range(10)]
        here, there = await asyncio.gather(
            asyncio.gather(*(one.give(ITEM, name) for name in names)),
            asyncio.gather(*(two.give(ITEM, name) for name in reversed(names))),
        )

    assert here == list(reversed(there))
    assert len(set(here)) == len(names)
