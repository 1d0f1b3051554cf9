"""A real Prometheus that reads two gateways: the dashboard shows something in every panel."""

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from gateway.client import connect
from tests.deploy.test_examples import queries
from tests.processes import ADMIN, Process, gateways, heard, reserved_port
from tests.support import S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

RATE_OVER: Final = "20s"
CONFIG: Final = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: session-gateway
    authorization: {{credentials: {key}}}
    static_configs: [{{targets: [{targets}]}}]
"""


async def use(node: Process) -> None:
    """Do a little of what clients do, and of what they should not."""
    async with node.socket("/v1/events") as watcher:
        await heard(watcher, "snapshot")
        async with connect(node.http, token=ADMIN, name="Ann") as ann:
            await ann.leave()
        await heard(watcher, "session.closed")
    assert (await node.get("/v1/sessions/unknown")).status_code == httpx2.codes.NOT_FOUND
    async with httpx2.AsyncClient(headers={"Authorization": "Bearer wrong"}) as stranger:
        refused = await stranger.get(f"{node.http}/v1/sessions")
        assert refused.status_code == httpx2.codes.UNAUTHORIZED


async def test_every_query_of_the_dashboard_returns_data(tmp_path: Path) -> None:
    """Each panel has data once clients have come, failed and gone."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    port = reserved_port()
    async with gateways("a", "b", data_dir=tmp_path / "data") as nodes:
        config = tmp_path / "prometheus.yml"
        targets = ", ".join(f'"127.0.0.1:{node.port}"' for node in nodes)
        config.write_text(CONFIG.format(key=ADMIN, targets=targets))
        command = [
            *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"),
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (tmp_path / "log").open("wb") as said:
            server = await asyncio.create_subprocess_exec(*command, stderr=said)
            try:
                await every_panel_has_data(f"http://127.0.0.1:{port}", nodes)
            finally:
                server.terminate()
                await server.wait()


async def every_panel_has_data(url: str, nodes: list[Process]) -> None:
    """Use the gateways until Prometheus has an answer to every query of the dashboard."""
    missing = {query.replace("$__rate_interval", RATE_OVER) for query in queries()}
    async with httpx2.AsyncClient(base_url=url, timeout=8 * S) as prometheus:

        async def found(query: str) -> bool:
            reply = await prometheus.get("/api/v1/query", params={"query": query})
            answer: Any = reply.json()
            return answer["status"] == "success" and bool(answer["data"]["result"])

        async def all_found() -> bool:
            for node in nodes:
                await use(node)
            try:
                missing.difference_update([query for query in missing if await found(query)])
            except httpx2.TransportError:  # it starts
                return False
            return not missing

        await eventually(all_found, within=30 * S)
