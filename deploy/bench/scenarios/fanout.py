"""Fan-out: events to many watchers, at a fixed rate and as fast as the path takes them.

In one channel, spread over many (a full run: 100), and with every tenth watcher slow; the gateway
also as two workers, since some of its peers use all cores as they are. At the fixed
rate one event comes after the other, so nobody can send two at once; saturated, ``WINDOW`` events
are under way at any time and a server may send what has gathered in one piece. A slow watcher reads
40 KiB a second; what it misses is not counted, what it costs the others is.

The gateway's figures hold the commits as well; the peers only pass on what they are given.
"""

from machine import Clock
from peers import Contestant, Gateway, TwoWorkers
from swarm import MARK, Swarm

from scenarios.base import Figure, Figures, Scenario, Size, publishers

WINDOW = 512  # events under way when saturated
WATCHERS, PUBLISHERS, SLOW, MORE = 0, 1, 2, 3
SLOW_SHARE = 0.1
WARM_S = 0.5
SHAPES = {
    "one": "one channel",
    "two": "one channel, two workers",
    "many": "many channels",
    "slow": "10 % slow",
}


def measure(kind: type[Contestant], swarm: Swarm, size: Size) -> Figures:
    """Measure all shapes, each on a fresh server."""
    figures: Figures = {}
    for shape in SHAPES:
        if shape == "two" and kind is not Gateway:
            continue
        channels = size.channels if shape == "many" else 1
        with (TwoWorkers if shape == "two" else kind)() as contestant:
            slow = round(size.watchers * SLOW_SHARE) if shape == "slow" else 0
            found = _shape(contestant, swarm, size, channels, slow)
        figures |= {f"{shape}_{key}": value for key, value in found.items()}
    return figures


def _shape(contestant: Contestant, swarm: Swarm, size: Size, channels: int, slow: int) -> Figures:
    enter, healthy = contestant.watch(channels), size.watchers - slow
    for group, total in ((WATCHERS, healthy), (SLOW, slow)):
        if total:
            swarm.begin(
                *(group, contestant.port, total, enter),
                mode=contestant.watches_by,
                channels=channels,
                slow=group == SLOW,
            )
            swarm.wait(group)
    publishers(contestant, swarm, PUBLISHERS, channels, channels)
    swarm.mark(MARK)
    fan, event = healthy // channels, contestant.event()
    rate = size.rate * channels  # the same number of deliveries a second
    figures: Figures = {}
    if not slow:
        swarm.publish(PUBLISHERS, event, rate=rate, window=WINDOW, for_s=WARM_S, fan=fan)
        clock = Clock(contestant.server)
        done = swarm.publish(
            PUBLISHERS, event, rate=rate, window=10 * WINDOW, for_s=size.seconds, fan=fan
        )
        figures["paced_us"] = clock.spent_s() / done["delivered"] * 1e6
        figures["p50_ms"], figures["p99_ms"] = done["p50_us"] / 1000, done["p99_us"] / 1000
    # Who does the commands of one client one by one needs more of them to be busy.
    publishers(contestant, swarm, MORE, max(contestant.publishers, channels), channels)
    swarm.publish(MORE, event, rate=0, window=WINDOW, for_s=WARM_S, fan=fan)
    before_kib, clock = contestant.server.pss_kib(), Clock(contestant.server)
    done = swarm.publish(MORE, event, rate=0, window=WINDOW, for_s=size.seconds, fan=fan)
    figures["busy_us"] = clock.spent_s() / done["delivered"] * 1e6
    figures["busy_m"] = done["rate"] / 1e6
    figures["client"] = done["client_s"] / done["seconds"] * 100
    if slow:
        figures["grown_mib"] = (contestant.server.pss_kib() - before_kib) / 1024
        figures["cut"] = swarm.wait(SLOW)["lost"]
    for group in (WATCHERS, PUBLISHERS, MORE, *([SLOW] if slow else [])):
        swarm.end(group)
    return figures


def _figures() -> dict[str, Figure]:
    rows = {}
    for shape, title in SHAPES.items():
        if shape != "slow":
            rows[f"{shape}_paced_us"] = Figure(f"{title}, fixed rate: CPU a delivery", "µs")
            rows[f"{shape}_p50_ms"] = Figure(f"{title}, fixed rate: latency p50", "ms")
            rows[f"{shape}_p99_ms"] = Figure(f"{title}, fixed rate: latency p99", "ms")
        rows[f"{shape}_busy_us"] = Figure(f"{title}, saturated: CPU a delivery", "µs")
        rows[f"{shape}_busy_m"] = Figure(f"{title}, saturated: deliveries", "million/s", less=False)
        rows[f"{shape}_client"] = Figure(
            f"{title}, saturated: the client's core", "% busy", compared=False
        )
    rows["slow_grown_mib"] = Figure("10 % slow: memory the server gained", "MiB", compared=False)
    rows["slow_cut"] = Figure("10 % slow: slow watchers cut", "", compared=False)
    return rows


FANOUT = Scenario("fanout", _figures(), measure)
