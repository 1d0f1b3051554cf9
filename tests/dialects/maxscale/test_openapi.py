"""What the dialect tells of itself in OpenAPI, and that it is told of nothing else."""

from typing import Any

import httpx2

from gateway.context import Context
from gateway.dialects.maxscale import run
from tests.dialects.maxscale.conftest import MaxScale

Json = Any


async def document(http: httpx2.AsyncClient) -> Json:
    """Return the description, which needs no login."""
    response = await http.get("/maxscale/openapi.json", headers={"Authorization": ""})
    assert response.status_code == 200
    return response.json()


def operations(document: Json) -> list[tuple[str, str, Json]]:
    """Return every path, method and operation, but for the description's own."""
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if path != "/openapi.json"
    ]


async def test_only_the_current_form_with_its_version_is_described(
    http: httpx2.AsyncClient,
) -> None:
    """Of the two spellings of an address the one with the version is described."""
    found = await document(http)

    assert {path.split("/")[1] for path, _, _ in operations(found)} == {"v1"}
    assert "SessionResource" in found["components"]["schemas"]
    assert "SeedResource" not in found["components"]["schemas"]


async def test_what_is_described_is_served(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """Each described operation answers as its description says."""
    for path, method, operation in operations(await document(http)):
        session = await maxscale.open(
            operation["operationId"], service="s", attributes={"maxscale": {"filters": ["s"]}}
        )
        name = str(session.number) if "sessions/" in path else "s"
        body = b'{"data":[]}' if path.endswith("filters") else b'{"data":{}}'
        response = await http.request(
            method, path.replace("{id}", name), content=body if "requestBody" in operation else None
        )

        assert response.status_code == 200, path
        assert ("content" in operation["responses"]["200"]) == bool(response.content), path


async def test_logins_are_described(http: httpx2.AsyncClient) -> None:
    """A password, a token and the cookie of a login are told as ways to come in."""
    found = await document(http)

    assert found["components"]["securitySchemes"].keys() == {"basic", "token", "cookie"}
    assert found["paths"]["/v1/auth"]["get"]["security"] == []


async def test_run_has_nothing_to_do(maxscale: MaxScale) -> None:
    """MaxScale has no live channel: nothing runs behind its door."""
    await run(Context(*(None,) * 6))  # type: ignore[arg-type]
    assert maxscale.node.is_ready
