"""Sessions read through MaxScale's API: documents, links, filters, fields, pages."""

import asyncio
from typing import Any

import httpx2

from gateway.core.command import Close, Kick
from gateway.core.model import Session
from gateway.dialects.maxscale.endpoints import counted
from tests.dialects.maxscale.conftest import MaxScale, bearer
from tests.nodes import blank
from tests.support import S

Json = Any


async def some(maxscale: MaxScale) -> list[Session]:
    """Open three sessions: one that routes, one that waits, one of another service."""
    await maxscale.open("one", account="app_rw", service="orders-rw", workspace="ws-1")
    await maxscale.connect("one")
    await maxscale.start_backend("one", "db-a", 9001)
    await maxscale.start_backend("one", "db-b")
    await maxscale.open("two", name="Bob")
    await maxscale.open(
        "three", account="app_ro", service="a/b", attributes={"maxscale": {"filters": ["mask"]}}
    )
    return [maxscale.node.replica.sessions[name] for name in ("one", "two", "three")]


def ids(response: httpx2.Response) -> list[str]:
    """Return which sessions a list holds."""
    assert response.status_code == 200, response.text
    return [resource["id"] for resource in response.json()["data"]]


async def test_version_in_an_address_is_optional(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """With and without ``/v1`` and a slash the data is the same; links repeat the version."""
    await some(maxscale)
    with_version = (await http.get("/v1/sessions/")).json()
    without = (await http.get("/sessions")).json()

    assert with_version["links"]["self"] == f"{maxscale.url}/v1/sessions/"
    assert without["links"]["self"] == f"{maxscale.url}/sessions/"
    assert [row["id"] for row in with_version["data"]] == ["1", "2", "3"]
    assert [row["id"] for row in without["data"]] == ["1", "2", "3"]


async def test_links_know_the_mount_and_the_proxy(maxscale: MaxScale) -> None:
    """Behind a prefix and a trusted proxy, links are those that the client can follow."""
    (session, *_) = await some(maxscale)
    async with maxscale.http(path="/maxscale") as http:
        response = await http.get(
            f"/v1/sessions/{session.number}",
            headers={"Host": "gw.example:8989", "X-Forwarded-Proto": "https"},
        )

    assert response.json()["links"]["self"] == (
        f"https://gw.example:8989/maxscale/v1/sessions/{session.number}/"
    )


async def test_every_link_can_be_followed(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """From the list of sessions each link leads to a document, and on to others."""
    await some(maxscale)
    waiting, seen = [f"{maxscale.url}/v1/sessions?page[size]=1"], set()
    while waiting:
        url = waiting.pop()
        response = await http.get(url)
        assert response.status_code == 200, url
        seen.add(url)
        waiting.extend(set(links_in(response.json())) - seen - set(waiting))

    assert f"{maxscale.url}/v1/sessions/1/relationships/services/" in seen
    assert f"{maxscale.url}/v1/services/a%2Fb/" in seen
    assert f"{maxscale.url}/v1/filters/mask/" in seen
    assert len(seen) >= 14


def links_in(value: Json) -> list[str]:
    """Return every link in a document."""
    found: list[str] = []
    if isinstance(value, dict):
        for name, inner in value.items():
            found.extend(inner.values() if name == "links" else links_in(inner))
    elif isinstance(value, list):
        for inner in value:
            found.extend(links_in(inner))
    return found


async def test_facts_are_the_same_as_through_other_doors(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """A session is shown with what the node knows of it, ids of its backends included."""
    (session, *_) = await some(maxscale)
    data = (await http.get(f"/v1/sessions/{session.number}")).json()["data"]
    shown = data["attributes"]

    assert data["id"] == str(session.number)
    assert shown["state"] == "Session started"
    assert (shown["user"], shown["remote"], shown["port"]) == ("app_rw", "192.0.2.7", 51514)
    assert shown["connections"] == [
        {"server": "db-a", "connection_id": 9001, "cipher": ""},
        {"server": "db-b", "connection_id": 0, "cipher": ""},
    ]
    assert data["relationships"]["services"]["data"] == [{"id": "orders-rw", "type": "services"}]
    assert shown["idle"] < 5 * S
    assert shown["seconds_alive"] < 5 * S


async def test_idle_starts_anew_when_the_client_speaks(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """Idle is the replica's: the time since the client's last message."""
    (session, *_) = await some(maxscale)
    maxscale.node.replica.active[session.id] = maxscale.node.clock.now_ms() - 60_000
    connection = session.connection
    assert connection is not None
    spoken = (await http.get(f"/v1/sessions/{session.number}")).json()["data"]["attributes"]
    maxscale.node.touch(session.id)
    again = (await http.get(f"/v1/sessions/{session.number}")).json()["data"]["attributes"]

    assert spoken["idle"] <= spoken["seconds_alive"] < 60
    assert again["idle"] <= spoken["idle"] + 1


async def test_lost_client_leaves_a_started_session(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """A session whose client is away is shown, still with its last address."""
    (session, *_) = await some(maxscale)
    await maxscale.node.apply(session.id, Kick())
    shown = (await http.get(f"/v1/sessions/{session.number}")).json()["data"]["attributes"]

    assert (shown["state"], shown["remote"]) == ("Session started", "192.0.2.7")


async def test_filters_of_many_sessions_are_counted_in_turns() -> None:
    """Others have their turn while the sessions that refer to a filter are counted."""
    told = {"maxscale": {"filters": ["mask"]}}
    sessions = [blank(f"s{number}", attributes=told) for number in range(1_200)]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(others())
    try:
        assert await counted(sessions, "filters") == {"mask": 1_200}
        assert turns >= 2
        assert await counted(sessions, "services") == {"default": 1_200}
    finally:
        waiting.cancel()


async def test_what_is_no_session_is_404_with_a_detail(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """Unknown numbers and things that are none are told as MaxScale tells them."""
    await some(maxscale)
    for number in ("abc", "0", "-1", "7x", "999999", "041", "9" * 40, "1.0", "%20"):
        response = await http.get(f"/v1/sessions/{number}")

        assert response.status_code == 404, number
        assert response.json()["errors"][0]["detail"].endswith("is not a session"), number


async def test_closed_session_is_unknown(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """A session that ended is no session any more, in lists and by itself."""
    (session, *_) = await some(maxscale)
    await maxscale.node.apply(session.id, Close())

    assert (await http.get(f"/v1/sessions/{session.number}")).status_code == 404
    assert ids(await http.get("/v1/sessions")) == ["2", "3"]


async def test_fields_cut_a_session(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """Only the named attributes are left, no relationships, and the links stay."""
    await some(maxscale)
    response = await http.get("/v1/sessions/1?fields[sessions]=user,memory/total")

    data = response.json()["data"]
    assert data["attributes"] == {"user": "app_rw", "memory": {"total": 0}}
    assert data.keys() == {"id", "type", "attributes", "links"}


FILTERED: list[tuple[str, list[str]]] = [
    ('filter=/attributes/user="app_rw"', ["1"]),
    ('filter[attributes.connections[*].server]=eq("db-b")', ["1"]),
    ('filter[attributes.connections[0].server]=eq("db-b")', []),
    ('filter[id]=or(eq("1"),eq("2"))', ["1", "2"]),
    ('filter=/relationships/services/data/0/id="orders-rw"', ["1"]),
    ('filter=/relationships/services/data/0/id="default"', ["2"]),
    ('filter=/attributes/connections/0/server="db-a"', ["1"]),
    ("filter=/attributes/idle=ge(0)", ["1"]),
    ("filter=/attributes/seconds_alive=lt(3600)", ["1", "2", "3"]),
    ('filter=/attributes/user=ne("app_rw")', ["2", "3"]),
    ("filter=/attributes/user", ["1", "2", "3"]),
    ('filter[attributes.user]=not("Bob")&filter[attributes.port]=gt(1)', ["1"]),
    ('filter=/attributes/state=eq("Session%20created")', ["2", "3"]),
]


async def test_filter_chooses_sessions(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """Both spellings of a filter, and several at once, choose from what is shown."""
    await some(maxscale)
    for query, expected in FILTERED:
        assert ids(await http.get(f"/v1/sessions?{query}")) == expected, query


async def test_filter_comes_before_pages_and_fields(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """Totals count what is filtered, and a filter sees what fields leave out."""
    await some(maxscale)
    query = 'filter=/attributes/user=ne("Bob")&page[size]=1&page[number]=1&fields[sessions]=state'
    page = (await http.get(f"/v1/sessions?{query}")).json()

    assert page["meta"] == {"total": 2}
    assert [row["id"] for row in page["data"]] == ["3"]
    assert page["data"][0]["attributes"] == {"state": "Session created"}
    assert (await http.get(page["links"]["prev"])).json()["data"][0]["id"] == "1"


async def test_filter_shows_nothing_that_is_hidden(maxscale: MaxScale) -> None:
    """Who may not see addresses cannot find sessions by them."""
    await some(maxscale)
    async with maxscale.http(bearer("reader")) as reader, maxscale.http(bearer("writer")) as writer:
        query = '/v1/sessions?filter=/attributes/remote="192.0.2.7"'

        assert ids(await reader.get(query)) == []
        assert ids(await writer.get(query)) == ["1"]


async def test_bad_filter_is_400(http: httpx2.AsyncClient) -> None:
    """A filter that cannot be read is refused, never taken for none."""
    for query in ('filter=id=magic("x")', "filter[id]=app", "filter[a..b]=1", "filter[a]=[[[["):
        response = await http.get(f"/v1/sessions?{query}")

        assert response.status_code == 400, query
        assert response.json()["errors"][0]["detail"].startswith("Not a valid "), query


async def test_filter_of_one_session_is_ignored(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """Filters choose from collections; one session is not filtered, as MaxScale's manual says."""
    await some(maxscale)

    assert (await http.get('/v1/sessions/1?filter=id="7"&filter[id]=x')).status_code == 200


async def test_page_beyond_the_end_is_empty(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """A page that is not there has no rows and still tells how many there are."""
    await some(maxscale)
    page = (await http.get("/v1/sessions?page[size]=5&page[number]=1")).json()

    assert page["data"] == []
    assert page["meta"] == {"total": 3}
    assert "next" not in page["links"]
    assert "prev" not in page["links"]


async def test_pages_together_are_the_whole_list(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """Long lists are sent in chunks: whole, in order, indented or not, page by page or at once."""
    await asyncio.gather(*(maxscale.open(f"s{n}", service=f"s{n % 2}") for n in range(230)))
    whole = await http.get("/v1/sessions")
    compact = await http.get("/v1/sessions?pretty=false")
    expected = ids(whole)
    found: list[str] = []
    url: str | None = f"{maxscale.url}/v1/sessions?page[size]=37"
    while url:
        page = await http.get(url)
        found += ids(page)
        url = page.json()["links"].get("next")

    assert len(set(expected)) == 230
    assert [int(number) for number in expected] == sorted(map(int, expected))
    assert "content-length" not in whole.headers
    assert found == ids(compact) == expected
    assert b"\n" not in compact.content
    assert (
        len(ids(await http.get('/v1/sessions?filter=/relationships/services/data/0/id="s1"')))
        == 115
    )


async def test_very_long_list_gives_others_their_turn(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """A list of more than a thousand is whole, and its tag holds."""
    for batch in range(0, 1100, 100):  # no more at a time than a busy machine commits in time
        await asyncio.gather(*(maxscale.open(f"s{n}") for n in range(batch, batch + 100)))
    listed = await http.get("/v1/sessions?pretty=no&fields[sessions]=state")
    again = await http.get(str(listed.url), headers={"If-None-Match": listed.headers["ETag"]})

    assert len(ids(listed)) == 1100
    assert again.status_code == 304


async def test_indented_list_is_indented_throughout(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """An indented reply has four blanks a level, rows of a list included."""
    empty = await http.get("/v1/sessions")
    await some(maxscale)
    full = await http.get("/v1/sessions?pretty&page[size]=2")
    one = await http.get("/v1/sessions/1?pretty=true")

    assert empty.text.startswith('{\n    "data": [],\n    "links": {\n        "self": ')
    assert full.text.startswith('{\n    "data": [\n        {\n            "id": "1",')
    assert '\n        },\n        {\n            "id": "2",' in full.text
    assert '\n        }\n    ],\n    "links": {\n' in full.text
    assert full.text.endswith('"total": 3\n    }\n}')
    assert one.text.startswith('{\n    "data": {\n        "id": "1",')
    assert b"\n" not in (await http.get("/v1/sessions/1?pretty=off")).content


async def test_services_count_their_sessions(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """A service is known from the sessions that the caller sees."""
    await some(maxscale)
    listed = await http.get("/v1/services?fields[services]=connections")
    slashed = await http.get("/v1/services/a%2Fb")

    assert ids(listed) == ["a/b", "default", "orders-rw"]
    assert slashed.json()["data"]["attributes"] == {"state": "Started", "connections": 1}
    async with maxscale.http(bearer("ws-1")) as limited:
        assert ids(await limited.get("/v1/services")) == ["orders-rw"]
        assert (await limited.get("/v1/services/default")).status_code == 404


async def test_unknown_service_is_told_by_name(http: httpx2.AsyncClient) -> None:
    """A service that no session is of is none."""
    response = await http.get("/v1/services/nosuch")

    assert response.status_code == 404
    assert response.json() == {"errors": [{"detail": "nosuch is not a service"}]}
    assert (await http.get("/v1/filters/nosuch")).json() == {
        "errors": [{"detail": "nosuch is not a filter"}]
    }
