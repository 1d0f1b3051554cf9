"""Events by HTTP: as a stream (SSE), and polled as pages; the same picture as by WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from msgspec.structs import replace

from gateway.settings import Settings
from tests.server.conftest import ADMIN, Gateway, serving
from tests.server.talk import Json, dial, fold, named, opened
from tests.support import S, eventually

PATH = "/v1/events"


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Gateway]:
    """A second node on the same data."""
    async with serving(replace(settings, node_name="node-b")) as found:
        yield found


# --- event stream


class EventStream:
    """What a browser's EventSource reads."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last_id = ""

    async def next(self) -> Json:
        """Return the next event: its fields, ``data`` as JSON."""
        found: Json = {}
        async with asyncio.timeout(5 * S):
            async for line in self._lines:
                if not line and found:
                    break
                name, _, value = line.partition(": ")
                found[name] = json.loads(value) if name == "data" else value
        self.last_id = found.get("id", self.last_id)
        return found

    async def until(self, kind: str) -> list[Json]:
        """Return the data of all events up to the first of *kind*."""
        found: list[Json] = []
        while True:
            event = await self.next()
            found.append(event["data"])
            if event["event"] == kind:
                return found


@asynccontextmanager
async def streaming(
    gateway: Gateway, token: str = ADMIN, last_id: str = "", **query: str
) -> AsyncIterator[EventStream]:
    """Read an event stream, as a page does: with the token in the address."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    params = {"token": token, **query}
    async with (
        httpx2.AsyncClient(base_url=gateway.url, timeout=5 * S) as http,
        http.stream("GET", PATH, params=params, headers=headers) as reply,
    ):
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        yield EventStream(aiter(reply.aiter_lines()))


async def test_event_stream_tells_the_same(gateway: Gateway) -> None:
    """SSE: hello, snapshot, then each event under its type; folded they are what REST shows."""
    await opened(gateway, "a")
    async with streaming(gateway) as stream, gateway.http() as http:
        hello = await stream.next()
        assert (hello["event"], hello["data"]["mode"]) == ("hello", "snapshot")
        page = await stream.next()
        assert page["event"] == "snapshot"
        assert page["id"] == page["data"]["position"]
        await named(gateway, "a", "Ann")
        event = await stream.next()
        assert event["event"] == event["data"]["type"] == "session.updated"
        shown = (await http.get("/v1/sessions")).json()
        assert list(fold(page["data"]["sessions"], [event["data"]]).values()) == shown["sessions"]
        assert event["id"] == shown["position"]


async def test_event_stream_resumes_from_its_last_id(gateway: Gateway, other: Gateway) -> None:
    """A reader that reconnects with Last-Event-ID gets exactly what it missed, on any node."""
    await opened(gateway, "a")
    async with streaming(gateway) as stream:
        await stream.until("snapshot")
        last_id = stream.last_id
    await named(gateway, "a", "one")
    await named(gateway, "a", "two")
    async with streaming(other, last_id=last_id, since="0-00000000-0") as stream:
        assert (await stream.next())["data"]["mode"] == "resume"
        found = [(await stream.next())["data"]["changes"]["name"] for _ in range(2)]
        assert found == ["one", "two"]


async def test_only_the_last_event_of_a_frame_has_an_id(gateway: Gateway) -> None:
    """Whoever is cut off within a commit's events goes on before them: nothing is lost."""
    async with streaming(gateway) as stream:
        await stream.until("snapshot")
        async with await dial(gateway, session="one"):
            first, second = await stream.next(), await stream.next()

            assert [first["event"], second["event"]] == ["session.opened", "session.connected"]
            assert "id" not in first
            assert "id" in second


async def test_drained_event_stream_says_goodbye(gateway: Gateway) -> None:
    """A stream of a draining node ends with bye, and says when to come back."""
    async with streaming(gateway) as stream:
        await stream.until("snapshot")
        await gateway.context.connections.drain(0.05)
        bye = await stream.next()

        assert bye["event"] == "bye"
        assert bye["data"]["code"] == 4001
        assert int(bye["retry"]) == bye["data"]["retry_after_ms"]


async def test_left_event_stream_is_forgotten(gateway: Gateway) -> None:
    """A reader that goes frees its place."""
    async with streaming(gateway) as stream:
        await stream.next()
        assert gateway.context.connections.count == 1
    await eventually(lambda: gateway.context.connections.count == 0)


async def test_event_stream_ends_with_its_token(gateway: Gateway) -> None:
    """Without a good token there is no stream; a token elsewhere in an address is refused."""
    async with gateway.http(None) as http:
        headers = {"Accept": "text/event-stream"}
        assert (await http.get(PATH, headers=headers)).status_code == 401
        assert (await http.get(f"{PATH}?token=wrong", headers=headers)).status_code == 401
        assert (await http.get(f"{PATH}?token=nothing", headers=headers)).status_code == 403
        assert (await http.get("/v1/sessions?token=reader")).status_code == 400


class TestHeartbeat:
    """A gateway whose heart beats ten times a second."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """A quick heart."""
        return replace(settings, heartbeat_s=0.1)

    async def test_event_stream_beats(self, gateway: Gateway) -> None:
        """An event stream on which nothing happens beats as well."""
        async with streaming(gateway) as stream:
            assert [(await stream.next())["event"] for _ in range(3)] == [
                "hello",
                "snapshot",
                "heartbeat",
            ]


# --- JSON page


async def test_page_without_since_tells_where_to_begin(gateway: Gateway) -> None:
    """The first page is just the position."""
    await opened(gateway, "a")
    async with gateway.http() as http:
        page = (await http.get(PATH)).json()
        shown = (await http.get("/v1/sessions")).json()

        assert page == {"position": shown["position"], "mode": "snapshot", "events": []}


async def test_pages_tell_what_happened_once(gateway: Gateway, other: Gateway) -> None:
    """Page after page, from either node, tells each event once and in order."""
    await opened(gateway, "a")
    async with gateway.http() as here, other.http() as there:
        position = (await here.get(PATH)).json()["position"]
        found: list[str] = []
        for n in range(6):
            await named(gateway, "a", f"n{n}")
            page = (await (here, there)[n % 2].get(PATH, params={"since": position})).json()
            assert page["mode"] == "resume"
            found += [event["changes"]["name"] for event in page["events"]]
            position = page["position"]
        empty = (await here.get(PATH, params={"since": position})).json()

        assert found == [f"n{n}" for n in range(6)]
        assert empty == {"position": position, "mode": "resume", "events": []}


async def test_page_is_bounded_and_says_that_there_is_more(gateway: Gateway) -> None:
    """A poller that is far behind reads page after page, nothing lost."""
    await opened(gateway, "a")
    async with gateway.http() as http:
        position = (await http.get(PATH)).json()["position"]
        for batch in range(0, 1500, 100):  # commands of one session wait for each other
            names = (f"n{n}" for n in range(batch, batch + 100))
            await asyncio.gather(*(named(gateway, "a", name) for name in names))
        first = (await http.get(PATH, params={"since": position})).json()
        rest = (await http.get(PATH, params={"since": first["position"]})).json()

        assert first["more"] is True
        assert "more" not in rest
        revisions = [event["revision"] for event in first["events"] + rest["events"]]
        assert revisions == list(range(2, 1502))


async def test_long_poll_answers_as_soon_as_something_happens(gateway: Gateway) -> None:
    """With wait= the page comes with the next event, or empty when the time is over."""
    await opened(gateway, "a")
    async with gateway.http() as http:
        position = (await http.get(PATH)).json()["position"]
        waiting = asyncio.create_task(http.get(PATH, params={"since": position, "wait": 25}))
        await eventually(lambda: gateway.node.hub._channels)  # noqa: SLF001 - it waits by now
        await named(gateway, "a", "Ann")
        page = (await waiting).json()
        assert [event["changes"]["name"] for event in page["events"]] == ["Ann"]
        empty = await http.get(PATH, params={"since": page["position"], "wait": 0.05})
        assert empty.json()["events"] == []
        assert empty.json()["position"] == page["position"]


async def test_page_takes_no_token_in_the_address(gateway: Gateway) -> None:
    """Only a stream does: a browser cannot give it a header."""
    async with gateway.http(token=None) as http:
        reply = await http.get(PATH, params={"token": gateway.token})

        assert (reply.status_code, reply.json()["code"]) == (400, "bad_request")


async def test_drain_ends_a_long_poll(gateway: Gateway) -> None:
    """A poller of a draining node is answered at once, and goes on elsewhere where it stopped."""
    async with gateway.http() as http:
        position = (await http.get(PATH)).json()["position"]
        query: Json = {"since": position, "wait": 25}
        waiting = asyncio.create_task(http.get(PATH, params=query))
        await eventually(lambda: gateway.node.hub._channels)  # noqa: SLF001 - it waits by now
        await gateway.context.connections.drain(0.05)

        for reply in (await waiting, await http.get(PATH, params=query)):
            assert reply.status_code == 200
            assert reply.json() == {"position": position, "mode": "resume", "events": []}


async def test_quiet_page_moves_on(gateway: Gateway) -> None:
    """A poller of a quiet filter is told a position that stays young."""
    await opened(gateway, "a", "ws-1")
    async with gateway.http() as http:
        query: Json = {"workspace": "ws-2"}
        position = (await http.get(PATH, params=query)).json()["position"]
        await named(gateway, "a", "x")
        page = (await http.get(PATH, params={**query, "since": position})).json()

        assert page["mode"] == "resume"
        assert page["position"] > position


async def test_useless_position_of_a_page_is_told(gateway: Gateway) -> None:
    """A poller whose position is no good is told to read the list, and from where to go on."""
    async with gateway.http() as http:
        position = (await http.get(PATH, params={"workspace": "ws-1"})).json()["position"]
        page = (await http.get(PATH, params={"since": position})).json()

        assert (page["mode"], page["reason"]) == ("snapshot", "other view")
        assert page["position"] != position


@pytest.mark.parametrize(
    "query",
    [
        "since=",
        "since=yesterday",
        "wait=-1",
        "wait=26",
        "wait=soon",
        "colour=red",
        "since=a&since=b",
    ],
)
async def test_unreadable_query_is_refused(gateway: Gateway, query: str) -> None:
    """What cannot be read is a 400."""
    async with gateway.http() as http:
        assert (await http.get(f"{PATH}?{query}")).status_code == 400


async def test_impossible_media_type_is_refused(gateway: Gateway) -> None:
    """Neither JSON nor an event stream: 406."""
    async with gateway.http() as http:
        assert (await http.get(PATH, headers={"Accept": "text/html"})).status_code == 406
