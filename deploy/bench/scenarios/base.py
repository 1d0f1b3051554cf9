"""Scenario: one job, its figures, and how much of it a run does."""

from collections.abc import Callable
from dataclasses import dataclass, field

from peers import Contestant
from swarm import Swarm

Figures = dict[str, float]


@dataclass(frozen=True)
class Size:
    """How much is done; every load is bounded by it.

    Args:
        rounds: How often each contestant takes its turn.
        watchers: Connections that listen to events.
        channels: Among how many channels they are spread, in the shape of many channels.
        rate: Events a second and channel at the fixed rate.
        seconds: How long one measurement publishes.
        connections: Connections that only are.
        churn: Sessions that come and go.
        listed: Sessions that are listed.
        asking_s: How long one kind of request is repeated.
        storm: Sessions, and watchers, that are dropped at once.
        wide: Watchers that see all of them.
        closes: Pending closes spread over ``closes_s``.
        instant: Pending closes at one moment.
    """

    rounds: int
    watchers: int
    channels: int
    rate: int
    seconds: float
    connections: int
    churn: int
    listed: int
    asking_s: float
    storm: int
    wide: int
    closes: int
    closes_s: float
    instant: int


FULL = Size(3, 1000, 100, 20, 4.0, 2000, 5000, 10_000, 5.0, 5000, 500, 100_000, 60.0, 10_000)
QUICK = Size(1, 200, 20, 50, 1.0, 300, 300, 1000, 1.0, 500, 50, 1000, 2.0, 300)


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Args:
        title: What was measured.
        unit: In which unit.
        less: Whether less is better.
        compared: Whether there is a better at all.
    """

    title: str
    unit: str
    less: bool = True
    compared: bool = True


@dataclass(frozen=True)
class Scenario:
    """One job.

    Args:
        name: On the command line.
        figures: Its rows, by the keys of what ``measure`` returns.
        measure: Starts the contestant, does the job once, and ends it; raises ``Broken``.
        can: Whether a contestant can do it at all.
        rounds: At most this many.
    """

    name: str
    figures: dict[str, Figure]
    measure: Callable[[type[Contestant], Swarm, Size], Figures]
    can: Callable[[type[Contestant]], bool] = field(default=lambda _: True)
    rounds: int = 100


def publishers(
    contestant: Contestant, swarm: Swarm, group: int, count: int, channels: int = 1
) -> None:
    """Let *count* publishers of *channels* come in, and wait until they are there."""
    swarm.begin(
        *(group, contestant.port, count, contestant.publisher(channels)),
        mode=contestant.publishes_by,
        channels=channels,
    )
    swarm.wait(group)


def only_gateway(contestant: type[Contestant]) -> bool:
    """Whether it keeps sessions that can be listed, resumed and closed later."""
    return contestant.name == "gateway"
