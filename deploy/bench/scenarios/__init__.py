"""Scenarios: the jobs that contestants are measured by."""

from scenarios.base import FULL, QUICK, Figure, Figures, Scenario, Size
from scenarios.connects import CONNECTS
from scenarios.fanout import FANOUT
from scenarios.growth import GROWTH
from scenarios.hostile import HOSTILE
from scenarios.job import JOB
from scenarios.reads import READS
from scenarios.storm import STORM
from scenarios.timers import TIMERS

ALL = (FANOUT, CONNECTS, JOB, READS, GROWTH, STORM, TIMERS, HOSTILE)
SCENARIOS = {one.name: one for one in ALL}

__all__ = ["FULL", "QUICK", "SCENARIOS", "Figure", "Figures", "Scenario", "Size"]
