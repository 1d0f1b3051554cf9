# mypy: ignore-errors
"""python-socketio with its Redis manager on uvicorn (uvloop, httptools), as its documents show.

The same application as ``app_socketio.js``: rooms, and sessions whose record is kept in Redis.
"""

import os
from datetime import UTC, datetime
from itertools import count
from json import dumps

import socketio
import uvicorn
from redis.asyncio import Redis

URL = f"unix://{os.environ['REDIS_PATH']}"
store = Redis.from_url(URL)
server = socketio.AsyncServer(
    async_mode="asgi",
    transports=["websocket"],
    always_connect=True,  # greet first, as Socket.IO does
    client_manager=socketio.AsyncRedisManager(URL),
)
numbers = count(1)
sessions: dict[str, str] = {}


def now() -> str:
    """Return the time as the public objects have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def tell(event: dict[str, object]) -> None:
    """Tell all watchers."""
    await server.emit(
        "events", {"type": "events", "position": event["at"], "events": [event]}, room="c000"
    )


@server.event
async def join(sid: str, room: str) -> None:
    """Watch a room."""
    await server.enter_room(sid, room)
    await server.emit("joined", to=sid)


@server.event
async def publish(_sid: str, room: str, events: dict[str, object]) -> None:
    """Say something to a room."""
    await server.emit("events", events, room=room)


@server.event
async def connect(sid: str, environ: dict[str, str], auth: dict[str, str] | None) -> None:
    """Become a session, if the client comes as one."""
    if not auth:
        return
    at = now()
    session = {
        "id": auth["session"],
        "number": next(numbers),
        "revision": 1,
        "state": "connected",
        "is_connected": True,
        "is_watching": False,
        "workspace": "c000",
        "created_at": at,
        "connected_at": at,
        "linger_ms": 15000,
        "connection": {"id": sid, "address": environ.get("REMOTE_ADDR"), "connected_at": at},
    }
    sessions[sid] = session["id"]
    await store.hset("live", session["id"], dumps(session))
    opened = {"type": "session.opened", "session_id": session["id"], "revision": 1, "at": at}
    await tell({**opened, "session": session})
    await server.emit("hello", session, to=sid)


@server.event
async def disconnect(sid: str, _reason: str) -> None:
    """End the session of a client that left: forget it and tell it."""
    session_id = sessions.pop(sid, None)
    if session_id is None:
        return
    await store.hdel("live", session_id)
    at = now()
    changes = {
        "state": "closed",
        "is_connected": False,
        "disconnected_at": at,
        "closed_at": at,
        "connection": {"ended_at": at},
        "closed": {"at": at, "reason": "left", "code": 4500, "outcome": "left"},
    }
    closed = {"type": "session.closed", "session_id": session_id, "revision": 2, "at": at}
    await tell({**closed, "changes": changes})


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(server),
        port=int(os.environ["PORT"]),
        log_level="error",
        access_log=False,
        backlog=4096,
    )
