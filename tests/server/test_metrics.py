"""Metrics: what Prometheus reads, against what clients did and what the documents say."""

import asyncio
import re
import shutil
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import httpx2
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from gateway.settings import Settings
from tests.server.conftest import ADMIN, Gateway, serving
from tests.server.test_api_sessions import opened

PAGE = Path(__file__).parents[2] / "gateway" / "docs" / "metrics.md"


async def samples(http: httpx2.AsyncClient, path: str = "/metrics") -> dict[str, float]:
    """Return what the metrics say, by name and labels but the node's."""
    reply = await http.get(path)
    assert reply.status_code == 200, reply.text
    found = {}
    for family in text_string_to_metric_families(reply.text):
        for name, labels, value, *_ in family.samples:
            texts = [f"{label}={text}" for label, text in labels.items() if label != "node"]
            found[" ".join([name.removeprefix("gateway_"), *texts])] = value
    return found


async def test_metrics_say_what_clients_did(gateway: Gateway, http: httpx2.AsyncClient) -> None:
    """Connections, events, ends and refusals are counted as the clients count them."""
    before = await samples(http)

    def gained(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    protocols = [Subprotocol("gateway.v1"), Subprotocol(f"bearer.{ADMIN}")]
    base = gateway.url.replace("http", "ws")
    async with connect(f"{base}/v1/events", subprotocols=protocols) as watcher:
        while "snapshot" not in str(await watcher.recv()):
            pass
        for number in range(3):
            await opened(http, id=f"s-{number}")
        await http.delete("/v1/sessions/s-0")
        assert (await http.get("/v1/sessions/unknown")).status_code == 404
        async with gateway.http("wrong") as stranger:
            assert (await stranger.get("/v1/sessions")).status_code == 401
        events = 0
        while events < 4:
            events += str(await watcher.recv()).count('"type":"session.')
        after = await samples(http)
        assert after["sessions state=idle"] == 2
        assert after["connections"] == 1
        assert after["channels"] >= 1  # a product has one of its own
        assert after["store_up"] == 1
        assert after["ring_bytes"] > 0
    await watcher.wait_closed()
    after = await samples(http)

    assert gained("connects_total") == 1
    assert gained("closes_total code=1000") == 1
    assert gained("deliveries_total") == events
    assert gained("session_ends_total outcome=closed") == 1
    assert gained("refusals_total code=not_found") == 1
    assert gained("auth_failures_total code=unauthorized door=native") == 1
    assert gained("commit_seconds_count") >= 4
    assert gained("delivery_lag_seconds_count") >= 1


async def test_failures_are_counted_at_their_door(settings: Settings) -> None:
    """A product at the root and our own API beside it keep their names."""
    plain = replace(settings, dialect="maxscale=/")
    async with serving(plain) as gateway, gateway.http("wrong") as stranger, gateway.http() as http:
        addresses = {
            "maxscale": "/v1/sessions",
            "native": "/gateway/v1/sessions",
            "webida": "/webida/api/sessions",
        }
        for door, path in addresses.items():
            before = await samples(http, "/gateway/metrics")
            assert (await stranger.get(path)).status_code == 401, path
            after = await samples(http, "/gateway/metrics")
            grown = {name for name in after if after[name] > before.get(name, 0)}
            assert [name for name in grown if name.startswith("auth_failures")] == [
                f"auth_failures_total code=unauthorized door={door}"
            ]


async def test_only_administrators_and_listed_addresses_read_metrics(
    gateway: Gateway, settings: Settings
) -> None:
    """Counts of everybody are for ``admin``, or for an address that the operator has listed."""
    async with gateway.http("reader") as reader, gateway.http(None) as nobody:
        assert (await reader.get("/metrics")).status_code == 403
        assert (await nobody.get("/metrics")).status_code == 401
    listed = replace(settings, metrics_addresses=("127.0.0.0/8",), node_name="node-b")
    async with serving(listed) as other, other.http(None) as nobody:
        assert (await nobody.get("/metrics")).status_code == 200
        forwarded = {"X-Forwarded-For": "203.0.113.9"}
        assert (await nobody.get("/metrics", headers=forwarded)).status_code == 401


async def test_documents_have_a_row_for_each_metric(http: httpx2.AsyncClient) -> None:
    """The table of metrics names each one, with its type and meaning, and no other."""
    row = re.compile(r"^\| `(gateway_\w+)` \| (\w+) \| (?:.*) \| (.*) \|$", re.MULTILINE)
    text = (await http.get("/metrics")).text
    served = {
        (family.name + "_total" * (family.type == "counter"), family.type, family.documentation)
        for family in text_string_to_metric_families(text)
        if family.name.startswith("gateway_")
    }

    assert set(row.findall(PAGE.read_text())) == served


async def test_promtool_finds_nothing_wrong(http: httpx2.AsyncClient) -> None:
    """Names, types and help follow the conventions of Prometheus, as its own tool checks them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    process = await asyncio.create_subprocess_exec(
        *(promtool, "check", "metrics"), stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await process.communicate((await http.get("/metrics")).content)

    assert (process.returncode, said.decode()) == (0, "")
