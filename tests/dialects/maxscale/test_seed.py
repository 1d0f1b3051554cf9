"""The seed: MaxScale's API as it was first described, every request of that document."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from gateway.settings import Settings
from tests.dialects.maxscale.conftest import MaxScale

SERVICES = ("RW-Split-Router", "Read-Connection-Router", "CLI")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A gateway that speaks the seed's form."""
    return replace(settings, maxscale_generation="seed")


def expected(number: int, service: str, connected: str, url: str) -> dict[str, Any]:
    """Return a session as the seed shows one that has no client yet."""
    return {
        "id": str(number),
        "type": "sessions",
        "relationships": {
            "services": {
                "links": {"self": f"{url}/v1/services/"},
                "data": [{"id": service, "type": "services"}],
            }
        },
        "attributes": {"state": "Session Allocated", "connected": connected},
        "links": {"self": f"{url}/v1/sessions/{number}"},
    }


async def test_get_a_session(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """``GET /v1/sessions/:id`` is the document of the seed."""
    session = await maxscale.open("one", service=SERVICES[0])
    response = await http.get(f"/v1/sessions/{session.number}")
    document = response.json()
    connected = document["data"]["attributes"]["connected"]

    assert response.status_code == 200
    assert len(connected) == 24
    assert document == {
        "links": {"self": f"{maxscale.url}/v1/sessions/1"},
        "data": expected(1, SERVICES[0], connected, maxscale.url),
    }


async def test_get_all_sessions(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """``GET /v1/sessions`` is the document of the seed."""
    for service in SERVICES:
        await maxscale.open(service, service=service)
    response = await http.get("/v1/sessions")
    document = response.json()
    connected = [row["attributes"]["connected"] for row in document["data"]]

    assert response.status_code == 200
    assert document == {
        "links": {"self": f"{maxscale.url}/v1/sessions/"},
        "data": [
            expected(number, service, connected[number - 1], maxscale.url)
            for number, service in enumerate(SERVICES, start=1)
        ],
    }


async def test_session_with_a_client_has_all_five_attributes(
    maxscale: MaxScale, http: httpx2.AsyncClient
) -> None:
    """User, address and idle time come with the client."""
    await maxscale.open("one", account="app_rw")
    await maxscale.connect("one")
    shown = (await http.get("/v1/sessions/1")).json()["data"]["attributes"]

    assert shown.keys() == {"state", "connected", "user", "remote", "idle"}
    assert shown["state"] == "Session ready for routing"


@pytest.mark.parametrize(
    "query, pretty",
    [("", False), ("?pretty", True), ("?pretty=true", True), ("?pretty=false", False)],
)
async def test_all_requests_support_pretty(
    maxscale: MaxScale, http: httpx2.AsyncClient, query: str, pretty: bool
) -> None:
    """Replies are compact unless ``pretty`` is given, bare or true, for every resource."""
    await maxscale.open("one")
    for path in ("/v1/sessions", "/v1/sessions/1", "/v1/services", "/v1/maxscale"):
        assert (b"\n" in (await http.get(path + query)).content) is pretty


async def test_links_of_the_seed_can_be_followed(
    maxscale: MaxScale, http: httpx2.AsyncClient, golden: Callable[[str], Any]
) -> None:
    """The collection that a relationship points to is there."""
    links = golden("seed_told")["data"]["relationships"]
    await maxscale.open("one", service="orders-rw", attributes={"maxscale": {"filters": ["mask"]}})
    for name in ("services", "filters"):
        path = links[name]["links"]["self"].removeprefix("http://gw.example:8989")
        response = await http.get(path)

        assert response.status_code == 200
        assert response.json()["data"][0]["links"]["self"].startswith(maxscale.url + path)
