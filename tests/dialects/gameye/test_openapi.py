"""Gameye's paths as an OpenAPI document."""

from typing import Any

import jsonschema
import pytest
from msgspec.json import decode, encode

from gateway.dialects.gameye.routes import ABOUT, ENDPOINTS
from gateway.http.openapi import document
from tests.dialects.gameye.conftest import Served, begin


@pytest.fixture(scope="module")
def fragment() -> dict[str, Any]:
    """The document."""
    return decode(encode(document(ENDPOINTS, ABOUT, "/gameye")))  # type: ignore[no-any-return]


def test_every_operation_is_described(fragment: dict[str, Any]) -> None:
    """What is served is described, and nothing else."""
    assert sum(map(len, fragment["paths"].values())) == len(ENDPOINTS)
    assert set(fragment["paths"]) == {
        *("/session", "/session/{id}", "/session/player/join", "/session/player/leave"),
        *("/logs", "/artifacts", "/available-location/{image}", "/health"),
        "/tag/{region}/{image}/{version}",
    }


def test_start_tells_its_errors(fragment: dict[str, Any]) -> None:
    """A start answers 201, and what may go wrong is listed by Gameye's status."""
    responses = fragment["paths"]["/session"]["post"]["responses"]

    expected = {"201", "400", "401", "403", "409", "420", "422", "500", "503"}
    assert expected == set(responses)


def test_brackets_of_the_list_are_described(fragment: dict[str, Any]) -> None:
    """Maps and comparisons are told as OpenAPI writes them."""
    parameters = fragment["paths"]["/session"]["get"]["parameters"]
    deep = {one["name"] for one in parameters if one.get("style") == "deepObject"}

    assert deep == {"playerCount", "filter", "filterNot"}


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
