"""Frameworks: servers that are written as an application; ours for each is in this folder."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from machine import CACHE, HERE, Process, find, output
from swarm import CHANNEL, NUMBER, Steps, text, upgrade

from peers.base import EVENT, Contestant

NODE_MODULES = CACHE / "node" / "node_modules"
PYTHON = CACHE / "venv" / "bin" / "python"
HANDSHAKE = b"\r\n\r\n"


class _Application(Contestant):
    """An application of ``peers/`` under its interpreter."""

    application: ClassVar[str]

    @classmethod
    @abstractmethod
    def interpreter(cls) -> str:
        """Return what runs it."""

    def start(self, folder: Path) -> Process:
        """Run it; port and Redis are in its environment."""
        env = {
            "PORT": str(self.port),
            "NODE_PATH": str(NODE_MODULES),
            "NODE_ENV": "production",
            "REDIS_PATH": "" if self.redis is None else str(self.redis.path),
        }
        script = str(HERE / "peers" / self.application)
        return Process([self.interpreter(), script], folder, self.name, env)


class _OnNode(_Application):
    package: ClassVar[str]

    @classmethod
    def interpreter(cls) -> str:
        """Return Node.js."""
        return "node"

    @classmethod
    def missing(cls) -> str | None:
        """Node.js and the package have to be there."""
        if find("node") is None:
            return "no Node.js"
        return None if (NODE_MODULES / cls.package).is_dir() else "npm could not install it"

    @classmethod
    def version(cls) -> str:
        """Return the version of the package."""
        ask = f"console.log(require('{NODE_MODULES / cls.package}/package.json').version)"
        return f"{output('node', '-e', ask)}, Node.js {output('node', '--version')}"


class _OnPython(_Application):
    package: ClassVar[str]

    @classmethod
    def interpreter(cls) -> str:
        """Return the Python of the cache."""
        return str(PYTHON)

    @classmethod
    def missing(cls) -> str | None:
        """The package has to be installed."""
        return None if cls._version_of(cls.package) else "pip could not install it"

    @classmethod
    def version(cls) -> str:
        """Return the versions of the package and its server."""
        return f"{cls._version_of(cls.package)}, uvicorn {cls._version_of('uvicorn')}"

    @classmethod
    def _version_of(cls, package: str) -> str:
        if not os.access(PYTHON, os.X_OK):
            return ""
        ask = f"import importlib.metadata as m; print(m.version('{package}'))"
        said = output(str(PYTHON), "-c", ask)
        return "" if "Error" in said else said


class Ws(_OnNode):
    """``ws``: the lean WebSocket server of Node.js."""

    name = "ws"
    package = "ws"
    application = "app_ws.js"

    def watch(self, channels: int) -> Steps:
        """Join a room."""
        del channels
        return [(upgrade(b"/"), HANDSHAKE), (text(b"jc" + CHANNEL), b"joined")]

    def publisher(self, channels: int) -> Steps:
        """Only connect."""
        del channels
        return [(upgrade(b"/"), HANDSHAKE)]

    def event(self) -> bytes:
        """Publish to the room."""
        return text(b"pc" + CHANNEL + EVENT)


class _SocketIoProtocol(_Application):
    """What clients of Socket.IO say (Engine.IO 4, WebSocket only)."""

    uses_redis = True

    def _enter(self) -> Steps:
        path = b"/socket.io/?EIO=4&transport=websocket"
        return [(upgrade(path), HANDSHAKE), (b"", b'0{"sid"')]

    def watch(self, channels: int) -> Steps:
        """Join a room."""
        del channels
        join = text(b'42["join","c' + CHANNEL + b'"]')
        return [*self._enter(), (text(b"40"), b"40{"), (join, b"joined")]

    def publisher(self, channels: int) -> Steps:
        """Only connect."""
        del channels
        return [*self._enter(), (text(b"40"), b"40{")]

    def event(self) -> bytes:
        """Publish to the room."""
        return text(b'42["publish","c' + CHANNEL + b'",' + EVENT + b"]")

    def session(self) -> Steps | None:
        """Be a session of the application; a client leaves by telling so and closing."""
        come = text(b'40{"session":"s' + NUMBER + b'"}')
        return [*self._enter(), (come, b'"hello"'), (text(b"41"), b"")]


class SocketIo(_SocketIoProtocol, _OnNode):
    """Socket.IO with the adapter for Redis."""

    name = "Socket.IO"
    package = "socket.io"
    application = "app_socketio.js"


class PythonSocketIo(_SocketIoProtocol, _OnPython):
    """python-socketio with its manager for Redis."""

    name = "python-socketio"
    package = "python-socketio"
    application = "app_python_socketio.py"


class _Rooms(_OnPython):
    """A room for each channel, in the path."""

    def watch(self, channels: int) -> Steps:
        """Join a room."""
        del channels
        return [(upgrade(b"/w/c" + CHANNEL), HANDSHAKE), (b"", b"joined")]

    def publisher(self, channels: int) -> Steps:
        """Only connect."""
        del channels
        return [(upgrade(b"/p/c" + CHANNEL), HANDSHAKE), (b"", b"joined")]

    def event(self) -> bytes:
        """Publish to the room."""
        return text(b"c" + CHANNEL + EVENT)


class Starlette(_Rooms):
    """Starlette's own ``send``."""

    name = "Starlette"
    package = "starlette"
    application = "app_starlette.py"


class Channels(_Rooms):
    """Django Channels."""

    name = "Channels"
    package = "channels"
    application = "app_channels.py"
    uses_redis = True
