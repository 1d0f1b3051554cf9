"""The dialect's piece of the OpenAPI document."""

import re
from typing import Any

from gateway.dialects.plex import describe
from gateway.dialects.plex.describe import OPERATIONS, TAG
from gateway.dialects.plex.routes import endpoints
from gateway.dialects.plex.state import Plex as Shared
from tests.dialects.plex.conftest import Plex


def references(value: object) -> set[str]:
    """Return every reference in a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_description_refers_to_what_it_holds() -> None:
    """Every schema is there, under a name of this dialect; each operation has its tag and id."""
    document = describe()
    schemas = document["components"]["schemas"]
    operations: list[Any] = [
        operation for path in document["paths"].values() for operation in path.values()
    ]

    assert references(document) <= {f"#/components/schemas/{name}" for name in schemas}
    assert all(name.startswith("Plex") for name in schemas)
    assert all(operation["tags"] == [TAG] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


async def test_description_is_of_the_paths_that_are_served(plex: Plex) -> None:
    """No path is described that is not there, and none is left out but the sockets'."""
    served = {
        (re.sub(r":path", "", endpoint.path), method.lower())
        for endpoint in endpoints(Shared(plex.context))
        for method in endpoint.handlers
    }
    described = {(operation.path, operation.method) for operation in OPERATIONS}

    assert described <= served
    left = {path for path, _ in served - described}
    assert left == {
        *("/:/websockets/notifications", "/:/websocket/notifications", "/activities/{id}")
    }
