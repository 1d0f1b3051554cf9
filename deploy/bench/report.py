"""Report: medians, spreads and ratios as one table of Markdown."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from peers import Contestant, Gateway
from scenarios import Figure, Figures, Scenario, Size


class Results:
    """What a run has measured.

    Args:
        scenarios: Which jobs.
        there: Who took part.
        missing: Who did not, and why.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        there: Sequence[type[Contestant]],
        missing: dict[str, str],
    ) -> None:
        self.scenarios = scenarios
        self.there = there
        self.missing = missing
        self.failures: list[str] = []
        self._rounds: defaultdict[tuple[str, str], list[Figures]] = defaultdict(list)

    def add(self, scenario: Scenario, contestant: type[Contestant], figures: Figures) -> None:
        """Note the figures of one round."""
        self._rounds[scenario.name, contestant.name].append(figures)

    def fail(self, scenario: Scenario, contestant: type[Contestant], why: str) -> None:
        """Note that a round went wrong."""
        self.failures.append(f"{scenario.name}, {contestant.name}: {why}")

    def values(self, scenario: Scenario, contestant: type[Contestant], key: str) -> list[float]:
        """Return one figure of all rounds."""
        rounds = self._rounds[scenario.name, contestant.name]
        return [figures[key] for figures in rounds if key in figures]


def rendered(results: Results, head: str, size: Size) -> str:
    """Return the whole report."""
    peers = [contestant for contestant in results.there if contestant is not Gateway]
    lines = [
        "# Benchmark",
        "",
        head,
        "",
        "Made by `scripts/bench`; compare within one table only. A cell is the median, ± half the",
        "distance between the best and the worst round, and in parentheses gateway ÷ peer. Bold:",
        "the best of the row. `n/a`: the peer cannot do it, or not in this benchmark.",
        "",
    ]
    columns = ["figure", Gateway.name, *(contestant.name for contestant in peers)]
    rows = [columns, ["---"] * len(columns)]
    for scenario in results.scenarios:
        rows.append([f"**{scenario.name}**", *[""] * (len(columns) - 1)])
        for key, figure in scenario.figures.items():
            rows.append(_row(results, scenario, key, figure, peers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    for row in rows:
        cells = [
            cell.ljust(width, "-" if cell == "---" else " ")
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Who took part:", ""]
    lines += [f"- {one.name}: {one.version()}" for one in results.there]
    lines += [f"- {name}: skipped, {why}" for name, why in results.missing.items()]
    if results.failures:
        lines += ["", "What went wrong:", "", *(f"- {failure}" for failure in results.failures)]
    lines += ["", "How much:", ""]
    lines += [f"- `{name}`: {value:g}" for name, value in vars(size).items()]
    return "\n".join(lines) + "\n"


def _row(
    results: Results,
    scenario: Scenario,
    key: str,
    figure: Figure,
    peers: Sequence[type[Contestant]],
) -> list[str]:
    everybody: list[type[Contestant]] = [Gateway, *peers]
    medians: dict[type[Contestant], float] = {
        one: statistics.median(values)
        for one in everybody
        if (values := results.values(scenario, one, key))
    }
    best = (min if figure.less else max)(medians.values(), default=0.0)
    row = [f"{figure.title}, {figure.unit}" if figure.unit else figure.title]
    for one in everybody:
        if one not in medians:
            row.append("n/a")
            continue
        values, median = results.values(scenario, one, key), medians[one]
        cell = _short(median)
        if figure.compared and median == best and len(medians) > 1:
            cell = f"**{cell}**"
        if len(values) > 1 and median:
            cell += f" ±{(max(values) - min(values)) / 2 / abs(median):.0%}"
        if figure.compared and one is not Gateway and Gateway in medians and median:
            cell += f" ({medians[Gateway] / median:.2f})"
        row.append(cell)
    return row


def _short(value: float) -> str:
    """Return three digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"
