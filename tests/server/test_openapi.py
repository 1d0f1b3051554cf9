"""The OpenAPI document: valid, complete, and true of every reply."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from gateway.api import asyncapi, pages
from gateway.api.description import ABOUT
from gateway.api.routes import ENDPOINTS
from gateway.http.openapi import described
from tests.server.conftest import ADMIN, Gateway
from tests.support import S

Json = dict[str, Any]

EXAMPLES = 25  # requests of each kind an operation; more find no more in a run of a minute
# Not asked of the gateway: what another WebSocket or a stream that never ends would have to answer.
SKIPPED = r"^/v1/(events|connect)$"

# What a good request may get besides a success: its session is hidden, closed or changed meanwhile.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 412, 503]

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 410, 412, 415, 422, 503]

[parameters]
at = "{position}"
"""
# Cursors are opaque: one that was made up is refused although it is a text.
CONFIG_OF_LISTS = """
[[operations]]
include-operation-id = "{name}"

[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 400, 403, 503]
"""


async def described_by(http: httpx2.AsyncClient) -> Json:
    """Return the document."""
    reply = await http.get("/openapi.json")
    assert reply.status_code == 200
    document: Json = reply.json()
    return document


def schemas_in(value: object) -> list[Json]:
    """Return everything in a document that is a schema of a parameter, a body or a component."""
    found: list[Json] = []
    if isinstance(value, dict):
        if isinstance(value.get("schema"), dict):
            found.append(value["schema"])
        for inner in value.values():
            found.extend(schemas_in(inner))
    elif isinstance(value, list):
        for inner in value:
            found.extend(schemas_in(inner))
    return found


async def test_document_needs_no_token_and_is_openapi_31(gateway: Gateway) -> None:
    """Everybody may read the document; its schemas are valid and its references exist."""
    async with gateway.http(None) as http:
        document = await described_by(http)

    assert document["openapi"] == "3.1.0"
    components = document["components"]["schemas"]
    for schema in [*schemas_in(document), *components.values()]:
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in components
    assert "(?!" not in text  # Python's own way to say "the end"


async def test_document_and_table_are_the_same(http: httpx2.AsyncClient) -> None:
    """Each operation that is served is described, and nothing else is."""
    document = await described_by(http)

    described_paths = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    rows = described([*ENDPOINTS, *pages.endpoints(), asyncapi.endpoint("")], ABOUT, "")
    served = {(row.method, row.path.replace(":path", "")) for row in rows}
    assert described_paths == served
    ids = [row["operationId"] for methods in document["paths"].values() for row in methods.values()]
    assert len(ids) == len(set(ids))


async def test_every_operation_says_what_can_go_wrong(http: httpx2.AsyncClient) -> None:
    """Errors are problems, and those that any request can meet are in every operation."""
    document = await described_by(http)

    for methods in document["paths"].values():
        for row in methods.values():
            assert {"400", "406", "500", "503"} <= row["responses"].keys()
            for status, reply in row["responses"].items():
                if int(status) >= 400:
                    assert list(reply["content"]) == ["application/problem+json"]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_schemathesis_finds_nothing(gateway: Gateway, tmp_path: Path) -> None:
    """Thousands of made-up requests, good and bad, get replies that the document describes."""
    config = CONFIG.format(position=gateway.node.replica.position())
    config += "".join(
        CONFIG_OF_LISTS.format(name=row.operation_id)
        for row in ENDPOINTS
        if "cursor" in row.query.__struct_fields__
    )
    (tmp_path / "schemathesis.toml").write_text(config)
    async with gateway.http(None) as http:
        document = await described_by(http)
    for methods in document["paths"].values():
        for row in methods.values():  # the same key for two requests is an error, as it should be
            row["parameters"] = [
                one for one in row["parameters"] if one["name"] != "Idempotency-Key"
            ]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json"),
        *("--url", gateway.url),
        *("--header", f"Authorization: Bearer {ADMIN}", "--checks", "all", "--seed", "1"),
        *("--generation-deterministic", "--max-examples", str(EXAMPLES), "--no-color"),
        *("--exclude-path-regex", SKIPPED, "--phases", "examples,coverage,fuzzing"),
        *("--max-response-time", str(5 * S)),
        cwd=tmp_path,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.server.schemathesis_hooks",
            "PYTHONPATH": str(Path.cwd()),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(150 * S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0, output.decode()[-20_000:]
