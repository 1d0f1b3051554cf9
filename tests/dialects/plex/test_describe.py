"""The dialect's OpenAPI document."""

from typing import Any

from gateway.dialects.plex.routes import endpoints
from gateway.dialects.plex.state import Plex as Shared
from tests.dialects.plex.conftest import Plex


def references(value: object) -> set[str]:
    """Return every reference in a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


async def test_description_refers_to_what_it_holds(plex: Plex) -> None:
    """Anybody may read it; every schema is there and each operation has an id of its own."""
    async with plex.http(None, base="/plex") as http:
        document = (await http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    operations: list[Any] = [
        operation for path in document["paths"].values() for operation in path.values()
    ]

    assert references(document) <= {f"#/components/schemas/{name}" for name in schemas}
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert document["servers"] == [{"url": "/plex"}]
    metadata = schemas["MetadataListContainer"]["properties"]["Metadata"]
    assert metadata["items"] == {"$ref": "#/components/schemas/Metadata"}


async def test_description_is_of_the_paths_that_are_served(plex: Plex) -> None:
    """No path is described that is not there; none is left out but those that are never good."""
    async with plex.http() as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    table = endpoints(Shared(plex.context))
    described = {(path, method.upper()) for path, known in paths.items() for method in known}
    served = {(endpoint.path.replace(":path", ""), endpoint.method) for endpoint in table}

    assert described - served == {("/openapi.json", "GET")}
    assert {path for path, _ in served - described} == {
        *("/:/websockets/notifications", "/:/websocket/notifications", "/activities/{id}")
    }
    (terminate,) = [
        known["name"] for known in paths["/status/sessions/terminate"]["get"]["parameters"][:1]
    ]
    assert terminate == "sessionId"
