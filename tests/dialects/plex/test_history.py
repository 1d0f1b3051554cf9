"""What was played: filters, orders, pages, and what is beyond memory."""

from collections import deque
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import httpx2
import pytest

from gateway.core.command import Close
from gateway.core.model import Client, Watch
from gateway.core.query import Visibility
from gateway.dialects.plex.endpoints_history import may_see
from gateway.dialects.plex.state import DEVICE, SECTION
from gateway.live import history
from tests.dialects.plex.conftest import Plex
from tests.nodes import running_node

PATH = "/status/sessions/history/all"


async def played(plex: Plex, session_id: str, watch: Watch, **facts: object) -> None:
    """Let somebody have watched something."""
    await plex.play(session_id, watch, **facts)
    await plex.node.apply(session_id, Close())


@pytest.fixture
async def past(plex: Plex) -> Plex:
    """A gateway on which four things were played."""
    phone, desk = Client(key="phone"), Client(key="desk")
    show = {"type": "episode", "grandparentRatingKey": 7, "parentRatingKey": 6}
    one = Watch(key="/library/metadata/101", title="One", duration_ms=1)
    two = Watch(key="/library/metadata/102", title="Two", item=show)
    await played(plex, "a", one, account="ann", workspace="films", client=phone)
    await played(plex, "b", two, account="bob", workspace="shows", client=desk)
    await played(plex, "c", Watch(key="song", title="Three"), account="ann", workspace="films")
    await played(plex, "d", Watch(key="/library/metadata/101", title="one"))
    return plex


async def rows(http: httpx2.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    """Return the rows of the history."""
    reply = await http.get(f"{PATH}?{query}")
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["MediaContainer"].get("Metadata", [])
    return found


def titles(found: list[dict[str, Any]]) -> Iterator[str]:
    """Return what rows are about."""
    return (row["title"] for row in found)


async def test_history_is_in_the_order_in_which_it_happened(
    past: Plex, http: httpx2.AsyncClient
) -> None:
    """Without an order the first one comes first; rows name account, device and section."""
    del past
    found = await rows(http)

    assert list(titles(found)) == ["One", "Two", "Three", "one"]
    numbers = [int(row["historyKey"].rpartition("/")[2]) for row in found]
    assert numbers == sorted(numbers)
    assert found[0]["type"] == "movie"
    assert found[0]["accountID"] == found[2]["accountID"] != found[1]["accountID"]
    assert (found[3]["accountID"], "deviceID" in found[3]) == (1, False)


@pytest.mark.parametrize(
    "sort, order",
    [
        ("viewedAt:desc", ["one", "Three", "Two", "One"]),
        ("viewedAt", ["One", "Two", "Three", "one"]),
        ("historyKey:desc", ["one", "Three", "Two", "One"]),
        ("title", ["One", "one", "Three", "Two"]),
        ("title:desc,historyKey", ["Two", "Three", "One", "one"]),
        ("type:desc", ["one", "Three", "One", "Two"]),
        ("ratingKey:desc,historyKey:asc", ["Three", "Two", "One", "one"]),
        ("accountID,historyKey", ["one", "One", "Three", "Two"]),
        ("deviceID:asc,historyKey:asc", ["Three", "one", "One", "Two"]),
        ("librarySectionID:asc,historyKey", ["one", "One", "Three", "Two"]),
    ],
)
async def test_history_is_sorted(
    past: Plex, http: httpx2.AsyncClient, sort: str, order: list[str]
) -> None:
    """Any field of a row sorts; of equal ones the newest comes first if it descends."""
    del past
    await rows(http)  # shown once, names have numbers

    assert list(titles(await rows(http, f"sort={sort}"))) == order


async def test_history_is_filtered(past: Plex, http: httpx2.AsyncClient) -> None:
    """Filters by account, section, device and item narrow the rows, alone and together."""
    found = await rows(http)
    ann, films, phone = (found[0][name] for name in ("accountID", "librarySectionID", "deviceID"))
    bob = found[1]["accountID"]
    documents = past.node.documents
    assert documents.get(SECTION, "films") == {"number": int(films)}
    assert documents.get(DEVICE, "phone") is not None

    for query, expected in {
        f"accountID={ann}": ["One", "Three"],
        f"accountId={bob}": ["Two"],
        f"accountID={ann},{bob}": ["One", "Two", "Three"],
        f"accountID!={ann}": ["Two", "one"],
        "accountID=1": ["one"],
        f"librarySectionID={films}": ["One", "Three"],
        f"deviceID={phone}": ["One"],
        "metadataItemID=101": ["One", "one"],
        "metadataItemID=7": ["Two"],
        "metadataItemID=6": ["Two"],
        f"metadataItemID=101&accountID={ann}": ["One"],
        "metadataItemID=999": [],
        "viewedAt>=-1h": ["One", "Two", "Three", "one"],
        "viewedAt<=-1h": [],
        "filter=nonsense&sort=&accountId=": ["One", "Two", "Three", "one"],
    }.items():
        assert list(titles(await rows(http, query))) == expected, query


async def test_name_without_a_number_matches_none(past: Plex, http: httpx2.AsyncClient) -> None:
    """Nobody can have heard of a number that was not given: it finds nothing."""
    del past

    assert await rows(http, "librarySectionID=1") == []
    assert len(await rows(http)) == 4
    assert len(await rows(http, "librarySectionID=1")) == 2


async def test_history_comes_in_pages(past: Plex, http: httpx2.AsyncClient) -> None:
    """A page tells where it starts and how many rows match in all."""
    del past
    reply = await http.get(
        f"{PATH}?sort=viewedAt:desc&X-Plex-Container-Start=1&X-Plex-Container-Size=2"
    )
    container = reply.json()["MediaContainer"]

    assert (container["size"], container["offset"], container["totalSize"]) == (2, 1, 4)
    assert list(titles(container["Metadata"])) == ["Three", "Two"]


async def test_history_in_xml_names_elements_by_kind(past: Plex) -> None:
    """A video is ``Video`` here, too."""
    async with past.http(accept="text/xml") as http:
        root = ET.fromstring((await http.get(PATH)).text)  # noqa: S314 - our own

    assert [row.tag for row in root] == ["Video"] * 4
    assert root.get("size") == "4"


async def test_one_row_is_found_by_its_key(past: Plex, http: httpx2.AsyncClient) -> None:
    """The key of a row is its address."""
    del past
    row = (await rows(http))[1]
    reply = await http.get(row["historyKey"])

    assert reply.json() == {"MediaContainer": {"size": 1, "Metadata": [row]}}


@pytest.mark.parametrize(
    "token, seen",
    [
        ("reader", ["One", "Two", "Three", "one"]),
        ("films", ["One", "Three"]),
        ("ann", ["One", "Three"]),
        ("bob", ["Two"]),
    ],
)
async def test_history_is_of_what_the_caller_may_see(
    past: Plex, token: str, seen: list[str]
) -> None:
    """A section's reader sees the section, a player its own rows; all else is unknown."""
    async with past.http() as admin:
        everything = await rows(admin)
    async with past.http(token) as http:
        assert list(titles(await rows(http))) == seen
        for row in everything:
            status = (await http.get(row["historyKey"])).status_code
            assert status == (200 if row["title"] in seen else 404)


@pytest.mark.parametrize(
    "token, status, left",
    [
        ("films-writer", 200, ["Two", "Three", "one"]),
        ("shows-writer", 404, ["One", "Two", "Three", "one"]),
        ("films", 403, ["One", "Two", "Three", "one"]),
        ("reader", 403, ["One", "Two", "Three", "one"]),
        ("ann", 403, ["One", "Two", "Three", "one"]),
        ("nothing", 403, ["One", "Two", "Three", "one"]),
        ("writer-elsewhere", 404, ["One", "Two", "Three", "one"]),
    ],
)
async def test_row_is_deleted_by_who_may_write_there(
    past: Plex, http: httpx2.AsyncClient, token: str, status: int, left: list[str]
) -> None:
    """A row needs the right to write in its section; one of another section is unknown."""
    row = (await rows(http))[0]
    async with past.http(token) as other:
        reply = await other.delete(row["historyKey"])
    assert reply.status_code == status
    if status == 200:
        assert reply.json() == {"MediaContainer": {"size": 0}}

    assert list(titles(await rows(http))) == left
    gone = 404 if status == 200 else 200
    assert (await http.delete(row["historyKey"])).status_code == gone


@pytest.mark.parametrize("partitions", [1, 2])
async def test_deleted_row_is_gone_on_every_node_for_good(plex: Plex, partitions: int) -> None:
    """Other nodes drop it, native lists as well, and a node that starts does not bring it back."""
    url = plex.context.settings.redis_url or ""
    prefix = f"{plex.context.settings.key_prefix}-{partitions}"
    async with running_node(url, prefix, "b", partitions) as node:
        async with running_node(url, prefix, "c", partitions) as second:
            other = Plex("", type(plex.context)(**{**_context(plex), "node": node}))
            for number in range(4):
                await played(other, f"s-{number}", Watch(key=f"k{number}"))
            first, *rest = [row for row in await node.history_rows() if row.kind == "watch"]
            await node.erase_row(first)
            await second.wait_for_position(node.replica.position())
            kept = [row.number for row in rest]

            for one in (node, second):
                assert [r.number for r in await one.history_rows() if r.kind == "watch"] == kept
            await node.erase_row(first)  # twice is no error
        async with running_node(url, prefix, "d", partitions) as fresh:
            assert [r.number for r in await fresh.history_rows() if r.kind == "watch"] == kept


async def test_rows_beyond_memory_stay_in_reach_when_others_are_deleted(
    plex: Plex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that was full is not taken for all there is after a row was deleted from it."""
    for number in range(4):
        await played(plex, f"s-{number}", Watch(key=f"k{number}"))
    everything = [row.number for row in await plex.node.history_rows()]
    monkeypatch.setattr(history, "HISTORY_MAX", 4)
    plex.node.replica.history = deque(list(plex.node.replica.history)[-4:], maxlen=4)
    await plex.node.erase_row(plex.node.replica.history[-1])

    assert [row.number for row in await plex.node.history_rows()] == everything[:-1]


async def test_who_may_see_nothing_has_no_history(past: Plex) -> None:
    """A token without any scope is refused."""
    async with past.http("nothing") as http:
        assert (await http.get(PATH)).status_code == 403


async def test_session_token_sees_its_own_rows(plex: Plex) -> None:
    """The visibility of one session is good for the history as well."""
    await played(plex, "a", Watch(key="k"))
    row = (await plex.node.history_rows())[0]

    assert may_see(Visibility("session", "a"), row)
    assert not may_see(Visibility("session", "b"), row)


@pytest.mark.parametrize("partitions", [1, 2])
async def test_rows_beyond_memory_come_from_the_store(
    plex: Plex, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """When memory is full the newest of the older rows are read from Redis, within a budget."""
    url = plex.context.settings.redis_url or ""
    async with running_node(
        url, f"{plex.context.settings.key_prefix}-{partitions}", "b", partitions
    ) as node:
        other = Plex("", type(plex.context)(**{**_context(plex), "node": node}))
        for number in range(8):
            await played(other, f"s-{number}", Watch(key=f"k{number}"))
        everything = list(await node.history_rows())
        monkeypatch.setattr(history, "HISTORY_MAX", 4)
        kept = deque(list(node.replica.history)[-4:], maxlen=4)
        node.replica.history = kept
        monkeypatch.setattr(history, "OLD_ROWS_STEP", 1)
        found = await node.history_rows()
        monkeypatch.setattr(history, "OLD_ROWS_MAX", 2)
        fewer = await node.history_rows()

    assert [row.number for row in found] == [row.number for row in everything]
    assert 4 <= len(fewer) < 8
    assert [row.number for row in fewer] == [row.number for row in everything][-len(fewer) :]


def _context(plex: Plex) -> dict[str, Any]:
    return {name: getattr(plex.context, name) for name in plex.context.__struct_fields__}
