"""JSON:API: every body that can come is a document of the standard, whatever it tells."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from tests.dialects.maxscale.build import told
from tests.dialects.maxscale.conftest import MaxScale

GOLDEN = Path(__file__).parent / "golden"
DOCUMENTS = sorted(
    path.stem
    for path in GOLDEN.glob("*.json")
    if path.stem not in {"jsonapi.schema", "service"}  # a resource, no document
)


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """The standard as a JSON Schema."""
    return Draft202012Validator(json.loads((GOLDEN / "jsonapi.schema.json").read_text()))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_golden_file_is_a_document(
    name: str, golden: Callable[[str], Any], schema: Draft202012Validator
) -> None:
    """What the golden files hold is JSON:API."""
    schema.validate(golden(name))


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"data": {"type": "sessions"}},
        {"data": {"id": 1, "type": "sessions"}},
        {"data": [], "errors": []},
        {"errors": []},
        {"data": {"id": "1", "type": "s", "attributes": {"_a": 1}}},
        {"data": {"id": "1", "type": "s", "attributes": {}}},
        {"data": {"id": "1", "type": "s", "relationships": {"a": {}}}},
        {"data": [], "links": {"own": "x"}},
    ],
)
def test_schema_refuses_what_is_no_document(document: object, schema: Draft202012Validator) -> None:
    """The schema of the tests finds faults."""
    assert not schema.is_valid(document)


REPLIES = [
    ("/v1/sessions", 200),
    ("/v1/sessions?page[size]=1&page[number]=1", 200),
    ("/v1/sessions?fields[sessions]=user,services", 200),
    ("/v1/sessions?fields[sessions]=", 200),
    ("/v1/sessions?filter=id=7", 200),
    ("/v1/sessions?filter=id=x", 400),
    ("/v1/sessions/1", 200),
    ("/v1/sessions/1?fields[sessions]=memory/total", 200),
    ("/v1/sessions/9", 404),
    ("/v1/sessions/1/relationships/services", 200),
    ("/v1/sessions/1/relationships/filters", 200),
    ("/v1/sessions/2/relationships/filters", 200),
    ("/v1/services", 200),
    ("/v1/services/orders-rw", 200),
    ("/v1/services/x", 404),
    ("/v1/filters", 200),
    ("/v1/filters/mask", 200),
    ("/v1/maxscale", 200),
    ("/v1/auth", 200),
    ("/v1/nowhere", 404),
]


async def test_reply_is_a_document(
    maxscale: MaxScale, http: httpx2.AsyncClient, schema: Draft202012Validator
) -> None:
    """Every reply with a body is JSON:API, refusals included."""
    full = told()
    await maxscale.open("one", attributes=full.attributes, service=full.service)
    await maxscale.open("two")
    for path, status in REPLIES:
        response = await http.get(path)

        assert response.status_code == status, path
        schema.validate(response.json())
