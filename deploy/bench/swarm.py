"""Swarm: the clients of every contestant, one small C program; see ``swarm.c`` for what it does.

Promises: bounded (every command ends by itself), and cheap: what the client costs is measured with
every figure, and a run in which it was the bottleneck says so.
"""

import json
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from machine import CACHE, HERE, Broken, find

EOF: Final = None  # wait for the server's close
FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror")
TIME: Final = b"\x01" * 19
NUMBER: Final = b"\x02" * 6
CHANNEL: Final = b"\x03" * 3
AFTER: Final = b"\x04" * 9
MARK: Final = b"@@"  # stands before TIME in every event that is counted

Steps = list[tuple[bytes, bytes | None]]
"""What a connection sends and what it then waits for, in order."""


def text(payload: bytes) -> bytes:
    """Return a WebSocket text frame of a client, under a mask of zeros."""
    return _frame(0x81, payload)


def binary(payload: bytes) -> bytes:
    """Return a WebSocket binary frame of a client, under a mask of zeros."""
    return _frame(0x82, payload)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return struct.pack("!BBI", first, 0x80 | size, 0) + payload
    return struct.pack("!BBHI", first, 0xFE, size, 0) + payload


def upgrade(path: bytes, *headers: bytes) -> bytes:
    """Return the request of a WebSocket."""
    lines = [
        b"GET " + path + b" HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def request(method: str, path: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    """Return an HTTP request that keeps its connection."""
    lines = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: 127.0.0.1", *headers]
    if body or method != "GET":
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Swarm:
    """The client program; one measurement after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [CACHE / "swarm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def call(self, *words: object) -> dict[str, float]:
        """Give one command and return its answer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise Broken("the client has no pipes")
        line = " ".join(
            word.hex() or "-" if isinstance(word, bytes) else str(word) for word in words
        )
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise Broken("the client died")
        found: dict[str, float] = json.loads(answer)
        return found

    def begin(
        self,
        group: int,
        port: int,
        total: int,
        steps: Steps,
        *,
        mode: str = "ws",
        ways: int = 64,
        channels: int = 1,
        slow: bool = False,
        keep: bool = True,
        retry: bool = False,
    ) -> None:
        """Start *total* connections, *ways* at a time.

        Those of ``keep`` stay open; with ``retry`` who is sent away comes again a second later.
        """
        script = [
            word
            for sent, wait in steps
            for word in (sent or "-", "eof" if wait is EOF else wait or "-")
        ]
        rcvbuf = 16_384 if slow else 0
        self.call(
            *("open", group, mode, port, total, ways, channels, rcvbuf, keep + retry),
            *script,
        )

    def wait(self, group: int, within_s: float = 60) -> dict[str, float]:
        """Wait until all of a group have run their script.

        Raises:
            Broken: Some could not, or not in time.
        """
        answer = self.call("wait", group, within_s)
        if answer["failed"] or answer["done"] < answer["total"]:
            raise Broken(
                f"{answer['failed']:.0f} connections failed, {answer['done']:.0f} did not, of "
                f"{answer['total']:.0f}; "
                f"one heard: {answer['why']}"
            )
        return answer

    def end(self, group: int) -> None:
        """Close a group."""
        self.call("end", group)

    def mark(self, *marks: bytes) -> None:
        """Say what to count from now on."""
        self.call("mark", *marks)

    def publish(
        self, group: int, event: bytes, *, rate: float, window: int, for_s: float, fan: int
    ) -> dict[str, float]:
        """Publish through a group and count what arrives; rate 0: as fast as it is taken.

        Who cannot keep up gets some time to deliver the rest, and is not waited for longer.

        Raises:
            Broken: Events were lost.
        """
        answer = self.call("pub", group, rate, window, for_s, fan, event)
        if answer["lost"] or not answer["delivered"]:
            raise Broken(f"{answer['lost']:.0f} of {answer['published'] * fan:.0f} were lost")
        return answer

    def ask(
        self, port: int, what: bytes, *, total: int, ways: int, for_s: float
    ) -> dict[str, float]:
        """Send HTTP requests, the next when one is answered.

        Raises:
            Broken: Some were refused.
        """
        answer = self.call("ask", port, total, ways, for_s, what)
        if answer["refused"] or answer["failed"]:
            raise Broken(f"{answer['refused'] + answer['failed']:.0f} requests were refused")
        return answer


def build() -> None:
    """Compile the client, if its source is newer.

    Raises:
        Broken: There is no C compiler.
    """
    source, made = HERE / "swarm.c", Path(CACHE / "swarm")
    CACHE.mkdir(exist_ok=True)
    if made.exists() and made.stat().st_mtime > source.stat().st_mtime:
        return
    compiler = find("gcc") or "gcc"
    try:
        subprocess.run(
            [
                compiler,
                "-O2",
                "-Wall",
                "-Wextra",
                "-Wno-sign-compare",
                "-o",
                str(made),
                str(source),
            ],
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise Broken(f"the client cannot be compiled: {error}") from error
