"""Timers: many pending closes, spread over a minute and at one instant; how late they are.

Late is the moment a watcher hears of a close, by the wall clock that Redis and this process share,
less the deadline that the gateway told beforehand. A close that comes early is an error.
"""

import json
import time
from datetime import datetime

from machine import Broken, Clock
from peers import Contestant, Gateway
from peers.gateway import BEARER, KEY
from swarm import AFTER, NUMBER, Swarm, request
from websockets.sync.client import connect

from scenarios.base import Figure, Figures, Scenario, Size, only_gateway
from scenarios.reads import JSON

WAYS = 64
WITHIN_S = 240
AHEAD_S = 3.0  # between the last request, as it is estimated, and the first close


def measure(kind: type[Contestant], swarm: Swarm, size: Size) -> Figures:
    """Measure both, each on a fresh gateway."""
    figures: Figures = {}
    for name, count, over_s in (
        ("spread", size.closes, size.closes_s),
        ("instant", size.instant, 0.0),
    ):
        with kind() as gateway:
            if not isinstance(gateway, Gateway):
                raise Broken("it closes nothing")
            late_ms, spent_s = _closes(gateway, swarm, count, over_s)
        late_ms.sort()
        figures[f"{name}_p50"] = late_ms[len(late_ms) // 2]
        figures[f"{name}_p99"] = late_ms[len(late_ms) * 99 // 100]
        figures[f"{name}_max"] = late_ms[-1]
        figures[f"{name}_us"] = spent_s / count * 1e6
    return figures


def _closes(gateway: Gateway, swarm: Swarm, count: int, over_s: float) -> tuple[list[float], float]:
    """Return how late each close was, in milliseconds, and what all cost the server."""
    post = request("POST", b"/v1/sessions", b'{"id":"t' + NUMBER + b'"}', BEARER, JSON)
    opened = swarm.ask(gateway.port, post, total=count, ways=WAYS, for_s=WITHIN_S)
    ahead_s = opened["seconds"] * 2 + AHEAD_S
    swarm.call("due", ahead_s, over_s / count)
    put = request(
        *("PUT", b"/v1/sessions/t" + NUMBER + b"/closing"),
        *(b'{"after_s":' + AFTER + b"}", BEARER, JSON),
    )
    at_s = time.monotonic() + ahead_s
    swarm.ask(gateway.port, put, total=count, ways=WAYS, for_s=WITHIN_S)
    due_ms = _deadlines(gateway)
    if time.monotonic() > at_s or len(due_ms) != count:
        raise Broken(f"{len(due_ms)} of {count} closes were pending in time")
    late_ms: list[float] = []
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"ws://127.0.0.1:{gateway.port}/v1/events"
    with connect(url, additional_headers=headers, compression=None, max_size=None) as socket:
        while True:
            message = json.loads(socket.recv(WITHIN_S))
            if message["type"] == "snapshot" and not message["more"]:
                break
        clock, until_s = Clock(gateway.server), at_s + over_s + WITHIN_S
        while due_ms and time.monotonic() < until_s:
            message = json.loads(socket.recv(WITHIN_S))
            heard_ms = time.time() * 1000
            for event in message.get("events", ()):
                if event["type"] == "session.closed":
                    due = due_ms.pop(event["session_id"])
                    if _ms(event["at"]) < due:
                        raise Broken(f"{event['session_id']} was closed early")
                    late_ms.append(heard_ms - due)
        return late_ms, clock.spent_s()


def _deadlines(gateway: Gateway) -> dict[str, float]:
    listed = gateway.listed("state=closing&fields=id,closes_at")
    return {one["id"]: _ms(one["closes_at"]) for one in listed}


def _ms(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


TIMERS = Scenario(
    "timers",
    {
        f"{name}_{key}": Figure(f"{title}: {what}", unit)
        for name, title in (("spread", "closes spread"), ("instant", "closes at one instant"))
        for key, what, unit in (
            ("p50", "late, p50", "ms"),
            ("p99", "late, p99", "ms"),
            ("max", "late, at most", "ms"),
            ("us", "CPU of the server each", "µs"),
        )
    },
    measure,
    only_gateway,
    rounds=1,
)
