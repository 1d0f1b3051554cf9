"""Describe: the dialect as a piece of an OpenAPI document, from the same types that are rendered.

Not here: the pushes, which OpenAPI cannot tell.
"""

from typing import Any, Final

from msgspec import Struct
from msgspec.json import schema_components

from gateway.dialects.plex import words

TAG: Final = "Plex"
_REF: Final = "#/components/schemas/Plex{name}"

Json = dict[str, Any]


class Operation(Struct, frozen=True):
    """One method of a path.

    Args:
        path: Its path.
        method: In lower case.
        summary: What it does.
        parameters: Names in the query; the required ones end in ``!``.
        container: What comes back; ``None``: nothing.
        item: What stands in it, and under which name.
        success: The status.
    """

    path: str
    method: str
    summary: str
    parameters: tuple[str, ...] = ()
    container: type[words.Container] | None = words.Container
    item: tuple[str, type[words.Word]] | None = None
    success: int = 200


_PAGE: Final = ("X-Plex-Container-Start", "X-Plex-Container-Size")
_TIMELINE: Final = (
    *("ratingKey!", "key", "state!", "time", "duration", "playQueueItemID", "continuing"),
    *("bandwidth", "title", "type", "X-Plex-Client-Identifier!", "X-Plex-Session-Identifier"),
)
_PROGRESS: Final = ("key!", "state!", "time", "duration", "X-Plex-Client-Identifier!")
_HISTORY: Final = (
    *("sort", "accountID", "librarySectionID", "metadataItemID", "deviceID"),
    *("viewedAt", "viewedAt>", "viewedAt<", "viewedAt>>", "viewedAt<<"),
)
_HISTORY_ITEM: Final = ("Metadata", words.HistoryItem)
_LIBRARY_ITEM: Final = ("Metadata", words.LibraryItem)
_PLAYER: Final = words.TimelineContainer

OPERATIONS: Final = (
    Operation("/", "get", "What this server can do", container=words.Root),
    Operation("/identity", "get", "Which server this is", container=words.Identity),
    Operation(
        "/status/sessions", "get", "What plays now", _PAGE, item=("Metadata", words.Metadata)
    ),
    *(
        Operation(
            "/status/sessions/terminate",
            method,
            "End a session; its client is told the reason",
            ("sessionId!", "reason"),
            None,
        )
        for method in ("get", "post")
    ),
    Operation("/status/sessions/background", "get", "Background jobs: none"),
    Operation(
        "/status/sessions/history/all",
        "get",
        "What was played",
        (*_HISTORY, *_PAGE),
        item=_HISTORY_ITEM,
    ),
    Operation("/status/sessions/history/{id}", "get", "One row of the history", item=_HISTORY_ITEM),
    Operation("/status/sessions/history/{id}", "delete", "Delete a row of the history for good"),
    Operation("/library", "get", "Whether there is a library", container=words.LibraryContainer),
    *(
        Operation(
            path,
            "get",
            "The sections: workspaces in which something plays or was played",
            _PAGE,
            words.LibraryContainer,
            ("Directory", words.Section),
        )
        for path in ("/library/sections", "/library/sections/all")
    ),
    Operation(
        "/library/sections/{id}/all",
        "get",
        "What plays and was played in a section",
        _PAGE,
        words.LibraryContainer,
        _LIBRARY_ITEM,
    ),
    Operation(
        "/library/metadata/{ids}",
        "get",
        "Items that play or were played, by their numbers",
        _PAGE,
        words.LibraryContainer,
        _LIBRARY_ITEM,
    ),
    Operation("/livetv/dvrs", "get", "Recorders of live television: none"),
    Operation(
        "/transcode/sessions",
        "get",
        "The transcodes of all sessions",
        _PAGE,
        item=("TranscodeSession", words.TranscodeSession),
    ),
    Operation(
        "/transcode/sessions/{key}", "delete", "End a transcode", container=None, success=204
    ),
    *(
        Operation("/:/timeline", method, "A player reports how it does", _TIMELINE, _PLAYER)
        for method in ("get", "post")
    ),
    *(
        Operation("/:/progress", method, "A player reports how far it is", _PROGRESS, _PLAYER)
        for method in ("get", "post")
    ),
    Operation(
        "/:/eventsource/notifications",
        "get",
        "What happens, as server-sent events",
        ("filters",),
        None,
    ),
    Operation("/accounts", "get", "People", _PAGE, item=("Account", words.Account)),
    Operation("/accounts/{id}", "get", "One person", item=("Account", words.Account)),
    Operation("/devices", "get", "Players", _PAGE, item=("Device", words.Device)),
    Operation("/devices/{id}", "get", "One player", item=("Device", words.Device)),
    Operation("/clients", "get", "Players that can be controlled: none"),
    Operation("/activities", "get", "Asynchronous jobs: none"),
)


def describe() -> Json:
    """Return paths and schemas of the dialect."""
    types: list[type[words.Word]] = [words.Errors, words.Container]
    for operation in OPERATIONS:
        if operation.container:
            types.append(operation.container)
        if operation.item:
            types.append(operation.item[1])
    _, components = schema_components(types, ref_template=_REF)
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    schemas = {f"Plex{name}": schema for name, schema in components.items()}
    token = {"type": "apiKey", "in": "header", "name": "X-Plex-Token"}
    return {"paths": paths, "components": {"schemas": schemas, "securitySchemes": {"token": token}}}


def _described(operation: Operation) -> Json:
    words_of_path = [part for part in operation.path.split("/") if part.isalpha()]
    in_path = [part.strip("{}") for part in operation.path.split("/") if part.startswith("{")]
    success: Json = {"description": "Done"}
    if operation.container:
        success["content"] = {
            "application/json": {"schema": _reply(operation.container, operation.item)},
            "text/xml": {"schema": {"type": "string"}},
        }
    elif operation.path.startswith("/:/eventsource"):
        success["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        "operationId": "_".join(["plex", operation.method, *words_of_path, *in_path]),
        "summary": operation.summary,
        "tags": [TAG],
        "security": [] if operation.container is words.Identity else [{"token": []}],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in in_path
            ),
            *(
                {
                    "name": name.removesuffix("!"),
                    "in": "query",
                    "required": name.endswith("!"),
                    "schema": {"type": "string"},
                }
                for name in operation.parameters
            ),
        ],
        "responses": {
            str(operation.success): success,
            "default": {
                "description": "Refused",
                "content": {
                    "application/json": {"schema": _named(words.Errors)},
                    "text/html": {"schema": {"type": "string"}},
                },
            },
        },
    }


def _reply(kind: type[words.Container], item: tuple[str, type[words.Word]] | None) -> Json:
    container = _named(kind)
    if item:
        name, word = item
        children = {name: {"type": "array", "items": _named(word)}}
        container = {"allOf": [container, {"type": "object", "properties": children}]}
    return {
        "type": "object",
        "required": ["MediaContainer"],
        "properties": {"MediaContainer": container},
    }


def _named(kind: type[words.Word]) -> Json:
    return {"$ref": _REF.format(name=kind.__name__)}
