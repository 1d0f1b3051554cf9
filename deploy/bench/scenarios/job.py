"""The same job: clients come, become tracked sessions in Redis, are heard by all, and leave.

``WATCHERS`` hear every session open and close. What is counted is the processor time of the server
and its Redis together. The applications of the peers keep one record for a live session, no more;
the gateway also writes log, history and tombstone, and resumes from them.
"""

from machine import Broken, Clock
from peers import Contestant
from swarm import NUMBER, Steps, Swarm

from scenarios.base import Figure, Figures, Scenario, Size

WATCHERS = 20
WAYS = 64  # clients that are there at a time
WARM = 100  # sessions before the measurement
WITHIN_S = 120
WATCHING, COMING = 0, 1


def measure(kind: type[Contestant], swarm: Swarm, size: Size) -> Figures:
    """Let sessions come and go."""
    with kind() as contestant:
        steps = contestant.session()
        if steps is None or contestant.redis is None:
            raise Broken("it keeps no sessions")
        swarm.begin(WATCHING, contestant.port, WATCHERS, contestant.watch(1))
        swarm.wait(WATCHING)
        swarm.mark()
        swarm.begin(COMING, contestant.port, WARM, _others(steps), ways=WAYS, keep=False)
        swarm.wait(COMING, WITHIN_S)
        swarm.call("idle", 0.3)
        swarm.end(COMING)
        swarm.mark(b"@@", b'.opened"', b'.closed"')
        clock, commands = Clock(contestant.server, contestant.redis), contestant.redis.commands()
        swarm.begin(COMING, contestant.port, size.churn, steps, ways=WAYS, keep=False)
        took_s = swarm.wait(COMING, WITHIN_S)["seconds"]
        for marker in (1, 2):
            heard = swarm.call("until", marker, size.churn * WATCHERS, 10)
            took_s += heard["seconds"]
            if heard["counted"] != size.churn * WATCHERS:
                raise Broken(f"{heard['counted']:.0f} of {size.churn * WATCHERS} were heard")
        server_s, redis_s = clock.each_s()
        commands = contestant.redis.commands() - commands
        swarm.end(COMING)
        swarm.end(WATCHING)
    return {
        "us": (server_s + redis_s) / size.churn * 1e6,
        "server_us": server_s / size.churn * 1e6,
        "redis_us": redis_s / size.churn * 1e6,
        "rate": size.churn / took_s,
        "commands": commands / size.churn,
    }


def _others(steps: Steps) -> Steps:
    """Return the script under other session ids, since none is ever used again."""
    return [(sent.replace(b"s" + NUMBER, b"w" + NUMBER), wait) for sent, wait in steps]


def can(kind: type[Contestant]) -> bool:
    """Whether it, or its application here, keeps sessions."""
    return kind.session is not Contestant.session


JOB = Scenario(
    "job",
    {
        "us": Figure("CPU of server and Redis a session come and gone", "µs"),
        "server_us": Figure("of it the server", "µs"),
        "redis_us": Figure("of it Redis", "µs"),
        "rate": Figure("sessions come and gone", "/s", less=False),
        "commands": Figure("Redis commands a session", ""),
    },
    measure,
    can,
)
