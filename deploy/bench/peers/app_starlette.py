"""Stock Starlette on uvicorn: a set of sockets for each channel, one ``send_text`` for each."""

import os
from collections import defaultdict

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def room(socket: WebSocket) -> None:
    """Serve a watcher of one room, or a publisher."""
    joined = rooms[socket.path_params["name"]]
    await socket.accept()
    if socket.path_params["kind"] == "w":
        joined.add(socket)
    await socket.send_text("joined")
    try:
        while True:
            said = await socket.receive_text()
            name, event = said[:4], said[4:]
            for member in list(rooms[name]):
                await member.send_text(event)
    except WebSocketDisconnect:
        joined.discard(socket)


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[WebSocketRoute("/{kind}/{name}", room)]),
        port=int(os.environ["PORT"]),
        log_level="error",
        access_log=False,
        backlog=4096,
    )
