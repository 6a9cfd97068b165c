"""How many trials the searches take, against the information bound, on culprits drawn at random.

The bound is log2 of the number of hypotheses, over the bits that one trial can tell at most. Exact is the share of
searches that named the culprit and nothing else. The windows' bound counts connected windows of up to 8 nodes, on a
sample of nodes and up to a cap, so it is rather too low. Trials of parallel searches stand with the rounds they took.

    python tests/bench/bench_search.py [--share 1.0] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import table
from search_graphs import FAMILIES, window, windows_ending_at

from surgeon_debug.search.bisect import PrefixBisect
from surgeon_debug.search.ddmin import Ddmin
from surgeon_debug.search.information import capacity
from surgeon_debug.search.noisy import NoisyBisect
from surgeon_debug.search.splitting import GeneralisedSplitting
from surgeon_debug.search.subset import SmallestSubset
from surgeon_debug.search.trial import Outcome, Search, Trial
from surgeon_debug.search.windows import WindowSearch

Judge = Callable[[Trial], bool]
Case = Callable[[random.Random], tuple[int, bool]]
"""One search with a culprit of its own: trials (or rounds), and whether it was found."""


def play(search: Search, fails: Judge, k: int = 1) -> tuple[int, int]:
    """Trials and rounds of a search."""
    trials = rounds = 0
    while not search.done:
        asked = search.ask(k)
        rounds += bool(asked)
        trials += len(asked)
        for trial in asked:
            search.tell(trial, Outcome.REPRODUCES if fails(trial) else Outcome.CLEAN)
    return trials, rounds


def named(search: Search) -> frozenset[int]:
    """All elements that the answer names."""
    return frozenset().union(*search.answer.culprits)


def bisect(count: int, k: int) -> Case:
    def case(chance: random.Random) -> tuple[int, bool]:
        culprit, search = chance.randrange(count), PrefixBisect(range(count))
        return play(search, lambda trial: culprit in trial.elements, k)[1], named(search) == {culprit}

    return case


def dark_bisect(count: int, share: float) -> Case:
    """A stretch of the cuts, of that share, can not be resolved; right if the interval is as narrow as can be."""

    def case(chance: random.Random) -> tuple[int, bool]:
        culprit, search = chance.randrange(count), PrefixBisect(range(count))
        first = chance.randrange(1, count - int(share * count))
        last = first + int(share * count) - 1
        trials = 0
        while not search.done:
            (trial,) = search.ask()
            trials += 1
            dark = first <= len(trial.elements) <= last
            fails = Outcome.REPRODUCES if culprit in trial.elements else Outcome.CLEAN
            search.tell(trial, Outcome.UNRESOLVED if dark else fails)
        best = (first - 1, last + 1) if first - 1 <= culprit <= last else (culprit, culprit + 1)
        return trials, search.interval == best

    return case


def subset(count: int, k: int, kind: type[SmallestSubset] | type[Ddmin]) -> Case:
    def case(chance: random.Random) -> tuple[int, bool]:
        culprit, search = frozenset(chance.sample(range(count), k)), kind(range(count))
        return play(search, lambda trial: culprit <= trial.elements)[0], named(search) == culprit

    return case


def splitting(count: int, k: int, expected: int, exact: bool) -> Case:
    def case(chance: random.Random) -> tuple[int, bool]:
        culprits = frozenset(chance.sample(range(count), k))
        search = GeneralisedSplitting(range(count), expected=expected, exact=exact)
        return play(search, lambda trial: bool(culprits & trial.elements))[0], named(search) == culprits

    return case


def noisy(count: int, rate: float, false_rate: float, probes: int | None) -> Case:
    """``probes`` runs of the whole were made before, which are not counted; None if the rate is known as it is."""

    def case(chance: random.Random) -> tuple[int, bool]:
        culprit, told = chance.randrange(count), {}
        if probes is None:
            told = {"rate": rate, "rate_runs": 1000}
        elif probes:
            hits = 0
            while hits <= 1.2 * false_rate * probes:
                hits = sum(chance.random() < rate for _ in range(probes))
            told = {"rate": hits / probes, "rate_runs": probes}
        search = NoisyBisect(range(count), false_rate=false_rate, **told)

        def fails(trial: Trial) -> bool:
            return chance.random() < (rate if culprit in trial.elements else false_rate)

        return play(search, fails)[0], named(search) == {culprit}

    return case


def windows(links: dict[int, set[int]], sizes: tuple[int, int], alone_clean: bool) -> Case:
    count = len(links)

    def case(chance: random.Random) -> tuple[int, bool]:
        culprit = window(links, chance.randint(*sizes), chance)
        cuts = PrefixBisect(range(count))

        def fails(trial: Trial) -> bool:
            return culprit <= trial.elements

        trials = play(cuts, fails)[0]
        last = cuts.interval[0]
        near = frozenset(range(last + 1))
        search = WindowSearch(last, range(count), links.__getitem__, within=near, alone_clean=alone_clean)
        return trials + play(search, fails)[0], named(search) == culprit and search.answer.certain

    return case


def cases() -> Iterator[tuple[str, int, Any, int, float, Case]]:
    """Algorithm, N, k, how many searches, bound, and the search."""
    for k in (1, 2, 3, 4, 7, 8, 15):
        yield "bisect (rounds of k)", 2000, k, 200, math.log(2000, k + 1), bisect(2000, k)
    for share in (0.02, 0.2):
        yield "bisect, unresolved", 1000, f"{share:.0%}", 100, math.log2(1000), dark_bisect(1000, share)
    for count, k in ((200, 1), (1000, 1), (1000, 2), (1000, 3), (1000, 4), (1000, 5), (10000, 3)):
        bound = math.log2(math.comb(count, k))
        yield "smallest subset", count, k, 100 if count < 5000 else 20, bound, subset(count, k, SmallestSubset)
    for k in (1, 2, 5):
        yield "ddmin", 1000, k, 10, math.log2(math.comb(1000, k)), subset(1000, k, Ddmin)
    for k in (1, 2, 3, 5, 10, 20):
        bound = math.log2(math.comb(1000, k))
        yield "splitting, k known", 1000, k, 60, bound, splitting(1000, k, k, True)
        yield "splitting, 1 expected", 1000, k, 60, bound, splitting(1000, k, 1, False)
    for rate, false_rate, runs in ((0.5, 0.0, 300), (0.3, 0.0, 300), (0.1, 0.0, 50), (0.9, 0.1, 300)):
        bound = math.log2(500) / capacity(rate, false_rate)
        name = f"{rate:.0%}" + (f" / {false_rate:.0%}" if false_rate else "")
        yield "flaky, rate known", 500, name, runs, bound, noisy(500, rate, false_rate, None)
        yield "flaky, 80 probes", 500, name, runs // 3, bound, noisy(500, rate, false_rate, 80)
        yield "flaky, rate unknown", 500, name, runs // 5, bound, noisy(500, rate, false_rate, 0)
    for count in (200, 2000):
        for family, build in FAMILIES.items():
            chance = random.Random(5)
            links = build(count, chance)
            mean = statistics.mean(windows_ending_at(links, chance.randrange(count), 8, 20_000) for _ in range(15))
            yield f"window, {family}", count, "1-8", 60, math.log2(count * mean), windows(links, (1, 8), False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the searches to run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, started = [], time.perf_counter()
    for name, count, k, searches, bound, case in cases():
        began = time.process_time()
        found = [case(random.Random(seed)) for seed in range(max(2, round(searches * options.share)))]
        trials = sorted(each for each, _ in found)
        mean = statistics.mean(trials)
        rows.append(
            {
                "algorithm": name,
                "N": count,
                "k": k,
                "searches": len(found),
                "mean": round(mean, 1),
                "p95": trials[math.ceil(0.95 * len(trials)) - 1],
                "bound": round(bound, 1),
                "ratio": round(mean / bound, 2),
                "exact": f"{statistics.mean(right for _, right in found):.1%}",
                "ms": round((time.process_time() - began) * 1e3 / len(found), 1),
            }
        )
    print(table([list(rows[0]), *([str(value) for value in row.values()] for row in rows)]))
    print(f"{time.perf_counter() - started:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
