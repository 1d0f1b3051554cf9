"""The documents that the products' session APIs are known by: each request in them, answered so.

``seeds/<product>.json`` has a document's requests and the shape of every answer, field by field:
``name?`` may be left out, ``+`` says that more may be there, ``@Name`` is another shape, a text is
a type of :data:`KINDS`, alternatives with ``|`` between them, or exactly that text. A list of one
shape holds at least one of these, a list of several exactly those, an empty one nothing.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.dialects.conftest import Build
from tests.dialects.house import PASSWORD, PREFIXES, House
from tests.dialects.neko.client import Neko
from tests.dialects.webida.client import Client
from tests.server.conftest import ADMIN

Json = Any

DOCUMENTS: Final[dict[str, Json]] = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "seeds").glob("*.json"))
}
SETTINGS: Final[dict[str, dict[str, object]]] = {"maxscale": {"maxscale_generation": "seed"}}
ROOTS: Final = ("prefix", "root")


def _is_date(value: Json) -> bool:
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z"
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_ctime(value: Json) -> bool:
    return bool(datetime.strptime(value, "%a %b %d %H:%M:%S %Y").ctime() == value)  # noqa: DTZ007


def _is_json(value: Json) -> bool:
    return isinstance(value, str) and isinstance(json.loads(value), dict)


KINDS: Final[Mapping[str, Callable[[Json], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
    "date-time": _is_date,
    "ctime": _is_ctime,
    "json": _is_json,
}


class Shape:
    """What an answer must look like.

    Args:
        shapes: All that have a name.
        known: Texts that stand for ``{name}``.
    """

    def __init__(self, shapes: Json, known: Mapping[str, str]) -> None:
        self._shapes = shapes
        self._known = known

    def check(self, value: Json, shape: Json, where: str = "answer") -> None:
        """Fail and say where if *value* has not this *shape*."""
        match shape:
            case str() if shape.startswith("@"):
                self.check(value, self._shapes[shape[1:]], where)
            case str():
                found = [kind for kind in shape.split("|") if self._is(value, kind)]
                assert found, f"{where} is {value!r}, not {shape}"
            case list():
                assert isinstance(value, list), f"{where} is {value!r}"
                shapes = shape if len(shape) != 1 else shape * max(1, len(value))
                assert len(value) == len(shapes), f"{where} has {len(value)} items"
                for number, (item, wanted) in enumerate(zip(value, shapes, strict=True)):
                    self.check(item, wanted, f"{where}[{number}]")
            case dict():
                self._members(value, shape, where)
            case _:
                raise AssertionError(f"{shape!r} is no shape")

    def _is(self, value: Json, kind: str) -> bool:
        if (test := KINDS.get(kind)) is not None:
            return test(value)
        text: str = filled(kind, self._known)
        return bool(value == text)

    def _members(self, value: Json, shape: Json, where: str) -> None:
        assert isinstance(value, dict), f"{where} is {value!r}"
        wanted = {name.removesuffix("?"): part for name, part in shape.items() if name != "+"}
        needed = {name for name in shape if name != "+" and not name.endswith("?")}
        assert value.keys() >= needed, f"{where} lacks {needed - value.keys()}"
        if "+" not in shape:
            assert value.keys() <= wanted.keys(), f"{where} has {value.keys() - wanted.keys()}"
        for name in value.keys() & wanted.keys():
            self.check(value[name], wanted[name], f"{where}.{name}")


def filled(text: str, known: Mapping[str, str]) -> str:
    """Return *text* with what is known in place of its ``{names}``."""
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return text


# --- what there is before anybody asks


async def open_(house: House, session_id: str, **facts: Json) -> Json:
    """Open a session through our own door."""
    body = {"id": session_id, **facts}
    answer = await house.ask("native", "POST", "/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def change(house: House, method: str, path: str, body: Json = None) -> None:
    """Change a session through our own door."""
    answer = await house.ask("native", method, path, json=body)
    assert answer.is_success, answer.text


FILM: Final = {"key": "/library/metadata/101", "title": "A film", "duration_ms": 90_000}


async def before_neko(house: House, stack: AsyncExitStack) -> dict[str, str]:
    """Two members, one of whom is connected and watches, and a session of another door."""
    tokens: dict[str, str] = {}
    clients: dict[str, Neko] = {}
    for name in ("ann", "root", "guest"):
        clients[name] = Neko(house.gateway.url + PREFIXES["neko"])
        status, found = await clients[name].post("/api/login", username=name, password=PASSWORD)
        assert status == 200, found
        tokens[name] = clients[name].token = found["token"]
    await stack.enter_async_context(clients["ann"].connected())
    session_id = tokens["ann"].partition(".")[0]
    await change(house, "PUT", f"/v1/sessions/{session_id}/watch", FILM)
    await open_(house, "session-1")
    profile = {"name": "idle", "can_login": True}
    await open_(house, "idle", profile=profile)
    return tokens


async def before_plex(house: House, stack: AsyncExitStack) -> dict[str, str]:
    """A session that watches and is transcoded, and one whose watch is history."""
    del stack
    for session_id in ("seen", "plays"):
        await open_(house, session_id, account="ann", workspace="films", name="Ann's desk")
        await change(house, "PUT", f"/v1/sessions/{session_id}/watch", FILM)
    await change(house, "DELETE", "/v1/sessions/seen/watch")
    stream = {"kind": "transcode", "state": "running", "data": {"progress": 1.5}}
    await change(house, "PUT", "/v1/sessions/plays/streams/zz7llzqlx8w9vnrsbnwhbmep", stream)
    playing = (await house.read("plex", "/status/sessions"))["MediaContainer"]["Metadata"][0]
    return {"account": playing["User"]["id"], "section": playing["librarySectionID"]}


async def before_webida(house: House, stack: AsyncExitStack) -> dict[str, str]:
    """A client in its session, under the names of the examples, and a session of another door."""
    given = {"loginId": "ann", "loginPassword": PASSWORD}
    login = await house.ask("webida", "POST", "/api/auth/login", json=given)
    assert login.status_code == 200, login.text
    names = {"sessionId": "sessionId_example", "workspaceId": "workspaceId_example"}
    client = await Client.open(house.gateway.url, "A", ADMIN, **names)
    stack.push_async_callback(client.drop)
    await client.join()
    await open_(house, "session-1", workspace="ws-1", account="ann")
    return {"login": login.json()["text"]}


async def before_gameye(house: House, stack: AsyncExitStack) -> dict[str, str]:
    """A session that was started, as in the sample, and one of another door."""
    del stack
    labels = {"my-example-tag": "1", "another-example-tag": "3"}
    body = {"image": "nginx", "location": "europe", "labels": labels}
    answer = await house.ask("gameye", "POST", "/session", json=body)
    assert answer.status_code == 201, answer.text
    await open_(house, "session-1")
    return {}


async def before_maxscale(house: House, stack: AsyncExitStack) -> dict[str, str]:
    """A session on each of the three services."""
    del stack
    for service in ("RW-Split-Router", "Read-Connection-Router", "CLI"):
        await open_(house, service, service=service)
    return {}


BEFORE: Final = {
    "neko": before_neko,
    "plex": before_plex,
    "webida": before_webida,
    "gameye": before_gameye,
    "maxscale": before_maxscale,
}


@asynccontextmanager
async def before(build: Build, product: str, root: str) -> AsyncIterator[tuple[House, Json]]:
    """Build what the document of *product* takes for granted; yield it and what is known of it."""
    settings = dict(SETTINGS.get(product, {}))
    if root == "root":
        settings["dialect"] = f"{product}=/"
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(build(**settings))
        native = PREFIXES | {"native": "/gateway"} if root == "root" else PREFIXES
        house = House(house.gateway, native)
        known = await BEFORE[product](house, stack)
        base = "" if root == "root" else PREFIXES[product]
        yield house, {"admin": ADMIN, "wrong": "nobody-s", "url": house.gateway.url + base, **known}


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("product", DOCUMENTS)
async def test_requests_of_the_document_are_answered_as_it_says(
    build: Build, product: str, root: str
) -> None:
    """Every request of a product's document gets the status and the shape that it promises."""
    document = DOCUMENTS[product]
    async with before(build, product, root) as (house, known):
        shape = Shape(document["shapes"], known)
        for request in document["requests"]:
            title, token = request["title"], request["token"]
            method, _, path = request["send"].partition(" ")
            headers = dict(document["headers"])
            if token is not None:
                text = known.get(token, token)
                shows = request.get("shows", document["shows"])
                headers[document["header"]] = shows.replace("{token}", text)
            answer = await house.send(method, known["url"] + filled(path, known), headers)

            assert answer.status_code == request["status"], (title, answer.text)
            if request["answer"] is None:
                assert answer.content == b"", title
                continue
            media = answer.headers["content-type"].partition(";")[0]
            assert media == document["media"], title
            shape.check(answer.json(), request["answer"], title)


@pytest.mark.parametrize("spelling", ["viewedAt%3E%3D%3E={}", "viewedAt%3E=%3E{}"])
async def test_plex_history_knows_the_operator_of_its_document(build: Build, spelling: str) -> None:
    """``viewedAt>=>`` is how the document writes "from then on"."""
    async with before(build, "plex", "prefix") as (house, _):
        for at_s, count in ((1, 1), (99_999_999_999, 0)):
            path = f"/status/sessions/history/all?{spelling.format(at_s)}"
            assert (await house.read("plex", path))["MediaContainer"]["size"] == count
