"""What socket tests share: a client that checks every message against /asyncapi.json.

Nothing a test hears is taken on trust: a message that our own document does not describe fails it.
"""

import asyncio
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

from jsonschema import Draft202012Validator
from msgspec.json import decode, encode
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from gateway.api.asyncapi import document
from gateway.core.command import Update
from gateway.core.model import Session
from gateway.core.public import merge
from tests.server.conftest import Gateway
from tests.support import S

CHANNELS: Final = {"/v1/connect": "session", "/v1/events": "events"}
QUIET_S: Final = 0.05 * S  # nothing more comes for so long: nothing more comes

Json = dict[str, Any]


@cache
def validator(channel: str, kind: str) -> Draft202012Validator:
    """Return what checks the messages of *kind* that the gateway sends on *channel*."""
    described: Json = decode(encode(document()))
    names = [
        name
        for operation in described["operations"].values()
        if operation["action"] == "send" and operation["channel"]["$ref"].endswith(f"/{channel}")
        for message in operation["messages"]
        if described["components"]["messages"][name := message["$ref"].rpartition("/")[2]]["name"]
        == kind
    ]
    assert names, f"/asyncapi.json knows no message {kind!r} on {channel}"
    anyone = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    return Draft202012Validator({"anyOf": anyone, "components": described["components"]})


class Talk:
    """One open WebSocket; made by :func:`dial`."""

    def __init__(self, socket: ClientConnection, channel: str) -> None:
        self.socket = socket
        self.channel = channel
        self.heard: list[Json] = []
        self._refs = 0

    async def hear(self, *kinds: str, beats: bool = False) -> Json:
        """Return the next message, which must be of one of *kinds*; heartbeats are skipped."""
        while True:
            text = await asyncio.wait_for(self.socket.recv(), 5 * S)
            assert isinstance(text, str)
            message: Json = json.loads(text)
            validator(self.channel, message["type"]).validate(message)
            self.heard.append(message)
            if message["type"] != "heartbeat" or beats:
                assert not kinds or message["type"] in kinds, message
                return message

    async def find(self, kind: str) -> Json:
        """Return the next message of *kind*, past all others."""
        while True:
            message = await self.hear()
            if message["type"] == kind:
                return message

    async def events(self) -> list[Json]:
        """Return the events of the next ``events`` message."""
        events: list[Json] = (await self.hear("events"))["events"]
        return events

    async def until(self, kind: str) -> list[Json]:
        """Return all events up to the first one of *kind*."""
        found: list[Json] = []
        while not any(event["type"] == kind for event in found):
            found += await self.events()
        return found

    async def say(self, what: str, /, **fields: object) -> None:
        """Say something."""
        await self.socket.send(json.dumps({"type": what, **fields}))

    async def ask(self, what: str, /, **fields: object) -> Json:
        """Say something and return its ``ack`` or ``error``, past all else."""
        self._refs += 1
        ref = str(fields.pop("ref", self._refs))
        await self.say(what, ref=ref, **fields)
        while True:
            message = await self.hear()
            if message["type"] in ("ack", "error") and message.get("ref") == ref:
                return message

    async def nothing(self) -> None:
        """Return if nothing comes for a moment."""
        try:
            text = await asyncio.wait_for(self.socket.recv(), QUIET_S)
        except TimeoutError:
            return
        raise AssertionError(text)

    async def ends(self) -> tuple[int, list[Json]]:
        """Return the close code, and what came before it."""
        heard: list[Json] = []
        try:
            while True:
                heard.append(await self.hear())
        except ConnectionClosed as error:
            return (error.rcvd.code if error.rcvd else 1006), heard

    async def bye(self) -> Json:
        """Return the ``bye`` that ends this socket; its code is the close code too."""
        code, heard = await self.ends()
        assert heard, code
        assert heard[-1]["type"] == "bye", heard
        assert heard[-1]["code"] == code, (heard, code)
        assert heard[-1]["reconnect"] == (4000 <= code < 4500)
        assert [message["type"] for message in heard].count("bye") == 1
        return heard[-1]

    def drop(self) -> None:
        """Break the connection."""
        self.socket.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()


async def dial(
    gateway: Gateway,
    path: str = "/v1/connect",
    *,
    token: str | None = "admin-key-of-the-tests",  # noqa: S107 - a key of the tests
    subprotocols: tuple[str, ...] = (),
    headers: dict[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    **query: object,
) -> Talk:
    """Open a WebSocket; use it with ``async with``.

    The query is *params* and what else has a name, in which ``__`` stands for a dot.
    """
    host = urlsplit(gateway.url).netloc
    named = {name.replace("__", "."): value for name, value in query.items()} | dict(params or {})
    socket = await connect(
        f"ws://{host}{path}" + (f"?{urlencode(named)}" if named else ""),
        additional_headers={
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **(headers or {}),
        },
        subprotocols=[Subprotocol(text) for text in subprotocols] or None,
        compression=None,
        ping_interval=None,
        max_size=None,
        proxy=None,
    )
    return Talk(socket, CHANNELS[path])


async def opened(gateway: Gateway, session_id: str, workspace: str = "ws-1") -> Session:
    """Open a session."""
    wanted = Session(id=session_id, number=0, revision=0, created_at=0, workspace=workspace)
    return await gateway.node.open(wanted)


async def named(gateway: Gateway, session_id: str, name: str) -> Session:
    """Change a session's name."""
    return await gateway.node.apply(session_id, Update(name=name))


async def snapshot(talk: Talk) -> list[Json]:
    """Return all sessions of a snapshot."""
    sessions: list[Json] = []
    while True:
        page = await talk.hear("snapshot")
        sessions += page["sessions"]
        if not page["more"]:
            return sessions


def fold(sessions: list[Json], events: list[Json]) -> dict[str, Json]:
    """Return the sessions by id after *events*."""
    state = {session["id"]: session for session in sessions}
    for event in events:
        session_id = event["session_id"]
        match event["type"]:
            case "session.enter":
                state[session_id] = event["session"]
            case "session.exit" | "session.closed":
                state.pop(session_id, None)
            case _:
                session = merge(state.get(session_id, {}), event["changes"])
                state[session_id] = {**session, "revision": event["revision"]}
    return state
