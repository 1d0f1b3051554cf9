"""One state, two spellings: neko and every other door see and end the same sessions."""

import re

from msgspec.json import encode

from gateway.auth.principals import hash_secret
from gateway.core.command import Close, StartWatch, Unwatch, Update
from gateway.core.document import Message, Recipients
from gateway.core.model import Private, Profile
from gateway.core.model import Watch as Film
from tests.dialects.neko.conftest import Gateway
from tests.nodes import blank, connection


async def test_session_of_another_door_is_a_neutral_member(gateway: Gateway) -> None:
    """A session that knows nothing of neko is listed, told live, and can be closed here."""
    root = await gateway.login("root")
    node = gateway.node

    async with root.connected() as watcher:
        await node.open(blank("tv-1", name="TV", connection=connection(node)))
        created = await watcher.event("session/created")
        assert (created["id"], created["profile"]["name"]) == ("tv-1", "TV")
        assert not created["profile"]["is_admin"]
        assert (await watcher.event("session/state"))["is_connected"]
        await node.apply("tv-1", StartWatch(watch=Film(key="m")))
        assert (await watcher.event("session/state"))["is_watching"]
        status, shown = await root.get("/api/sessions/tv-1")
        assert (status, shown["state"]["is_watching"]) == (200, True)
        assert (await root.post("/api/room/control/give/tv-1"))[0] == 400
        assert (await root.post("/api/sessions/tv-1/disconnect"))[0] == 204
        states = [await watcher.event("session/state") for _ in range(2)]
        assert [state["is_connected"] for state in states] == [False, False]
        assert [state["is_watching"] for state in states] == [True, False]
        assert (await root.post("/api/sessions/tv-1/disconnect"))[0] == 204  # nothing left to end
        assert await root.delete("/api/sessions/tv-1") == (204, None)
        assert await watcher.event("session/deleted") == {"id": "tv-1"}


async def test_what_other_doors_do_is_heard_in_nekos_words(gateway: Gateway) -> None:
    """A rename, a profile, a watch, a message and a close by others reach neko's client."""
    mia, node = await gateway.login("mia"), gateway.node
    session_id = (mia.token or "").partition(".")[0]

    async with mia.connected() as socket:
        await node.apply(session_id, Update(name="Mimi"))
        assert (await socket.event("session/profile"))["name"] == "Mimi"
        await node.apply(session_id, StartWatch(watch=Film(key="m")))
        assert (await socket.event("session/state"))["is_watching"]
        await node.apply(session_id, Unwatch())
        assert not (await socket.event("session/state"))["is_watching"]
        to = Recipients(session=session_id)
        await node.publish(Message(to=to, topic="news", body=1, sender="ops"))
        assert await socket.event("send/unicast") == {
            "sender": "ops", "receiver": "mia", "subject": "news", "body": 1,
        }  # fmt: skip
        await node.publish(Message(to=Recipients(), topic="news", body=2))
        assert await socket.event("send/broadcast") == {
            "sender": "API", "subject": "news", "body": 2,
        }  # fmt: skip
        await node.publish(Message(to=Recipients(workspace="ws-1"), topic="news", body=3))
        await node.documents.write("other.kind", "x", lambda _: {"a": 1})
        await node.apply(session_id, Close(by="ops"))
        assert (await socket.ended())[0] == [("system/disconnect", {"message": "session deleted"})]


async def test_session_opened_here_makes_sense_elsewhere(gateway: Gateway) -> None:
    """A login sets what other doors show: name, account, workspace, service."""
    wanda = await gateway.login("wanda")
    session = await gateway.node.find((wanda.token or "").partition(".")[0])

    assert (session.name, session.account, session.workspace) == ("wanda", "wanda", "ws-1")
    assert (session.service, session.linger_ms, session.grace_ms) == ("neko", None, 5_000)
    assert session.profile is not None


async def test_token_of_another_doors_session_is_nobodys(gateway: Gateway) -> None:
    """Who holds the token of a session that was not opened here has not logged in here."""
    secret = "s" * 43
    await gateway.node.open(blank("tv-2", private=Private(token_hash=hash_secret(secret))))
    client = gateway.client()
    client.token = f"tv-2.{secret}"

    assert (await client.get("/api/whoami"))[0] == 401


async def test_environment_of_another_door_makes_no_member(gateway: Gateway) -> None:
    """What a client of another door puts into a session's environment gives it no name here."""
    root = await gateway.login("root")
    forged = Private(environment={"neko.id": "mia", "neko.sees": "all"})
    await gateway.node.open(blank("game-1", private=forged))

    assert {one["id"] for one in (await root.get("/api/sessions"))[1]} == {"root", "game-1"}


async def test_member_goes_before_a_session_that_has_its_name(gateway: Gateway) -> None:
    """A name means the member who logged in, whatever other sessions are called."""
    root, node = await gateway.login("root"), gateway.node
    await node.open(blank("mia", profile=Profile(name="impostor")))

    assert (await root.get("/api/sessions/mia"))[1]["profile"]["name"] == "impostor"
    await gateway.login("mia")
    assert (await root.get("/api/sessions/mia"))[1]["profile"]["name"] == "mia"


async def test_description_covers_every_operation(gateway: Gateway) -> None:
    """The document has every operation of neko's once, and every schema that it refers to."""
    document = (await gateway.client().send("GET", "/openapi.json")).json()
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert {tag for one in operations for tag in one["tags"]} == {"neko", "operations"}
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert document["paths"]["/api/sessions/{id}"].keys() == {"get", "delete"}
    assert "/api/sessions/" not in document["paths"]
    names = set(re.findall(rb"#/components/schemas/([A-Za-z0-9_]+)", encode(document)))
    assert {name.decode() for name in names} <= document["components"]["schemas"].keys()
