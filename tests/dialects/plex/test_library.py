"""What plays and what was played, looked up as items of a library."""

from typing import Any
from xml.etree import ElementTree as ET

import httpx2
import pytest

from gateway.core.command import Close
from gateway.core.model import Watch
from tests.dialects.plex.conftest import Plex

FILM = Watch(
    key="/library/metadata/101",
    title="A film",
    duration_ms=90_000,
    item={"thumb": "/library/metadata/101/thumb/1", "originallyAvailableAt": "2024-05-01"},
)
EPISODE = Watch(
    key="show/1/2",
    title="The second",
    kind="episode",
    item={"grandparentTitle": "The show", "grandparentRatingKey": 7, "index": 2},
)
NEWS = Watch(key="channel/9", title="News")


@pytest.fixture
async def busy(plex: Plex) -> Plex:
    """A gateway on which things play in two sections and in none, and one was played before."""
    await plex.play("was", FILM, workspace="films", account="ann")
    await plex.node.apply("was", Close())
    await plex.play("episode", EPISODE, workspace="shows", account="bob")
    await plex.play("news", NEWS)
    return plex


async def found(http: httpx2.AsyncClient, path: str, name: str = "Metadata") -> list[Any]:
    """Return the entries of a list."""
    reply = await http.get(path)
    assert reply.status_code == 200, f"{path}: {reply.text}"
    container = reply.json()["MediaContainer"]
    entries: list[Any] = container.get(name, [])
    assert container["size"] == len(entries)
    return entries


async def number_of(http: httpx2.AsyncClient, title: str) -> str:
    """Return the number of what plays."""
    entries = await found(http, "/status/sessions")
    return next(str(entry["ratingKey"]) for entry in entries if entry["title"] == title)


async def test_item_is_as_its_session_tells_it(busy: Plex, http: httpx2.AsyncClient) -> None:
    """What plays is found by the number that its session shows, with what is known of it."""
    number = await number_of(http, "The second")
    (item,) = await found(http, f"/library/metadata/{number}?includeMarkers=1")

    assert (item["ratingKey"], item["key"]) == (number, f"/library/metadata/{number}")
    assert (item["title"], item["type"], item["grandparentTitle"]) == (
        *("The second", "episode", "The show"),
    )
    assert item["librarySectionTitle"] == "shows"
    opened_at = busy.node.replica.sessions["episode"].created_at // 1000
    assert item["addedAt"] == opened_at


async def test_item_that_was_played_is_found_in_the_history(
    busy: Plex, http: httpx2.AsyncClient
) -> None:
    """What plays no more is as the history has it; both spellings of the path are one."""
    del busy
    for path in ("/library/metadata/101", "/library/metadata/101/"):
        reply = await http.get(path)
        container = reply.json()["MediaContainer"]
        (item,) = container["Metadata"]

        assert (item["title"], item["type"], item["duration"]) == ("A film", "movie", 90_000)
        assert item["originallyAvailableAt"] == "2024-05-01"
        assert container["identifier"] == "com.plexapp.plugins.library"
        assert (container["librarySectionID"], container["librarySectionTitle"]) == (
            *(int(item["librarySectionID"]), "films"),
        )


async def test_several_items_come_in_the_order_asked(busy: Plex, http: httpx2.AsyncClient) -> None:
    """Numbers in a comma list are looked up together; those that are unknown are left out."""
    del busy
    number = await number_of(http, "The second")
    items = await found(http, f"/library/metadata/{number},999,101,{number}")

    assert [item["title"] for item in items] == ["The second", "A film"]
    reply = await http.get(f"/library/metadata/{number},101")
    assert "librarySectionID" not in reply.json()["MediaContainer"]  # they are of two sections


async def test_item_is_the_same_in_xml(busy: Plex) -> None:
    """Monitors read XML: an element by kind, the section on the container."""
    async with busy.http(accept="*/*") as http:
        root = ET.fromstring((await http.get("/library/metadata/101")).text)  # noqa: S314 - ours

    (video,) = root
    assert (video.tag, video.get("title"), video.get("duration")) == ("Video", "A film", "90000")
    assert root.get("librarySectionTitle") == "films"


async def test_item_without_an_end_is_live_and_its_length_a_number(
    busy: Plex, http: httpx2.AsyncClient
) -> None:
    """Monitors compare the length with a number when a playback stops."""
    del busy
    (item,) = await found(http, f"/library/metadata/{await number_of(http, 'News')}")

    assert (item["type"], item["live"], item["duration"]) == ("movie", True, 0)


@pytest.mark.parametrize(
    "token, seen",
    [
        ("reader", {"A film", "The second", "News"}),
        ("films", {"A film"}),
        ("shows-writer", {"The second"}),
        ("music", set()),
        ("ann", {"A film"}),
        ("bob", {"The second"}),
        ("nothing", set()),
    ],
)
async def test_items_are_those_of_the_callers_view(
    busy: Plex, http: httpx2.AsyncClient, token: str, seen: set[str]
) -> None:
    """What a caller may not see is unknown to it, here as everywhere."""
    numbers = {title: await number_of(http, title) for title in ("The second", "News")}
    async with busy.http(token) as other:
        for title, number in {**numbers, "A film": "101"}.items():
            status = (await other.get(f"/library/metadata/{number}")).status_code
            assert status == (200 if title in seen else 404), title
        names = {"A film": "films", "The second": "shows"}
        sections = await found(other, "/library/sections", "Directory")
        assert {section["title"] for section in sections} == {
            names[title] for title in seen if title in names
        }


@pytest.mark.parametrize("ids", ["999", "0", "x", "-1", "101x", "9" * 40, ",", "%0A"])
async def test_unknown_item_is_not_found(busy: Plex, http: httpx2.AsyncClient, ids: str) -> None:
    """A number that nothing has, and what is none, is a 404."""
    del busy

    assert (await http.get(f"/library/metadata/{ids}")).status_code in (400, 404)
    assert (await http.get(f"/library/sections/{ids}/all")).status_code in (400, 404)


async def test_sections_are_the_workspaces_in_which_something_plays(
    busy: Plex, http: httpx2.AsyncClient
) -> None:
    """Each section has the number that its sessions show, and lists what was seen in it."""
    for path in ("/library/sections", "/library/sections/", "/library/sections/all"):
        sections = await found(http, path, "Directory")
        assert [(section["title"], section["type"]) for section in sections] == [
            *(("films", "movie"), ("shows", "movie"))
        ]
    titles = {}
    for section in await found(http, "/library/sections", "Directory"):
        items = await found(http, f"/library/sections/{section['key']}/all")
        titles[section["title"]] = [item["title"] for item in items]
        assert {item["librarySectionID"] for item in items} == {section["key"]}
    assert titles == {"films": ["A film"], "shows": ["The second"]}

    await busy.play("again", FILM, workspace="films")
    reply = await http.get("/library/sections/1/all?X-Plex-Container-Size=0")
    assert reply.json()["MediaContainer"]["totalSize"] == 1


async def test_library_itself_and_recorders_are_there(http: httpx2.AsyncClient) -> None:
    """Clients give up if these are not found; there is nothing in them."""
    root = (await http.get("/library")).json()["MediaContainer"]

    assert (root["size"], root["title1"]) == (0, "Plex Library")
    assert await found(http, "/livetv/dvrs", "Dvr") == []
    assert await found(http, "/library/sections", "Directory") == []


async def test_player_may_look_up_but_a_stranger_may_not(busy: Plex) -> None:
    """Any token will do, as at a real server; without one there is nothing."""
    async with busy.http(None) as http:
        for path in ("/library", "/library/sections", "/library/metadata/101", "/livetv/dvrs"):
            assert (await http.get(path)).status_code == 401
