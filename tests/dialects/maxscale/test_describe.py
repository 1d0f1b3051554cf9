"""What the dialect tells of itself in OpenAPI, and that it is told of nothing else."""

from typing import Any

import httpx2

from gateway.context import Context
from gateway.dialects.maxscale import describe, run
from tests.dialects.maxscale.conftest import MaxScale


def operations() -> list[tuple[str, str, Any]]:
    """Return every path, method and operation."""
    return [
        (path, method, operation)
        for path, item in describe()["paths"].items()
        for method, operation in item.items()
    ]


def references(value: object) -> set[str]:
    """Return the schemas that a description refers to."""
    if isinstance(value, dict):
        found = {str(value["$ref"])} if "$ref" in value else set()
        return found.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def test_fragment_is_whole() -> None:
    """Every schema that is referred to is there; operations have one tag and names of their own."""
    fragment = describe()
    known = {f"#/components/schemas/{name}" for name in fragment["components"]["schemas"]}
    names = [operation["operationId"] for _, _, operation in operations()]

    assert references(fragment) <= known
    assert len(names) == len(set(names))
    assert {tag for _, _, operation in operations() for tag in operation["tags"]} == {"MaxScale"}


async def test_what_is_described_is_served(maxscale: MaxScale, http: httpx2.AsyncClient) -> None:
    """Each described operation answers as its description says."""
    for path, method, operation in operations():
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


async def test_run_has_nothing_to_do(maxscale: MaxScale) -> None:
    """MaxScale has no live channel: nothing runs behind its door."""
    await run(Context(*(None,) * 6))  # type: ignore[arg-type]
    assert maxscale.node.is_ready
