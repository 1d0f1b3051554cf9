"""Mounting: each product below its prefix, or one at the root, where ours moves aside."""

from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest

from gateway.store.embedded import EmbeddedValkey
from tests.dialects.conftest import Build
from tests.dialects.hearing import ear
from tests.dialects.house import (
    ITEM,
    LISTS,
    PASSWORD,
    PREFIXES,
    House,
    shown,
)
from tests.dialects.neko.client import Neko
from tests.dialects.webida.client import Client
from tests.server.conftest import ADMIN, Gateway
from tests.support import Proxy

Json = Any

PRODUCTS: Final = tuple(LISTS)


def at_root(house: House, product: str) -> House:
    """Return *house* as clients see it that take no prefix."""
    return House(house.gateway, {**PREFIXES, product: "", "native": "/gateway"})


def error_of(product: str, answer: httpx2.Response) -> object:
    """Return what tells a product's error from ours: its body, without what changes."""
    if product == "neko" and answer.headers["content-type"].startswith("text/plain"):
        return answer.text
    body = answer.json()
    match product:
        case "neko":
            assert body.keys() == {"code", "message"}
            return body["code"]
        case "plex":
            [error] = body["errors"]
            assert error.keys() == {"code", "message", "status"}
            return error["code"], error["status"]
        case "webida":
            assert body.keys() == {"code", "message"}
            return body["code"]
        case "gameye":
            assert body.keys() - {"violations"} == {
                *("statusCode", "code", "message", "details", "path", "timestamp", "identifier"),
            }
            assert body["statusCode"] == answer.status_code
            return body["code"], body["path"]
        case _:
            assert body.keys() == {"errors"}
            assert all(error.keys() == {"detail"} for error in body["errors"])
            return len(body["errors"])


UNKNOWN: Final = {
    "neko": "404 page not found\n",
    "plex": (1004, 404),
    "webida": "ResourceNotFound",
    "gameye": ("RESOURCE_NOT_FOUND", "/v9/nowhere"),
    "maxscale": 1,
}


@pytest.mark.parametrize("product", PRODUCTS)
async def test_product_answers_below_its_prefix(house: House, product: str) -> None:
    """Every product is there at once, and answers for its unknown paths and methods itself."""
    await house.read(product, LISTS[product])
    await house.read("native", "/v1/sessions")
    for method in ("GET", "POST", "DELETE"):
        answer = await house.ask(product, method, "/v9/nowhere")
        assert (answer.status_code, error_of(product, answer)) == (404, UNKNOWN[product])
    wrong = await house.ask(product, "PUT", LISTS[product])
    assert wrong.status_code == (404 if product == "maxscale" else 405)
    assert "problem" not in wrong.headers.get("content-type", "")


async def test_paths_of_nobody_are_answered_by_us(house: House) -> None:
    """What belongs to no product is answered with a problem of ours."""
    for path in ("/nowhere", "/nekos/api/sessions", "/gateway/v1/sessions"):
        answer = await house.ask("native", "GET", path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("product", PRODUCTS)
async def test_product_wins_at_the_root(build: Build, product: str) -> None:
    """At the root the product answers, unknown paths too; all others are where they were."""
    async with build(dialect=f"{product}=/") as mounted:
        house = at_root(mounted, product)
        for other in PRODUCTS:
            await mounted.read(other, LISTS[other])
        listed = await house.read(product, LISTS[product])
        again = await mounted.read(product, LISTS[product])
        if product != "maxscale":  # whose links repeat where they were asked for
            assert listed == again
        for path in ("/v9/nowhere", "/asyncapi.json", "/metrics"):
            answer = await house.ask(product, "GET", path)
            assert answer.status_code == 404
            assert answer.headers.get("content-type") != "application/problem+json"
        ours = await mounted.ask(product, "GET", "/v9/nowhere")
        assert error_of(product, ours) == UNKNOWN[product]
        v1 = await mounted.ask("native", "GET", "/v1/sessions")
        assert (v1.status_code == 200) == (product == "maxscale")
        assert "position" not in v1.text


@pytest.mark.parametrize("product", PRODUCTS)
async def test_our_api_moves_aside_for_a_product_at_the_root(build: Build, product: str) -> None:
    """Our own API answers under ``/gateway``, links and sockets included; operations stay."""
    async with build(dialect=f"{product}=/") as mounted:
        house = at_root(mounted, product)
        opened = await house.ask("native", "POST", "/v1/sessions", json={"id": "one"})
        assert opened.status_code == 201
        assert opened.headers["location"] == "/gateway/v1/sessions/one"
        at = mounted.gateway.url + opened.headers["location"]
        assert (await house.send("GET", at, shown("native", ADMIN))).json()["id"] == "one"
        described = await house.read("native", "/openapi.json")
        assert [server["url"] for server in described["servers"]] == ["/gateway"]
        unknown = await house.ask("native", "GET", "/nowhere")
        assert unknown.status_code == 404
        assert unknown.headers["content-type"] == "application/problem+json"
        assert unknown.json()["type"] == "/gateway/docs#not_found"
        explained = await house.send("GET", f"{mounted.gateway.url}/gateway/docs", {})
        assert 'id="not_found"' in explained.text
        for path in ("/livez", "/readyz"):
            for place in ("", "/gateway"):
                url = f"{mounted.gateway.url}{place}{path}"
                answer = await house.send("GET", url, {})
                assert (answer.status_code, answer.json()) == (200, {"status": "ok"})

        moved = Gateway(f"{mounted.gateway.url}/gateway", mounted.gateway.context)
        async with ear(f"{moved.url}/v1/events", shown("native", ADMIN)) as listening:
            await listening.hears(lambda said: said["type"] == "snapshot")
            async with ear(f"{moved.url}/v1/connect?name=two", shown("native", ADMIN)) as two:
                await two.hears(lambda said: said["type"] == "hello")
                await listening.hears(lambda said: said["type"] == "session.opened")


async def test_live_channels_work_at_the_root(build: Build) -> None:
    """neko's, Plex's and Webida's sockets are where their clients expect them."""
    async with build(dialect="neko=/") as mounted:
        client = Neko(mounted.gateway.url)
        _, found = await client.post("/api/login", username="ann", password=PASSWORD)
        client.token = found["token"]
        async with client.socket() as socket:
            assert (await socket.greeted())["session_id"] == "ann"
    async with build(dialect="plex=/") as mounted:
        url = f"{mounted.gateway.url}/:/websockets/notifications?X-Plex-Token={ADMIN}"
        async with ear(url) as listening:
            house = at_root(mounted, "plex")
            film = {"key": ITEM, "state": "playing"}
            await house.ask("native", "POST", "/v1/sessions", json={"id": "one"})
            await house.ask("native", "PUT", "/v1/sessions/one/watch", json=film)
            await listening.hears(lambda said: said["NotificationContainer"]["type"] == "playing")
    async with build(dialect="webida=/") as mounted:
        ide = await Client.open(mounted.gateway.url, "A", ADMIN, base="")
        await ide.join()
        await ide.leave()
        await ide.ended()


@pytest.mark.parametrize("product", ["gameye", "maxscale"])
async def test_addresses_that_a_product_tells_can_be_followed(build: Build, product: str) -> None:
    """A link or Location leads to what it names, below the prefix and at the root."""
    async with build(dialect=f"{product}=/") as mounted:
        for house in (mounted, at_root(mounted, product)):
            origin, prefix = house.gateway.url, house.prefixes[product]
            if product == "gameye":
                body = {"location": "here", "image": "arena"}
                started = await house.ask("gameye", "POST", "/session", json=body)
                links = [origin + started.headers["location"]]
            else:
                await mounted.ask(
                    "gameye", "POST", "/session", json={"location": "a", "image": "b"}
                )
                rows = await house.read("maxscale", "/v1/sessions")
                links = [rows["links"]["self"], *(row["links"]["self"] for row in rows["data"])]
            for link in links:
                assert urlsplit(link).path.startswith(f"{prefix}/")
                answer = await house.send("GET", link, shown(product, ADMIN))
                assert answer.status_code == 200, link


# --- trouble

BUSY: Final = {
    "neko": (429, 429),
    "plex": (429, (1029, 429)),
    "webida": (429, "TooManyRequestsError"),
    "gameye": (420, ("CAPACITY_UNAVAILABLE", "/session")),
    "maxscale": (429, 1),
}


@pytest.mark.parametrize("product", PRODUCTS)
async def test_who_asks_too_often_is_told_in_the_products_words(build: Build, product: str) -> None:
    """A caller's limit holds at every door, and each door says so as its product does."""
    async with build(requests_per_s=0.1) as house:
        await house.read(product, LISTS[product])
        answer = await house.ask(product, "GET", LISTS[product])
        assert (answer.status_code, error_of(product, answer)) == BUSY[product]
        assert int(answer.headers["retry-after"]) > 0


async def opens(house: House, product: str) -> httpx2.Response:
    """Try to open a session as a product's clients do, or to change one."""
    match product:
        case "neko":
            body = {"username": "ann", "password": PASSWORD}
            return await house.ask("neko", "POST", "/api/login", json=body)
        case "plex":
            report = f"/:/timeline?ratingKey=101&key={ITEM}&state=playing&time=0"
            player = {"X-Plex-Client-Identifier": "dev-1"}
            return await house.ask("plex", "GET", report, headers=player)
        case "webida":
            return await house.ask("webida", "DELETE", "/api/sessions/one?closeAfter=5")
        case "gameye":
            body = {"location": "here", "image": "arena"}
            return await house.ask("gameye", "POST", "/session", json=body)
        case _:
            return await house.ask("maxscale", "DELETE", "/v1/sessions/1")


AWAY: Final = {
    "neko": 503,
    "plex": (1053, 503),
    "webida": "ServiceUnavailableError",
    "gameye": ("SERVICE_UNAVAILABLE", "/session"),
    "maxscale": 1,
}


@pytest.mark.parametrize("product", PRODUCTS)
async def test_store_that_is_away_is_told_in_the_products_words(
    build: Build, valkey: EmbeddedValkey, product: str
) -> None:
    """Without its store a node shows what it knows; writes are refused as the product does."""
    async with Proxy(valkey.url) as proxy, build(redis_url=proxy.url) as house:
        await house.ask("native", "POST", "/v1/sessions", json={"id": "one"})
        async with proxy.cut():
            answer = await opens(house, product)
            await house.read(product, LISTS[product])
        told = answer.status_code, error_of(product, answer)
        unsure = (504, ("GATEWAY_TIMEOUT", "/session")) if product == "gameye" else None
        assert told in ((503, AWAY[product]), unsure)


@pytest.mark.parametrize("product", PRODUCTS)
async def test_node_that_goes_says_so_in_the_products_words(house: House, product: str) -> None:
    """While a node drains it opens nothing; each door refuses as its product does."""
    url, context = house.gateway.url, house.gateway.context
    context.node.is_draining = True
    await context.connections.drain(0)
    sockets = {
        "neko": "/neko/api/ws?token=x",
        "plex": f"/plex/:/websockets/notifications?X-Plex-Token={ADMIN}",
        "webida": f"/webida/socket.io/?EIO=3&transport=websocket&token={ADMIN}",
    }
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Accept": "application/json",
    }
    if product in sockets:
        refused = await house.send("GET", url + sockets[product], upgrade)
        assert (refused.status_code, error_of(product, refused)) == (503, AWAY[product])
    if product in ("neko", "plex", "gameye"):
        answer = await opens(house, product)
        assert (answer.status_code, error_of(product, answer)) == (503, AWAY[product])
    if product == "maxscale":
        answer = await house.ask("maxscale", "GET", "/v1")
        assert (answer.status_code, error_of(product, answer)) == (503, 1)
    assert (await house.ask("native", "GET", "/readyz")).status_code == 503
    await house.read(product, LISTS[product])
