# mypy: ignore-errors
"""Django Channels with its Redis layer on uvicorn: one consumer, one group for each channel."""

import os

import django
import uvicorn
from django.conf import settings

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            # The newer of the two layers; its documents recommend it where losses are tolerable.
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {
                "hosts": [f"unix://{os.environ['REDIS_PATH']}"],
                "capacity": 10_000,  # it drops what is beyond; by default beyond 100
            },
        }
    },
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402 - needs the settings


class Room(AsyncWebsocketConsumer):
    """Says what one member says to all of its group."""

    async def connect(self) -> None:
        """Come in; a watcher joins, a publisher does not."""
        self.room = self.scope["path"][3:]
        self.is_watcher = self.scope["path"].startswith("/w/")
        if self.is_watcher:
            await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()
        await self.send(text_data="joined")

    async def disconnect(self, _code: int) -> None:
        """Leave the group."""
        if self.is_watcher:
            await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Tell the group."""
        del bytes_data
        room, event = text_data[:4], text_data[4:]
        await self.channel_layer.group_send(room, {"type": "told", "text": event})

    async def told(self, message: dict[str, str]) -> None:
        """Pass on what the group was told."""
        await self.send(text_data=message["text"])


if __name__ == "__main__":
    uvicorn.run(
        Room.as_asgi(),
        port=int(os.environ["PORT"]),
        log_level="error",
        access_log=False,
        lifespan="off",
        backlog=4096,
    )
