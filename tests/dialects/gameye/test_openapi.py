"""Gameye's paths as an OpenAPI fragment."""

from typing import Any

import jsonschema
import pytest

from gateway.dialects.gameye import describe
from gateway.dialects.gameye.routes import OPERATIONS
from tests.dialects.gameye.conftest import Served, begin


@pytest.fixture(scope="module")
def fragment() -> dict[str, Any]:
    """The fragment."""
    return describe()


def test_every_operation_is_described(fragment: dict[str, Any]) -> None:
    """What is served is described, under the product's tag, and nothing else."""
    described = [
        (method, operation)
        for path in fragment["paths"].values()
        for method, operation in path.items()
    ]

    assert len(described) == len(OPERATIONS)
    assert {tuple(operation["tags"]) for _, operation in described} == {("Gameye",)}
    assert set(fragment["paths"]) == {
        *("/session", "/session/{id}", "/session/player/join", "/session/player/leave"),
        *("/logs", "/artifacts", "/available-location/{image}", "/health"),
        "/tag/{region}/{image}/{version}",
    }


def test_start_tells_its_errors(fragment: dict[str, Any]) -> None:
    """A start answers 201, and what may go wrong is listed by Gameye's status."""
    responses = fragment["paths"]["/session"]["post"]["responses"]

    assert {"201", "401", "403", "409", "420", "422", "500"} == set(responses)


def test_references_lead_somewhere(fragment: dict[str, Any]) -> None:
    """Every schema that is named exists, under a name that no other door has."""
    names = fragment["components"]["schemas"]
    wanted = set[str]()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                wanted.add(value["$ref"].removeprefix("#/components/schemas/"))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    walk(fragment)
    assert wanted <= set(names)
    assert all(name.startswith("Gameye") for name in names)


async def test_answers_are_as_described(served: Served, fragment: dict[str, Any]) -> None:
    """What is answered has the schema that is told."""
    async with served.http() as http:
        session_id = await begin(http, labels={"a": "b"})
        for path, template in (
            ("/session", "/session"),
            ("/session?encoding=string", "/session"),
            (f"/session/{session_id}", "/session/{id}"),
            ("/available-location/arena", "/available-location/{image}"),
            ("/tag/a/b/c", "/tag/{region}/{image}/{version}"),
            ("/health", "/health"),
        ):
            answer = await http.get(path)
            responses = fragment["paths"][template]["get"]["responses"]
            schema = responses["200"]["content"]["application/json"]["schema"]
            document = {**schema, "components": fragment["components"]}
            jsonschema.validate(answer.json(), document)
