"""Described: each door has an OpenAPI document, which says nothing that is not so."""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from tests.dialects.conftest import Build
from tests.dialects.house import LISTS, PREFIXES, House
from tests.server.conftest import ADMIN

Json = Any

METHODS: Final = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
PRODUCTS: Final = tuple(name for name in PREFIXES if name != "native")


EVERY: Final = tuple(PREFIXES)


async def document_of(house: House, product: str) -> Json:
    """Return the document of a door, as everybody may read it."""
    prefix = "" if product == "native" else f"/{product}"
    answer = await house.send("GET", f"{house.gateway.url}{prefix}/openapi.json", {})
    assert answer.status_code == 200
    return answer.json()


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield path, method and operation of all."""
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def references(value: Json) -> Iterator[str]:
    """Yield every reference in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        yield from (value.get("discriminator") or {}).get("mapping", {}).values()
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def schemas(value: Json) -> Iterator[Json]:
    """Yield every schema of a parameter, a body or a header."""
    if isinstance(value, dict):
        if isinstance(value.get("schema"), dict):
            yield value["schema"]
        for inner in value.values():
            yield from schemas(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from schemas(inner)


@pytest.mark.parametrize("product", EVERY)
async def test_document_is_openapi_31(house: House, product: str) -> None:
    """The whole document is what OpenAPI 3.1 says, and so are its schemas."""
    document = await document_of(house, product)

    errors = sorted(Draft202012Validator(OPENAPI_31).iter_errors(document), key=str)
    assert [(error.json_path, error.message) for error in errors] == []
    for schema in [*schemas(document), *document["components"]["schemas"].values()]:
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("product", EVERY)
async def test_every_reference_leads_to_something(house: House, product: str) -> None:
    """No reference hangs."""
    document = await document_of(house, product)

    for reference in set(references(document)):
        place = document
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            place = place[part.replace("~1", "/").replace("~0", "~")]
    known = document["components"].get("securitySchemes", {})
    for path, method, operation in operations(document):
        for wanted in operation.get("security", ()):
            assert wanted.keys() <= known.keys(), (path, method)


@pytest.mark.parametrize("product", EVERY)
async def test_every_operation_has_an_id_of_its_own(house: House, product: str) -> None:
    """No two operations of a document have the same id, and no path repeats the door's prefix."""
    document = await document_of(house, product)

    ids = Counter(operation["operationId"] for _, _, operation in operations(document))
    assert ids
    assert [name for name, count in ids.items() if count > 1] == []
    assert [path for path in document["paths"] if path.startswith(f"/{product}/")] == []


@pytest.mark.parametrize("product", EVERY)
async def test_parameters_of_paths_are_declared(house: House, product: str) -> None:
    """Each variable part of a path is a parameter of it, required, and the other way round."""
    document = await document_of(house, product)

    for path, method, operation in operations(document):
        declared = document["paths"][path].get("parameters", []) + operation.get("parameters", [])
        names = [one["name"] for one in declared if one["in"] == "path"]
        assert sorted(names) == sorted(re.findall(r"\{([^}:]+)\}", path)), (path, method)
        assert all(one["required"] for one in declared if one["in"] == "path"), (path, method)


@pytest.mark.parametrize("product", PRODUCTS)
async def test_what_is_described_is_served(house: House, product: str) -> None:
    """Nobody who asks for a described operation is told that there is none."""
    document = await document_of(house, product)
    nowhere = await house.send("GET", f"{house.gateway.url}/{product}/v9/nowhere", {})

    for path, method, operation in operations(document):
        url = house.gateway.url + f"/{product}" + re.sub(r"\{[^}]+\}", "1", path)
        if "notifications" in path:
            continue  # a stream that never ends, or a WebSocket
        answer = await house.send(method.upper(), url, {})
        if nowhere.status_code == 404:
            assert (answer.status_code, answer.text) != (404, nowhere.text), (path, method)
        assert answer.status_code != 405, (path, method)
        known = operation["responses"].keys()
        assert {str(answer.status_code), "default"} & known, (path, method, answer.status_code)


@pytest.mark.parametrize(
    "product",
    [
        *("neko", "plex", "webida", "gameye", "maxscale"),
    ],
)
async def test_described_credentials_are_good(house: House, product: str) -> None:
    """Whoever shows a token as the document says for an operation is let in."""
    document = await document_of(house, product)
    operation = document["paths"][LISTS[product]]["get"]

    for wanted in operation.get("security", document["security"]):
        for name in wanted:
            scheme = document["components"]["securitySchemes"][name]
            match scheme:
                case {"type": "http", "scheme": "bearer"}:
                    shown = {"Authorization": f"Bearer {ADMIN}"}
                case {"type": "http", "scheme": "basic"}:
                    shown = {
                        "Authorization": f"Basic {b64encode(b'admin:' + ADMIN.encode()).decode()}"
                    }
                case {"type": "apiKey", "in": "header", "name": header}:
                    shown = {header: ADMIN}
                case _:
                    continue
            url = f"{house.gateway.url}/{product}{LISTS[product]}"
            assert (await house.send("GET", url, shown)).status_code == 200, scheme


async def test_document_at_the_root_tells_true_addresses(build: Build) -> None:
    """With a product at the root the document's addresses are those that are served."""
    async with build(dialect="gameye=/") as house:
        for place, path in (("/gateway", "/v1/sessions"), ("", "/session")):
            answer = await house.send("GET", f"{house.gateway.url}{place}/openapi.json", {})
            document = answer.json()
            [server] = document["servers"]
            assert path in document["paths"]
            address = house.gateway.url + server["url"].rstrip("/") + path
            found = await house.send("GET", address, {"Authorization": "Bearer nobody-s"})
            assert found.status_code == 401, address
            is_ours = found.headers["content-type"] == "application/problem+json"
            assert is_ours == (path == "/v1/sessions"), address
