"""The document of the sockets: whole, consistent, and what really happens."""

import re
from typing import get_args

import pytest
from jsonschema import Draft202012Validator
from msgspec.json import encode
from msgspec.structs import fields

from gateway.api.asyncapi import document
from gateway.api.connect import Opening
from gateway.api.events import Since
from gateway.core import protocol
from gateway.core.errors import CloseCode
from tests.server.conftest import Gateway
from tests.server.talk import Json, validator

MESSAGES = {
    *get_args(protocol.ClientMessage),
    *get_args(protocol.SessionSocketMessage),
    *get_args(protocol.ObserverMessage),
}


def references(value: object) -> set[str]:
    """Return every ``$ref`` in a document."""
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def resolve(described: Json, reference: str) -> object:
    """Return what a reference within the document points to."""
    found: object = described
    for part in reference.removeprefix("#/").split("/"):
        assert isinstance(found, dict)
        found = found[part]
    return found


def test_every_message_is_described() -> None:
    """Each message of the protocol is there, with what its type says of itself."""
    described = document()
    messages = described["components"]["messages"]

    assert set(messages) == {kind.__name__ for kind in MESSAGES}
    for kind in MESSAGES:
        assert messages[kind.__name__]["name"] == kind.__struct_config__.tag
        assert messages[kind.__name__]["summary"]


def test_every_close_code_is_described() -> None:
    """Each close code is listed, with whether to come back."""
    for channel in document()["channels"].values():
        codes = channel["x-close-codes"]
        for code in CloseCode:
            assert codes[str(int(code))]["meaning"]
            assert codes[str(int(code))]["then"].startswith(
                "come back" if code.reconnect else "do not"
            )


def test_every_reference_leads_somewhere() -> None:
    """No reference dangles, no schema is broken, and no pattern is Python's alone."""
    described = document()
    for reference in references(described):
        assert resolve(described, reference)
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert rb"(?!" not in encode(described)


def test_every_query_parameter_is_described() -> None:
    """The parameters of the document are those that the sockets read, and the token."""
    for name, kind in (("session", Opening), ("events", Since)):
        query = document()["channels"][name]["bindings"]["ws"]["query"]
        read = {field.encode_name for field in fields(kind)}

        assert set(query["properties"]) == read - {"labels"} | {"token"}
        assert list(query["patternProperties"]) == ["^label[.]"]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ack", "ref": 7},
        {"type": "bye", "code": "4500", "reason": "", "reconnect": True},
        {"type": "events", "position": "x", "events": [{"type": 7}]},
        {"type": "closing", "closes_at": "soon"},
    ],
)
def test_wrong_message_does_not_pass(message: Json) -> None:
    """The check that all socket tests rely on refuses what the document does not allow."""
    assert not validator("session", message["type"]).is_valid(message)


async def test_document_is_served(gateway: Gateway) -> None:
    """Everybody may read it."""
    async with gateway.http(None) as http:
        reply = await http.get("/asyncapi.json")

        assert reply.status_code == 200
        assert reply.json() == document()
        assert re.fullmatch(r"3\.0\.\d+", reply.json()["asyncapi"])
