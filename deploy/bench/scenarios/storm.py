"""Storm: everybody is dropped at once and comes back; and many who want to see everything.

First as many watchers as sessions, in 100 channels of equal size: all connections are reset and all
come back at once; who is sent away comes again a second later. It is over when every session was
greeted again and every watcher has its whole snapshot; the list and Redis must then agree. The same
with two workers behind the port, which have all cores of a small machine to themselves and the
client. Last, watchers of all sessions: how many bytes of snapshots leave a second.
"""

import time

from machine import Broken, Clock, Redis
from peers import Contestant, Gateway, TwoWorkers
from peers.gateway import BEARER, HANDSHAKE
from swarm import CHANNEL, NUMBER, Steps, Swarm, upgrade

from gateway.store.keys import keys
from scenarios.base import Figure, Figures, Scenario, Size, only_gateway

CHANNELS = 100
WAYS = 500  # connections on their way at once, of each kind
WITHIN_S = 120
SETTLE_S = 20
WATCHERS, SESSIONS = 0, 1
WHOLE = b'"more":false'
LINGER = b"&linger_ms=600000"  # however long it takes, nobody is closed meanwhile


def measure(kind: type[Contestant], swarm: Swarm, size: Size) -> Figures:
    """Measure the return of all, to one node and to two, and the wide watchers."""
    figures: Figures = {}
    del kind
    with TwoWorkers() as gateway:
        figures |= {f"two_{name}": value for name, value in _back(gateway, swarm, size).items()}
    with Gateway() as gateway:
        return figures | _back(gateway, swarm, size) | _wide(gateway, swarm, size)


def _back(gateway: Gateway, swarm: Swarm, size: Size) -> Figures:
    """Let all come, drop them, and let them come back; the sessions stay."""
    redis = gateway.redis
    if redis is None:
        raise Broken("no Redis")
    path = b"/v1/connect?session=s" + NUMBER + b"&workspace=c" + CHANNEL + LINGER
    be: Steps = [(upgrade(path, BEARER), HANDSHAKE), (b"", b'"hello"')]
    watch = gateway.watch(CHANNELS)

    def come() -> tuple[float, float]:
        began_s = time.monotonic()
        for group, steps in ((SESSIONS, be), (WATCHERS, watch)):
            swarm.begin(
                *(group, gateway.port, size.storm, steps),
                ways=WAYS,
                channels=CHANNELS,
                retry=True,
            )
        waits = [swarm.wait(group, WITHIN_S) for group in (SESSIONS, WATCHERS)]
        return time.monotonic() - began_s, sum(wait["retries"] for wait in waits)

    swarm.mark()
    come()
    swarm.call("idle", 1)
    clock, commands = Clock(gateway.server, redis), redis.commands()
    for group in (SESSIONS, WATCHERS):
        swarm.call("drop", group)
    took_s, retries = come()
    spent_s, commands = clock.spent_s(), redis.commands() - commands
    _equal(gateway, redis, swarm, size.storm)
    swarm.end(WATCHERS)
    swarm.call("idle", 1)
    return {
        "seconds": took_s,
        "retries": retries,
        "us": spent_s / size.storm / 2 * 1e6,
        "commands": commands / size.storm,
    }


def _wide(gateway: Gateway, swarm: Swarm, size: Size) -> Figures:
    """Let many see everything."""
    wide: Steps = [(upgrade(b"/v1/events", BEARER), HANDSHAKE), (b"", WHOLE)]
    clock = Clock(gateway.server)
    swarm.mark(b"@@")
    swarm.begin(WATCHERS, gateway.port, size.wide, wide, ways=size.wide)
    done = swarm.wait(WATCHERS, WITHIN_S)
    for group in (SESSIONS, WATCHERS):
        swarm.end(group)
    return {
        "wide_gb": done["bytes"] / done["seconds"] / 1e9,
        "wide_gb_core": done["bytes"] / clock.spent_s() / 1e9,
        "wide_client": done["client_s"] / done["seconds"] * 100,
    }


def _equal(gateway: Gateway, redis: Redis, swarm: Swarm, count: int) -> None:
    """Check that the list (the replica) and Redis have every session, connected."""
    until_s = time.monotonic() + SETTLE_S
    live = keys("gateway", 0).live
    while True:
        listed = len(gateway.listed("connected=true&fields=id"))
        kept = int(redis.ask(f"HLEN {live}").removeprefix(":"))
        if listed == count == kept:
            return
        if time.monotonic() > until_s:
            raise Broken(f"{count} came back, {listed} are listed, Redis has {kept}")
        swarm.call("idle", 0.2)


STORM = Scenario(
    "storm",
    {
        "seconds": Figure("all back and whole", "s"),
        "retries": Figure("connections that were sent away first", "", compared=False),
        "us": Figure("CPU of server and Redis a connection", "µs"),
        "commands": Figure("Redis commands a session", ""),
        "two_seconds": Figure("two workers: all back and whole", "s"),
        "two_retries": Figure("two workers: connections sent away first", "", compared=False),
        "two_us": Figure("two workers: CPU of both and Redis a connection", "µs"),
        "two_commands": Figure("two workers: Redis commands a session", ""),
        "wide_gb": Figure("snapshots of all sessions", "GB/s", less=False),
        "wide_gb_core": Figure("snapshots of all sessions, a core", "GB/s", less=False),
        "wide_client": Figure("the client's core meanwhile", "% busy", compared=False),
    },
    measure,
    only_gateway,
)
