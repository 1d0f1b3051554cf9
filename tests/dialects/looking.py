"""Looking: what each product tells of a session, read into the same words (:data:`LOOKS`).

So a test can say "the same facts" once. What a product does not know is not there; where it needs a
neutral value, that one exactly stands for "unset".

Not here: what must be equal to what (``test_one_state``).
"""

import json
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from tests.dialects.house import WORKSPACE, House
from tests.dialects.opening import Opened
from tests.server.conftest import ADMIN

Json = Any


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def in_native(house: House, opened: Opened) -> Json:
    """Read our own shape."""
    session = await house.read("native", f"/v1/sessions/{opened.id}")
    listed = (await house.read("native", "/v1/sessions?limit=1000"))["sessions"]
    assert session in listed
    return {
        **{name: session[name] for name in ("id", "number", "is_connected", "is_watching")},
        **{name: session.get(name) for name in ("name", "account", "workspace", "service")},
        "address": session.get("connection", {}).get("address"),
        "created_at": _ms(session["created_at"]),
        "began_at": _ms(session.get("connected_at", session["created_at"])),
    }


async def in_neko(house: House, opened: Opened) -> Json:
    """Read neko's shape: it knows who, and whether they are there and watch."""
    session = await house.read("neko", f"/api/sessions/{opened.neko_id}")
    assert session in await house.read("neko", "/api/sessions")
    state = session["state"]
    since = {"began_at": _ms(state["connected_since"])} if state["is_connected"] else {}
    return {
        "neko_id": session["id"],
        "name": session["profile"]["name"],
        "is_connected": state["is_connected"],
        "is_watching": state["is_watching"],
        **since,
    }


async def in_plex(house: House, opened: Opened) -> Json:
    """Read Plex's shape; who watches nothing is not listed."""
    container = (await house.read("plex", "/status/sessions"))["MediaContainer"]
    listed = [
        entry for entry in container.get("Metadata", ()) if entry["Session"]["id"] == opened.id
    ]
    if not listed:
        return {"is_watching": False}
    [entry] = listed
    address = entry["Player"].get("address")
    return {
        "id": entry["Session"]["id"],
        "number": int(entry["sessionKey"]),
        "name": entry["Player"]["title"],
        "account": entry["User"]["title"],
        "workspace": entry["librarySectionTitle"],
        "player_address" if "player_address" in opened.facts else "address": address,
        "is_watching": True,
    }


async def in_webida(house: House, opened: Opened) -> Json:
    """Read Webida's shape."""
    session = await house.read("webida", f"/api/sessions/{opened.id}")
    assert session in await house.read("webida", f"/api/sessions?workspaceId={WORKSPACE}")
    assert (session["state"], session["disconnectedAt"]) == ("NORMAL", None)
    address = session["clientAddress"]
    return {
        "id": session["id"],
        "name": session["name"],
        "workspace": session["workspaceId"],
        "address": None if address == "unknown" else address,
        "began_at": _ms(session["connectedAt"]),
    }


async def is_at_work(house: House, opened: Opened) -> bool:
    """Whether work has begun in a session, through whichever door."""
    session = await house.read("native", f"/v1/sessions/{opened.id}")
    return not session.keys().isdisjoint({"connection", "watch", "unwatched_at", "streams"})


async def in_gameye(house: House, opened: Opened) -> Json:
    """Read Gameye's shape."""
    session = await house.read("gameye", f"/session/{opened.id}")
    listed = (await house.read("gameye", "/session"))["sessions"]
    [entry] = [entry for entry in listed if entry["id"] == opened.id]
    assert {**entry, "players": session["players"]} == {**session, "playerCount": 0}
    labels = {name: json.loads(text) for name, text in session["labels"].items()}
    assert session["status"] == ("running" if await is_at_work(house, opened) else "created")
    return {
        "id": session["id"],
        "image": session["image"],
        "workspace": labels["gameye"]["organization"],
        "created_at": session["created"],
        **({"location": session["location"]} if session["location"] != "local" else {}),
    }


async def in_maxscale(house: House, opened: Opened) -> Json:
    """Read MaxScale's shape; its dates have no milliseconds."""
    session = (await house.read("maxscale", f"/v1/sessions/{opened.number}"))["data"]
    listed = (await house.read("maxscale", "/v1/sessions"))["data"]
    [entry] = [entry for entry in listed if entry["id"] == session["id"]]
    assert entry["relationships"] == session["relationships"]
    attributes = session["attributes"]
    [service] = session["relationships"]["services"]["data"]
    connected = parsedate_to_datetime(attributes["connected"]).timestamp()
    state = "Session started" if await is_at_work(house, opened) else "Session created"
    assert attributes["state"] == state
    return {
        "number": int(session["id"]),
        "name": attributes["client"]["connection_attributes"]["program_name"],
        "account": attributes["user"],
        "address": attributes.get("remote"),
        "service": None if service["id"] == "default" else service["id"],
        "began_at_s": int(connected),
    }


LOOKS: Final = {
    "native": in_native,
    "neko": in_neko,
    "plex": in_plex,
    "webida": in_webida,
    "gameye": in_gameye,
    "maxscale": in_maxscale,
}
"""What each door tells of a session, in the same words."""


async def is_gone(house: House, opened: Opened, token: str = ADMIN) -> dict[str, object]:
    """Return what each door says of a session that is closed, or hidden from *token*."""
    paths = {
        "native": f"/v1/sessions/{opened.id}",
        "neko": f"/api/sessions/{opened.neko_id}",
        "webida": f"/api/sessions/{opened.id}",
        "gameye": f"/session/{opened.id}",
        "maxscale": f"/v1/sessions/{opened.number}",
    }
    said: dict[str, object] = {}
    for door, path in paths.items():
        said[door] = (await house.ask(door, "GET", path, token=token)).status_code
    playing = await house.ask("plex", "GET", "/status/sessions", token=token)
    said["plex"] = opened.id in playing.text
    running = await house.ask("gameye", "GET", "/session", token=token)
    said["gameye list"] = opened.id in running.text
    return said
