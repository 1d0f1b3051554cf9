"""Run: the gateway beside its peers, in one run, on one client, with one payload.

    scripts/bench [SCENARIO ...] [--quick] [--only NAME ...] [--rounds N]

Contestants take turns, in another order each round, so that what else the machine does falls on all
of them; figures are medians of the rounds, with the spread, and ratios are ``gateway / peer``.
Compare within one run only. Writes ``RESULTS.md`` beside this file after a run that is not quick.
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPException
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Final

from install import install
from machine import HERE, Broken, described
from peers import CONTESTANTS, Contestant, Gateway
from report import Results, rendered
from scenarios import FULL, QUICK, SCENARIOS, Scenario, Size
from swarm import Swarm, build

RESULTS: Final = HERE / "RESULTS.md"


def one(scenario: Scenario, contestant: type[Contestant], size: Size, results: Results) -> None:
    """Measure one contestant once; what goes wrong is noted and does not stop the others."""
    began_s = time.monotonic()
    try:
        with Swarm() as swarm:
            figures = scenario.measure(contestant, swarm, size)
    except (Broken, OSError, HTTPException, JSONDecodeError, KeyError, TimeoutError) as error:
        results.fail(scenario, contestant, f"{type(error).__name__}: {error}")
        outcome = f"failed: {error}"
    else:
        results.add(scenario, contestant, figures)
        outcome = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
    took_s = time.monotonic() - began_s
    print(f"{scenario.name:9} {contestant.name:16} {took_s:5.1f} s  {outcome}", file=sys.stderr)


def run(names: Sequence[str], only: Sequence[str], size: Size) -> Results:
    """Measure everything that was asked for."""
    there, missing = [], {}
    for contestant in CONTESTANTS:
        if only and contestant.name not in {*only, Gateway.name}:
            continue
        why = contestant.missing()
        if why is None:
            there.append(contestant)
        else:
            missing[contestant.name] = why
    scenarios = [SCENARIOS[name] for name in names or SCENARIOS]
    results = Results(scenarios, there, missing)
    for scenario in scenarios:
        able = [contestant for contestant in there if scenario.can(contestant)]
        for turn in range(min(size.rounds, scenario.rounds)):
            first = turn * (len(able) // 2 + 1) % len(able)
            for contestant in (*able[first:], *able[:first]):
                one(scenario, contestant, size, results)
    return results


def main(options: Any) -> None:  # noqa: ANN401 - argparse
    """Install, build, measure, and tell."""
    began_s = time.monotonic()
    size = QUICK if options.quick else FULL
    if options.rounds:
        size = replace(size, rounds=options.rounds)
    install()
    build()
    results = run(options.scenario, options.only, size)
    head = (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {described()}. "
        f"{'Quick run: small and noisy. ' if options.quick else ''}"
        f"Took {(time.monotonic() - began_s) / 60:.0f} min; medians of {size.rounds} rounds."
    )
    text = rendered(results, head, size)
    print(text)
    if options.write or not (options.quick or options.scenario or options.only):
        Path(RESULTS).write_text(text)


def parsed(arguments: Sequence[str]) -> Any:  # noqa: ANN401 - argparse
    """Return the options."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure beside the peers.")
    parser.add_argument(
        "scenario",
        nargs="*",
        choices=[*SCENARIOS, []],
        metavar="SCENARIO",
        help=f"one of {', '.join(SCENARIOS)}; all if none is named",
    )
    parser.add_argument("--quick", action="store_true", help="everything small, in 3 minutes")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only this peer, beside the gateway; may be repeated",
    )
    parser.add_argument("--rounds", type=int, default=0, help="how often each takes its turn")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md in any case")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    try:
        main(parsed(sys.argv[1:]))
    except Broken as error:
        sys.exit(f"scripts/bench: {error}")
