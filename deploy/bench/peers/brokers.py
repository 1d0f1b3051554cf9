"""Brokers: servers that are configured; none keeps sessions, so they take part in fan-out alone."""

import json
from pathlib import Path
from typing import ClassVar

from machine import Process, find, free_port, output
from swarm import CHANNEL, Steps, binary, request, text, upgrade

from peers.base import EVENT, Contestant

HANDSHAKE = b"\r\n\r\n"
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


class _Program(Contestant):
    """A program that may be installed on this machine."""

    program: ClassVar[str]
    version_flag: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        """The program has to be there."""
        return None if find(cls.program) else f"no {cls.program} on this machine"

    @classmethod
    def path(cls) -> str:
        """Return where it is."""
        return find(cls.program) or cls.program

    @classmethod
    def version(cls) -> str:
        """Return what it says of itself."""
        said = output(cls.path(), cls.version_flag).splitlines() or ["of unknown version"]
        return said[0].removeprefix(f"{cls.program}: ").removeprefix(f"{cls.program} version ")


class Nchan(_Program):
    """nchan in nginx, one worker as all others have one process."""

    name = "nchan"
    program = "nginx"
    publishes_by = "raw"
    version_flag = "-v"

    @classmethod
    def missing(cls) -> str | None:
        """The module has to be there as well."""
        return super().missing() or (None if NCHAN_MODULE.exists() else "no libnginx-mod-nchan")

    @classmethod
    def version(cls) -> str:
        """Return the versions of nginx and, from Debian, of the module."""
        query = ("dpkg-query", "--show", "--showformat", "${Version}", "libnginx-mod-nchan")
        return f"{output(*query)}, {super().version().removeprefix('nginx version: ')}"

    def start(self, folder: Path) -> Process:
        """Start nginx in the foreground, everything in its folder."""
        paths = "".join(
            f"  {kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"load_module {NCHAN_MODULE};\n"
            f"daemon off;\nworker_processes 1;\nworker_rlimit_nofile 65536;\n"
            f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log crit;\n"
            "events { worker_connections 16000; }\n"
            "http {\n"
            f"{paths}"
            "  access_log off;\n"
            "  keepalive_requests 1000000000;\n"
            "  nchan_shared_memory_size 512M;\n"
            "  nchan_message_buffer_length 2000;\n"
            "  server {\n"
            f"    listen 127.0.0.1:{self.port} backlog=4096;\n"
            "    location ~ ^/w/(.+)$ {\n"
            "      nchan_subscriber websocket;\n"
            "      nchan_channel_id $1;\n"
            "      nchan_subscriber_first_message newest;\n"
            "    }\n"
            "    location ~ ^/p/(.+)$ { nchan_publisher http; nchan_channel_id $1; }\n"
            "  }\n"
            "}\n"
        )
        command = [self.path(), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
        return Process(command, folder, self.name)

    def watch(self, channels: int) -> Steps:
        """Subscribe; nchan says nothing until there is something."""
        del channels
        return [(upgrade(b"/w/c" + CHANNEL), HANDSHAKE)]

    def publisher(self, channels: int) -> Steps:
        """Publish over HTTP, which cannot be seen here."""
        del channels
        return [(b"", b"")]

    def event(self) -> bytes:
        """Post to the channel."""
        return request("POST", b"/p/c" + CHANNEL, EVENT, b"Content-Type: text/plain")


class Nats(_Program):
    """nats-server, watched over WebSocket."""

    name = "nats-server"
    program = "nats-server"
    version_flag = "--version"

    def start(self, folder: Path) -> Process:
        """Start it; all watchers may have much under way."""
        self.tcp_port = free_port()
        (folder / "nats.conf").write_text(
            f"listen: 127.0.0.1:{self.tcp_port}\n"
            f"websocket {{ listen: '127.0.0.1:{self.port}', no_tls: true }}\n"
        )
        return Process([self.path(), "-c", str(folder / "nats.conf")], folder, self.name)

    def _said(self, what: bytes) -> bytes:
        return binary(what)

    def _enter(self) -> Steps:
        return [(upgrade(b"/"), HANDSHAKE), (b"", b"INFO")]

    def watch(self, channels: int) -> Steps:
        """Subscribe to a subject."""
        del channels
        said = self._said(
            b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB c' + CHANNEL + b" 1\r\nPING\r\n"
        )
        return [*self._enter(), (said, b"PONG")]

    def publisher(self, channels: int) -> Steps:
        """Only connect."""
        del channels
        said = self._said(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
        return [*self._enter(), (said, b"PONG")]

    def event(self) -> bytes:
        """Publish to the subject."""
        return self._said(b"PUB c" + CHANNEL + b" %d\r\n" % len(EVENT) + EVENT + b"\r\n")


class NatsTcp(Nats):
    """nats-server, watched over plain TCP: what a browser cannot do, and its best figure."""

    name = "nats (TCP)"
    watches_by = publishes_by = "raw"

    def start(self, folder: Path) -> Process:
        """Start it without WebSocket."""
        command = [self.path(), "--addr", "127.0.0.1", "--port", str(self.port)]
        return Process(command, folder, "nats")

    def _said(self, what: bytes) -> bytes:
        return what

    def _enter(self) -> Steps:
        return [(b"", b"INFO")]


class Mosquitto(_Program):
    """mosquitto: MQTT over WebSocket, quality of service 0."""

    name = "mosquitto"
    program = "mosquitto"
    version_flag = "-h"

    def start(self, folder: Path) -> Process:
        """Start it without anything that is written to disk."""
        (folder / "mosquitto.conf").write_text(
            f"listener {free_port()} 127.0.0.1\n"  # 2.0.11 does not start on WebSocket alone
            f"listener {self.port} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n"
            "persistence false\nsys_interval 0\nset_tcp_nodelay true\nlog_type error\n"
        )
        return Process([self.path(), "-c", str(folder / "mosquitto.conf")], folder, self.name)

    def publisher(self, channels: int) -> Steps:
        """Connect, nameless and clean, without keepalive."""
        del channels
        entered = (upgrade(b"/", b"Sec-WebSocket-Protocol: mqtt"), HANDSHAKE)
        connect = binary(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
        return [entered, (connect, b"\x20\x02\x00\x00")]

    def watch(self, channels: int) -> Steps:
        """Subscribe to a topic."""
        subscribe = binary(b"\x82\x09\x00\x01\x00\x04c" + CHANNEL + b"\x00")
        return [*self.publisher(channels), (subscribe, b"\x90\x03\x00\x01\x00")]

    def event(self) -> bytes:
        """Publish to the topic."""
        body = b"\x00\x04c" + CHANNEL + EVENT
        size = bytes([len(body) % 128 | 128, len(body) // 128])
        return binary(b"\x30" + size + body)


class Centrifugo(_Program):
    """Centrifugo, where the operator has put its binary on the path."""

    name = "Centrifugo"
    program = "centrifugo"
    version_flag = "version"

    def start(self, folder: Path) -> Process:
        """Start it open to everybody, on the loopback."""
        namespace = {
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
            "allow_publish_for_client": True,
            "allow_publish_for_anonymous": True,
        }
        settings = {
            "http_server": {"address": "127.0.0.1", "port": str(self.port)},
            "client": {"insecure": True, "allowed_origins": ["*"]},
            "channel": {"without_namespace": namespace},
        }
        (folder / "config.json").write_text(json.dumps(settings))
        command = [self.path(), "--config", str(folder / "config.json")]
        return Process(command, folder, self.name)

    def publisher(self, channels: int) -> Steps:
        """Connect."""
        del channels
        path = b"/connection/websocket"
        return [(upgrade(path), HANDSHAKE), (text(b'{"id":1,"connect":{}}'), b'"connect":')]

    def watch(self, channels: int) -> Steps:
        """Subscribe to a channel."""
        subscribe = text(b'{"id":2,"subscribe":{"channel":"c' + CHANNEL + b'"}}')
        return [*self.publisher(channels), (subscribe, b'"subscribe":')]

    def event(self) -> bytes:
        """Publish to the channel."""
        return text(b'{"id":3,"publish":{"channel":"c' + CHANNEL + b'","data":' + EVENT + b"}}")
