"""Hostile: what one client that means harm costs a server, and how soon it is cut.

Each kind is one connection to a fresh server, watched for the same time whether it is cut or not:
pings without end, read and unread; empty fragments of a message that never ends; a connection that
says nothing. Watchers that read nothing while events come as fast as the path takes them are more.
Cut means that the server holds the connection no more, by the kernel's own list.
"""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from machine import Broken, Clock
from peers import Contestant, Gateway
from peers.gateway import HANDSHAKE
from swarm import CHANNEL, MARK, Swarm

from gateway.settings import Settings
from scenarios.base import Figure, Figures, Scenario, Size, publishers

WATCHERS, PUBLISHERS = 0, 1
PING = b"\x89\x80\0\0\0\0"  # RFC 6455 section 5.2; a mask of zeros is a mask
FRAGMENT = b"\x00\x80\0\0\0\0"
BEGIN = b"\x01\x80\0\0\0\0"
FLOOD_BYTES = 1 << 16
LOOK_S = 0.05  # between two looks at the connection
STOPPED = 20  # that read nothing: what one of them takes would be lost in the noise
WINDOW = 512  # events under way
WARM_S = 2.0  # of events before the harm
CHUNK_S = 0.5  # of events, between two looks
ESTABLISHED = "01"  # in /proc/net/tcp


@dataclass(frozen=True)
class Kind:
    """One kind of harm.

    Args:
        title: In the table.
        for_s: How long it is watched.
        first: What is said once, after the handshake.
        flood: What is said without end.
        reads: Whether it reads what it is told.
        greets: Whether it comes in as a watcher at all.
    """

    title: str
    for_s: float
    first: bytes = b""
    flood: bytes = b""
    reads: bool = True
    greets: bool = True


KINDS = {
    "pings": Kind("pings without end", 4, flood=PING),
    "unread": Kind("pings without end, pongs not read", 4, flood=PING, reads=False),
    "fragments": Kind("empty fragments without end", 4, first=BEGIN, flood=FRAGMENT),
    "silent": Kind("silent connection", 7, greets=False),
    "stopped": Kind("reads nothing", 14, reads=False),
}


class Guarded(Gateway):
    """The gateway with its own limits, which other scenarios lift for their publishers."""

    options: ClassVar[dict[str, object]] = {"messages-per-s": Settings().messages_per_s}


def measure(kind: type[Contestant], swarm: Swarm, size: Size) -> Figures:
    """Let each kind do its harm to a fresh server."""
    del size
    figures: Figures = {}
    guarded = Guarded if kind is Gateway else kind
    for name, harm in KINDS.items():
        if name == "stopped":
            with kind() as contestant:
                found = _stopped(contestant, swarm, harm)
        else:
            with guarded() as contestant:
                found = _does(contestant, harm)
        figures |= {f"{name}_{key}": value for key, value in found.items()}
    return figures


def _does(contestant: Contestant, harm: Kind) -> Figures:
    with _line(contestant, greets=True) as line:  # what is loaded once is loaded
        line.sendall(PING)
        line.recv(1)
    before_kib, clock = contestant.server.pss_kib(), Clock(contestant.server)
    began_s, cut_s = time.monotonic(), harm.for_s
    flood = harm.flood * (FLOOD_BYTES // len(harm.flood)) if harm.flood else b""
    with _line(contestant, greets=harm.greets) as line:
        line.sendall(harm.first)
        looked_s, unsaid = began_s, b""
        while (now_s := time.monotonic()) < began_s + harm.for_s:
            if not unsaid:
                unsaid = flood
            unsaid = _say(line, unsaid, reads=harm.reads)
            if now_s - looked_s > LOOK_S:
                looked_s = now_s
                if not _is_held(line, contestant.port):
                    cut_s = now_s - began_s
                    break
        time.sleep(max(0, began_s + harm.for_s - time.monotonic()))
        spent_s, grown_kib = clock.spent_s(), contestant.server.pss_kib() - before_kib
    return {"cpu": spent_s / harm.for_s * 100, "mib": grown_kib / 1024, "cut": cut_s}


def _say(line: socket.socket, unsaid: bytes, *, reads: bool) -> bytes:
    """Say and read what can be said and read right now; return what is still to be said."""
    readable, writable, _ = select.select(
        [line] if reads else [], [line] if unsaid else [], [], LOOK_S
    )
    with suppress(OSError):  # it was cut: the next look tells
        if readable and not line.recv(FLOOD_BYTES):
            time.sleep(LOOK_S)
        if writable:
            return unsaid[line.send(unsaid, socket.MSG_DONTWAIT) :]
    return unsaid


def _stopped(contestant: Contestant, swarm: Swarm, harm: Kind) -> Figures:
    """Let watchers stop while a healthy one is told events; what they cost is memory."""
    swarm.begin(WATCHERS, contestant.port, 1, contestant.watch(1), mode=contestant.watches_by)
    swarm.wait(WATCHERS)
    publishers(contestant, swarm, PUBLISHERS, contestant.publishers)
    swarm.mark(MARK)

    def events(for_s: float) -> float:
        told = swarm.call("pub", PUBLISHERS, 0, WINDOW, for_s, 1, contestant.event())
        return told["lost"]

    events(WARM_S)
    before_kib, began_s, cut_s = contestant.server.pss_kib(), time.monotonic(), harm.for_s
    most_kib, missed = before_kib, 0.0
    with ExitStack() as stack:
        lines = [
            stack.enter_context(_line(contestant, greets=True, rcvbuf=4096)) for _ in range(STOPPED)
        ]
        for line in lines:
            for said, _ in contestant.watch(1)[1:]:
                line.sendall((said or b"").replace(CHANNEL, b"000"))
        while time.monotonic() < began_s + harm.for_s:
            missed += events(CHUNK_S)
            most_kib = max(most_kib, contestant.server.pss_kib())
            if cut_s == harm.for_s and not any(_is_held(line, contestant.port) for line in lines):
                cut_s = time.monotonic() - began_s
    for group in (WATCHERS, PUBLISHERS):
        swarm.end(group)
    return {"mib": (most_kib - before_kib) / 1024 / STOPPED, "cut": cut_s, "missed": missed}


@contextmanager
def _line(contestant: Contestant, *, greets: bool, rcvbuf: int = 0) -> Iterator[socket.socket]:
    """Connect, as a watcher does or without a word."""
    with socket.socket() as line:
        if rcvbuf:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        line.settimeout(5)
        line.connect(("127.0.0.1", contestant.port))
        if greets:
            asked = contestant.watch(1)[0][0].replace(CHANNEL, b"000")
            line.sendall(asked)
            head = b""
            while HANDSHAKE not in head:
                if not (part := line.recv(1)):
                    raise Broken("a watcher is not let in")
                head += part
        yield line


def _is_held(line: socket.socket, port: int) -> bool:
    """Whether the server on *port* still has its end of a connection open."""
    here, there = (f"0100007F:{number:04X}" for number in (line.getsockname()[1], port))
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = row.split()[1:4]
        if (local, remote) == (there, here):
            return state == ESTABLISHED
    return False


def _figures() -> dict[str, Figure]:
    rows = {}
    for name, kind in KINDS.items():
        if name != "stopped":
            rows[f"{name}_cpu"] = Figure(
                f"{kind.title}: CPU over {kind.for_s:g} s", "% of a core", compared=False
            )
        each = " each" if name == "stopped" else ""
        rows[f"{name}_mib"] = Figure(
            f"{kind.title}: memory the server gained{each}", "MiB", compared=False
        )
        rows[f"{name}_cut"] = Figure(
            f"{kind.title}: cut after ({kind.for_s:g}: not)", "s", compared=False
        )
    rows["stopped_missed"] = Figure(
        "reads nothing: events that a healthy watcher missed", "", compared=False
    )
    return rows


def can(kind: type[Contestant]) -> bool:
    """Whether it speaks WebSocket to its watchers."""
    return kind.watches_by == "ws"


HOSTILE = Scenario("hostile", _figures(), measure, can, rounds=1)
