"""AsyncAPI: the document of the two sockets (AsyncAPI 3.0), made from the types of their messages.

Every message is a schema with the docstring of its type, and every close code has its meaning. The
document has the gateway's point of view: it *receives* the messages of clients and *sends* its own.

Not here: REST and event streams (``openapi``).
"""

from collections.abc import Iterable
from inspect import cleandoc
from typing import Any, Final, get_args, get_origin

from msgspec import Raw, Struct, defstruct
from msgspec.json import schema_components
from msgspec.structs import fields

from gateway import __version__
from gateway.api.connect import Opening
from gateway.api.events import Since
from gateway.core.errors import CloseCode
from gateway.core.protocol import (
    ClientMessage,
    HeartbeatMessage,
    ObserverMessage,
    SessionSocketMessage,
    SubscribeMessage,
    TokenMessage,
    UnsubscribeMessage,
)
from gateway.core.query import Filter
from gateway.http.document import Json, document_endpoint
from gateway.http.endpoint import AnyEndpoint
from gateway.http.openapi import REF, portable
from gateway.http.request import LABEL

PATH: Final = "/asyncapi.json"
MEANINGS: Final[dict[CloseCode, str]] = {
    CloseCode.DRAINING: "This node is shutting down.",
    CloseCode.TOO_SLOW: "The client read too slowly; it can resume.",
    CloseCode.NO_HEARTBEAT: "The client did not answer.",
    CloseCode.TOKEN_EXPIRED: "The token expired; refresh it first.",
    CloseCode.RATE_LIMITED: "Too many messages.",
    CloseCode.STORE_UNAVAILABLE: "The store does not answer.",
    CloseCode.SERVER_ERROR: "The gateway failed.",
    CloseCode.SESSION_CLOSED: "The session is closed; `reason` says why.",
    CloseCode.KICKED: "The connection was ended from outside; the session stays.",
    CloseCode.BAD_TOKEN: "There is no token, or none that is good.",
    CloseCode.BAD_REQUEST: "The address or too many messages could not be read.",
    CloseCode.DISPLACED: "A newer connection of this session took over.",
    CloseCode.LIMIT: "There are too many sessions.",
    CloseCode.FORBIDDEN: "The token may not do that.",
    CloseCode.GONE: "The session is closing, or closed for good.",
}
OTHER_CODES: Final[dict[int, str]] = {
    1002: "The client broke the WebSocket protocol.",
    1003: "A binary message where text is spoken.",
    1007: "Text that is not UTF-8.",
    1009: "A message of more than 64 KiB.",
}
COMES_BACK: Final = "come back after `retry_after_ms`"
STAYS_AWAY: Final = "do not come back"

_OBSERVER_SAYS: Final = (HeartbeatMessage, TokenMessage, SubscribeMessage, UnsubscribeMessage)
_SUBPROTOCOLS: Final = (
    "Browsers offer `gateway.v1`, `bearer.<token>` and, at the session socket, "
    "`session.<session token>` as subprotocols; only the first is answered. Others send "
    "`Authorization: Bearer`. `?token=` is taken too. A refused client is let in, told `bye` and "
    "closed with a code, because a browser cannot read an HTTP status; only a foreign `Origin` "
    "(403) and a node without room (503) are refused before."
)


def document(below: str = "") -> Json:
    """Return the AsyncAPI document of sockets that are served below a path."""
    said: tuple[Any, ...] = get_args(ClientMessage)
    told: tuple[Any, ...] = get_args(SessionSocketMessage)
    watched: tuple[Any, ...] = get_args(ObserverMessage)
    every = list(dict.fromkeys((*said, *told, *watched)))
    kinds = [field.type for kind in (Opening, Since) for field in fields(kind)]
    spelled = [_spelled(kind) for kind in every]
    parts = [part for kind in every for _, part in _json_lists(kind)]
    schemas, components = schema_components([*kinds, *spelled, *parts], ref_template=REF)
    for kind in every:
        for name, option in _json_lists(kind):
            items = {"$ref": REF.format(name=option.__name__)}
            components[kind.__name__]["properties"][name]["items"] = items
    parameters = dict(zip(map(repr, kinds), schemas[: len(kinds)], strict=True))
    channels = {
        "session": _channel(
            f"{below}/v1/connect",
            "The session socket: the client at the other end *is* the session.",
            _query(Opening, parameters),
            (*said, *told, *watched),
        ),
        "events": _channel(
            f"{below}/v1/events",
            "The observer socket: a snapshot, or what was missed, and then what happens.",
            _query(Since, parameters),
            (*_OBSERVER_SAYS, *_answers(told), *watched),
        ),
    }
    described: Json = portable(
        {
            "asyncapi": "3.0.0",
            "info": {
                "title": "Session Gateway",
                "version": __version__,
                "description": _SUBPROTOCOLS,
                "license": {"name": "Apache 2.0"},
            },
            "defaultContentType": "application/json",
            "channels": channels,
            "operations": {
                "hearClient": _operation("receive", "session", said),
                "tellClient": _operation("send", "session", (*told, *watched)),
                "hearObserver": _operation("receive", "events", _OBSERVER_SAYS),
                "tellObserver": _operation("send", "events", (*_answers(told), *watched)),
            },
            "components": {
                "messages": {_name(kind): _message(kind) for kind in every},
                "schemas": components,
            },
        }
    )
    return described


def _json_lists(kind: type[Struct]) -> list[tuple[str, type[Struct]]]:
    """Return the fields that are lists of what may be JSON already, and what that JSON is."""
    return [
        (field.encode_name, get_args(get_args(field.type)[0])[0])
        for field in fields(kind)
        if get_origin(field.type) is list and Raw in get_args(get_args(field.type)[0])
    ]


def _spelled(kind: type[Struct]) -> type[Struct]:
    """Return a type like *kind* in which nothing is JSON already."""
    lists = dict(_json_lists(kind))
    if not lists:
        return kind
    plain: list[tuple[str, Any]] = [
        (field.name, list[Any] if field.encode_name in lists else field.type)
        for field in fields(kind)
    ]
    config = kind.__struct_config__
    return defstruct(
        kind.__name__,
        plain,
        namespace={"__doc__": kind.__doc__},
        tag=config.tag,
        tag_field=config.tag_field,
    )


def _answers(told: Iterable[Any]) -> list[Any]:
    return [kind for kind in told if kind.__name__ in ("Ack", "Error")]


def _name(kind: type[Struct]) -> str:
    return kind.__name__


def _message(kind: type[Struct]) -> Json:
    return {
        "name": str(kind.__struct_config__.tag),
        "title": kind.__name__,
        "summary": cleandoc(kind.__doc__ or ""),
        "payload": {"$ref": REF.format(name=kind.__name__)},
    }


def _channel(address: str, summary: str, query: Json, kinds: Iterable[Any]) -> Json:
    return {
        "address": address,
        "summary": summary,
        "messages": {
            _name(kind): {"$ref": f"#/components/messages/{_name(kind)}"}
            for kind in dict.fromkeys(kinds)
        },
        "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
        "x-close-codes": _close_codes(),
    }


def _query(kind: type[Struct], schemas: Json) -> Json:
    properties: Json = {
        field.encode_name: schemas[repr(field.type)]
        for field in fields(kind)
        if field.name != "labels"
    }
    properties["token"] = {"type": "string"}
    label = fields(Filter)[[field.name for field in fields(Filter)].index("labels")]
    return {
        "type": "object",
        "properties": properties,
        "patternProperties": {f"^{LABEL.replace('.', '[.]')}": {"type": "string"}},
        "additionalProperties": False,
        "description": f"`{LABEL}<k>=v` are {label.name}.",
    }


def _close_codes() -> Json:
    codes = {
        str(int(code)): {
            "meaning": MEANINGS[code],
            "then": COMES_BACK if code.reconnect else STAYS_AWAY,
        }
        for code in CloseCode
    }
    others = {
        str(code): {"meaning": text, "then": STAYS_AWAY} for code, text in OTHER_CODES.items()
    }
    return {**others, **codes}


def _operation(action: str, channel: str, kinds: Iterable[Any]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [
            {"$ref": f"#/channels/{channel}/messages/{_name(kind)}"}
            for kind in dict.fromkeys(kinds)
        ],
    }


def endpoint(root: str) -> AnyEndpoint:
    """Return the endpoint that serves the document of sockets below *root*."""
    summary = "Describe the sockets (AsyncAPI 3.0)"
    return document_endpoint(PATH, summary=summary, make=lambda: document(root))
