"""Growth: what one request, one commit and one delivery cost as sessions and channels get more.

One gateway grows in steps to ten times the sessions that the other reads list; on the way a page of
the list, one of a workspace, commits and deliveries are measured. Then others hold few channels and
many, of one watcher each, and publish into few of them. Pages are of one size throughout, and
commits come at a fixed rate. The ratios say how the cost grows: 1 is not at all.
"""

from typing import ClassVar

from machine import Clock
from peers import Contestant, Gateway
from peers.gateway import BEARER, HANDSHAKE
from swarm import MARK, NUMBER, Steps, Swarm, request, upgrade

from scenarios.base import Figure, Figures, Scenario, Size, only_gateway
from scenarios.reads import MANY, WAYS, fill

STEPS = ("hundredth", "tenth", "all", "tenfold")  # of the sessions that are listed
FEW = 10  # channels that are published into
FAN = 100  # watchers of the one channel whose deliveries are counted
COMMITS = 500  # a second
EVENTS = 50  # a second, each delivered FAN times
WINDOW = 10_000  # events under way at most: the rate is what bounds them
WATCHING, PUBLISHING = 0, 1
WARM_S = 0.5
WITHIN_S = 120


class Quiet(Gateway):
    """A gateway that does not ask its connections whether they live: not what grows here."""

    options: ClassVar[dict[str, object]] = {"heartbeat-s": 3600}


def measure(kind: type[Contestant], swarm: Swarm, size: Size) -> Figures:
    """Measure both kinds of growth."""
    figures: Figures = {}
    del kind
    with Quiet() as gateway:
        _sessions(gateway, swarm, size, figures)
    for name, channels in (("few", FEW), ("many", size.listed)):
        with Quiet() as gateway:
            figures[f"commit_{name}"] = _published(
                gateway, swarm, size, channels=channels, fan=1, rate=COMMITS
            )
    for name, (smallest, largest) in RATIOS.items():
        figures[f"{name}_ratio"] = figures[largest] / figures[smallest]
    return figures


def _sessions(gateway: Gateway, swarm: Swarm, size: Size, figures: Figures) -> None:
    """Let the sessions get more; the pages are full from the second step on."""
    limit, there = size.listed // 100, 0
    for number, step in enumerate(STEPS):
        count = size.listed * 10**number // 100
        fill(gateway, swarm, count - there, b"%c" % (ord("a") + number))
        there = count
        figures[f"commit_{step}"] = _published(
            gateway, swarm, size, channels=FEW, fan=1, rate=COMMITS
        )
        figures[f"delivery_{step}"] = _published(
            gateway, swarm, size, channels=1, fan=FAN, rate=EVENTS
        )
        if number:
            path = f"/v1/sessions?limit={limit}"
            figures[f"page_{step}"] = _asked(gateway, swarm, size, path)
            figures[f"filtered_{step}"] = _asked(gateway, swarm, size, f"{path}&workspace=w3")


def _asked(gateway: Gateway, swarm: Swarm, size: Size, path: str) -> float:
    """Return the microseconds of a request."""
    ask = request("GET", path.encode(), b"", BEARER)
    swarm.ask(gateway.port, ask, total=100, ways=WAYS, for_s=WARM_S)
    clock = Clock(gateway.server)
    done = swarm.ask(gateway.port, ask, total=MANY, ways=WAYS, for_s=size.asking_s)
    return clock.spent_s() / done["done"] * 1e6


def _published(
    gateway: Gateway, swarm: Swarm, size: Size, *, channels: int, fan: int, rate: int
) -> float:
    """Return the microseconds of a delivery; with a *fan* of 1 the commit is most of it."""
    channel = b"d" + (NUMBER if fan == 1 else b"")
    watch: Steps = [
        (upgrade(b"/v1/events?workspace=" + channel, BEARER), HANDSHAKE),
        (b"", b'"more":false'),
    ]
    publish: Steps = [
        (upgrade(b"/v1/connect?workspace=" + channel, BEARER), HANDSHAKE),
        (b"", b'"hello"'),
    ]
    swarm.mark()
    for group, total, steps in ((WATCHING, channels * fan, watch), (PUBLISHING, FEW, publish)):
        swarm.begin(group, gateway.port, total, steps)
        swarm.wait(group, WITHIN_S)
    swarm.mark(MARK)
    event = gateway.event()
    swarm.publish(PUBLISHING, event, rate=rate, window=WINDOW, for_s=WARM_S, fan=fan)
    clock = Clock(gateway.server)
    done = swarm.publish(PUBLISHING, event, rate=rate, window=WINDOW, for_s=size.seconds, fan=fan)
    spent_s = clock.spent_s()
    for group in (WATCHING, PUBLISHING):
        swarm.end(group)
    return spent_s / done["delivered"] * 1e6


RATIOS = {
    "page": ("page_tenth", "page_tenfold"),
    "filtered": ("filtered_tenth", "filtered_tenfold"),
    "commit": ("commit_hundredth", "commit_tenfold"),
    "delivery": ("delivery_hundredth", "delivery_tenfold"),
    "channels": ("commit_few", "commit_many"),
}
"""Of each cost: where it should be the smallest, and where the largest."""

KINDS = {
    "page": "page",
    "filtered": "page of a workspace",
    "commit": "commit and its delivery",
    "delivery": f"delivery, {FAN} an event",
}
COUNTS = {
    "hundredth": "1/100 of the sessions",
    "tenth": "1/10 of the sessions",
    "all": "all sessions",
    "tenfold": "10 times the sessions",
}


def _figures() -> dict[str, Figure]:
    rows = {}
    for kind, title in KINDS.items():
        for step, count in COUNTS.items():
            if step != "hundredth" or kind in ("commit", "delivery"):
                rows[f"{kind}_{step}"] = Figure(f"{title}, {count}: CPU", "µs")
        rows[f"{kind}_ratio"] = Figure(f"{title}: most sessions ÷ fewest", "")
    for name, count in (("few", str(FEW)), ("many", "as many as sessions are listed")):
        rows[f"commit_{name}"] = Figure(f"{KINDS['commit']}, channels: {count}: CPU", "µs")
    rows["channels_ratio"] = Figure(f"{KINDS['commit']}: most channels ÷ fewest", "")
    return rows


GROWTH = Scenario("growth", _figures(), measure, only_gateway, rounds=1)
