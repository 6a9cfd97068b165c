"""Score the layer comparison on planted faults, beside what people do without isolation.

``python -m tests.bench.planted_layers.score --cases 240 --seed 0 --jobs 2 --json FILE``, from the root of the checkout.

A case is *exact* if the first layer that is accused, called wrong or suspect, is the node with the fault; for overflow,
where no engine is wrong, called overflow. *wrong* is the same without suspects. Innocent layers that are accused are
counted apart. Cases that fail are counted as missed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.bench.planted_layers.cases import Case, draw_cases
from tests.bench.planted_layers.judge import Outcome, plain, run_case

SCHEMA = "surgeon.bench.planted-layers/1"
HARD = 3.0
"""The difficulty at which abstaining is right as well: such cases have a table of their own."""
NAMED, ACCUSED = 0.97, 0.005
BASELINES = ("first over 1e-2", "cosine < 0.99", "largest jump")
SHORT = ("1e-2", "cosine", "jump")


def run(cases: Sequence[Case], jobs: int) -> list[Outcome]:
    """All outcomes in the order of the cases; progress goes to standard error."""
    outcomes: list[Outcome] = []
    started = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_case, case) for case in cases]
        for case, future in zip(cases, futures, strict=True):
            try:
                outcome = future.result()
            except concurrent.futures.process.BrokenProcessPool as error:
                raise SystemExit(f"a worker died at or after {case.name}: {error}") from error
            outcomes.append(outcome)
            if outcome.rank != "exact" or outcome.false:
                print(_story(outcome), file=sys.stderr, flush=True)
    print(f"{len(outcomes)} cases in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return outcomes


def _story(outcome: Outcome) -> str:
    """One line about a case that did not go as it should."""
    found = outcome.error or (
        f"{outcome.rank}, {outcome.op} {outcome.tensor} is {outcome.verdict}"
        f" (planted {outcome.introduced:.2g} over {outcome.noise:.2g}, ratio {outcome.ratio}), named {outcome.answer}"
    )
    lines = [f"{outcome.case.name}: {found}", *(f"  accused: {text[:200]}" for text in outcome.false[:3])]
    return "\n".join(lines)


def table(title: str, groups: Iterable[tuple[str, list[Outcome]]]) -> str:
    """One row a group: share of exact answers, of others, and of the baselines' exact answers."""
    rows = [["", "cases", "exact", "wrong", "near", "else", "missed", "errors", "accused", "of", "|", *SHORT]]
    for name, found in groups:
        if not found:
            continue
        share = [f"{sum(o.rank == rank for o in found) / len(found):.1%}" for rank in ("exact", "near", "elsewhere")]
        share.insert(1, f"{sum(o.rank_of_wrong == 'exact' for o in found) / len(found):.1%}")
        missed = sum(o.rank == "missed" for o in found) / len(found)
        layers = sum(o.layers for o in found)
        false = sum(len(o.false) + o.suspects for o in found)
        errors = sum(bool(o.error) for o in found)
        beside = [f"{sum(o.baselines.get(b) == 'exact' for o in found) / len(found):.1%}" for b in BASELINES]
        rows.append(
            [name, str(len(found)), *share, f"{missed:.1%}", str(errors), str(false), str(layers), "|", *beside]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
             for row in rows]  # fmt: skip
    return "\n".join([title, *lines])


def by(key: Callable[[Outcome], str], outcomes: Sequence[Outcome]) -> list[tuple[str, list[Outcome]]]:
    """Outcomes in groups, the groups in order of their names."""
    names = sorted({key(outcome) for outcome in outcomes})
    return [(name, [o for o in outcomes if key(o) == name]) for name in names]


def _difficulty(outcome: Outcome) -> str:
    size = outcome.case.difficulty
    return "unscaled" if size is None else f"{size:>4g} x noise"


def report(outcomes: Sequence[Outcome]) -> tuple[str, list[tuple[str, bool]]]:
    """All tables as text, and the targets with whether they are reached."""
    plainly = [o for o in outcomes if o.case.difficulty != HARD]
    hard = [o for o in outcomes if o.case.difficulty == HARD]
    parts = [
        table("by kind", by(lambda o: o.case.kind, plainly)),
        table("by architecture", by(lambda o: o.case.architecture, plainly)),
        table("by pair", by(lambda o: o.case.pair, plainly)),
        table("by difficulty", by(_difficulty, outcomes)),
        table("all", [("above 3 x noise", plainly), ("at 3 x noise, where abstaining is right too", hard)]),
    ]
    count = max(1, len(plainly))
    exact, wrong = (sum(getattr(o, f) == "exact" for o in plainly) / count for f in ("rank", "rank_of_wrong"))
    layers = max(1, sum(o.layers for o in outcomes))
    false, suspects = sum(len(o.false) for o in outcomes), sum(o.suspects for o in outcomes)
    targets = [
        (f"the node named in at least {NAMED:.0%}: {exact:.1%} of {len(plainly)} cases", exact >= NAMED),
        (f"and called wrong, not just suspect, in as many: {wrong:.1%}", wrong >= NAMED),
        (f"at most {ACCUSED:.1%} of innocent layers called wrong: {false} of {layers}", false <= ACCUSED * layers),
        (f"nor suspect: {suspects} of {layers}", suspects <= ACCUSED * layers),
    ]
    return "\n\n".join(parts), targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", type=int, help="numbers of the cases to run")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every outcome here")
    arguments = parser.parse_args()
    cases = draw_cases(arguments.cases, arguments.seed)
    if arguments.only is not None:
        cases = [case for case in cases if case.number in arguments.only]
    outcomes = run(cases, arguments.jobs)
    text, targets = report(outcomes)
    print(text + "\n")
    for sentence, good in targets:
        print(f"{'reached' if good else 'MISSED '}  {sentence}")
    if arguments.json:
        document = {
            "schema": SCHEMA,
            "seed": arguments.seed,
            "targets": [{"target": sentence, "reached": good} for sentence, good in targets],
            "cases": [plain(outcome) for outcome in outcomes],
        }
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
