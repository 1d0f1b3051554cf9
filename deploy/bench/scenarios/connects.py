"""Connects: how fast connections come in, what each costs, and what it weighs when it is idle.

A connection is a watcher of one channel, complete with whatever its product says at the start. For
the gateway a session with its socket is measured as well: that is what its memory bar is about.
"""

from machine import Broken, Clock
from peers import Contestant, Gateway
from swarm import Swarm

from scenarios.base import Figure, Figures, Scenario, Size

GROUP = 0
IDLE_S = 0.5
WARM = 64  # connections that come and go first, so that what is loaded once is loaded


def measure(kind: type[Contestant], swarm: Swarm, size: Size) -> Figures:
    """Measure watchers, and for the gateway sessions."""
    figures = _come(kind, swarm, size.connections, "")
    if issubclass(kind, Gateway):
        figures |= _come(kind, swarm, size.connections, "session_")
    return figures


def _come(kind: type[Contestant], swarm: Swarm, count: int, prefix: str) -> Figures:
    with kind() as contestant:
        steps = contestant.publisher(1) if prefix else contestant.watch(1)
        swarm.mark()
        swarm.begin(GROUP, contestant.port, WARM, steps, mode=contestant.watches_by)
        swarm.wait(GROUP)
        swarm.call("idle", IDLE_S)
        swarm.end(GROUP)
        before_kib, clock = contestant.server.pss_kib(), Clock(contestant.server)
        swarm.begin(GROUP, contestant.port, count, steps, mode=contestant.watches_by)
        took_s = swarm.wait(GROUP)["seconds"]
        spent_s = clock.spent_s()
        lost = swarm.call("idle", IDLE_S)["lost"]
        each_kib = (contestant.server.pss_kib() - before_kib) / count
        swarm.end(GROUP)
        if lost:
            raise Broken(f"{lost:.0f} idle connections were lost")
        return {
            f"{prefix}rate": count / took_s,
            f"{prefix}us": spent_s / count * 1e6,
            f"{prefix}kib": each_kib,
        }


CONNECTS = Scenario(
    "connects",
    {
        "rate": Figure("watchers that come in", "/s", less=False),
        "us": Figure("CPU a watcher that comes in", "µs"),
        "kib": Figure("PSS of an idle watcher", "KiB"),
        "session_rate": Figure("sessions that come in", "/s", less=False),
        "session_us": Figure("CPU of the server a session that comes in", "µs"),
        "session_kib": Figure("PSS of an idle session with its socket", "KiB"),
    },
    measure,
)
