"""Sessions in each state as records, with times that are easy to read in golden files."""

from typing import Any, Final

from msgspec.json import decode, encode

from gateway.core.model import Client, Closing, Connection, Session, Stream
from gateway.dialects.maxscale.render import RenderContext

OPENED_AT: Final = 1_709_626_509_000  # Tue, 05 Mar 2024 08:15:09 GMT
NOW_MS: Final = OPENED_AT + 73_250

SCENE: Final = RenderContext(base="http://gw.example:8989/v1/", now_ms=NOW_MS, is_full=True)
PLAIN: Final = RenderContext(base="http://gw.example:8989/v1/", now_ms=NOW_MS)
SEED: Final = RenderContext(
    base="http://gw.example:8989/v1/", now_ms=NOW_MS, is_full=True, is_seed=True
)


def connection(**facts: Any) -> Connection:  # noqa: ANN401 - fields of a Struct
    """Return a connection from the moment the session was opened."""
    known: dict[str, Any] = {
        "id": "c1",
        "node": "a:1",
        "connected_at": OPENED_AT,
        "address": "192.0.2.7",
        "port": 51514,
    }
    return Connection(**{**known, **facts})


def created(**facts: Any) -> Session:  # noqa: ANN401
    """Return a session that was never connected."""
    known: dict[str, Any] = {"id": "s1", "number": 41, "revision": 1, "created_at": OPENED_AT}
    return Session(**{**known, **facts})


def started(**facts: Any) -> Session:  # noqa: ANN401
    """Return a session with a live connection."""
    known: dict[str, Any] = {
        "revision": 2,
        "account": "app_rw",
        "service": "orders-rw",
        "connection": connection(),
        "connected_at": OPENED_AT,
    }
    return created(**{**known, **facts})


def away() -> Session:
    """Return a session whose connection was lost."""
    return started(revision=3, connection=connection(ended_at=NOW_MS - 1000))


def closing() -> Session:
    """Return a session with a pending close."""
    pending = Closing(at=NOW_MS + 5000, first_at=NOW_MS + 5000, requested_at=NOW_MS)
    return started(revision=3, closing=pending)


def told() -> Session:
    """Return a session of which a proxy tells everything that can be told."""
    return started(
        revision=7,
        name="checkout",
        client=Client(product="libx", version="3.1", platform="x86_64"),
        connection=connection(tls=True),
        streams=(
            Stream(
                key="k1",
                kind="backend",
                data={"server": "db-a", "connection_id": 9001, "cipher": "AES"},
            ),
            Stream(key="db-b", kind="backend"),
            Stream(key="t1", kind="transcode"),
        ),
        attributes={
            "other": {"io_activity": 1},
            "maxscale": {
                "io_activity": 9,
                "thread": 3,
                "client": {
                    "cipher": "TLS_AES_256_GCM_SHA384",
                    "connection_attributes": {"_client_name": "libx", "_pid": "77"},
                    "sescmd_history_len": 2,
                    "sescmd_history_stored_responses": 2,
                    "sescmd_history_stored_metadata": 0,
                },
                "queries": [
                    {
                        "command": "COM_QUERY",
                        "statement": "SELECT 2+2",
                        "received": "2024-03-05T08:16:01.250",
                        "completed": "2024-03-05T08:16:01.252",
                        "responses": [{"server": "db-a", "duration": 2}],
                    }
                ],
                "log": ["one", "two"],
                "memory": {
                    "connection_buffers": {
                        "total": 4600,
                        "client": {"readq": 4096, "misc": 204, "total": 4300},
                        "backends": {"db-a": {"misc": 300, "total": 300}},
                    },
                    "sescmd_history": 150,
                    "last_queries": 90,
                    "total": 4840,
                },
                "parameters": {"log_info": True},
                "filters": ["mask", "log all"],
                "restart_requested_at": "2024-03-05T08:15:30.000Z",
            },
        },
    )


def as_json(value: object) -> Any:  # noqa: ANN401
    """Return what a client reads."""
    return decode(encode(value))
