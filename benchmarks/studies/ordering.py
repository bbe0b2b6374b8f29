"""Whether the order of a paper's rows holds here, told apart from chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import mean, stdev

Values = Mapping[str, Sequence[float]]
"""AP of every seed by row."""


def verdict(published: Mapping[str, float], measured: Values) -> str:
    """A sentence: for how many pairs of rows the paper's order is seen, and where it is not.

    A pair counts as seen when the mean difference of equal seeds is above its standard deviation,
    as contradicted when it lies as far on the other side, and as undecided otherwise.
    """
    pairs = list(_pairs(published, measured))
    seen = [pair for pair in pairs if pair[2] > 1]
    against = [pair for pair in pairs if pair[2] < -1]
    undecided = len(pairs) - len(seen) - len(against)
    head = "The paper's order " + _head(len(pairs), len(seen), len(against))
    counts = (
        f" (pairs of rows: {len(seen)} of {len(pairs)} ordered so by more than one standard "
        f"deviation, {undecided} within one, {len(against)} the other way round"
    )
    contradictions = "; ".join(f"{worse} is ahead of {better}" for better, worse, _ in against)
    return f"{head}{counts}{f': {contradictions}' if contradictions else ''})."


def _head(pairs: int, seen: int, against: int) -> str:
    if against:
        return "does not hold"
    return "holds" if seen == pairs else "holds within one standard deviation"


def _pairs(published: Mapping[str, float], measured: Values) -> Iterator[tuple[str, str, float]]:
    """Better and worse row of the paper, and how far apart they are here, in deviations."""
    ranked = sorted((name for name in published if name in measured), key=lambda n: -published[n])
    for better, worse in combinations(ranked, 2):
        if published[better] > published[worse]:
            yield better, worse, _distance(measured[better], measured[worse])


def _distance(better: Sequence[float], worse: Sequence[float]) -> float:
    gains = [a - b for a, b in zip(better, worse, strict=True)]
    spread = stdev(gains) if len(gains) > 1 else 0.0
    return mean(gains) / max(spread, 1e-9)
